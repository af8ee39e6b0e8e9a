"""Mirror-descent policy optimisation, on-policy (Tomar et al. 2022).

    θ_{k+1} ≈ argmax_θ  E[ r_t(θ) A_t ] − (1 / t_k) · E[ KL(π(· | s_t; θ) ‖ π(· | s_t; θ_k)) ]                   (eq. 9)
    r_t(θ) = π(a_t | s_t; θ) / π(a_t | s_t; θ_k)

by several steps of gradient ascent from θ_k: at the first of them the KL divergence has no gradient yet. If every state had weights
of its own, the solution would be π_{k+1} ∝ π_k exp(t_k A). Value loss and entropy bonus are added as in PPO.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from yozh.agents.base import State
from yozh.agents.estimators import GAE, Estimator
from yozh.agents.on_policy import OnPolicyAgent, Samples
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Constant, Counts, Linear, Schedule, schedule
from yozh.core import Experience, Report, Unroll, check_positive, leaf, require, static
from yozh.losses import explained_variance, squared, weighted_mean
from yozh.networks import Auto, Blueprint, Network
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest

SMALLEST = 1e-3
"""Of t: where a schedule ends at 0, the KL divergence would weigh infinitely much."""


class MDPO(OnPolicyAgent):
    """On-policy; any action space, masked or not, recurrent or not. Defaults are those of Yozh's PPO where a field says
    nothing else."""

    t: Schedule = schedule(Linear(1.0, 0.0))
    """t_k, the step size of mirror descent: how far a policy may go from the one before it, in nats for each unit of advantage."""
    learning_rate: Schedule = schedule(3e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = GAE(0.95)
    """What an action was worth: `GAE(lam)`, `NStep(n)` or `VTrace()`."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """Of the value loss."""
    entropy_coefficient: Schedule = schedule(0.0)
    """Of the entropy bonus."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    shared: bool = static(False)
    """One trunk for policy and value."""
    squash: bool = static(False)
    """Continuous actions: squash into the bounds by tanh, instead of clipping what is carried out."""
    normalise_advantage: bool = static(True)
    """Within each minibatch: t then counts in deviations of the advantage."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    scale_rewards: bool = static(False)
    """Divide rewards by the running deviation of the discounted return, clip to ±10."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights besides: true, `Factorised(sigma)` or `Independent(sigma)`."""
    epochs: int = static(10)
    """Passes over each unroll."""
    minibatches: int = static(4)
    """Updates in one epoch."""
    streams: int = static(8)
    """Parallel environments."""
    length: int = static(128)
    """Steps T of each stream in one unroll."""

    def __check_init__(self) -> None:
        if isinstance(self.t, Constant):
            check_positive("mdpo: t", self.t.value)
        require(
            self.epochs * self.minibatches > 1,
            "mdpo: one update is plain gradient ascent, since the KL divergence has no gradient where it begins; more epochs or minibatches",
        )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest(), max_lag=1)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=1e-5)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        noise = self.noise(state, batch.version[0])
        state, samples = self.samples(state, batch, noise, policy=True)

        def update(state: State, minibatch: Samples) -> tuple[State, Report]:
            return self.descend(state, minibatch, noise)

        state, reports = samples.passes(update, state, self.epochs, self.minibatches, key)
        metrics = jax.tree.map(jnp.mean, reports.metrics)
        metrics["explained_variance"] = explained_variance(samples.value, samples.target, samples.weight)
        return state, Report(metrics, reports.finite.all())

    def loss(self, net: Network, state: State, batch: Samples, key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        policy, value = self.look(net, batch, key)
        ratio = jnp.exp(policy.log_prob(batch.action) - batch.log_prob)
        gain = weighted_mean(ratio * self.advantage(batch), batch.weight)
        kl = weighted_mean(policy.kl(batch.policy), batch.weight)
        value_loss = weighted_mean(squared(value, batch.target), batch.weight)
        entropy = weighted_mean(policy.entropy(), batch.weight)
        policy_loss = kl / jnp.maximum(self.t(state.counts), SMALLEST) - gain
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient(state.counts) * entropy
        return loss, ({"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "kl": kl}, None)
