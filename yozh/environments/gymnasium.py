"""Gymnasium's environments, hosted."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import Spec, TimeStep, YozhError, require
from yozh.environments.host import MASK, Boundary, supported, without_mask


class GymnasiumHost:
    """`n` streams of a Gymnasium environment: an id, a function that makes one, or a native vector environment.

    With `workers` each stream lives in a process of its own (a script that asks for them needs the usual
    `if __name__ == "__main__"`). A mask of legal actions is taken from `info["action_mask"]` or from the entry
    `"action_mask"` of a Dict observation; where an `info` is silent all are legal. `options` go to `gymnasium.make`.
    """

    backend = "gymnasium"

    def __init__(self, env: str | Callable[[], Any] | Any, n: int, *, workers: bool = False, **options: Any):
        from gymnasium.error import DependencyNotInstalled
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

        if isinstance(env, VectorEnv):
            vector, name = env, str(env)
            require(not options, f"{name} is made already: {', '.join(options)} cannot be applied")
            require(vector.num_envs == n, f"{name} has {vector.num_envs} streams, and {n} were asked for")
            mode = vector.metadata.get("autoreset_mode")
            require(mode is AutoresetMode.NEXT_STEP, f"{name} resets by {mode}; make it with AutoresetMode.NEXT_STEP")
        else:
            make, name = _maker(env, options)
            try:
                vector = AsyncVectorEnv([make] * n, context="forkserver") if workers else SyncVectorEnv([make] * n)
            except DependencyNotInstalled as e:
                raise YozhError(f"{name}: {e}{_extra(env)}") from None
        self.batch: int = n
        self._vector: Any = vector
        self._boundary = Boundary(n)
        self._workers = isinstance(vector, AsyncVectorEnv)
        observation, self._mask_seen = without_mask(supported(name, vector.single_observation_space))
        action = supported(name, vector.single_action_space)
        _, info = vector.reset(seed=0)
        self._any = np.ones_like(info[MASK], bool) if MASK in info else None
        self.spec: Spec = Spec(observation, action, self._mask_seen or self._any is not None)

    def reset(self, seed: int) -> TimeStep:
        return self._boundary.opened(*self._arrived(*self._vector.reset(seed=seed)))

    def send(self, action: PyTree) -> None:
        self._sent = spaces.widen(self._vector.single_action_space, action)
        if self._workers:
            self._vector.step_async(self._sent)

    def recv(self) -> TimeStep:
        told = self._vector.step_wait() if self._workers else self._vector.step(self._sent)
        obs, reward, terminated, truncated, info = told
        obs, extras = self._arrived(obs, info)
        return self._boundary.moved(obs, reward, terminated, truncated, extras)

    def close(self) -> None:
        self._vector.close()

    def _arrived(self, obs: PyTree, info: dict[str, Any]) -> tuple[PyTree, dict[str, Any]]:
        obs = spaces.narrow(self._vector.single_observation_space, obs)
        if self._mask_seen:
            return {k: x for k, x in obs.items() if k != MASK}, {"legal": obs[MASK] != 0}
        if self._any is None:
            return obs, {}
        if MASK not in info:
            return obs, {"legal": self._any}
        return obs, {"legal": np.where(info[f"_{MASK}"][:, None], info[MASK] != 0, self._any)}


def _maker(env: Any, options: dict[str, Any]) -> tuple[Callable[[], Any], str]:
    import gymnasium

    if isinstance(env, str):
        return lambda: gymnasium.make(env, **options), env
    require(not options, f"a function that makes the environment has its options already: {', '.join(options)}")
    name = getattr(env, "__name__", type(env).__name__)
    if isinstance(env, gymnasium.Env):
        raise YozhError(
            f"{name} is one environment, and each stream needs its own: give a function, lambda: {name}(...)"
        )
    return env, name


def _extra(env: Any) -> str:
    """What to install for an environment of Gymnasium's own."""
    import gymnasium

    family = str(gymnasium.spec(env).entry_point).split(":")[0].split(".")[-2:] if isinstance(env, str) else []
    extras = {"box2d": "box2d", "classic_control": "classic", "mujoco": "mujoco"}
    return "".join(f" (pip install 'yozh[{extra}]')" for part, extra in extras.items() if part in family)


def known() -> list[str]:
    """The ids that Gymnasium has registered."""
    import gymnasium

    return list(gymnasium.registry)


def registered(id: str) -> bool:
    """Whether Gymnasium has the id; packages that only register on import (ale_py) are imported for theirs."""
    import gymnasium

    if id.startswith("ALE/"):
        import importlib.util

        if importlib.util.find_spec("ale_py"):
            import ale_py

            gymnasium.register_envs(ale_py)
    try:
        gymnasium.spec(id)
    except (gymnasium.error.Error, ImportError, ValueError):
        return False
    return True
