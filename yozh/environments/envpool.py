"""EnvPool's C++ environments: inside the compiled program (`EnvPool`) and hosted (`EnvPoolHost`)."""

import functools
import itertools
import os
import re
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh import spaces
from yozh.core import BatchedEnv, Spec, TimeStep, YozhError, require, static
from yozh.environments import foreign
from yozh.environments.host import MASK, Boundary, supported, without_mask
from yozh.environments.options import instead

ENDLESS = 2**31 - 1
"""EnvPool's time limit where there is none."""

Arrays = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, shape and type of each."""


@dataclass(frozen=True)
class Config:
    """A kind of pool: everything but the seed."""

    id: str
    n: int
    options: tuple[tuple[str, Any], ...] = ()

    def build(self, seed: int) -> Any:
        import envpool

        threads = min(max(self.n // 4, 1), os.cpu_count() or 1)  # waking a thread costs as much as a few small steps
        options = {"num_threads": threads, **dict(self.options)}
        return envpool.make(self.id, "gymnasium", num_envs=self.n, seed=seed, **options)


@functools.cache
def _native(config: Config) -> Any:
    import envpool

    try:
        native = envpool.make_spec(config.id, num_envs=config.n, **dict(config.options))
    except (ImportError, TypeError, ValueError, RuntimeError, AssertionError) as e:
        known = envpool.make_spec(config.id).config._fields if isinstance(e, TypeError) else ()
        asked = dict(config.options)
        raise YozhError(f"EnvPool cannot make {config.id} with {asked}: {e}{instead(asked, known)}") from None
    require(native.config.max_num_players == 1, f"{config.id} is for several players; EnvPool's are taken with one")
    return native


@functools.cache
def _spec(config: Config) -> Spec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, of EnvPool's bounds
        native = _native(config)
        observation = supported(config.id, native.gymnasium_observation_space)
        action = supported(config.id, native.gymnasium_action_space)
    if isinstance(action, spaces.Box) and "int" in action.dtype and len(action.shape) == 1 and action.low == 0:
        action = spaces.MultiDiscrete(tuple(int(high) + 1 for high in action.bounds()[1]))
    if isinstance(observation, spaces.Dict) and MASK in dict(observation.items):
        _check_mask(config.id, dict(observation.items)[MASK], action)
    observation, legal = without_mask(_unbound(observation))
    limit = native.config.max_episode_steps
    return Spec(observation, action, legal, horizon=limit if 0 < limit < ENDLESS else None)


def _check_mask(id: str, mask: spaces.Space, action: spaces.Space) -> None:
    shape = mask.shape if isinstance(mask, spaces.Leaf) else ()
    each = (len(action.ns), max(action.ns)) if isinstance(action, spaces.MultiDiscrete) else None
    several = isinstance(action, spaces.MultiDiscrete) and len(set(action.ns)) == 1 and shape == each
    require(
        several or (isinstance(action, spaces.Discrete) and shape == (action.n,)),
        f"{id}: its mask {shape} is of combinations of {spaces.describe(action)}; agents choose one by one",
    )


def _unbound(space: spaces.Space) -> spaces.Space:
    """EnvPool gives the limits of the number type (the smallest positive one below) where there is no bound."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict(tuple((name, _unbound(s)) for name, s in space.items))
    if isinstance(space, spaces.Box) and isinstance(space.low, float) and 0 < space.low < 1e-37:
        return spaces.Box(space.shape, dtype=space.dtype)
    return space


class Live:
    """The pool an `EnvPool` keeps alive, by number. No part of the program: all are equal, so that any may run it."""

    def __init__(self):
        self.pools: dict[int, Any] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Live)

    def __hash__(self) -> int:
        return hash(Live)


class EnvPool(BatchedEnv):
    """`n` streams of an EnvPool environment, stepped inside the compiled program.

    `reset` builds a new pool, seeded from the key, and so cannot be traced; it ends the pool of this object's `reset`
    before, whose states are then refused. The simulator is no part of the state: stepping twice from one state repeats
    nothing, and `vmap` is refused. 64-bit observations and actions cross as pairs of words, so that MuJoCo works under
    32-bit JAX.
    """

    id: str = static()
    n: int = static()
    options: tuple[tuple[str, Any], ...] = static(())
    live: "Live" = static(default_factory=lambda: Live())

    pure: ClassVar[bool] = False
    backend: ClassVar[str] = "envpool"

    @property
    def config(self) -> Config:
        return Config(self.id, self.n, self.options)

    @property
    def spec(self) -> Spec:
        return _spec(self.config)

    @property
    def batch(self) -> int:
        return self.n

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        require(jax.default_backend() == "cpu", "EnvPool runs inside the program on a CPU only; take hosted=True here")
        self.close()
        pool = self.config.build(int(jax.random.bits(key)) >> 1)
        obs, _ = pool.reset()
        native = dict(pool._xla())
        number = next(_numbers)
        foreign.register(self._target, native["send"][2][0], native["recv"][2][0])
        foreign.attach(number, native["send"][0])
        self.live.pools[number] = pool
        obs, extras = _observation(self.spec, jax.tree.map(lambda x: _narrow(jnp, np.asarray(x)), obs))
        one, no = jnp.ones(self.n), jnp.zeros(self.n, bool)
        return (jnp.asarray(number, jnp.int32), no), TimeStep(obs, 0 * one, one, ~no, no, extras)

    def step(self, state: PyTree, action: PyTree) -> tuple[PyTree, TimeStep]:
        number, first = state
        results = [jax.ShapeDtypeStruct((), jnp.int32)] + [_declared(*a) for a in self._arrays("state")]
        call = jax.ffi.ffi_call(self._target, results, has_side_effect=True, input_output_aliases={0: 0})
        number, *out = call(number, *self._operands(action))
        out = {name: foreign.narrow(x, dtype) for (name, _, dtype), x in zip(self._arrays("state"), out, strict=True)}
        terminated = out["done"] & ~out["trunc"]
        obs, extras = _observation(self.spec, _nest({k: x for k, x in out.items() if re.match(r"obs\b", k)}))
        reward = jnp.where(first, 0.0, out["reward"])
        step = TimeStep(obs, reward, 1.0 - terminated.astype(jnp.float32), first, out["done"], extras)
        return (number, out["done"]), step

    def close(self) -> None:
        """Ends the pool; stepping a state of it afterwards is an error."""
        for number in self.live.pools:
            foreign.detach(number)
        self.live.pools.clear()

    @property
    def _target(self) -> str:
        return f"yozh_envpool_{self.id}"

    def _arrays(self, side: str) -> Arrays:
        specs = getattr(_native(self.config), f"{side}_array_spec")
        return tuple((k, (self.n, *(d for d in s.shape if d != -1)), np.dtype(s.dtype).name) for k, s in specs.items())

    def _operands(self, action: PyTree) -> list[Array]:
        streams = jnp.arange(self.n, dtype=jnp.int32)
        given = {"env_id": streams, "players.env_id": streams}
        wanted = [a for a in self._arrays("action") if a[0] not in given]
        leaves = jax.tree.leaves(action)
        require(len(leaves) == len(wanted), f"{self.id} takes {len(wanted)} action arrays, not {len(leaves)}")
        given |= {
            name: foreign.widen(x.reshape(shape), dtype)
            for (name, shape, dtype), x in zip(sorted(wanted), leaves, strict=True)
        }
        return [given[name] for name, _, _ in self._arrays("action")]


class EnvPoolHost:
    """The same pools behind `HostEnv`, for actor threads."""

    backend = "envpool"

    def __init__(self, id: str, n: int, options: tuple[tuple[str, Any], ...] = ()):
        self._config = Config(id, n, options)
        self.spec: Spec = _spec(self._config)
        self.batch: int = n
        self._boundary = Boundary(n)

    def reset(self, seed: int) -> TimeStep:
        self._pool: Any = self._config.build(seed)
        obs, _ = self._pool.reset()
        return self._boundary.opened(*self._arrived(obs))

    def send(self, action: PyTree) -> None:
        self._pool.send(jax.tree.map(np.asarray, action))

    def recv(self) -> TimeStep:
        obs, reward, terminated, truncated, _ = self._pool.recv()
        obs, extras = self._arrived(obs)
        return self._boundary.moved(obs, reward, terminated, truncated, extras)

    def close(self) -> None:
        self._pool = None

    def _arrived(self, obs: PyTree) -> tuple[PyTree, dict[str, Any]]:
        return _observation(self.spec, jax.tree.map(lambda x: _narrow(np, x), obs))


_numbers = itertools.count(1)


def _declared(name: str, shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    return foreign.words(shape) if dtype.endswith("64") else jax.ShapeDtypeStruct(shape, dtype)


def _narrow(np_: Any, x: Any) -> Any:
    return np_.asarray(x, {"float64": "float32", "int64": "int32"}.get(x.dtype.name, x.dtype))


def _observation(spec: Spec, obs: PyTree) -> tuple[PyTree, dict[str, Any]]:
    extras = {}
    if spec.legal:
        extras = {"legal": obs[MASK].astype(bool).reshape(len(obs[MASK]), -1)}
        obs = {k: x for k, x in obs.items() if k != MASK}
    while not isinstance(spec.observation, spaces.Dict) and isinstance(obs, dict):
        (obs,) = obs.values()
    return obs, extras


def _nest(flat: dict[str, Any]) -> PyTree:
    """EnvPool's `obs:camera.left` and the like as nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, x in flat.items():
        *path, leaf = re.split(r"[:.]", name)
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = x
    return tree["obs"]
