"""How an off-policy agent draws from its replay, as a part."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.agents.schedules import Counts, Linear, Schedule, schedule
from yozh.core import Store, leaf, static
from yozh.stores import PrioritisedReplay, Replay
from yozh.stores.prioritised import Kind


class Sampling(eqx.Module):
    @abc.abstractmethod
    def store(self, capacity: int, batch: int, window: int) -> Store: ...

    @abc.abstractmethod
    def weights(self, weight: Float[Array, " B"], counts: Counts) -> Float[Array, " B"]:
        """What each window of a batch counts for in the loss, from the weight that the store gave it."""


class Uniform(Sampling):
    """Every window as often as every other one."""

    def store(self, capacity: int, batch: int, window: int) -> Replay:
        return Replay(capacity, batch, window)

    def weights(self, weight: Float[Array, " B"], counts: Counts) -> Float[Array, " B"]:
        return weight


class Prioritised(Sampling):
    """Windows with a large error more often (Schaul et al. 2016); their weights (N P(i))^-β / max undo the bias as β nears 1."""

    alpha: Float[Array, ""] = leaf(0.6)
    """α: how much priorities count, from 0 (uniform) to 1."""
    beta: Schedule = schedule(Linear(0.4, 1.0))
    """β: how much of the bias is undone, from 0 (nothing) to 1 (all)."""
    kind: Kind = static("proportional")
    """`proportional` to the error^α, or to its `rank`^-α."""

    def __check_init__(self) -> None:
        PrioritisedReplay(1, 1, 1, self.alpha, self.kind)

    def store(self, capacity: int, batch: int, window: int) -> PrioritisedReplay:
        return PrioritisedReplay(capacity, batch, window, self.alpha, self.kind)

    def weights(self, weight: Float[Array, " B"], counts: Counts) -> Float[Array, " B"]:
        weight = weight ** self.beta(counts)
        return weight / jnp.max(weight)
