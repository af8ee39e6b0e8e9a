from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from yozh.core import Drawn, Store, Unroll, check_share, leaf, require, static
from yozh.stores.ranks import Ranks
from yozh.stores.ring import Ring
from yozh.stores.sums import Sums

FLOOR = 1e-6
"""The smallest priority: nothing is forgotten for good (the ε of Schaul et al. 2016, section 3.3)."""

STALE = 8
"""All ranks are looked up anew when as many priorities have changed as this part of what there is room for."""

Kind = Literal["proportional", "rank"]


class Priorities(eqx.Module):
    """The content of a `PrioritisedReplay`."""

    ring: Ring
    masses: Sums
    """Of the window that begins at moment m of stream b, at m B + b; 0 where there is none."""
    largest: Float[Array, ""]
    """The largest priority so far, 1 before there is any."""
    ranks: Ranks | None
    """Of the priorities, where masses follow from ranks."""
    changed: Int[Array, ""]
    """Priorities written since all ranks were looked up."""


class PrioritisedReplay(Store):
    """The last `capacity` steps; samples windows of `window` transitions with replacement, P(i) = m_i / Σ m (Schaul et al. 2016).

    The mass is m = p^α of the priority p that `feedback` last gave (`proportional`), or m = rank(p)^-α (`rank`). New windows
    enter with the largest priority so far, and a window from which nothing is learnt, since it begins at the last step of an
    episode, is never drawn. One sample has a window from each of `batch` equal parts of the mass (stratified). `weight` of the batch is 1/(N P(i)), N the number
    of windows: the weighted mean over samples is the mean over all windows, those at last steps counted as 0.

    Drawing and feedback cost as much for a million steps as for a hundred, apart from the logarithm. Ranks are exact up to
    priorities within 2 % of each other, at the moment when a priority is written; all are looked up anew at times.
    """

    capacity: int = static()
    """Steps of all streams together."""
    batch: int = static()
    """Windows in one sample."""
    window: int = static(1)
    """Transitions n in one window, that is n+1 steps."""
    alpha: Float[Array, ""] = leaf(0.6)
    """α: 0 draws uniformly."""
    kind: Kind = static("proportional")
    lead: int = static(0)
    """Transitions of a window before the first that is learnt from."""
    positions: int = static(1)
    """Transitions that are learnt from; windows are drawn unless all of these begin at last steps."""

    def __check_init__(self) -> None:
        check_share("replay.alpha", self.alpha)
        kinds = ("proportional", "rank")
        require(self.kind in kinds, f"replay.kind must be one of {', '.join(kinds)}, not {self.kind!r}")

    def init(self, example: Unroll) -> Priorities:
        ring = Ring.empty(example, self.capacity, self.window)
        masses = Sums.zeros(ring.moments * ring.streams)
        ranks = Ranks.empty(len(masses.levels[0])) if self.kind == "rank" else None
        return Priorities(ring, masses, jnp.ones(()), ranks, jnp.zeros((), jnp.int32))

    def add(self, state: Priorities, unroll: Unroll) -> Priorities:
        return self._admit(state, state.ring.add(unroll), unroll.step.reward.shape[0] - 1)

    def sever(self, state: Priorities) -> Priorities:
        return self._admit(state, state.ring.sever(), 1)

    def ready(self, state: Priorities) -> Bool[Array, ""]:
        return state.masses.total() > 0

    def sample(self, state: Priorities, key: Key[Array, ""]) -> tuple[Unroll, Int[Array, " batch"]]:
        """A batch, and its windows' places, which are good until the next `add`."""
        streams = state.ring.streams
        place, weight = self._draw(state, key, self.batch)
        step, action, extras = state.ring.windows(place // streams, place % streams, self.window)
        return Unroll(step, action, extras, (), jnp.zeros(self.batch, jnp.int32), weight), place

    def feedback(self, state: Priorities, handle: Int[Array, " batch"], priority: Float[Array, " batch"] | None) -> Priorities:  # fmt: skip
        """A window that was drawn twice takes the larger priority."""
        if priority is None:
            return state
        priority = jnp.where(state.masses[handle] > 0, jnp.maximum(priority, FLOOR), 0.0)
        once = jnp.ones(handle.shape, bool)
        if state.ranks is not None:
            same = handle[:, None] == handle[None]
            priority = jnp.where(same, priority[None], 0.0).max(-1)
            once = jnp.argmax(same, -1) == jnp.arange(len(handle))
        largest = jnp.maximum(state.largest, priority.max())
        return eqx.tree_at(lambda s: s.largest, self._write(state, handle, priority, once), largest)

    def forget(self, state: Priorities) -> Priorities:
        """Without the oldest transition of every stream: where steps are kept elsewhere, these may go before their time."""
        streams = jnp.arange(state.ring.streams, dtype=jnp.int32)
        place = (state.ring.head - state.ring.filled) % state.ring.moments * state.ring.streams + streams
        state = eqx.tree_at(lambda s: s.ring.filled, state, state.ring.filled - 1)
        return self._write(state, place, jnp.zeros(place.shape), jnp.ones(place.shape, bool))

    def draws(self, state: Priorities, key: Key[Array, ""], n: int) -> Drawn:
        ring, streams = state.ring, state.ring.streams
        drawn, uniform = jax.random.split(key)
        place, weight = self._draw(state, drawn, n)
        age = (ring.head - place // streams) % ring.moments
        windows = ((ring.filled - self.window + 1) * streams).astype(jnp.uint32)
        one = (jax.random.bits(uniform, (n,), jnp.uint32) % windows).astype(jnp.int32)
        stored = (ring.head - self.window - one // streams) % ring.moments * streams + one % streams
        return Drawn(age * streams, weight, self._priorities(state, stored))

    def _draw(self, state: Priorities, key: Key[Array, ""], n: int) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """Places of windows, one from each of `n` equal parts of the mass, and their weights."""
        within, digits = jax.random.uniform(key, (2, n))
        place = state.masses.find((jnp.arange(n, dtype=jnp.float32) + within) / n, digits)
        windows = ((state.ring.filled - self.window + 1) * state.ring.streams).astype(jnp.float32)
        return place, state.masses.total() / (windows * state.masses[place])

    def _priorities(self, state: Priorities, place: Int[Array, " k"]) -> Float[Array, " k"]:
        """As they were given; of masses that do not depend on them (α = 0) these are 1."""
        if state.ranks is not None:
            return state.ranks.numbers[place]
        mass = state.masses[place]
        return jnp.where(mass > 0, mass ** (1.0 / jnp.maximum(self.alpha, 1e-6)), 0.0)

    def _admit(self, state: Priorities, ring: Ring, length: int) -> Priorities:
        """Follows a ring that grew by `length` moments: windows that are complete now enter, those written over leave."""
        moments, streams = ring.moments, ring.streams
        age = jnp.arange(min(length + self.window, moments), dtype=jnp.int32)
        moment = (ring.head - age) % moments
        complete = (age >= self.window) & (age <= ring.filled)
        learnt = moment[:, None] + jnp.arange(self.lead, self.lead + self.positions, dtype=jnp.int32)[None]
        drawn = complete[:, None] & ~ring.steps[0].last[learnt % moments].all(1)
        place = (moment[:, None] * streams + jnp.arange(streams, dtype=jnp.int32)[None]).ravel()
        state = eqx.tree_at(lambda s: s.ring, state, ring)
        return self._write(state, place, jnp.where(drawn.ravel(), state.largest, 0.0), jnp.ones(place.shape, bool))

    def _write(self, state: Priorities, place: Int[Array, " k"], priority: Float[Array, " k"], once: Bool[Array, " k"]) -> Priorities:  # fmt: skip
        if state.ranks is None:
            masses = state.masses.put(place, self._masses(priority, priority))
            return eqx.tree_at(lambda s: s.masses, state, masses)
        ranks = state.ranks.put(place, priority, once)
        masses = state.masses.put(place, self._masses(priority, 1.0 / ranks.of(priority)))
        changed = state.changed + jnp.sum(once, dtype=jnp.int32)
        due = changed * STALE >= state.ring.moments * state.ring.streams

        def look_up(i: Int[Array, ""] | int, both: tuple[Sums, Ranks]) -> tuple[Sums, Ranks]:
            (_, now), _ = jax.lax.optimization_barrier((both, i))  # else XLA does this before the loop, due or not
            return Sums.of(self._masses(now.numbers, 1.0 / now.of(now.numbers))), now

        # not a `cond`, which would copy all masses
        masses, ranks = jax.lax.fori_loop(0, due.astype(jnp.int32), look_up, (masses, ranks))
        changed = jnp.where(due, 0, changed)
        return eqx.tree_at(lambda s: (s.masses, s.ranks, s.changed), state, (masses, ranks, changed))

    def _masses(self, priority: Float[Array, " k"], x: Float[Array, " k"]) -> Float[Array, " k"]:
        return jnp.where(priority > 0, x**self.alpha, 0.0)
