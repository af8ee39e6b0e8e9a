"""How likely each window of a `HostReplay` is drawn: a `PrioritisedReplay` that holds no observations."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from yozh.core import AnyArray, Drawn, TimeStep, Unroll
from yozh.stores.prioritised import PrioritisedReplay


class Chances:
    """Draws what the `PrioritisedReplay` draws, with the same content and key; some 15 bytes a step, as JAX's arrays, whose
    places are written over."""

    def __init__(self, store: PrioritisedReplay):
        self.store = store

    def init(self, streams: int) -> None:
        number = np.zeros((1, streams), np.float32)
        flag = np.zeros((1, streams), bool)
        self._state = self.store.init(_bare(TimeStep((), number, number, flag, flag)))

    def add(self, step: TimeStep, lost: int) -> None:
        """Follows a replay that took in these steps, `[T+1, B, ...]`, and thereby lost `lost` moments before their time."""
        self._state = _add(self.store, self._state, _bare(jax.tree.map(np.asarray, step)))
        for _ in range(lost):
            self._state = _forget(self.store, self._state)

    def ready(self) -> bool:
        return bool(self.store.ready(self._state))

    def draw(self, key: Key[Array, ""]) -> tuple[Int[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
        """Places of windows, moment · B + stream with the moment modulo C, and what they count for."""
        place, weight = _draw(self.store, self._state, key)
        return np.asarray(place).astype(np.int64), np.asarray(weight)

    def draws(self, key: Key[Array, ""], n: int) -> Drawn:
        """As `PrioritisedReplay.draws`."""
        return _draws(self.store, self._state, key, n)

    def feedback(self, place: Int[np.ndarray, " batch"], priority: Float[AnyArray, " batch"]) -> None:
        self._state = _feedback(self.store, self._state, place.astype(np.int32), jnp.asarray(priority))

    def save(self) -> dict[str, np.ndarray]:
        return {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(self._state))}

    def restore(self, tensors: dict[str, np.ndarray]) -> None:
        """Takes in what `save` gave."""
        structure = jax.tree.structure(self._state)
        self._state = jax.tree.unflatten(structure, [jnp.asarray(tensors[str(i)]) for i in range(structure.num_leaves)])


def _bare(step: TimeStep) -> Unroll:
    streams = step.reward.shape[1]
    bare = TimeStep((), step.reward, step.discount, step.first, step.last)
    return Unroll(bare, (), (), (), jnp.zeros(streams, jnp.int32), jnp.ones(streams))


_draws = jax.jit(PrioritisedReplay.draws, static_argnums=3)
_add = jax.jit(PrioritisedReplay.add, donate_argnums=1)
_forget = jax.jit(PrioritisedReplay.forget, donate_argnums=1)
_feedback = jax.jit(PrioritisedReplay.feedback, donate_argnums=1)


@jax.jit
def _draw(
    store: PrioritisedReplay, state: object, key: Key[Array, ""]
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    batch, place = store.sample(state, key)
    return place, batch.weight
