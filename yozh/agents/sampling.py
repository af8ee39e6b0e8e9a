"""How an off-policy agent draws from its replay, as a part."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.agents.schedules import Counts, Linear, Schedule, check_ends, schedule
from yozh.core import Store, check_share, leaf, static
from yozh.stores import PrioritisedReplay, Replay
from yozh.stores.prioritised import Kind


class Sampling(eqx.Module):
    @abc.abstractmethod
    def store(self, capacity: int, batch: int, window: int, lead: int = 0, positions: int = 1) -> Store:
        """Of windows in which the transitions at so many positions are learnt from, after the first `lead`."""

    @abc.abstractmethod
    def weights(self, weight: Float[Array, " B"], counts: Counts) -> Float[Array, " B"]:
        """What each window of a batch counts for in the loss, from the weight that the store gave it."""

    def priority(self, error: Float[Array, "positions B"], weight: Float[Array, "positions B"]) -> Float[Array, " B"] | None:  # fmt: skip
        """Of each window, from how wrong the network was at its positions and what these count for (0 or 1)."""
        return None


class Uniform(Sampling):
    """Every window as often as every other one."""

    def store(self, capacity: int, batch: int, window: int, lead: int = 0, positions: int = 1) -> Replay:
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
    peak: Float[Array, ""] = leaf(0.9)
    """η: where a window has several positions, its priority is η times their largest error and 1 - η times their mean one
    (Kapturowski et al. 2019, section 2.3)."""

    def __check_init__(self) -> None:
        PrioritisedReplay(1, 1, 1, self.alpha, self.kind)
        check_ends("replay.beta", self.beta)
        check_share("replay.peak", self.peak)

    def store(self, capacity: int, batch: int, window: int, lead: int = 0, positions: int = 1) -> PrioritisedReplay:
        return PrioritisedReplay(capacity, batch, window, self.alpha, self.kind, lead, positions)

    def weights(self, weight: Float[Array, " B"], counts: Counts) -> Float[Array, " B"]:
        weight = weight ** self.beta(counts)
        return weight / jnp.max(weight)

    def priority(self, error: Float[Array, "positions B"], weight: Float[Array, "positions B"]) -> Float[Array, " B"]:
        if len(error) == 1:
            return error[0]
        error = error * weight
        mean = jnp.sum(error, 0) / jnp.maximum(jnp.sum(weight, 0), 1.0)
        return self.peak * jnp.max(error, 0) + (1.0 - self.peak) * mean
