"""One trained policy: a callable, and the one file that holds it."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import Agent, Spec, TimeStep, YozhError, require
from yozh.files import atomic_write, safetensors
from yozh.settings import LARGEST, build, describe

FORMAT = "yozh-policy-1"

HEADER = 2**23
"""Bytes that the header of a file may have; a description has some thousands."""

LARGE = 2**26
"""Bytes that one observation or action may take: a description cannot ask for more memory than a large image does."""


@eqx.filter_jit
def act(agent: Agent, params: PyTree, memory: PyTree, step: TimeStep, key: Any, explore: bool) -> tuple[PyTree, PyTree]:
    """`(action, memory)`, the action as the environment takes it."""
    action, _, memory = agent.act(params, memory, step, key, explore=explore)
    return action, memory


class Policy:
    """Observations in, actions out: `policy(obs)`, for one observation or a batch `[B, ...]`.

    It remembers what a recurrent policy must remember from call to call; `reset` begins a new episode.
    """

    def __init__(
        self, agent: Agent, params: PyTree, spec: Spec, env: str | None = None, *, explore: bool = False, seed: int = 0,
        env_options: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self.agent, self.params, self.spec, self.env = agent, params, spec, env
        self.env_options = dict(env_options or {})
        self._explore, self._key = explore, jax.random.key(seed)
        self.reset()

    def reset(self) -> None:
        self._memory: Any = None

    def __call__(self, obs: Any, legal: Any = None, *, first: Any = None) -> Any:
        """The action as NumPy. `legal` is the mask of legal actions, where the environment has one; `first` `[B]` says which
        streams of a batch begin an episode here, where they do not all begin together (`reset` is for that)."""
        require(
            not self.spec.legal or legal is not None, "this policy needs the mask of legal actions: policy(obs, legal)"
        )
        obs, one = self._read(obs)
        legal = None if legal is None else np.asarray(legal, bool)
        obs, legal = jax.tree.map(lambda x: jnp.asarray(x[None] if one else x), (obs, legal))
        batch = jax.tree.leaves(obs)[0].shape[0]
        new = self._memory is None
        if new:
            self._memory = self.agent.initial_memory(self.params, batch)
        had = {x.shape[0] for x in jax.tree.leaves(self._memory)} | {batch}
        require(
            len(had) == 1, lambda: f"the policy remembers {max(had - {batch})} streams, and {batch} came: call reset()"
        )
        first = jnp.broadcast_to(jnp.asarray(False if first is None else first, bool), batch) | new
        step = TimeStep(obs, jnp.zeros(batch), jnp.ones(batch), first, jnp.zeros(batch, bool), {} if legal is None else {"legal": legal})  # fmt: skip
        self._key, key = jax.random.split(self._key)
        action, self._memory = act(self.agent, self.params, self._memory, step, key, self._explore)
        action = jax.tree.map(np.asarray, spaces.clip(self.spec.action, action))
        return jax.tree.map(lambda a: a[0], action) if one else action

    def save(self, path: str | Path) -> None:
        """Writes weights, statistics and the description of agent and spaces as one safetensors file."""
        about = {"agent": describe(self.agent), "spec": describe(self.spec), "env": self.env}
        about |= {"env_options": self.env_options} if self.env_options else {}
        tensors = {name: np.asarray(x) for name, x in _named(self.params)}
        atomic_write(path, safetensors(tensors, {"format": FORMAT, "policy": json.dumps(about)}))

    def _read(self, obs: Any) -> tuple[PyTree, bool]:
        """The observation as the space describes it, and whether it is one and not a batch."""
        space = self.spec.observation
        asked = f"the policy takes {spaces.describe(space)}, one or a batch"
        leaves = spaces.map_leaves(lambda s: s, space)  # where an array is asked for, a list will do
        try:
            read = jax.tree.map(lambda s, x: np.asarray(x, s.dtype), leaves, obs)
        except (ValueError, TypeError) as error:
            raise YozhError(f"{asked}: {error}") from None
        found = [(x.shape, s.shape) for s, x in zip(jax.tree.leaves(leaves), jax.tree.leaves(read), strict=True)]  # fmt: skip
        for shape, expected in found:
            fits = shape[len(shape) - len(expected) :] == expected and len(shape) - len(expected) in (0, 1)
            require(fits, lambda shape=shape: f"{asked}, and an array of shape {shape} came")
        lead = {shape[: len(shape) - len(expected)] for shape, expected in found}
        require(len(lead) == 1, lambda: f"{asked}, and its parts come with different leading axes {sorted(lead)}")
        return read, lead == {()}


def load(path: str | Path, *, agent: Agent | None = None) -> Policy:
    """The policy in a file that `Policy.save` wrote, or in a run's folder. Nothing in the file is executed, and nothing that it
    asks for is allocated before its own tensors are seen to be of that size.

    An agent with parts that are not Yozh's own (a torso of yours) cannot be described in a file: pass it as `agent`. Raises
    `YozhError` for whatever is no such file; weights that are not finite are loaded with a warning.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    path = path / "policy.safetensors" if path.is_dir() else path
    require(path.is_file(), f"there is no policy at {path}")
    try:
        check_header(path)
        with safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())
            agent, spec, env, env_options = _described(path, file.metadata() or {}, len(names), agent)
            expected = _expected(path, agent, spec)
            extra = sorted(set(names) - {name for name, _ in _named(expected)})
            require(not extra, f"{path} holds tensors that its description does not ask for: {', '.join(extra[:5])}")
            for name, shape in _named(expected):
                require(name in names, f"{path} lacks {name}")
                found = file.get_slice(name)
                found = found.get_dtype(), tuple(found.get_shape())
                asked = _DTYPES.get(str(shape.dtype)), shape.shape
                require(found == asked, f"{path}: {name} is {found[0]}{found[1]}, not {asked[0]}{asked[1]}")
            leaves = [jnp.asarray(file.get_tensor(name)) for name, _ in _named(expected)]
    except (SafetensorError, OSError) as error:
        raise YozhError(f"{path} is not a policy file: {error}") from None
    params = jax.tree.unflatten(jax.tree.structure(expected), leaves)
    if bad := [name for name, x in _named(params) if not jnp.isfinite(x).all()]:
        warnings.warn(f"{path}: {', '.join(bad[:5])} hold numbers that are not finite", stacklevel=2)
    return Policy(agent, params, spec, env, env_options=env_options)


_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "float32": "F32",
    "int64": "I64",
    "float64": "F64",
}
"""How safetensors calls the types that weights and statistics have."""


def check_header(path: Path, kind: str = "policy") -> None:
    """The header's length is looked at before anything believes it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
    require(len(start) == 8, f"{path} is not a {kind} file: it has {size} bytes")
    length = int.from_bytes(start, "little")
    require(
        length <= size - 8, f"{path} is not a {kind} file: it has {size:,} bytes, and its header would have {length:,}"
    )
    require(length <= HEADER, f"{path} is not a {kind} file: a header of {length:,} bytes is longer than any {kind}'s")


def _described(path: Path, about: dict[str, str], tensors: int, agent: Agent | None) -> tuple[Agent, Spec, str | None, dict[str, Any]]:  # fmt: skip
    """Agent, spaces, environment and its options that a file of so many tensors tells of."""
    told = about.get("format", "")
    kind = (
        "is of another version of Yozh" if told.startswith("yozh-policy-") else "holds tensors, but no policy of Yozh"
    )
    require(told == FORMAT, f"{path} {kind} (its format is {told[:40]!r}, not {FORMAT!r})")

    def read() -> tuple[Any, Any, Any, Any]:
        text = json.loads(about["policy"])
        spec = build(text["spec"])
        # A layer has a tensor or more, so a file of few tensors has no long lists of layers.
        return (
            build(text["agent"], longest=max(LARGEST, tensors)) if agent is None else agent,
            spec,
            text.get("env"),
            text.get("env_options", {}),
        )

    found, spec, env, env_options = _careful(path, read)
    sound = isinstance(spec, Spec) and isinstance(found, Agent) and isinstance(env, str | None)
    require(sound and isinstance(env_options, dict), f"{path} does not describe a policy")
    return found, spec, env, env_options


def _expected(path: Path, agent: Agent, spec: Spec) -> PyTree:
    """Shapes of the parameters; nothing of their size is allocated."""

    def shapes() -> PyTree:
        for space in (spec.observation, spec.action):
            parts = spaces.map_leaves(lambda s: math.prod(s.shape) * np.dtype(s.dtype).itemsize, space)
            size = sum(jax.tree.leaves(parts))
            require(size <= LARGE, f"an observation or action of {size:,} bytes is larger than any picture")
        return jax.eval_shape(lambda: agent.policy(agent.init(jax.random.key(0), spec)))

    return _careful(path, shapes)


def _careful(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives. A description that was tampered with may make any constructor raise anything."""
    try:
        return read()
    except Exception as error:
        what = str(error) if isinstance(error, YozhError) else f"{type(error).__name__}: {error}"
        raise YozhError(f"{path}: its description cannot be read: {what[:300]}") from None


def _named(params: PyTree) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    ]
