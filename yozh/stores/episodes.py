import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Store, Unroll, require, static


class Collected(eqx.Module):
    """One episode of each of B streams, as far as it has come."""

    steps: PyTree
    """`[L+1, B, ...]`: step, action and extras."""
    memory: PyTree
    """`[B, ...]`: the shape of an unroll's memory; an episode begins without any."""
    version: Int[Array, " B"]
    opened: Bool[Array, " B"]
    closed: Bool[Array, " B"]
    length: Int[Array, " B"]
    """Transitions so far."""


class Episodes(Store):
    """One whole episode of each stream: the first that begins after the last batch was learnt from.

    A batch is ready when the longest of them has ended. Episodes that end while others go on are not taken, since the
    short ones would be too many, nor are those that older parameters began; so the batch is a fair sample of what the
    present policy does. It is an unroll `[L+1, B, ...]` that begins with the episodes; after an episode's end all steps
    are last ones, without reward and without weight.
    """

    longest: int = static()
    """L: steps of the longest episode. Who goes on is cut there, as by a time limit."""

    def __check_init__(self) -> None:
        require(self.longest > 0, f"episodes: the longest must have a positive number of steps, not {self.longest}")

    def init(self, example: Unroll) -> Collected:
        content = (example.step, example.action, example.extras)
        room = jax.tree.map(lambda x: jnp.zeros((self.longest + 1, *x.shape[1:]), x.dtype), content)
        none = jnp.zeros(example.version.shape, bool)
        return Collected(room, example.memory, example.version, none, none, none.astype(jnp.int32))

    def add(self, state: Collected, unroll: Unroll) -> Collected:
        times = jnp.arange(len(unroll.step.reward), dtype=jnp.int32)[:, None]
        final = len(times) - 1
        begins = jnp.where(state.opened, 0, _first(unroll.step.first, final + 1))
        place = jnp.where(state.opened, state.length, 0)[None] + times - begins[None]
        over = unroll.step.last | (place >= self.longest)
        ends = _first(over & (times >= begins[None]), final)
        ended = jnp.take_along_axis(over, ends[None], 0)[0] & (begins <= ends)
        taken = (times >= begins[None]) & (times <= ends[None]) & ~state.closed[None]
        where = jnp.where(taken, place, self.longest + 1)
        streams = jnp.arange(where.shape[1])[None]
        steps = jax.tree.map(
            lambda old, new: old.at[where, streams].set(new, mode="drop"),
            state.steps,
            (eqx.tree_at(lambda s: s.last, unroll.step, over), unroll.action, unroll.extras),
        )
        length = jnp.where(taken.any(0), jnp.take_along_axis(place, ends[None], 0)[0], state.length)
        opened, closed = state.opened | (begins <= final), state.closed | ended
        return Collected(steps, state.memory, unroll.version, opened, closed, length)

    def ready(self, state: Collected) -> Bool[Array, ""]:
        return state.closed.all()

    def sample(self, state: Collected, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        step, action, extras = state.steps
        times = jnp.arange(self.longest + 1, dtype=jnp.int32)[:, None]
        beyond = times > state.length[None]
        step = eqx.tree_at(
            lambda s: (s.reward, s.first, s.last),
            step,
            (jnp.where(beyond, 0.0, step.reward), step.first & ~beyond, step.last | beyond),
        )
        return Unroll(step, action, extras, state.memory, state.version, jnp.ones(len(state.length))), ()

    def feedback(self, state: Collected, handle: PyTree, priority: Array | None) -> Collected:
        return self.sever(state)

    def sever(self, state: Collected) -> Collected:
        none = jnp.zeros_like(state.opened)
        return eqx.tree_at(lambda s: (s.opened, s.closed, s.length), state, (none, none, none.astype(jnp.int32)))


def _first(where: Bool[Array, "T B"], otherwise: int) -> Int[Array, " B"]:
    """The first time at which something is so."""
    return jnp.where(where.any(0), jnp.argmax(where, 0).astype(jnp.int32), otherwise)
