import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Drawn, Store, Unroll, static
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
        age, stream = self._draw(state, key, self.batch)
        step, action, extras = state.windows(state.head - self.window - age, stream, self.window)
        version, weight = jnp.zeros(self.batch, jnp.int32), jnp.ones(self.batch)
        return Unroll(step, action, extras, (), version, weight), ()

    def draws(self, state: Ring, key: Key[Array, ""], n: int) -> Drawn:
        return Drawn((self._draw(state, key, n)[0] + self.window) * state.streams)

    def sever(self, state: Ring) -> Ring:
        return state.sever()

    def _draw(self, state: Ring, key: Key[Array, ""], n: int) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """How many moments a window ended ago, and its stream."""
        bits = jax.random.bits(key, (2, n), jnp.uint32)
        starts = (state.filled - self.window + 1).astype(jnp.uint32)
        age = (bits[0] % starts).astype(jnp.int32)
        return age, (bits[1] % jnp.uint32(state.streams)).astype(jnp.int32)
