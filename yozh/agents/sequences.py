"""Learning from sequences of replay with a memory (Kapturowski et al. 2019): the memory is stored with each step, rebuilt over
the burn-in, and every window of n transitions after it is learnt from. Time leads, `[T, B, ...]`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from yozh.core import Unroll, require

MEMORY = "memory"
"""The name under which an unroll's extras hold the memory before each step."""


def memory_before(batch: Unroll) -> PyTree:
    """The memory `[B, ...]` that acting had before the first step."""
    return jax.tree.map(lambda m: m[0], batch.extras[MEMORY])


def part(x: PyTree, start: int, stop: int) -> PyTree:
    """The steps from `start` on, before `stop`."""
    return jax.tree.map(lambda a: a[start:stop], x)


def folded(x: PyTree) -> PyTree:
    """`[T, B, ...]` as `[T · B, ...]`."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), x)


def windows(batch: Unroll, start: int, positions: int, n: int) -> Unroll:
    """The windows of n transitions that begin at so many positions from `start` on, one a position and stream:
    `[n+1, positions · B, ...]`, in the order of `folded`, without the memory."""
    if (start, positions) == (0, 1):
        return batch

    def cut(x: Array) -> Array:
        shifted = jnp.stack([x[start + i : start + i + positions] for i in range(n + 1)])
        return shifted.reshape(n + 1, -1, *x.shape[2:])

    extras = {name: x for name, x in batch.extras.items() if name != MEMORY}
    step, action, extras = jax.tree.map(cut, (batch.step, batch.action, extras))
    version, weight = (jnp.tile(x, positions) for x in (batch.version, batch.weight))
    return Unroll(step, action, extras, (), version, weight)


def check_room(name: str, streams: int, length: int, capacity: int) -> None:
    """Refuses an unroll that would overwrite its own beginning in the replay."""
    require(
        streams * length <= capacity,
        f"{name}: an unroll of {streams} x {length} steps does not fit into a replay of {capacity}",
    )


def check_window(burn_in: int, positions: int, n_step: int, *, remembers: bool, room: int) -> None:
    """Refuses a window of replay that has no meaning, or does not fit into so many stored steps of a stream."""
    require(positions > 0, f"dqn: sequence must be positive, not {positions}")
    require(burn_in >= 0, f"dqn: burn_in must not be negative, and is {burn_in}")
    require(burn_in == 0 or remembers, "dqn: burn_in rebuilds a memory, and there is none: set core")
    window, what = burn_in + positions - 1 + n_step, f"n_step {n_step} does"
    if window > n_step:
        what = f"{window} steps (burn_in {burn_in}, sequence {positions}, n_step {n_step}) do"
    require(room > window, f"dqn: {what} not fit into {room} stored steps of each stream")
