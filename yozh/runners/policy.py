"""One trained policy: a callable, and the one file that holds it."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import Agent, Spec, TimeStep, YozhError, require
from yozh.files import atomic_write
from yozh.settings import build, describe

FORMAT = "yozh-policy-1"


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
        self, agent: Agent, params: PyTree, spec: Spec, env: str | None = None, *, explore: bool = False, seed: int = 0
    ):
        self.agent, self.params, self.spec, self.env = agent, params, spec, env
        self._explore, self._key = explore, jax.random.key(seed)
        self.reset()

    def reset(self) -> None:
        self._memory: Any = None

    def __call__(self, obs: Any, legal: Any = None) -> Any:
        """The action as NumPy. `legal` is the mask of legal actions, where the environment has one."""
        require(
            not self.spec.legal or legal is not None, "this policy needs the mask of legal actions: policy(obs, legal)"
        )
        template = spaces.zeros(self.spec.observation)  # where an array is asked for, a list will do
        obs = jax.tree.map(lambda _, x: np.asarray(x), template, obs)
        one = _axes(obs) == _axes(template)
        obs, legal = jax.tree.map(lambda x: np.asarray(x)[None] if one else np.asarray(x), (obs, legal))
        obs = spaces.map_leaves(lambda s: s.dtype, self.spec.observation), obs
        obs = jax.tree.map(lambda dtype, x: jnp.asarray(x, dtype), *obs)
        batch = jax.tree.leaves(obs)[0].shape[0]
        first = jnp.full(batch, self._memory is None)
        if self._memory is None:
            self._memory = self.agent.initial_memory(self.params, batch)
        step = TimeStep(obs, jnp.zeros(batch), jnp.ones(batch), first, jnp.zeros(batch, bool), {} if legal is None else {"legal": jnp.asarray(legal)})  # fmt: skip
        self._key, key = jax.random.split(self._key)
        action, self._memory = act(self.agent, self.params, self._memory, step, key, self._explore)
        action = jax.tree.map(np.asarray, spaces.clip(self.spec.action, action))
        return jax.tree.map(lambda a: a[0], action) if one else action

    def save(self, path: str | Path) -> None:
        """Writes weights, statistics and the description of agent and spaces as one safetensors file."""
        from safetensors.numpy import save

        about = {"agent": describe(self.agent), "spec": describe(self.spec), "env": self.env}
        tensors = {name: np.asarray(x) for name, x in _named(self.params)}
        atomic_write(path, save(tensors, {"format": FORMAT, "policy": json.dumps(about)}))


def load(path: str | Path, *, agent: Agent | None = None) -> Policy:
    """The policy in a file that `Policy.save` wrote, or in a run's folder. Nothing in the file is executed.

    An agent with parts that are not Yozh's own (a torso of yours) cannot be described in a file: pass it as `agent`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    path = path / "policy.safetensors" if path.is_dir() else path
    require(path.is_file(), f"there is no policy at {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise YozhError(f"{path} is not a policy file: {error}") from None
    require(about.get("format") == FORMAT, f"{path} is not a policy of this version of Yozh ({FORMAT})")
    try:
        text = json.loads(about["policy"])
        spec = build(text["spec"])
        agent = build(text["agent"]) if agent is None else agent
    except (KeyError, TypeError, ValueError) as error:
        raise YozhError(f"{path}: its description cannot be read: {error}") from None
    require(isinstance(spec, Spec) and isinstance(agent, Agent), f"{path} does not describe a policy")
    shape = jax.eval_shape(lambda: agent.policy(agent.init(jax.random.key(0), spec)))
    leaves = []
    for name, expected in _named(shape):
        found = tensors.get(name)
        require(found is not None, f"{path} lacks {name}")
        same = found.shape == expected.shape and found.dtype == expected.dtype
        require(same, lambda f=found, n=name, e=expected: f"{path}: {n} is {f.dtype}{f.shape}, not {e.dtype}{e.shape}")
        leaves.append(jnp.asarray(found))
    return Policy(agent, jax.tree.unflatten(jax.tree.structure(shape), leaves), spec, text.get("env"))


def _named(params: PyTree) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    ]


def _axes(obs: Any) -> int:
    return np.ndim(jax.tree.leaves(obs)[0])
