"""On which scale an agent learns rewards and returns, as parts. Evaluation counts rewards as they come."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.agents.values import Outcomes
from yozh.core import concrete, leaf, require
from yozh.losses import squash, unsquash, weighted_mean
from yozh.networks.network import Network
from yozh.networks.popart import Rescaled


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
        require(not concrete(self.bound) or self.bound > 0, lambda: f"reward.bound must be positive, not {self.bound}")

    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.clip(reward, -self.bound, self.bound)


class Scaled(Rewards):
    """Times a factor."""

    factor: Float[Array, ""] = leaf(1.0)

    def __check_init__(self) -> None:
        require(
            not concrete(self.factor) or self.factor > 0, lambda: f"reward.factor must be positive, not {self.factor}"
        )

    def __call__(self, reward: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return reward * self.factor


class Scale(eqx.Module):
    """Between returns and the numbers that the network says, of which `net` may hold statistics."""

    def install(self, net: Network) -> Network:
        """With room for statistics."""
        return net

    def follow(self, net: Any, target: Outcomes, weight: Float[Array, " B"]) -> Any:
        """With statistics that took note of targets, and answers that mean what they meant."""
        return net

    @abc.abstractmethod
    def encode(self, net: Any, returns: Float[Array, "*b"]) -> Float[Array, "*b"]: ...

    @abc.abstractmethod
    def decode(self, net: Any, numbers: Float[Array, "*b"]) -> Float[Array, "*b"]: ...


class Same(Scale):
    """Returns as they are."""

    def encode(self, net: Any, returns: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return returns

    def decode(self, net: Any, numbers: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return numbers


class Squashed(Scale):
    """h(x) = sign(x) (√(|x| + 1) − 1) + ε x (Pohlen et al. 2018)."""

    epsilon: Float[Array, ""] = leaf(1e-3)

    def __check_init__(self) -> None:
        require(
            not concrete(self.epsilon) or self.epsilon >= 0,
            lambda: f"scale.epsilon must not be negative, and is {self.epsilon}",
        )

    def encode(self, net: Any, returns: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return squash(returns, self.epsilon)

    def decode(self, net: Any, numbers: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return unsquash(numbers, self.epsilon)


class PopArt(Scale):
    """Returns less their running mean, divided by their running deviation; the last layer makes up for every step of these
    (van Hasselt et al. 2016)."""

    rate: Float[Array, ""] = leaf(3e-4)
    """Of the statistics, for each update."""

    def __check_init__(self) -> None:
        require(not concrete(self.rate) or 0 < self.rate <= 1, lambda: f"scale.rate lies in (0, 1], not {self.rate}")

    def install(self, net: Network) -> Rescaled:
        return Rescaled(net, jnp.zeros(()), jnp.ones(()))

    def follow(self, net: Rescaled, target: Outcomes, weight: Float[Array, " B"]) -> Rescaled:
        mean = weighted_mean(target.mean(), weight)
        square = weighted_mean(jnp.sum(jnp.square(target.worth) * target.chance, -1), weight)
        return net.moved(net.mean + self.rate * (mean - net.mean), net.square + self.rate * (square - net.square))

    def encode(self, net: Rescaled, returns: Float[Array, "*b"]) -> Float[Array, "*b"]:
        mean, sigma = net.scale()
        return (returns - mean) / sigma

    def decode(self, net: Rescaled, numbers: Float[Array, "*b"]) -> Float[Array, "*b"]:
        mean, sigma = net.scale()
        return numbers * sigma + mean
