"""Proximal policy optimisation (Schulman et al. 2017).

    L(θ) = −E[ min( r_t(θ) A_t, clip(r_t(θ), 1 − ε, 1 + ε) A_t ) ] + c_v · L_v(θ) − c_e · E[ H(π(· | s_t; θ)) ]   (eq. 7, 9)
    r_t(θ) = π(a_t | s_t; θ) / π(a_t | s_t; θ_old)

With `clip=None` the first term is −E[ r_t(θ) A_t ]; with `penalty` the loss has one term more (eq. 8):

    β · E[ KL(π(· | s_t; θ_old) ‖ π(· | s_t; θ)) ]

Each unroll is gone through `epochs` times in shuffled minibatches; a recurrent policy keeps its sequences whole and rebuilds
its memory in every update (Huang et al. 2022 list the details; each is a field here).
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
from yozh.agents.penalties import Penalty, as_penalty
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Constant, Counts, Schedule, as_schedule, schedule
from yozh.core import Experience, Report, Spec, Unroll, check_positive, concrete, leaf, require, static
from yozh.losses import clipped_value, explained_variance, kl_k3, ppo_clip, ppo_dual_clip, squared, weighted_mean
from yozh.networks import Auto, Blueprint, Network
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


def _optional(x: Any) -> Any:
    return None if x is None else jnp.asarray(x, jnp.float32)


class PPO(OnPolicyAgent):
    """On-policy; any action space, masked or not, recurrent or not. Defaults are those of Stable-Baselines3 2.9 unless a
    field says otherwise."""

    learning_rate: Schedule = schedule(3e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = GAE(0.95)
    """What an action was worth: `GAE(lam)`, `NStep(n)` or `VTrace()`."""
    clip: Schedule | None = eqx.field(default=0.2, converter=lambda x: None if x is None else as_schedule(x))
    """ε: how far the ratio may go from 1 before it earns nothing; None lets it go."""
    dual_clip: Float[Array, ""] | None = eqx.field(default=None, converter=_optional)
    """The largest ratio that counts against an action of negative advantage, above 1 (Ye et al. 2020: 3); None sets no limit."""
    penalty: Penalty | None = eqx.field(default=None, converter=as_penalty)
    """β of the KL divergence to the policy that acted: `Adaptive(target)` or a number; with the clip or, `clip=None`, in its
    place."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """c_v."""
    entropy_coefficient: Schedule = schedule(0.0)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    adam_epsilon: Float[Array, ""] = leaf(1e-5)
    target_kl: Float[Array, ""] | None = eqx.field(default=None, converter=_optional)
    """Leave the rest of the unroll's updates out once the KL to the acting policy, on a minibatch before its update, passes 1.5 times
    this; that update is the first that is not applied. None leaves none out."""
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
        name, most = type(self).__name__.lower(), self.dual_clip
        for field, asked in (("dual_clip", most is not None), ("clip_value", self.clip_value)):
            require(self.clip is not None or not asked, f"{name}: {field} goes with a clip, and clip is none")
        if isinstance(self.clip, Constant):
            check_positive(f"{name}: clip", self.clip.value)
        if self.target_kl is not None:
            check_positive(f"{name}: target_kl", self.target_kl)
        require(
            most is None or not concrete(most) or float(most) > 1,
            lambda: f"{name}: dual_clip must be above 1, not {most}",
        )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest(), max_lag=1)

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        beta = None if self.penalty is None else self.penalty.beta
        return eqx.tree_at(lambda s: s.penalty, super().init(key, spec), beta, is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=self.adam_epsilon)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        noise = self.noise(state, batch.version[0])
        state, samples = self.samples(state, batch, noise, policy=self.penalty is not None)

        def update(carry: tuple[State, Array], minibatch: Samples) -> tuple[tuple[State, Array], Report]:
            state, go = carry
            new, report = self.descend(state, minibatch, noise)
            if self.target_kl is not None:
                go = go & (report.metrics["kl"] <= 1.5 * self.target_kl)
                new = jax.tree.map(lambda n, o: jnp.where(go, n, o), new, state)
            return (new, go), report

        start = (state, jnp.ones((), bool))
        (state, _), reports = samples.passes(update, start, self.epochs, self.minibatches, key)
        metrics = jax.tree.map(jnp.mean, reports.metrics)
        metrics["explained_variance"] = explained_variance(samples.value, samples.target, samples.weight)
        if self.penalty is not None:
            kl = weighted_mean(samples.policy.kl(self.look(state.net, samples, noise)[0]), samples.weight)
            state = eqx.tree_at(lambda s: s.penalty, state, self.penalty.after(state.penalty, kl))
            metrics |= {"kl_after": kl, "penalty": state.penalty}
        return state, Report(metrics, reports.finite.all())

    def loss(
        self, net: Network, state: State, batch: Samples, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, ""], Any]:
        policy, value = self.look(net, batch, key)
        clip = None if self.clip is None else self.clip(state.counts)
        advantage = self.advantage(batch)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        policy_loss = weighted_mean(self.surrogate(ratio, advantage, clip), batch.weight)
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
        }
        if clip is not None:
            outside = (jnp.abs(ratio - 1.0) > clip).astype(jnp.float32)
            metrics["clip_fraction"] = weighted_mean(outside, batch.weight)
        if state.penalty is not None:
            loss = loss + state.penalty * weighted_mean(batch.policy.kl(policy), batch.weight)
        return loss, (metrics, None)

    def surrogate(self, ratio: Float[Array, "T B"], advantage: Float[Array, "T B"], clip: Float[Array, ""] | None) -> Float[Array, "T B"]:  # fmt: skip
        """What is to be minimised for each action."""
        if clip is None:
            return -ratio * advantage
        if self.dual_clip is None:
            return ppo_clip(ratio, advantage, clip)
        return ppo_dual_clip(ratio, advantage, clip, self.dual_clip)
