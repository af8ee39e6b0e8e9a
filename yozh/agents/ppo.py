"""Proximal policy optimisation (Schulman et al. 2017).

    L(θ) = −E[ min( r_t(θ) A_t, clip(r_t(θ), 1 − ε, 1 + ε) A_t ) ] + c_v · L_v(θ) − c_e · E[ H(π(· | s_t; θ)) ]   (eq. 7, 9)
    r_t(θ) = π(a_t | s_t; θ) / π(a_t | s_t; θ_old)

Each unroll is gone through `epochs` times in shuffled minibatches; a recurrent policy keeps its sequences whole and rebuilds
its memory in every update (Huang et al. 2022 list the details; each is a field here).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks
from yozh.agents.actor_critic import ActorCriticAgent, stirred
from yozh.agents.base import State
from yozh.agents.estimators import GAE, Estimator
from yozh.agents.minibatches import Sequences, check_sizes
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Report, TimeStep, Unroll, leaf, static
from yozh.losses import clipped_value, explained_variance, kl_k3, normalised, ppo_clip, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class Samples(Sequences):
    """What one minibatch needs, `[T, B, ...]`; without recurrence time is folded into B."""

    step: TimeStep
    """Its observation is normalised already."""
    action: PyTree
    log_prob: Float[Array, "T B"]
    value: Float[Array, "T B"]
    advantage: Float[Array, "T B"]
    target: Float[Array, "T B"]
    weight: Float[Array, "T B"]
    memory: PyTree
    """`[B, ...]`"""


class PPO(ActorCriticAgent):
    """On-policy; any action space, masked or not, recurrent or not. Defaults are those of Stable-Baselines3 2.9 unless a
    field says otherwise."""

    learning_rate: Schedule = schedule(3e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = GAE(0.95)
    """What an action was worth: `GAE(lam)`, `NStep(n)` or `VTrace()`."""
    clip: Schedule = schedule(0.2)
    """ε: how far the ratio may go from 1 before it earns nothing."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """c_v."""
    entropy_coefficient: Schedule = schedule(0.0)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    adam_epsilon: Float[Array, ""] = leaf(1e-5)
    target_kl: Float[Array, ""] | None = eqx.field(default=None, converter=lambda x: None if x is None else jnp.asarray(x, jnp.float32))  # fmt: skip
    """Leave the rest of the unroll's updates out once the KL to the acting policy passes 1.5 times this; None never does."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    shared: bool = static(False)
    """One trunk for policy and value."""
    squash: bool = static(False)
    """Continuous actions: squash into the bounds by tanh, instead of clipping what is carried out."""
    clip_value: bool = static(False)
    """Clip the value loss as the policy's (CleanRL does, Stable-Baselines3 does not)."""
    normalise_advantage: bool = static(True)
    """Within each minibatch."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
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
        check_sizes(
            "ppo",
            streams=self.streams,
            length=self.length,
            epochs=self.epochs,
            minibatches=self.minibatches,
            whole=self.core is not None,
        )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest(), max_lag=1)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=self.adam_epsilon)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        noise = self.noise(state, batch.version[0])
        state, samples = self.samples(state, batch, noise)

        def update(carry: tuple[State, Array], minibatch: Samples) -> tuple[tuple[State, Array], Report]:
            state, go = carry
            new, report = self.descend(state, minibatch, noise)
            if self.target_kl is not None:
                new = jax.tree.map(lambda n, o: jnp.where(go, n, o), new, state)
                go = go & (report.metrics["kl"] <= 1.5 * self.target_kl)
            return (new, go), report

        def epoch(carry: tuple[State, Array], key: Key[Array, ""]) -> tuple[tuple[State, Array], Report]:
            return jax.lax.scan(update, carry, samples.shuffled(self.minibatches, key))

        (state, _), reports = jax.lax.scan(epoch, (state, jnp.ones((), bool)), jax.random.split(key, self.epochs))
        metrics = jax.tree.map(jnp.mean, reports.metrics)
        metrics["explained_variance"] = explained_variance(samples.value, samples.target, samples.weight)
        return state, Report(metrics, reports.finite.all())

    def samples(self, state: State, batch: Unroll, noise: Key[Array, ""] | None) -> tuple[State, Samples]:
        """What an unroll teaches, under the weights that acted."""
        step = eqx.tree_at(lambda s: s.obs, batch.step, self.see(state, batch.step))
        memory, net = batch.memory[0], stirred(state.net, noise)
        (_, value), _ = networks.unroll(net, step.obs, memory, step.first, step.extras.get("legal"))
        state, reward = self.rewards(state, batch)
        worth = self.estimator(batch, reward, value, self.gamma)
        past = dict(step=step, action=batch.action, log_prob=batch.extras["log_prob"], value=value)
        past = jax.tree.map(lambda x: x[:-1], past)
        fresh = Samples(**past, advantage=worth.advantage, target=worth.target, weight=worth.weight, memory=memory)
        return state, fresh.apart()

    def loss(
        self, net: ActorCritic, state: State, batch: Samples, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Any]:
        legal = batch.step.extras.get("legal")
        (policy, value), _ = networks.unroll(stirred(net, key), batch.step.obs, batch.memory, batch.step.first, legal)
        clip = self.clip(state.counts)
        advantage = normalised(batch.advantage, batch.weight) if self.normalise_advantage else batch.advantage
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        policy_loss = weighted_mean(ppo_clip(ratio, advantage, clip), batch.weight)
        errors = (
            clipped_value(value, batch.value, batch.target, clip) if self.clip_value else squared(value, batch.target)
        )
        value_loss = weighted_mean(errors, batch.weight)
        entropy = weighted_mean(policy.entropy(), batch.weight)
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient(state.counts) * entropy
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": weighted_mean(kl_k3(log_ratio), batch.weight),
            "clip_fraction": weighted_mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32), batch.weight),
        }
        return loss, (metrics, None)
