"""Gymnasium's environments, hosted."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import Spec, TimeStep, YozhError, require
from yozh.environments.declared import Keeping, fields
from yozh.environments.host import MASK, Boundary, mask_apart, supported, without_mask
from yozh.environments.worker import time_limit

UNCHECKED = {"disable_env_checker": True}
"""Gymnasium's checker costs a fifth of a quick step on every step; `yozh doctor` looks closer, once."""


class GymnasiumHost:
    """`n` streams of a Gymnasium environment: an id, a function that makes one, or a native vector environment.

    A mask of legal actions is taken from `info["action_mask"]` or from the entry `"action_mask"` of a Dict observation; where
    an `info` is silent all are legal. `options` go to `gymnasium.make`. `Workers` does the same in processes of their own.

    Observations are held against the declared space as they arrive. One of another shape or kind of number raises a
    `YozhError`; `Keeping` says what comes of values out of bounds.
    """

    backend = "gymnasium"

    def __init__(self, env: str | Callable[[], Any] | Any, n: int, **options: Any):
        from gymnasium.error import DependencyNotInstalled
        from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

        if isinstance(env, VectorEnv):
            vector, name = env, str(env)
            require(not options, f"{name} is made already: {', '.join(options)} cannot be applied")
            require(vector.num_envs == n, f"{name} has {vector.num_envs} streams, and {n} were asked for")
            mode = vector.metadata.get("autoreset_mode")
            require(mode is AutoresetMode.NEXT_STEP, f"{name} resets by {mode}; make it with AutoresetMode.NEXT_STEP")
        else:
            make, name = maker(env, options)
            try:
                vector = SyncVectorEnv([make] * n)
            except DependencyNotInstalled as e:
                raise YozhError(f"{name}: {e}{extra(env)}") from None
        self.batch: int = n
        self._vector: Any = vector
        self._name, self._steps = name, 0
        self._boundary = Boundary(n)
        observation, self._mask_seen = without_mask(supported(name, vector.single_observation_space))
        action = supported(name, vector.single_action_space)
        _, info = self._told(lambda: vector.reset(seed=0))
        self._any = np.ones_like(info[MASK], bool) if MASK in info else None
        self.spec: Spec = Spec(observation, action, self._mask_seen or self._any is not None, self._limit())
        self._keeping = Keeping(name, observation)

    def _limit(self) -> int | None:
        """The longest episode, where a wrapper says so for one stream; all are made alike."""
        streams = getattr(self._vector, "envs", ())
        return time_limit(streams[0]) if streams else None

    def reset(self, seed: int) -> TimeStep:
        self._steps = 0
        return self._boundary.opened(*self._arrived(*self._told(lambda: self._vector.reset(seed=seed))))

    def send(self, action: PyTree) -> None:
        self._sent = spaces.widen(self._vector.single_action_space, action)

    def recv(self) -> TimeStep:
        self._steps += 1
        obs, reward, terminated, truncated, info = self._told(lambda: self._vector.step(self._sent))
        obs, extras = self._arrived(obs, info)
        return self._boundary.moved(obs, reward, terminated, truncated, extras)

    def close(self) -> None:
        self._vector.close()

    def _arrived(self, obs: PyTree, info: dict[str, Any]) -> tuple[PyTree, dict[str, Any]]:
        obs = spaces.narrow(self._vector.single_observation_space, obs)
        extras = {}
        if self._mask_seen:
            obs, extras = mask_apart(obs)
        elif self._any is not None:
            told = MASK in info
            extras = {"legal": np.where(info[f"_{MASK}"][:, None], info[MASK] != 0, self._any) if told else self._any}
        self._keeping.look(obs, self._steps)
        return obs, extras

    def _told(self, ask: Callable[[], Any]) -> Any:
        """The vector environment's answer; where it could not put the streams together, a `YozhError` that says why."""
        try:
            return ask()
        except (KeyError, IndexError, TypeError, ValueError):
            for stream, obs in enumerate(getattr(self._vector, "_env_obs", ())):
                for field in fields(self._vector.single_observation_space):
                    if obs is not None and (why := field.misfit(obs)):
                        where = f"at step {self._steps:,} of stream {stream}"
                        raise YozhError(f"{self._name}: {field.name} {why}, {where}") from None
            raise


def maker(env: Any, options: dict[str, Any]) -> tuple[Callable[[], Any], str]:
    import gymnasium

    if isinstance(env, str):
        return lambda: gymnasium.make(env, **UNCHECKED | options), env
    require(not options, f"a function that makes the environment has its options already: {', '.join(options)}")
    name = getattr(env, "__name__", type(env).__name__)
    if isinstance(env, gymnasium.Env):
        raise YozhError(
            f"{name} is one environment, and each stream needs its own: give a function, lambda: {name}(...)"
        )
    return env, name


def extra(env: Any) -> str:
    """What to install for an environment of Gymnasium's own."""
    import gymnasium

    family = str(gymnasium.spec(env).entry_point).split(":")[0].split(".")[-2:] if isinstance(env, str) else []
    extras = {"box2d": "box2d", "classic_control": "classic", "mujoco": "mujoco"}
    return "".join(f" (pip install 'yozh[{extra}]')" for part, extra in extras.items() if part in family)


def known() -> list[str]:
    """The ids that Gymnasium has registered."""
    import gymnasium

    _register_atari()
    return list(gymnasium.registry)


def registered(id: str) -> bool:
    """Whether Gymnasium has the id; packages that only register on import (ale_py) are imported for theirs."""
    import gymnasium

    if id.startswith("ALE/"):
        _register_atari()
    try:
        gymnasium.spec(id)
    except (gymnasium.error.Error, ImportError, ValueError):
        return False
    return True


def _register_atari() -> None:
    if find_spec("ale_py"):
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
