import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from yozh.core import Store, Unroll, static
from yozh.stores.ring import Ring


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
        return Ring.empty(example, self.capacity, self.window)

    def add(self, state: Ring, unroll: Unroll) -> Ring:
        return state.add(unroll)

    def ready(self, state: Ring) -> Bool[Array, ""]:
        return state.filled >= self.window

    def sample(self, state: Ring, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        bits = jax.random.bits(key, (2, self.batch), jnp.uint32)
        starts = (state.filled - self.window + 1).astype(jnp.uint32)
        age = (bits[0] % starts).astype(jnp.int32)
        stream = (bits[1] % jnp.uint32(state.streams)).astype(jnp.int32)
        step, action, extras = state.windows(state.head - self.window - age, stream, self.window)
        version, weight = jnp.zeros(self.batch, jnp.int32), jnp.ones(self.batch)
        return Unroll(step, action, extras, (), version, weight), ()

    def sever(self, state: Ring) -> Ring:
        return state.sever()
