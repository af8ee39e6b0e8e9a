"""gymnax's environments as pure environments."""

import contextlib
import dataclasses
import functools
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh import spaces
from yozh.core import Env, Spec, TimeStep, YozhError, restart, static, transition

IDS = {
    "Asterix-MinAtar": "minatar.asterix.MinAsterix",
    "Freeway-MinAtar": "minatar.freeway.MinFreeway",
    "SpaceInvaders-MinAtar": "minatar.space_invaders.MinSpaceInvaders",
    "Acrobot-v1": "classic_control.acrobot.Acrobot",
    "MountainCar-v0": "classic_control.mountain_car.MountainCar",
    "MountainCarContinuous-v0": "classic_control.continuous_mountain_car.ContinuousMountainCar",
    "DeepSea-bsuite": "bsuite.deep_sea.DeepSea",
    "MemoryChain-bsuite": "bsuite.memory_chain.MemoryChain",
    "UmbrellaChain-bsuite": "bsuite.umbrella_chain.UmbrellaChain",
    "FourRooms-misc": "misc.rooms.FourRooms",
    "MetaMaze-misc": "misc.meta_maze.MetaMaze",
    "PointRobot-misc": "misc.point_robot.PointRobot",
    "Reacher-misc": "misc.reacher.Reacher",
    "Swimmer-misc": "misc.swimmer.Swimmer",
}
"""The ids taken over, and where each lives below `gymnax.environments`."""

_NEVER = 2**30


@functools.cache
def _load(id: str) -> Any:
    """The environment object. gymnax's packages import everything, plotting too, in 3 s: one module is taken past them."""
    found = find_spec("gymnax")
    if found is None or not found.submodule_search_locations:
        raise YozhError(f"{id} needs gymnax: pip install 'yozh[gymnax]'")
    family, module, name = IDS[id].split(".")
    root = found.submodule_search_locations[0]
    bare = {}
    for package in ("gymnax", "gymnax.environments", f"gymnax.environments.{family}"):
        if package not in sys.modules:
            bare[package] = sys.modules[package] = ModuleType(package)
            bare[package].__path__ = ["/".join([root, *package.split(".")[1:]])]
    try:
        return getattr(importlib.import_module(f"gymnax.environments.{family}.{module}"), name)()
    finally:
        for package in bare:
            del sys.modules[package]


class Gymnax(Env):
    """A gymnax environment; its parameters are leaves.

    gymnax merges the time limit into its terminal flag: the flag is asked for again without the limit. MinAtar's
    observations are `bool [10, 10, channels]`: a quarter of the float32 that gymnax makes of them, in every store.
    """

    params: PyTree
    id: str = static()
    limit: int | None = static()

    def __init__(self, id: str, **params: Any):
        self.id = id
        self.params = jax.tree.map(jnp.asarray, _load(id).default_params.replace(**params))
        self.limit = int(self.params.max_steps_in_episode) if hasattr(self.params, "max_steps_in_episode") else None

    @property
    def spec(self) -> Spec:
        return dataclasses.replace(_spec(self.id), horizon=self.limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        with _lenient():
            obs, state = _load(self.id).reset_env(key, self.params)
        state = jax.tree.map(jnp.asarray, state)
        return state, restart(self._observe(obs))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        env, endless = _load(self.id), self.params.replace(max_steps_in_episode=_NEVER)
        with _lenient():
            # MinAtar's states remember having been terminal, so they must not see the limit; others may observe it.
            obs, new, reward, _, _ = env.step_env(key, state, action, endless if self._minatar else self.params)
            terminated, over = env.is_terminal(new, endless), env.is_terminal(new, self.params)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state)
        reward, terminated, over = (jnp.reshape(x, ()) for x in map(jnp.asarray, (reward, terminated, over)))
        return new, transition(self._observe(obs), reward, terminated=terminated, truncated=over)

    @property
    def _minatar(self) -> bool:
        return self.id.endswith("-MinAtar")

    def _observe(self, obs: Array) -> Array:
        space = self.spec.observation
        assert isinstance(space, spaces.Leaf)
        return obs.astype(space.dtype)


@functools.cache
def _spec(id: str) -> Spec:
    env = _load(id)
    with jax.ensure_compile_time_eval():
        observation, action = (_space(id, s(env.default_params)) for s in (env.observation_space, env.action_space))
    if id.endswith("-MinAtar"):
        observation = spaces.Box(observation.shape, 0.0, 1.0, "bool")
    return Spec(observation, action)


def _lenient() -> Any:
    """gymnax mixes number types and ranks freely."""
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    return stack


def _space(id: str, space: Any) -> spaces.Leaf:
    match type(space).__name__:
        case "Discrete":
            return spaces.Discrete(int(space.n))
        case "Box":
            return spaces.Box(tuple(space.shape), *(_bound(b, space.shape) for b in (space.low, space.high)))
    raise YozhError(f"{id}: gymnax's space {type(space).__name__} is not supported; Box and Discrete are")


def _bound(b: Any, shape: tuple[int, ...]) -> float | tuple[float, ...]:
    b = np.broadcast_to(np.asarray(b, np.float32), shape).ravel()
    b = np.where(np.abs(b) < np.finfo(np.float32).max, b, np.copysign(np.inf, b)).tolist()
    return b[0] if len(set(b)) == 1 else tuple(b)
