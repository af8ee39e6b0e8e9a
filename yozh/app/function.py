"""A policy as one function of named arrays, with nothing in it that acting does not need."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var
from jaxtyping import Array, PyTree

from yozh import spaces
from yozh.agents.actor_critic import ActorCriticAgent
from yozh.agents.base import GradientAgent
from yozh.core import TimeStep
from yozh.distributions import Distribution
from yozh.networks.torsos import flat_size
from yozh.runners.policy import Policy

Arrays = dict[str, Any]


class Function:
    """A policy as `function(inputs) -> outputs`, both dictionaries of arrays that lead with `[B]`.

    Memory on which no action depends, such as a critic's, is left out.
    """

    inputs: dict[str, jax.ShapeDtypeStruct]
    """Of one stream, without the leading axis."""
    outputs: tuple[str, ...]

    def __init__(self, policy: Policy):
        self.policy = policy
        spec = policy.spec
        structs = spaces.map_leaves(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), spec.observation)
        self._memory = jax.eval_shape(lambda: policy.agent.initial_memory(policy.params, 1))
        leaves = jax.tree.leaves(self._memory)
        self._kept = list(range(len(leaves)))
        self.inputs = named("obs", structs)
        if spec.legal:
            self.inputs["legal"] = jax.ShapeDtypeStruct((flat_size(spec.action),), bool)
        given = self.inputs
        memory = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves]
        if memory:
            self._take(given | {"first": jax.ShapeDtypeStruct((), bool)}, memory)
            alive = self._alive()
            self._kept = sorted(int(n.partition(".")[2]) for n in alive if n.startswith("memory."))
            given = given | ({"first": self.inputs["first"]} if "first" in alive else {})
        self._take(given, [memory[i] for i in self._kept])

    def __call__(self, given: Arrays) -> Arrays:
        agent, params, spec = self.policy.agent, self.policy.params, self.policy.spec
        obs = jax.tree.unflatten(
            jax.tree.structure(spaces.zeros(spec.observation)),
            [x for name, x in given.items() if name.partition(".")[0] == "obs"],
        )
        batch = jax.tree.leaves(obs)[0].shape[0]
        fresh = jnp.zeros(batch)
        legal = {"legal": given["legal"]} if spec.legal else {}
        step = TimeStep(obs, fresh, fresh + 1, given.get("first", fresh > 0), fresh > 0, legal)
        leaves, tree = jax.tree.flatten(self._memory)
        memory = [jnp.zeros((batch, *x.shape[1:]), x.dtype) for x in leaves]
        for place, i in enumerate(self._kept):
            memory[i] = given[f"memory.{place}"]
        action, answer, after = _act(agent, params, jax.tree.unflatten(tree, memory), step, spec.action)
        after = jax.tree.leaves(after)
        kept = {f"memory_out.{place}": after[i] for place, i in enumerate(self._kept)}
        return named("action", spaces.clip(spec.action, action)) | answer | kept

    def flat(self, *given: Array) -> tuple[Array, ...]:
        """The same of a sequence of arrays, in the order of `inputs` and `outputs`."""
        found = self(dict(zip(self.inputs, given, strict=True)))
        self.outputs = tuple(found)
        return tuple(found.values())

    def structs(self, batch: Any) -> Arrays:
        return {name: jax.ShapeDtypeStruct((batch, *s.shape), s.dtype) for name, s in self.inputs.items()}

    def _take(self, given: Arrays, memory: list[Any]) -> None:
        self.inputs = given | {f"memory.{i}": s for i, s in enumerate(memory)}
        self._jaxpr = jax.make_jaxpr(self.flat)(*self.structs(2).values()).jaxpr

    def _alive(self) -> set[str]:
        """Names of the inputs on which an action depends, at once or through memory."""
        wanted = {name for name in self.outputs if not name.startswith("memory_out.")}
        while True:
            alive = _needs(self._jaxpr, [name in wanted for name in self.outputs])
            names = {name for name, needed in zip(self.inputs, alive, strict=True) if needed}
            also = {f"memory_out.{name.partition('.')[2]}" for name in names if name.startswith("memory.")}
            if also <= wanted:
                return names
            wanted |= also


def _act(
    agent: Any, params: PyTree, memory: PyTree, step: TimeStep, space: spaces.Space
) -> tuple[PyTree, Arrays, PyTree]:
    """The action, what the network said by name, and memory.

    Where the network's answer alone makes the action, it is taken from there: `act` also computes what learning wants.
    """
    if isinstance(agent, GradientAgent):
        inner, *rest = memory if isinstance(agent, ActorCriticAgent) else (memory,)
        answer, after = agent.forward(params, inner, step)
        after = (after, *rest) if isinstance(agent, ActorCriticAgent) else after
        said = answer[0] if isinstance(answer, tuple) else answer
        if isinstance(said, Distribution):
            return said.mode(), _fields(said), after
        if isinstance(space, spaces.Discrete) and getattr(said, "shape", ())[1:] == (space.n,):
            return jnp.argmax(said, -1).astype(jnp.int32), {"q": said}, after
    action, _, after = agent.act(params, memory, step, jax.random.key(0), explore=False)
    return action, {}, after


def _fields(said: Distribution) -> Arrays:
    paths = jax.tree_util.tree_leaves_with_path(said)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in paths}


def named(name: str, tree: PyTree) -> Arrays:
    """`{name: array}`, or `{name.KEY: array, ...}` of a Dict or Tuple."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(filter(None, (name, jax.tree_util.keystr(p, simple=True, separator=".")))): x for p, x in paths}


def _needs(jaxpr: Jaxpr, wanted: list[bool]) -> list[bool]:
    """Which inputs the wanted outputs depend on."""
    needed = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want and isinstance(v, Var)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(v for v in equation.invars if isinstance(v, Var))
    return [v in needed for v in jaxpr.invars]
