"""REINFORCE (Williams 1992) and the estimators that followed, on whole episodes of the present policy.

    ∇J ≈ 1/N Σ_i Σ_t ∇ log π(a_t | s_t; θ) · Ψ_t

The estimator says what Ψ is: the total return, the reward to go, either less a baseline, an advantage. A session is one
episode of one stream, N of them make an update. The loss is a cross-entropy in which every action taken is weighed by Ψ:

    L(θ) = − 1/N Σ_i Σ_t [ Ψ_t · log π(a_t | s_t; θ) + c_e · H(π(· | s_t; θ)) ] + c_v · ½ E[ (G_t − V(s_t; θ))² ]
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from yozh import networks
from yozh.agents.actor_critic import ActorCriticAgent, stirred
from yozh.agents.base import State, acquainted, check_horizon
from yozh.agents.estimators import Estimate, Estimator, RewardToGo, Value
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Report, Spec, Unroll, leaf, require, static
from yozh.distributions import Distribution
from yozh.losses import explained_variance, normalised, policy_gradient, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Episodes


class Regression(eqx.Module):
    """A value fitted to the batch's returns by an Adam of its own."""

    epochs: int = static(80)
    """Steps, each on the whole batch."""
    learning_rate: Float[Array, ""] = leaf(1e-3)

    def __check_init__(self) -> None:
        require(self.epochs > 0, f"fit.epochs must be positive, not {self.epochs}")

    @property
    def optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


class REINFORCE(ActorCriticAgent):
    """On-policy; any action space, masked or not, recurrent or not. The environment must say how long its episodes can get."""

    learning_rate: Schedule = schedule(1e-2)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = RewardToGo(Value())
    """Ψ: `TotalReturn(baseline)`, `RewardToGo(baseline)`, `NStep(n)`, `GAE(lam)` or `VTrace(lam)`; a baseline is `Nothing()`,
    `Mean()` or `Value()`. Each batch is learnt from once, by the policy that acted: V-trace has no ratio to correct here, and is the λ-return."""
    discount_states: bool = static(False)
    """Weigh the t-th step of an episode by γ^t: the theorem's exact form, which most programs leave out. `TotalReturn` holds it already,
    and is unbiased without."""
    normalise_advantage: bool = static(False)
    """Within each batch."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """c_v, where the estimator uses a value and nothing fits it apart."""
    fit: Regression | None = None
    """`Regression(epochs, learning_rate)` fits the value by itself after each step of the policy."""
    entropy_coefficient: Schedule = schedule(0.0)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
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
    """Parallel environments: N."""
    length: int = static(16)
    """Steps of each stream between two looks at whether all episodes have ended."""
    horizon: int = static(500)
    """Room for the steps of one episode; at least the environment's time limit."""

    def __check_init__(self) -> None:
        for name in ("streams", "length", "horizon"):
            require(getattr(self, name) > 0, f"{_name(self)}: {name} must be positive, not {getattr(self, name)}")
        if self.fit is not None:
            require(
                self.estimator.critic, f"{_name(self)}: there is no value to fit; take RewardToGo(Value()) or GAE()"
            )
            require(
                not self.shared,
                f"{_name(self)}: a value that is fitted apart has a trunk of its own; leave shared false",
            )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Episodes(self.horizon))

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        check_horizon(_name(self), spec, self.horizon)
        state = super().init(key, spec)
        if self.fit is None:
            return state
        fresh = self.fit.optimiser.init(state.net)
        return eqx.tree_at(lambda s: s.critic, state, fresh, is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=1e-5)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        seen = ~batch.step.last[:-1]
        state, reward = self.rewards(state, batch, seen)
        noise = self.noise(state, batch.version[0])
        moved, report = self.descend(state, (batch, reward), noise)
        if self.fit is not None:
            worth = self.judge(state.net, state, (batch, reward), noise)[2]
            moved, report = self.fitted(moved, report, batch, worth, noise)
        return acquainted(moved, batch.step, seen), report

    def fitted(self, state: State, report: Report, batch: Unroll, worth: Estimate, noise: Key[Array, ""] | None) -> tuple[State, Report]:  # fmt: skip
        """The value regressed on what the episodes were worth."""
        fit = self.fit

        def closer(state: State, _: None) -> tuple[State, Report]:
            net, critic, report = self.step_down(
                self.value_loss, fit.optimiser, state.critic, state, (batch, worth), noise
            )
            return eqx.tree_at(lambda s: (s.net, s.critic), state, (net, critic)), report

        state, reports = jax.lax.scan(closer, state, None, fit.epochs)
        metrics = report.metrics | {"value_loss": reports.metrics["loss"][-1]}
        return state, Report(metrics, report.finite & reports.finite.all())

    def judge(self, net: ActorCritic, state: State, batch: tuple[Unroll, Array], key: Key[Array, ""] | None) -> tuple[Distribution, Float[Array, "T B"], Estimate]:  # fmt: skip
        """Policy and value at every step, `[T+1, B]` and `[T, B]`, and what the actions were worth."""
        u, reward = batch
        obs, legal = self.see(state, u.step), u.step.extras.get("legal")
        (policy, value), _ = networks.unroll(stirred(net, key), obs, u.memory[0], u.step.first, legal)
        return policy, value[:-1], jax.lax.stop_gradient(self.estimator(u, reward, value, self.gamma))

    def loss(self, net: ActorCritic, state: State, batch: tuple[Unroll, Array], key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: whole episodes and their rewards `[T+1, B]`."""
        policy, value, worth = self.judge(net, state, batch, key)
        log_prob, entropy = policy.log_prob(batch[0].action)[:-1], policy.entropy()[:-1]
        weight, psi = worth.weight, worth.advantage
        if self.normalise_advantage:
            psi = normalised(psi, weight)
        if self.discount_states:
            psi = psi * self.gamma ** jnp.arange(len(psi), dtype=jnp.float32)[:, None]
        session = weight / weight.shape[1]
        policy_loss = jnp.sum(session * policy_gradient(log_prob, psi))
        loss = policy_loss - self.entropy_coefficient(state.counts) * jnp.sum(session * entropy)
        metrics = {"policy_loss": policy_loss, "entropy": weighted_mean(entropy, weight)}
        if self.estimator.critic:
            value_loss = weighted_mean(squared(value, worth.target), weight)
            loss = loss if self.fit is not None else loss + self.value_coefficient * value_loss
            metrics |= {"value_loss": value_loss, "value": weighted_mean(value, weight)}
            metrics["explained_variance"] = explained_variance(value, worth.target, weight)
        return loss, (metrics, None)

    def value_loss(self, net: ActorCritic, state: State, batch: tuple[Unroll, Estimate], key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        u, worth = batch
        obs, legal = self.see(state, u.step), u.step.extras.get("legal")
        (_, value), _ = networks.unroll(stirred(net, key), obs, u.memory[0], u.step.first, legal)
        return weighted_mean(squared(value[:-1], worth.target), worth.weight), ({}, None)


class VPG(REINFORCE):
    """Vanilla policy gradient (the lectures' algorithm 1): a step of the policy along rewards to go less V(s), then V is regressed on
    the rewards to go."""

    fit: Regression | None = Regression()
    normalise_advantage: bool = static(True)


def _name(agent: REINFORCE) -> str:
    return type(agent).__name__.lower()
