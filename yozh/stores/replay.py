import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Store, Unroll, static


class Ring(eqx.Module):
    """The content of a `Replay`."""

    steps: PyTree
    """`[C, B, ...]`: step, action and extras of C consecutive moments of B streams."""
    head: Int[Array, ""]
    """The moment whose action is still to come; it is the newest one and ends the newest transition."""
    filled: Int[Array, ""]
    """Complete transitions of each stream, at most C-1."""


class Replay(Store):
    """The last `capacity` steps; samples windows of `window` transitions, uniformly, with replacement.

    A ring of consecutive steps `[C, B]`: every observation is stored once, and the successor of a step is its neighbour.
    A window may begin at the last step of an episode; such a one has no meaning and `returns.window` gives it weight 0.
    """

    capacity: int = static()
    """Steps of all streams together."""
    batch: int = static()
    """Windows in one sample."""
    window: int = static(1)
    """Transitions n in one window, that is n+1 steps."""

    def init(self, example: Unroll) -> Ring:
        streams = example.version.shape[0]
        moments = max(self.capacity // streams, self.window) + 1
        content = (example.step, example.action, example.extras)
        ring = jax.tree.map(lambda x: jnp.zeros((moments, *x.shape[1:]), x.dtype), content)
        return Ring(ring, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def add(self, state: Ring, unroll: Unroll) -> Ring:
        moments, length = _moments(state), unroll.step.reward.shape[0] - 1
        if length == 1:
            where = jnp.stack([state.head, (state.head + 1) % moments])
            write = lambda ring, x: ring.at[where[0]].set(x[0]).at[where[1]].set(x[1])  # noqa: E731
        else:
            where = (state.head + jnp.arange(length + 1, dtype=jnp.int32)) % moments
            write = lambda ring, x: ring.at[where].set(x)  # noqa: E731
        steps = jax.tree.map(write, state.steps, (unroll.step, unroll.action, unroll.extras))
        return Ring(steps, (state.head + length) % moments, jnp.minimum(state.filled + length, moments - 1))

    def ready(self, state: Ring) -> Bool[Array, ""]:
        return state.filled >= self.window

    def sample(self, state: Ring, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        moments, streams = jax.tree.leaves(state.steps)[0].shape[:2]
        bits = jax.random.bits(key, (2, self.batch), jnp.uint32)
        starts = (state.filled - self.window + 1).astype(jnp.uint32)
        age = (bits[0] % starts).astype(jnp.int32)
        stream = (bits[1] % jnp.uint32(streams)).astype(jnp.int32)
        start = state.head - self.window - age
        where = (start[None] + jnp.arange(self.window + 1, dtype=jnp.int32)[:, None]) % moments
        step, action, extras = jax.tree.map(lambda ring: ring[where, stream[None]], state.steps)
        version, weight = jnp.zeros(self.batch, jnp.int32), jnp.ones(self.batch)
        return Unroll(step, action, extras, (), version, weight), ()

    def recent(self, state: Ring, n: int) -> PyTree:
        moments, streams = _moments(state), state.steps[0].reward.shape[1]
        k = min(int(state.filled), n // streams + 1)
        where = (state.head - jnp.arange(k, dtype=jnp.int32)) % moments
        return jax.tree.map(lambda ring: ring[where].reshape(-1, *ring.shape[2:]), state.steps[0].obs) if k else None

    def sever(self, state: Ring) -> Ring:
        """The newest step closes its episode, as a time limit would: what follows is bootstrapped from it, never through it."""
        moments = _moments(state)
        step, action, extras = state.steps
        step = eqx.tree_at(lambda s: s.last, step, step.last.at[state.head].set(True))
        empty = state.filled == 0
        head = jnp.where(empty, state.head, (state.head + 1) % moments)
        return Ring((step, action, extras), head, jnp.where(empty, 0, jnp.minimum(state.filled + 1, moments - 1)))


def _moments(state: Ring) -> int:
    return jax.tree.leaves(state.steps)[0].shape[0]
