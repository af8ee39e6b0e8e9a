"""What a network says of an action and how it learns that, as a part: the expected return, or its distribution."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import losses
from yozh.agents.risks import Mean, Risk
from yozh.core import Spec, check_positive, concrete, leaf, require, static
from yozh.networks import Blueprint, QNetwork
from yozh.networks.cores import CoreBlueprint
from yozh.networks.network import Network
from yozh.networks.quantiles import QuantileNetwork


class Outcomes(eqx.Module):
    """What may come of an action: returns, and the chance of each; `[..., actions, n]` of all actions, `[..., n]` of one."""

    worth: Float[Array, "*b n"]
    """In ascending order, where a network's quantiles do not cross."""
    chance: Float[Array, "*b n"]

    def mean(self) -> Float[Array, "*b"]:
        return jnp.sum(self.worth * self.chance, -1)

    def of(self, action: Int[Array, "*b"]) -> "Outcomes":
        """Of one of the actions."""
        return Outcomes(taken(self.worth, action), taken(self.chance, action))

    def after(self, reward: Float[Array, "*b"], discount: Float[Array, "*b"]) -> "Outcomes":
        """`r + γ y`"""
        return Outcomes(reward[..., None] + discount[..., None] * self.worth, self.chance)

    def mixed(self, policy: Float[Array, "*b actions"], bonus: Float[Array, "*b actions"]) -> "Outcomes":
        """Of a policy that chooses among the actions, and adds to each action's returns a bonus."""
        worth, chance = self.worth + bonus[..., None], self.chance * policy[..., None]
        return Outcomes(worth.reshape(*worth.shape[:-2], -1), chance.reshape(*chance.shape[:-2], -1))


def taken(x: Float[Array, "*bk actions n"], action: Int[Array, "*b"]) -> Float[Array, "*bk n"]:
    """The numbers of one of the actions, the same for all axes that `action` lacks."""
    action = action.reshape(*action.shape, *(1,) * (x.ndim - action.ndim))
    # as in `losses.select`, and along the axis of the actions: with that one moved to the end, an update of C51 takes a sixth longer
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 2)
    return jnp.sum(jnp.where(index == action.astype(jnp.int32), x, 0.0), -2)


class Lesson(NamedTuple):
    """What a batch of targets teaches."""

    loss: Float[Array, " B"]
    priority: Float[Array, " B"]
    """How wrong the network was."""
    metrics: dict[str, Float[Array, " B"]]


class Values(eqx.Module):
    @property
    @abc.abstractmethod
    def numbers(self) -> int:
        """n, of each action."""

    def network(self, torso: Blueprint, spec: Spec, key: Key[Array, ""], *, actions: int, dueling: bool, core: CoreBlueprint | None = None, heads: int = 1) -> Network:  # fmt: skip
        """Its answer to a question is `[actions, heads · n]`."""
        return QNetwork(torso, core, spec, key, actions=actions, dueling=dueling, outputs=heads * self.numbers)

    @abc.abstractmethod
    def outcomes(self, answer: Float[Array, "*b n"]) -> Outcomes: ...

    @abc.abstractmethod
    def prefer(self, outcomes: Outcomes) -> Float[Array, "*b"]:
        """What to choose by."""

    @abc.abstractmethod
    def lesson(self, answer: Float[Array, "B n"], question: PyTree, target: Outcomes) -> Lesson:
        """From the answers for the actions taken and the targets, both on the network's scale."""

    def question(self, obs: PyTree, key: Key[Array, ""] | None, axes: int = 1) -> PyTree:
        """What the network is asked of observations with so many leading axes; without a key what is best to choose by."""
        return obs

    def known(self, target: Outcomes) -> Outcomes:
        """What of a distribution can be learnt."""
        return target


class Expected(Values):
    """The expected return: Q(s, a)."""

    huber: bool = static(True)
    """Huber loss with threshold 1 instead of half the square."""

    @property
    def numbers(self) -> int:
        return 1

    def outcomes(self, answer: Float[Array, "*b 1"]) -> Outcomes:
        return Outcomes(answer, jnp.ones_like(answer))

    def prefer(self, outcomes: Outcomes) -> Float[Array, "*b"]:
        return outcomes.mean()

    def known(self, target: Outcomes) -> Outcomes:
        mean = target.mean()[..., None]
        return Outcomes(mean, jnp.ones_like(mean))

    def lesson(self, answer: Float[Array, "B 1"], question: PyTree, target: Outcomes) -> Lesson:
        q, target_q = answer[:, 0], target.worth[:, 0]
        errors = losses.huber(q, target_q, 1.0) if self.huber else losses.squared(q, target_q)
        return Lesson(errors, jnp.abs(target_q - q), {})


class Distributional(Values):
    """The distribution of the return; a risk measure says what to choose by."""

    risk: eqx.AbstractVar[Risk]

    def prefer(self, outcomes: Outcomes) -> Float[Array, "*b"]:
        return self.risk(outcomes.worth, outcomes.chance)


class C51(Distributional):
    """Chances of evenly spaced returns, learnt by cross-entropy with the projected target (Bellemare et al. 2017).

    Priorities are Kullback-Leibler divergences (Hessel et al. 2018). The metric `clipped_targets` is the share of the targets'
    mass that lies beyond the atoms: above 0.01 they should reach further.
    """

    low: Float[Array, ""] = leaf(-10.0)
    """The lowest return, on the network's scale."""
    high: Float[Array, ""] = leaf(10.0)
    """The highest."""
    atoms: int = static(51)
    """How many."""
    risk: Risk = Mean()

    def __check_init__(self) -> None:
        require(self.atoms > 1, f"values.atoms must be 2 or more, not {self.atoms}")
        if concrete(self.low) and concrete(self.high):
            low, high = float(self.low), float(self.high)
            require(low < high, f"values.low must be less than values.high, and they are {low} and {high}")
            require(
                -np.inf < low <= 0 <= high < np.inf,
                f"values from {low:g} to {high:g}: the support is finite, and holds 0, what is left at an episode's end",
            )

    def support(self) -> Float[Array, " atoms"]:
        return self.low + (self.high - self.low) * jnp.asarray(np.linspace(0, 1, self.atoms), jnp.float32)

    @property
    def numbers(self) -> int:
        return self.atoms

    def outcomes(self, answer: Float[Array, "*b n"]) -> Outcomes:
        support = jnp.expand_dims(self.support(), tuple(range(answer.ndim - 1)))
        return Outcomes(jnp.broadcast_to(support, answer.shape), jax.nn.softmax(answer))

    def lesson(self, answer: Float[Array, "B n"], question: PyTree, target: Outcomes) -> Lesson:
        clipped = jnp.sum(jnp.where((target.worth < self.low) | (target.worth > self.high), target.chance, 0.0), -1)
        share = losses.project(self.support(), target.worth, target.chance)
        loss = -jnp.sum(share * jax.nn.log_softmax(answer), -1)
        entropy = -jnp.sum(jax.scipy.special.xlogy(share, share), -1)
        return Lesson(loss, jnp.maximum(loss - entropy, 0.0), {"clipped_targets": clipped})


class QuantileRegression(Distributional):
    """Returns at evenly spaced fractions (QR-DQN, Dabney et al. 2018a). Priorities are errors of the mean."""

    quantiles: int = static(200)
    """How many."""
    kappa: Float[Array, ""] = leaf(1.0)
    """κ: errors below it are squared; small values find quantiles rather than means of neighbourhoods."""
    risk: Risk = Mean()

    def __check_init__(self) -> None:
        require(self.quantiles > 0, f"values.quantiles must be positive, not {self.quantiles}")
        check_positive("values.kappa", self.kappa)

    @property
    def numbers(self) -> int:
        return self.quantiles

    def outcomes(self, answer: Float[Array, "*b n"]) -> Outcomes:
        return _equally_likely(answer)

    def lesson(self, answer: Float[Array, "B n"], question: PyTree, target: Outcomes) -> Lesson:
        fraction = jnp.broadcast_to(middles(self.quantiles)[None], answer.shape)
        return _quantile_lesson(answer, fraction, target, self.kappa)


class ImplicitQuantile(Distributional):
    """Returns at fractions that are drawn anew for every window (IQN, Dabney et al. 2018b); at evenly spaced ones where an
    action is carried out, which the paper draws too. Priorities are errors of the mean."""

    samples: int = static(64)
    """Fractions drawn for each prediction and each target."""
    cosines: int = static(64)
    """Of which the fraction's features are made."""
    kappa: Float[Array, ""] = leaf(1.0)
    """κ: errors below it are squared."""
    risk: Risk = Mean()

    def __check_init__(self) -> None:
        for name in ("samples", "cosines"):
            require(getattr(self, name) > 0, f"values.{name} must be positive, not {getattr(self, name)}")
        check_positive("values.kappa", self.kappa)

    @property
    def numbers(self) -> int:
        return self.samples

    def network(self, torso: Blueprint, spec: Spec, key: Key[Array, ""], *, actions: int, dueling: bool, core: CoreBlueprint | None = None, heads: int = 1) -> Network:  # fmt: skip
        return QuantileNetwork(torso, core, spec, key, actions=actions, dueling=dueling, size=self.cosines)

    def question(self, obs: PyTree, key: Key[Array, ""] | None, axes: int = 1) -> tuple[PyTree, Float[Array, "*b samples"]]:  # fmt: skip
        shape = (*jax.tree.leaves(obs)[0].shape[:axes], self.samples)
        if key is None:
            return obs, jnp.broadcast_to(jnp.expand_dims(middles(self.samples), tuple(range(axes))), shape)
        return obs, jnp.sort(jax.random.uniform(key, shape), -1)

    def outcomes(self, answer: Float[Array, "*b n"]) -> Outcomes:
        return _equally_likely(answer)

    def lesson(self, answer: Float[Array, "B n"], question: Any, target: Outcomes) -> Lesson:
        return _quantile_lesson(answer, question[1], target, self.kappa)


def middles(n: int) -> Float[Array, " n"]:
    """The middles of n equal parts of [0, 1]."""
    return (jnp.arange(n, dtype=jnp.float32) + 0.5) / n


def _equally_likely(answer: Float[Array, "*b n"]) -> Outcomes:
    return Outcomes(answer, jnp.full_like(answer, 1 / answer.shape[-1]))


def _quantile_lesson(answer: Float[Array, "B n"], fraction: Float[Array, "B n"], target: Outcomes, kappa: Float[Array, ""]) -> Lesson:  # fmt: skip
    loss = losses.quantile_huber(answer, target.worth, fraction, kappa, target.chance) / kappa
    return Lesson(loss, jnp.abs(target.mean() - answer.mean(-1)), {})
