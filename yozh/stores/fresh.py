import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from yozh.core import Store, Unroll, static
from yozh.stores.replay import Replay
from yozh.stores.ring import Ring


class FreshReplay(Store):
    """The newest `window` transitions of every stream, and beside them windows of a `Replay`: what an agent that corrects for old
    experience learns from while it acts. Streams come first in a batch, `[window+1, streams + batch, ...]`.
    """

    capacity: int = static()
    """Steps of all streams together that the replay keeps; a few unrolls are enough for a "super-small" one."""
    batch: int = static()
    """Windows of replay in one sample; 0 for none."""
    window: int = static(1)
    """Transitions n in one window, that is n+1 steps: at most an unroll, if none shall be learnt from twice as fresh."""

    @property
    def _replay(self) -> Replay:
        return Replay(self.capacity, self.batch, self.window)

    def init(self, example: Unroll) -> Ring:
        return self._replay.init(example)

    def add(self, state: Ring, unroll: Unroll) -> Ring:
        return state.add(unroll)

    def ready(self, state: Ring) -> Bool[Array, ""]:
        return self._replay.ready(state)

    def sample(self, state: Ring, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        streams = jnp.arange(state.streams, dtype=jnp.int32)
        fresh = state.windows(jnp.full_like(streams, state.head - self.window), streams, self.window)
        old = self._replay.sample(state, key)[0]
        step, action, extras = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b], 1), fresh, (old.step, old.action, old.extras)
        )
        n = state.streams + self.batch
        return Unroll(step, action, extras, (), jnp.zeros(n, jnp.int32), jnp.ones(n)), ()

    def sever(self, state: Ring) -> Ring:
        return state.sever()
