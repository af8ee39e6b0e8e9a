"""Environments outside the compiled program: what the adapters share, and a pure environment behind the same face."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh import spaces
from yozh.core import BatchedEnv, Spec, TimeStep, YozhError, require
from yozh.environments.worker import MASK


def supported(name: str, space: Any) -> spaces.Space:
    """The Gymnasium space in Yozh's terms, or a `YozhError` that names the environment."""
    try:
        return spaces.from_gymnasium(space)
    except TypeError as e:
        raise YozhError(f"{name}: {e}") from None


def without_mask(space: spaces.Space) -> tuple[spaces.Space, bool]:
    """The observation space without its mask of legal actions, and whether it had one."""
    if not isinstance(space, spaces.Dict) or MASK not in dict(space.items):
        return space, False
    return spaces.Dict(tuple((k, s) for k, s in space.items if k != MASK)), True


def mask_apart(obs: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """A batch of observations that hold their mask, as the observations without it and the step's `extras`."""
    return {k: x for k, x in obs.items() if k != MASK}, {"legal": obs[MASK] != 0}


class Boundary:
    """Turns what a vector environment with next-step auto-reset tells into `TimeStep`s of NumPy arrays."""

    def __init__(self, batch: int):
        self.last = np.zeros(batch, bool)
        """`[batch]`: whose episode is over; the next step opens another one."""

    def opened(self, obs: PyTree, extras: dict[str, Any]) -> TimeStep:
        batch = len(self.last)
        self.last = np.zeros(batch, bool)
        zero = np.zeros(batch, np.float32)
        return TimeStep(obs, zero, zero + 1, ~self.last, self.last, extras)

    def moved(self, obs: PyTree, reward: Any, terminated: Any, truncated: Any, extras: dict[str, Any]) -> TimeStep:
        first, terminated = self.last, np.asarray(terminated, bool)
        self.last = terminated | np.asarray(truncated, bool)
        reward = np.where(first, 0, reward).astype(np.float32)
        return TimeStep(obs, reward, 1 - terminated.astype(np.float32), first, self.last, extras)


class AsHost:
    """A pure batched environment behind `HostEnv`: runners can be compared on it, result for result.

    `reset(seed)` is the environment's `reset(jax.random.key(seed))`, or `reset(key)` whatever the seed if a key is given.
    """

    def __init__(self, env: BatchedEnv, key: Key[Array, ""] | None = None):
        require(env.pure, f"{type(env).__name__} is no pure environment")
        self.spec: Spec = env.spec
        self.batch: int = env.batch
        self.backend: str = env.backend
        self._env, self._key = env, key

    def reset(self, seed: int) -> TimeStep:
        self._state, step = _reset(self._env, jax.random.key(seed) if self._key is None else self._key)
        return jax.tree.map(np.asarray, step)

    def send(self, action: PyTree) -> None:
        self._state, self._sent = _step(self._env, self._state, action)

    def recv(self) -> TimeStep:
        return jax.tree.map(np.asarray, self._sent)

    def close(self) -> None:
        pass


@jax.jit
def _reset(env: BatchedEnv, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
    return env.reset(key)


@jax.jit
def _step(env: BatchedEnv, state: PyTree, action: PyTree) -> tuple[PyTree, TimeStep]:
    return env.step(state, action)
