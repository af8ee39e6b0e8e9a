"""EnvPool's C++ environments: inside the compiled program (`EnvPool`) and hosted (`EnvPoolHost`).

EnvPool's own `xla()` writes the address of a pool into the program, so that neither another pool nor another process can
use it again. Here the address stays out: the program carries a number, and a small foreign function finds the pool.
"""

import functools
import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from yozh import spaces
from yozh.core import BatchedEnv, Spec, TimeStep, YozhError, require, static
from yozh.environments import foreign


@dataclass(frozen=True)
class Config:
    """Which pool: all that shapes the program but the seed."""

    id: str
    n: int
    options: tuple[tuple[str, Any], ...]

    def build(self, seed: int) -> Any:
        """A new pool. One thread serves small pools best: a second one only adds waiting."""
        import envpool

        threads = {"num_threads": min(self.n, 2)} if self.n < 0 else {}
        return envpool.make(self.id, "gymnasium", num_envs=self.n, seed=seed, **{**threads, **dict(self.options)})

    @functools.cached_property
    def layout(self) -> "Layout":
        return _layout(self)


@dataclass(frozen=True)
class Layout:
    """Names, shapes and types of what goes into a pool and comes out of it."""

    spec: Spec
    state: tuple[tuple[str, tuple[int, ...], str], ...]
    action: tuple[tuple[str, tuple[int, ...], str], ...]


@functools.cache
def _layout(config: Config) -> Layout:
    import envpool

    native = envpool.make_spec(config.id, num_envs=config.n, **dict(config.options))
    require(native.config.max_num_players == 1, lambda: f"{config.id} has several players; EnvPool's are for one here")
    observation = _mend(native.gymnasium_observation_space)
    legal = isinstance(observation, spaces.Dict) and "action_mask" in dict(observation.items)
    if legal:
        observation = spaces.Dict.of({k: s for k, s in observation.items if k != "action_mask"})

    def arrays(specs: Any) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        return tuple(
            (name, (config.n, *(d for i, d in enumerate(s.shape) if not (i == 0 and d == -1))), np.dtype(s.dtype).name)
            for name, s in specs.items()
        )

    action = spaces.from_gymnasium(native.gymnasium_action_space)
    return Layout(Spec(observation, action, legal), arrays(native.state_array_spec), arrays(native.action_array_spec))
