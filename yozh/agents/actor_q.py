"""What the methods with a policy and a value of every action share: the network, acting, and what acting leaves behind."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks, spaces
from yozh.agents.base import GradientAgent, Params, State
from yozh.agents.sequences import MEMORY, memory_before
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.distributions import Categorical
from yozh.networks import ActorCritic, Blueprint
from yozh.networks.cores import CoreBlueprint

BEHAVIOUR = "log_probs"
"""The name under which an unroll's extras hold the log-probabilities of all actions, as they were when one was drawn."""


class ActorQAgent(GradientAgent):
    """Fields that subclasses declare, and what follows from them. Discrete actions, masked or not."""

    torso: eqx.AbstractVar[Blueprint]
    core: eqx.AbstractVar[CoreBlueprint | None]
    shared: eqx.AbstractVar[bool]

    def network(self, spec: Spec, key: Key[Array, ""]) -> ActorCritic:
        if not isinstance(spec.action, spaces.Discrete):
            name = type(self).__name__.lower()
            raise YozhError(
                f"{name} takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those"
            )
        return ActorCritic(self.torso, self.core, spec, key, shared=self.shared, actions=spec.action.n)

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        (policy, _), after = self.forward(params, memory, step)
        extras = {BEHAVIOUR: policy.log_probs} | ({} if self.core is None else {MEMORY: memory})
        return policy.sample(key) if explore else policy.mode(), extras, after

    def forward(self, params: Params | State, memory: PyTree, step: TimeStep) -> tuple[PyTree, PyTree]:
        """Policy and value of a batch of steps `[B, ...]`, and the memory after them."""
        (policy, q), memory = super().forward(params, memory, step)
        return (policy, expected(policy, q)), memory

    def unroll(self, net: ActorCritic, state: State, batch: Unroll) -> tuple[Categorical, Float[Array, "T1 B actions"]]:
        """Policy and values at every step of a batch, from the memory that acting had before the first."""
        memory = net.initial_memory() if self.core is None else memory_before(batch)
        obs, legal = self.see(state, batch.step), batch.step.extras.get("legal")
        return networks.unroll(net, obs, memory, batch.step.first, legal)[0]


def expected(policy: Categorical, q: Float[Array, "*b actions"]) -> Float[Array, "*b"]:
    """`sum_a pi(a|s) Q(s, a)`."""
    return jnp.sum(jnp.exp(policy.log_probs) * q, -1)


def with_target(state: State) -> State:
    """A fresh state whose target network is a copy of the other one."""
    copy: Any = jax.tree.map(jnp.copy, state.net)
    return eqx.tree_at(lambda s: s.target, state, copy, is_leaf=lambda x: x is None)
