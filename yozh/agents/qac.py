"""Policy gradient with a learned Q: the critic says what the action was worth, not the return that followed.

    L(θ) = −E[ (Q(s_t, a_t) − V(s_t)) · log π(a_t | s_t; θ) ] + c_q · E[ ½ (G_t − Q(s_t, a_t; θ))² ] − c_e · E[ H(π(· | s_t; θ)) ]
    G_t = r_{t+1} + γ [ V(s_{t+1}) + λ (G_{t+1} − Q(s_{t+1}, a_{t+1})) ],   V = Σ_a π(a | s) Q(s, a)

(Sutton et al. 2000, theorem 1; Sutton & Barto 2018, section 13.2, "all-actions" apart.) With λ = 0 the critic learns by expected
SARSA, with `sarsa` by Q(s_{t+1}, a_{t+1}) in the place of V(s_{t+1}). No Q in the advantage carries a gradient. `worth="corrected"`
weighs log π by G_t − Q(s_t, a_t) instead and adds −Σ_a π(a | s_t; θ) Q(s_t, a) to the loss (Gu et al. 2017, eq. 6).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from yozh import returns
from yozh.agents.actor_critic import critic_scaled
from yozh.agents.actor_q import ActorQAgent, expected
from yozh.agents.base import State, check_store
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Unroll, check_not_negative, check_share, leaf, require, static
from yozh.losses import action_baseline, explained_variance, policy_gradient, select, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class QAC(ActorQAgent):
    """On-policy; discrete actions, masked or not, recurrent or not. Defaults are those of `A2C` unless a field says otherwise."""

    learning_rate: Schedule = schedule(7e-4)
    """Of RMSProp."""
    critic_rate: Float[Array, ""] = leaf(1.0)
    """Of the critic, in units of `learning_rate`; with a shared trunk, of its last layer alone."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    lam: Float[Array, ""] = leaf(0.9)
    """λ: how far the critic's errors are traced; 0 is one-step SARSA."""
    q_coefficient: Float[Array, ""] = leaf(0.5)
    """c_q."""
    entropy_coefficient: Schedule = schedule(0.01)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    shared: bool = static(False)
    """One trunk for policy and values."""
    worth: str = static("advantage")
    """What weighs log π(a|s): `"advantage"`: Q − V; `"value"`: Q, with the same mean and more variance; `"corrected"`: G − Q, the return less
    a baseline that knows the action, with Σ_a π Q beside it for the mean that this takes away. With λ = 1 that is unbiased whatever Q is."""
    sarsa: bool = static(False)
    """Bootstrap from the value of the next action drawn, not from the mean over all."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    streams: int = static(8)
    """Parallel environments."""
    length: int = static(5)
    """Steps T of each stream in one update."""

    def __check_init__(self) -> None:
        check_store("qac", self.experience.store)
        for name in ("streams", "length"):
            require(getattr(self, name) > 0, f"qac: {name} must be positive, not {getattr(self, name)}")
        require(
            self.worth in ("advantage", "value", "corrected"),
            f"qac: worth is advantage, value or corrected, not {self.worth!r}",
        )
        check_share("qac: lam", self.lam)
        check_not_negative("qac: critic_rate", self.critic_rate)

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest())

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.rmsprop(self.learning_rate(counts), decay=0.99, eps=1e-5)

    def pace(self, updates: ActorCritic) -> ActorCritic:
        return critic_scaled(updates, self.critic_rate)

    def loss(self, net: ActorCritic, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        policy, q = self.unroll(net, state, batch)
        said, value = select(q, batch.action), expected(policy, q)
        reward_t, discount_t, lambda_t, weight = returns.segment(batch, self.gamma, self.lam)
        fixed, next_t = jax.lax.stop_gradient((said, said if self.sarsa else value))
        target = returns.retrace(reward_t, discount_t, lambda_t, fixed[:-1], next_t[1:], jnp.ones_like(reward_t))
        log_prob = policy.log_prob(batch.action)[:-1]
        if self.worth == "corrected":
            correction = expected(policy, jax.lax.stop_gradient(q))[:-1]
            losses = action_baseline(log_prob, target, fixed[:-1], correction)
        else:
            worth = fixed - jax.lax.stop_gradient(value) if self.worth == "advantage" else fixed
            losses = policy_gradient(log_prob, worth[:-1])
        policy_loss = weighted_mean(losses, weight)
        q_loss = weighted_mean(squared(said[:-1], target), weight)
        entropy = weighted_mean(policy.entropy()[:-1], weight)
        loss = policy_loss + self.q_coefficient * q_loss - self.entropy_coefficient(state.counts) * entropy
        metrics = {"policy_loss": policy_loss, "value_loss": q_loss, "entropy": entropy, "value": jnp.mean(value)}
        metrics["explained_variance"] = explained_variance(said[:-1], target, weight)
        return loss, (metrics, None)
