"""Which action it was, seen from what came of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh.core import Spec
from yozh.distributions import Categorical
from yozh.losses import squash
from yozh.networks.cores import CoreBlueprint
from yozh.networks.layers import Linear, linear
from yozh.networks.network import ActorCritic, Network, Trunk
from yozh.networks.torsos import Blueprint


class Seen(eqx.Module):
    """What a `Hindsight` says of one step."""

    policy: Categorical
    value: Float[Array, "*b"]
    earned: Float[Array, "*b actions"]
    """The reward expected of each action."""
    features: Float[Array, "*b features"]
    """What hindsight takes of the step, as the place where an action was chosen or as its outcome."""


class Hindsight(Network):
    """An actor-critic that also says, for two steps or for a step and a return, how likely each action at the first was once the second
    is known. Its answer begins as the policy: outcomes then tell nothing."""

    actor_critic: ActorCritic
    trunk: Trunk
    earned: Linear
    chosen: Linear
    outcome: Linear
    answer: Linear
    returns: bool = eqx.field(static=True)

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *,
                 actions: int, units: int, returns: bool):  # fmt: skip
        """`returns`: outcomes are returns, not steps."""
        a, t, e, c, o, w = jax.random.split(key, 6)
        self.actor_critic = ActorCritic(torso, core, spec, a, shared=False)
        self.trunk = Trunk(torso, core, spec, t)
        size = self.trunk.size(spec)
        self.earned = linear(size, actions, e, init=torso.heads, gain=0.01)
        self.chosen = linear(size, units, c, init=torso.heads, gain=1.0)
        self.outcome = linear(1 if returns else size, units, o, init=torso.heads, gain=1.0)
        zero = linear(units, actions, w, init="orthogonal", gain=1.0)
        self.answer = eqx.tree_at(lambda m: m.weight, zero, jnp.zeros_like(zero.weight))
        self.returns = returns

    def embed(self, obs: PyTree) -> PyTree:
        return self.actor_critic.embed(obs), self.trunk.torso(obs)

    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        ours, first = self.actor_critic.recur(x[0], memory[0])
        seen, second = self.trunk.recur(x[1], memory[1])
        return (ours, seen), (first, second)

    def read(self, x: PyTree, legal: Bool[Array, " n"] | None) -> Seen:
        policy, value = self.actor_critic.read(x[0], legal)
        return Seen(policy, value, self.earned(x[1]), x[1])

    def initial_memory(self) -> PyTree:
        return self.actor_critic.initial_memory(), self.trunk.initial_memory()

    def log_hindsight(self, log_probs: Float[Array, "... n"], features: Float[Array, "... f"], outcome: Float[Array, "..."]) -> Float[Array, "... n"]:  # fmt: skip
        """`log h(. | x, outcome)` from the log-probabilities and features of `x`; `outcome` are features `[..., f]`, or returns
        `[...]`. Axes of size 1 are stretched: all pairs of steps at once."""
        if self.returns:
            outcome = squash(outcome, 1e-3)[..., None]
        units = jnp.tanh(_each(self.chosen, features) + _each(self.outcome, outcome))
        return jax.nn.log_softmax(log_probs + _each(self.answer, units))


def _each(layer: Linear, x: Float[Array, "... f"]) -> Float[Array, "... g"]:
    return jnp.vectorize(layer, signature="(f)->(g)")(x)
