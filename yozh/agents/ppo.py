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
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import networks
from yozh.agents.actor_critic import ActorCriticAgent
from yozh.agents.base import State
from yozh.agents.estimators import GAE, Estimator
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Report, TimeStep, Unroll, leaf, require, static
from yozh.losses import clipped_value, explained_variance, kl_k3, ppo_clip, squared, weighted_mean, weighted_variance
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class Samples(eqx.Module):
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
    """What an action was worth: `GAE(lam)` or `NStep(n)`."""
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
    epochs: int = static(10)
    """Passes over each unroll."""
    minibatches: int = static(4)
    """Updates in one epoch."""
    streams: int = static(8)
    """Parallel environments."""
    length: int = static(128)
    """Steps T of each stream in one unroll."""

    def __check_init__(self) -> None:
        for name in ("streams", "length", "epochs", "minibatches"):
            require(getattr(self, name) > 0, f"ppo: {name} must be positive, not {getattr(self, name)}")
        total, what = (self.streams * self.length, "steps") if self.core is None else (self.streams, "streams")
        require(
            total % self.minibatches == 0,
            f"ppo: {self.minibatches} minibatches do not divide {total} {what}; sequences of a recurrent policy stay whole",
        )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest(), max_lag=1)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=self.adam_epsilon)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        step = eqx.tree_at(lambda s: s.obs, batch.step, self.see(state, batch.step))
        memory = batch.memory[0]
        (_, value), _ = networks.unroll(state.net, step.obs, memory, step.first, step.extras.get("legal"))
        state, reward = self.rewards(state, batch)
        worth = self.estimator(batch, reward, value, self.gamma)
        past = jax.tree.map(lambda x: x[:-1], (step, batch.action, batch.extras["log_prob"], value))
        samples = Samples(*past, advantage=worth.advantage, target=worth.target, weight=worth.weight, memory=memory)
        if not jax.tree.leaves(memory):
            samples = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), samples)

        def update(carry: tuple[State, Array], minibatch: Samples) -> tuple[tuple[State, Array], Report]:
            state, go = carry
            new, report = self.descend(state, minibatch, key)
            if self.target_kl is not None:
                new = jax.tree.map(lambda n, o: jnp.where(go, n, o), new, state)
                go = go & (report.metrics["kl"] <= 1.5 * self.target_kl)
            return (new, go), report

        def epoch(carry: tuple[State, Array], key: Key[Array, ""]) -> tuple[tuple[State, Array], Report]:
            return jax.lax.scan(update, carry, self.shuffled(samples, key))

        (state, _), reports = jax.lax.scan(epoch, (state, jnp.ones((), bool)), jax.random.split(key, self.epochs))
        metrics = jax.tree.map(jnp.mean, reports.metrics)
        metrics["explained_variance"] = explained_variance(samples.value, samples.target, samples.weight)
        return state, Report(metrics, reports.finite.all())

    def shuffled(self, samples: Samples, key: Key[Array, ""]) -> Samples:
        """Minibatches `[M, T, B/M, ...]` that cover every sample once."""
        order = shuffle(key, samples.weight.shape[1]).reshape(self.minibatches, -1)
        parts = jax.tree.map(lambda x: jnp.moveaxis(x[:, order], 1, 0), eqx.tree_at(lambda s: s.memory, samples, ()))
        return eqx.tree_at(lambda s: s.memory, parts, jax.tree.map(lambda m: m[order], samples.memory))

    def loss(self, net: ActorCritic, state: State, batch: Samples, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        legal = batch.step.extras.get("legal")
        (policy, value), _ = networks.unroll(net, batch.step.obs, batch.memory, batch.step.first, legal)
        clip = self.clip(state.counts)
        advantage = _normalised(batch.advantage, batch.weight) if self.normalise_advantage else batch.advantage
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


def shuffle(key: Key[Array, ""], n: int) -> Int[Array, " n"]:
    """A random order of n numbers: random high bits are sorted, with the number itself in the low ones.

    One array to sort and no second to carry along: on a CPU a quarter of the time of `jax.random.permutation`.
    """
    low = (n - 1).bit_length()
    bits = jax.random.bits(key, (n,), jnp.uint32) >> low << low
    return (jnp.sort(bits | jnp.arange(n, dtype=jnp.uint32)) & jnp.uint32((1 << low) - 1)).astype(jnp.int32)


def _normalised(x: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, "T B"]:
    return (x - weighted_mean(x, weight)) / (jnp.sqrt(weighted_variance(x, weight)) + 1e-8)
