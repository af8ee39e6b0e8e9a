import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Store, Unroll, require, static


class Kept(eqx.Module):
    """The unrolls of one phase, side by side."""

    unrolls: Unroll
    """`[T+1, count · B, ...]`: the i-th unroll of the phase in the streams i · B to (i + 1) · B."""
    filled: Int[Array, ""]
    """How many of them are of this phase."""


class Phase(Store):
    """The last unrolls, up to `count` of them: then the next phase begins, and they are written over one by one.

    `sample` gives all of them as one unroll of `count · B` streams. Its weight is 1 for the streams of this phase and 0 for
    those that are still to come; the newest unroll is the last with weight 1.
    """

    count: int = static()

    def __check_init__(self) -> None:
        require(self.count > 0, f"store.count must be positive, not {self.count}")

    def init(self, example: Unroll) -> Kept:
        def room(axis: int, x: Array) -> Array:
            return jnp.zeros((*x.shape[:axis], self.count * x.shape[axis], *x.shape[axis + 1 :]), x.dtype)

        return Kept(_by_axis(room, example), jnp.zeros((), jnp.int32))

    def add(self, state: Kept, unroll: Unroll) -> Kept:
        slot, streams = state.filled % self.count, unroll.version.shape[0]

        def put(axis: int, all: Array, x: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(all, x, slot * streams, axis)

        return Kept(_by_axis(put, state.unrolls, unroll), slot + 1)

    def ready(self, state: Kept) -> Bool[Array, ""]:
        return state.filled > 0

    def sample(self, state: Kept, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        return self._now(state), ()

    def recent(self, state: Kept, n: int) -> PyTree:
        fresh = newest(self._now(state), self.count)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[-n:], fresh.step.obs)

    def _now(self, state: Kept) -> Unroll:
        streams = state.unrolls.weight.shape[0] // self.count
        now = jnp.arange(self.count * streams, dtype=jnp.int32) < state.filled * streams
        return eqx.tree_at(lambda u: u.weight, state.unrolls, now.astype(jnp.float32))


def newest(kept: Unroll, count: int) -> Unroll:
    """The last unroll of the phase, out of what `Phase.sample` gave."""
    streams = kept.weight.shape[0] // count
    start = jnp.sum(kept.weight).astype(jnp.int32) - streams

    def cut(axis: int, x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, start, streams, axis)

    return _by_axis(cut, kept)


def _by_axis(f, *unrolls: Unroll) -> Unroll:
    """`f(axis, *leaves)`, where the streams of the leaves lie along that axis."""
    steps = jax.tree.map(lambda *x: f(1, *x), *((u.step, u.action, u.extras) for u in unrolls))
    rest = jax.tree.map(lambda *x: f(0, *x), *((u.memory, u.version, u.weight) for u in unrolls))
    return Unroll(*steps, *rest)
