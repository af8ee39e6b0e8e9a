"""On which scale an agent learns rewards and returns, as parts. Evaluation counts rewards as they come."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from yozh import spaces
from yozh.agents.values import Outcomes
from yozh.core import Spec, YozhError, check_not_negative, check_positive, check_share, leaf, static
from yozh.losses import squash, unsquash, weighted_mean
from yozh.networks.network import Network
from yozh.networks.popart import PerTask, Rescaled, leading


class Rewards(eqx.Module):
    @abc.abstractmethod
    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]: ...


class Raw(Rewards):
    """As they come."""

    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return reward


class Clipped(Rewards):
    """Within ±`bound` (1: Mnih et al. 2015)."""

    bound: Float[Array, ""] = leaf(1.0)

    def __check_init__(self) -> None:
        check_positive("reward.bound", self.bound)

    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.clip(reward, -self.bound, self.bound)


class Scaled(Rewards):
    """Times a factor."""

    factor: Float[Array, ""] = leaf(1.0)

    def __check_init__(self) -> None:
        check_positive("reward.factor", self.factor)

    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return reward * self.factor


class Scale(eqx.Module):
    """Between returns and the numbers that the network says, of which `net` may hold statistics. `obs`, `*b ...`, are the
    observations that are valued: where these may name a task, it is given."""

    def install(self, net: Network, spec: Spec) -> Network:
        """With room for statistics."""
        return net

    def follow(self, net: Any, target: Outcomes, weight: Float[Array, " B"], obs: PyTree = None) -> Any:
        """With statistics that took note of targets, and answers that mean what they meant."""
        return net

    @abc.abstractmethod
    def encode(self, net: Any, returns: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]: ...

    @abc.abstractmethod
    def decode(self, net: Any, numbers: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]: ...


class Same(Scale):
    """Returns as they are."""

    def encode(self, net: Any, returns: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        return returns

    def decode(self, net: Any, numbers: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        return numbers


class Squashed(Scale):
    """h(x) = sign(x) (√(|x| + 1) − 1) + ε x (Pohlen et al. 2018)."""

    epsilon: Float[Array, ""] = leaf(1e-3)

    def __check_init__(self) -> None:
        check_not_negative("scale.epsilon", self.epsilon)

    def encode(self, net: Any, returns: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        return squash(returns, self.epsilon)

    def decode(self, net: Any, numbers: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        return unsquash(numbers, self.epsilon)


class PopArt(Scale):
    """Returns less their running mean, divided by their running deviation; the last layer makes up for every step of these
    (van Hasselt et al. 2016). With a `task` each has its own statistics and its own last layer (Hessel et al. 2018)."""

    rate: Float[Array, ""] = leaf(3e-4)
    """Of the statistics, for each update in which there is a target for them."""
    task: str | None = static(None)
    """The entry of a Dict observation that says which of n tasks it is of, a `Discrete(n)`; none: one task."""

    def __check_init__(self) -> None:
        check_share("scale.rate", self.rate, "(0, 1]")

    def install(self, net: Network, spec: Spec) -> Rescaled:
        if self.task is None:
            return Rescaled(net, jnp.zeros(()), jnp.ones(()))
        entries = dict(spec.observation.items) if isinstance(spec.observation, spaces.Dict) else {}
        match entries.get(self.task):
            case spaces.Discrete(n):
                return Rescaled(PerTask(net, self.task, n), jnp.zeros(n), jnp.ones(n))
        raise YozhError(
            f"scale.task names a Discrete entry of a Dict observation, and {self.task!r} is none of {spaces.describe(spec.observation)}"
        )

    def follow(self, net: Rescaled, target: Outcomes, weight: Float[Array, " B"], obs: PyTree = None) -> Rescaled:
        """μ ← (1 − β) μ + β G, ν ← (1 − β) ν + β G², G the batch's targets in the mean, of a task those of its own; neither moves where there are none."""
        squares = jnp.sum(jnp.square(target.worth) * target.chance, -1)

        def moments(weight: Float[Array, " B"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
            return weighted_mean(target.mean(), weight), weighted_mean(squares, weight)

        if self.task is None:
            own, (mean, square) = weight, moments(weight)
        else:
            own = weight[None] * jax.nn.one_hot(obs[self.task], len(net.mean), axis=0)
            mean, square = jax.vmap(moments)(own)
        rate = jnp.where(jnp.any(own > 0, -1), self.rate, 0.0)
        return net.moved(net.mean + rate * (mean - net.mean), net.square + rate * (square - net.square))

    def encode(self, net: Rescaled, returns: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        mean, sigma = self.scale(net, returns, obs)
        return (returns - mean) / sigma

    def decode(self, net: Rescaled, numbers: Float[Array, "*bn"], obs: PyTree = None) -> Float[Array, "*bn"]:
        mean, sigma = self.scale(net, numbers, obs)
        return numbers * sigma + mean

    def scale(self, net: Rescaled, x: Float[Array, "*bn"], obs: PyTree) -> tuple[Float[Array, "*bm"], Float[Array, "*bm"]]:  # fmt: skip
        """μ and σ, of the task of each observation, to be used on `x`."""
        which = ... if self.task is None else obs[self.task]
        mean, sigma = net.scale()
        return leading(mean[which], x), leading(sigma[which], x)
