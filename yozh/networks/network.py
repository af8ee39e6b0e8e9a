"""A whole network: embed the observation, recur over time, read the answer.

Networks are written for one element and one step; `forward` (a batch of steps) and `unroll` (a batch of sequences)
lift them. Only `recur` runs step by step, so an unroll embeds and reads all its steps at once.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh import spaces
from yozh.core import Spec, require
from yozh.distributions import Distribution, masked
from yozh.networks.cores import CoreBlueprint
from yozh.networks.heads import PolicyHead, QHead
from yozh.networks.layers import Linear, linear
from yozh.networks.torsos import Blueprint, features


class Network(eqx.Module):
    """One signature for feed-forward and recurrent networks: `net(obs, memory, legal) -> (outputs, memory)`."""

    @abc.abstractmethod
    def embed(self, obs: PyTree) -> PyTree: ...

    @abc.abstractmethod
    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]: ...

    @abc.abstractmethod
    def read(self, x: PyTree, legal: Bool[Array, " n"] | None) -> PyTree: ...

    @abc.abstractmethod
    def initial_memory(self) -> PyTree:
        """Memory at the start of an episode; `()` where there is none."""

    def __call__(self, obs: PyTree, memory: PyTree, legal: Bool[Array, " n"] | None = None) -> tuple[PyTree, PyTree]:
        x, memory = self.recur(self.embed(obs), memory)
        return self.read(x, legal), memory


class Trunk(eqx.Module):
    """A torso and, if the network is recurrent, a core."""

    torso: Any
    core: Any

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""]):
        k, c = jax.random.split(key)
        self.torso = torso.build(spec.observation, k)
        self.core = None if core is None else core.build(features(self.torso, spec.observation), c)

    def recur(self, x: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return (x, memory) if self.core is None else self.core(x, memory)

    def initial_memory(self) -> PyTree:
        return () if self.core is None else self.core.initial_memory()

    def size(self, spec: Spec) -> int:
        size = features(self.torso, spec.observation)
        return (
            size if self.core is None else jax.eval_shape(self.core, jnp.zeros(size), self.initial_memory())[0].shape[0]
        )


class PolicyNetwork(Network):
    """A policy alone."""

    trunk: Trunk
    policy: PolicyHead

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *, squash: bool = False):  # fmt: skip
        t, p = jax.random.split(key)
        self.trunk = Trunk(torso, core, spec, t)
        self.policy = PolicyHead(spec.action, self.trunk.size(spec), p, init=torso.heads, squash=squash, log_std=0.0)

    def embed(self, obs: PyTree) -> Array:
        return self.trunk.torso(obs)

    def recur(self, x: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return self.trunk.recur(x, memory)

    def read(self, x: Array, legal: Bool[Array, " n"] | None) -> Distribution:
        return self.policy(x, legal)

    def initial_memory(self) -> PyTree:
        return self.trunk.initial_memory()


class ActorCritic(Network):
    """A policy and a value, or one of every action, each with its own trunk, or both on the actor's."""

    actor: Trunk
    critic: Trunk | None
    policy: PolicyHead
    value: Linear
    actions: int | None = eqx.field(static=True)

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *,
                 shared: bool, squash: bool = False, log_std: float = 0.0, actions: int | None = None):  # fmt: skip
        """`actions`: so many that each has a value; the second answer is then `[actions]`."""
        require(
            not (spec.legal and isinstance(spec.action, spaces.Box)),
            lambda: f"a mask forbids choices, and actions of {spaces.describe(spec.action)} are none",
        )
        a, c, p, v = jax.random.split(key, 4)
        self.actor = Trunk(torso, core, spec, a)
        self.critic = None if shared else Trunk(torso, core, spec, c)
        size = self.actor.size(spec)
        self.policy = PolicyHead(spec.action, size, p, init=torso.heads, squash=squash, log_std=log_std)
        self.value = linear(size, actions or 1, v, init=torso.heads, gain=1.0)
        self.actions = actions

    def embed(self, obs: PyTree) -> PyTree:
        x = self.actor.torso(obs)
        return x, x if self.critic is None else self.critic.torso(obs)

    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        a, memory_a = self.actor.recur(x[0], memory[0])
        if self.critic is None:
            return (a, a), (memory_a, ())
        c, memory_c = self.critic.recur(x[1], memory[1])
        return (a, c), (memory_a, memory_c)

    def read(self, x: PyTree, legal: Bool[Array, " n"] | None) -> tuple[Distribution, Float[Array, "*actions"]]:
        value = self.value(x[1])
        return self.policy(x[0], legal), value[0] if self.actions is None else value

    def initial_memory(self) -> PyTree:
        return self.actor.initial_memory(), () if self.critic is None else self.critic.initial_memory()


class QNetwork(Network):
    """The value of every action, or some numbers for each."""

    trunk: Trunk
    head: QHead

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *,
                 actions: int, dueling: bool, outputs: int | None = None, init: str = "uniform"):  # fmt: skip
        """`outputs`: numbers for each action; the answer is then `[actions, outputs]`."""
        t, h = jax.random.split(key)
        self.trunk = Trunk(torso, core, spec, t)
        self.head = QHead(actions, self.trunk.size(spec), h, init=init, dueling=dueling, outputs=outputs)

    def embed(self, obs: PyTree) -> Array:
        return self.trunk.torso(obs)

    def recur(self, x: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return self.trunk.recur(x, memory)

    def read(self, x: Array, legal: Bool[Array, " n"] | None) -> Float[Array, "actions *outputs"]:
        return masked_values(self.head(x), legal)

    def initial_memory(self) -> PyTree:
        return self.trunk.initial_memory()


def masked_values(q: Float[Array, "actions *outputs"], legal: Bool[Array, " actions"] | None) -> Float[Array, "actions *outputs"]:  # fmt: skip
    """What the head says of the legal actions, and the lowest number there is for the others."""
    if legal is None:
        return q
    return masked(q, jnp.broadcast_to(legal.reshape(-1, *[1] * (q.ndim - 1)), q.shape))


def forward(net: Network, obs: PyTree, memory: PyTree, first: Bool[Array, " B"], legal: Bool[Array, "B n"] | None = None) -> tuple[PyTree, PyTree]:  # fmt: skip
    """One step of B streams, `[B, ...]`: memory is cleared where an episode begins, then read."""
    return jax.vmap(net)(obs, _cleared(net, memory, first), legal)


def forward_each(nets: Network, obs: PyTree, memory: PyTree, first: Bool[Array, " B"], legal: Bool[Array, "B n"] | None = None) -> tuple[PyTree, PyTree]:  # fmt: skip
    """One step of B streams, each with a network of its own: their weights lead with `[B]`."""
    return jax.vmap(lambda net, *now: net(*now))(nets, obs, _cleared(_one_of(nets), memory, first), legal)


def _one_of(nets: Network) -> Network:
    return jax.tree.map(lambda x: x[0], nets)


def unroll(net: Network, obs: PyTree, memory: PyTree, first: Bool[Array, "T B"], legal: Bool[Array, "T B n"] | None = None) -> tuple[PyTree, PyTree]:  # fmt: skip
    """T steps of B streams, `[T, B, ...]`, from the memory `[B, ...]` before the first."""
    x = jax.vmap(jax.vmap(net.embed))(obs)
    if jax.tree.leaves(memory):

        def step(memory: PyTree, now: tuple[PyTree, Array]) -> tuple[PyTree, PyTree]:
            y, memory = jax.vmap(net.recur)(now[0], _cleared(net, memory, now[1]))
            return memory, y

        memory, x = jax.lax.scan(step, memory, (x, first))
    else:
        x, _ = jax.vmap(jax.vmap(lambda y: net.recur(y, memory)))(x)
    return jax.vmap(jax.vmap(net.read))(x, legal), memory


def initial_memory(net: Network, batch: int) -> PyTree:
    """The memory of B streams at the start of their episodes, `[B, ...]`."""
    return jax.tree.map(lambda m: jnp.broadcast_to(m[None], (batch, *m.shape)), net.initial_memory())


def _cleared(net: Network, memory: PyTree, first: Bool[Array, " B"]) -> PyTree:
    fresh = initial_memory(net, first.shape[0])
    return jax.tree.map(lambda m, f: jnp.where(first.reshape(-1, *[1] * (m.ndim - 1)), f, m), memory, fresh)
