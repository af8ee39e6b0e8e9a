"""Advantage actor-critic, synchronous (Mnih et al. 2016, without the threads).

    L(θ) = −E[ A_t · log π(a_t | s_t; θ) ] + c_v · E[ ½ (G_t − V(s_t; θ))² ] − c_e · E[ H(π(· | s_t; θ)) ]

The estimator says what G_t is, and A_t = G_t − V(s_t) carries no gradient (Mnih et al. 2016, section 4).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from yozh import networks
from yozh.agents.actor_critic import ActorCriticAgent, critic_scaled, stirred
from yozh.agents.base import State
from yozh.agents.estimators import Estimator, NStep
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Unroll, check_not_negative, leaf, require, static
from yozh.losses import explained_variance, policy_gradient, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class A2C(ActorCriticAgent):
    """On-policy; any action space, masked or not, recurrent or not. Defaults are those of Stable-Baselines3 2.9 unless a
    field says otherwise."""

    learning_rate: Schedule = schedule(7e-4)
    """Of RMSProp."""
    critic_rate: Float[Array, ""] = leaf(1.0)
    """Of the critic, in units of `learning_rate`; with a shared trunk, of its last layer alone. At 0 the critic stays as it was drawn."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = NStep(5)
    """What an action was worth: `NStep(n)`, `GAE(lam)` or `VTrace()`."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """c_v."""
    entropy_coefficient: Schedule = schedule(0.0)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    shared: bool = static(False)
    """One trunk for policy and value."""
    squash: bool = static(False)
    """Continuous actions: squash into the bounds by tanh, instead of clipping what is carried out."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    scale_rewards: bool = static(False)
    """Divide rewards by the running deviation of the discounted return, clip to ±10."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights besides: true, `Factorised(sigma)` or `Independent(sigma)`."""
    streams: int = static(8)
    """Parallel environments (1 in Stable-Baselines3; 8 in its zoo)."""
    length: int = static(5)
    """Steps T of each stream in one update."""

    def __check_init__(self) -> None:
        for name in ("streams", "length"):
            require(getattr(self, name) > 0, f"a2c: {name} must be positive, not {getattr(self, name)}")
        check_not_negative("a2c: critic_rate", self.critic_rate)

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest())

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.rmsprop(self.learning_rate(counts), decay=0.99, eps=1e-5)

    def pace(self, updates: ActorCritic) -> ActorCritic:
        return critic_scaled(updates, self.critic_rate)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Any]:
        # The reward statistics move first, the network then sees rewards on the new scale.
        state, reward = self.rewards(state, batch)
        return self.descend(state, (batch, reward), self.noise(state, batch.version[0]))

    def loss(self, net: ActorCritic, state: State, batch: tuple[Unroll, Array], key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: an unroll and its rewards `[T+1, B]`."""
        u, reward = batch
        legal = u.step.extras.get("legal")
        (policy, value), _ = networks.unroll(
            stirred(net, key), self.see(state, u.step), u.memory[0], u.step.first, legal
        )
        log_prob, entropy = policy.log_prob(u.action)[:-1], policy.entropy()[:-1]
        ratio = jnp.exp(log_prob - u.extras["log_prob"][:-1])
        worth = jax.lax.stop_gradient(self.estimator(u, reward, value, self.gamma, ratio))
        policy_loss = weighted_mean(policy_gradient(log_prob, worth.advantage), worth.weight)
        value_loss = weighted_mean(squared(value[:-1], worth.target), worth.weight)
        entropy = weighted_mean(entropy, worth.weight)
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient(state.counts) * entropy
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "value": jnp.mean(value)}
        metrics["explained_variance"] = explained_variance(value[:-1], worth.target, worth.weight)
        return loss, (metrics, None)
