"""Q-Prop (Gu et al. 2017): TRPO whose baseline is a line in the action, drawn by a critic that learns from replay.

    ∇J   = E[ ∇ log π(a_t | s_t; θ) (A_t − η_t b_t) + η_t ∇_a Q(s_t, μ_t) ∇μ(s_t; θ) ]                                     (eq. 8)
    b_t  = ∇_a Q(s_t, a)|_{a = μ_t} · (a_t − μ_t),     μ_t = μ(s_t) the mean of the policy                     (sections 3.1, 3.2)
    L(w) = E_replay[ ½ (r + γ Q⁻(s', μ⁻(s')) − Q(s, a; w))² ]

A_t is the estimator's (GAE in the paper) and no A, b, η or ∇_a Q carries a gradient. The second part of ∇J gives back the mean that
b takes away, so that with a constant η the gradient is that of the policy whatever Q is. TRPO takes the step: what its line
search wants to see grow is r_t(θ) (A_t − η_t b_t) + η_t ∇_a Q · μ(s_t; θ). Policy and value learn from the fresh unroll alone, the
critic from replay alone.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks, returns, spaces
from yozh.agents.actor_q import with_target
from yozh.agents.base import Params, State
from yozh.agents.minibatches import Sequences
from yozh.agents.on_policy import Samples
from yozh.agents.schedules import Constant, Counts, Schedule, schedule
from yozh.agents.sequences import MEMORY, check_room, memory_before
from yozh.agents.targets import Soft
from yozh.agents.trpo import TRPO
from yozh.core import Experience, Report, Spec, TimeStep, Unroll, YozhError, check_positive, require, static
from yozh.distributions import Distribution
from yozh.losses import linear_baseline, squared, weighted_mean, weighted_variance
from yozh.networks import ActionValue, ActorCritic, Network
from yozh.stores import FreshReplay

ETAS = ("conservative", "aggressive", "full", "none")


class Critic(eqx.Module):
    """What of the agent's state is not the policy's."""

    q: Network
    """An `ActionValue`."""
    target: Network
    optimiser: PyTree


class Transitions(Sequences):
    """What the critic learns from, `[T, B, ...]`, then `[1, T · B, ...]`."""

    obs: PyTree
    action: Float[Array, "T B d"]
    reward: Float[Array, "T B"]
    discount: Float[Array, "T B"]
    next_obs: PyTree
    next_action: Float[Array, "T B d"]
    """The one that the target policy takes there."""
    weight: Float[Array, "T B"]
    memory: tuple[()] = ()


class Controlled(Samples):
    """Samples whose advantage is A_t − η_t b_t, with what was taken away."""

    line: Float[Array, "T B"] = dataclasses.field(kw_only=True)
    """η_t b_t"""
    slope: Float[Array, "T B d"] = dataclasses.field(kw_only=True)
    """η_t ∇_a Q(s_t, μ_t)"""
    eta: Float[Array, "T B"] = dataclasses.field(kw_only=True)


def share(eta: str, advantage: Float[Array, "*b"], baseline: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """η for each action. Both have mean zero over the actions of a state, so that their product estimates their covariance."""
    covariance = advantage * baseline
    match eta:
        case "conservative":
            return (covariance > 0).astype(baseline.dtype)
        case "aggressive":
            return jnp.sign(covariance)
        case "full":
            return jnp.ones_like(baseline)
        case _:
            return jnp.zeros_like(baseline)


def worth(q: Network, obs: PyTree, action: Float[Array, "T B d"]) -> Float[Array, "T B"]:
    """Of each action at its step."""
    return jax.vmap(jax.vmap(lambda o, a: q((o, a), ())[0]))(obs, action)


class QProp(TRPO):
    """On-policy, with a critic that is off-policy; Box actions, recurrent or not (the critic sees the observation alone)."""

    eta: str = static("conservative")
    """How much of the baseline: 1 where it and the advantage have the same sign, else 0 (`conservative`); 1 or -1 (`aggressive`);
    1 (`full`); 0, which leaves TRPO (`none`). The first two look at the action and so have some bias, the others none."""
    critic_learning_rate: Schedule = schedule(1e-3)
    """Of the critic's Adam."""
    critic_widths: tuple[int, ...] = static((64,))
    """Units of the critic's layers in which features and action meet; with none, `()`, Q is linear in the action."""
    critic_steps: int = static(512)
    """Steps of the critic after each unroll (as many as the unroll has transitions in the paper)."""
    batch: int = static(64)
    """Transitions of replay in one of them."""
    capacity: int = static(1_000_000)
    """Environment steps that the replay keeps; recurrent policies have their memory in it too."""
    target: Soft = Soft(0.005)
    """How the critic's target networks, Q⁻ and μ⁻, follow after each of its steps."""
    normalise_advantage: bool = static(False)
    """Always false: advantage and baseline are on one scale, and a natural step does not notice which."""
    squash: bool = static(False)
    """Always false: the baseline's mean is known for noise that is symmetric about the mean."""

    stores = (FreshReplay,)

    def __check_init__(self) -> None:
        for name in ("critic_steps", "batch"):
            require(getattr(self, name) > 0, f"qprop: {name} must be positive, not {getattr(self, name)}")
        require(self.eta in ETAS, f"qprop: eta is {', '.join(ETAS)}, not {self.eta!r}")
        require(
            not self.squash,
            "qprop: squash bends the noise, and the mean of its baseline is then not known; clip (squash=False), or take trpo",
        )
        require(
            not self.normalise_advantage,
            "qprop: an advantage that is normalised has another scale than its baseline; leave normalise_advantage false",
        )
        require(
            self.critic_steps * self.batch % self.length == 0,
            f"qprop: {self.critic_steps} x {self.batch} transitions are no whole number of windows of {self.length}",
        )
        check_room("qprop", self.streams, self.length, self.capacity)
        if isinstance(self.critic_learning_rate, Constant):
            check_positive("qprop: critic_learning_rate", self.critic_learning_rate.value)
        require(min(self.critic_widths, default=1) > 0, f"qprop: critic_widths are positive, not {self.critic_widths}")

    @property
    def experience(self) -> Experience:
        windows = self.critic_steps * self.batch // self.length
        return Experience(self.streams, self.length, FreshReplay(self.capacity, windows, self.length))

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        if not isinstance(spec.action, spaces.Box):
            what = spaces.describe(spec.action)
            raise YozhError(f"qprop takes Box actions, not {what}; qac takes Discrete ones, trpo and ppo take any")
        state = with_target(super().init(key, spec))
        q = ActionValue(self.torso, None, spec, jax.random.fold_in(key, 2), widths=self.critic_widths)
        memory = self.critic_optimiser(state.counts).init(q)
        critic = Critic(q, jax.tree.map(jnp.copy, q), memory)
        return eqx.tree_at(lambda s: s.critic, state, critic, is_leaf=lambda x: x is None)

    def critic_optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.critic_learning_rate(counts))

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        action, extras, after = super().act(params, memory, step, key, explore=explore)
        return action, extras | ({} if self.core is None else {MEMORY: memory[0]}), after

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """`batch`: the fresh unroll of each stream, then windows of replay, `[T+1, streams + windows, ...]`."""
        fresh, old = (_streams(batch, part) for part in (slice(self.streams), slice(self.streams, None)))
        fresh = dataclasses.replace(
            fresh, memory=(self.remembered(state.net, fresh), None), version=fresh.version + state.counts.updates
        )
        # The critic has not seen the actions yet that it is the baseline of: what it learns from them would be a bias.
        state, report = super().learn(state, fresh, key)
        state, told = self.judged(state, old, jax.random.fold_in(key, 1))
        return state, Report(report.metrics | told.metrics, report.finite & told.finite)

    def samples(self, state: State, batch: Unroll, noise: Key[Array, ""] | None, *, policy: bool = False) -> tuple[State, Controlled]:  # fmt: skip
        state, plain = super().samples(state, batch, noise, policy=True)
        q, mean = state.critic.q, plain.policy.mode()
        line, slope = linear_baseline(lambda a: worth(q, plain.step.obs, a), plain.action, mean)
        eta = share(self.eta, plain.advantage, line)
        plain = eqx.tree_at(lambda s: s.advantage, plain, plain.advantage - eta * line)
        return state, Controlled(**vars(plain), line=eta * line, slope=eta[..., None] * slope, eta=eta)

    def surrogate(self, policy: Distribution, samples: Controlled) -> Float[Array, "T B"]:
        return super().surrogate(policy, samples) + jnp.sum(samples.slope * policy.mode(), -1)

    def improved(self, net: ActorCritic, samples: Controlled, noise: Key[Array, ""] | None) -> tuple[ActorCritic, dict[str, Array], Array]:  # fmt: skip
        net, metrics, finite = super().improved(net, samples, noise)
        rest, whole = (
            weighted_variance(x, samples.weight) for x in (samples.advantage, samples.advantage + samples.line)
        )
        told = {"eta": weighted_mean(samples.eta, samples.weight), "variance_left": rest / (whole + 1e-8)}
        return net, metrics | told, finite

    def judged(self, state: State, old: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """After the critic's steps on windows of replay."""
        obs = self.see(state, old.step)
        (policy, _), _ = networks.unroll(state.target, obs, self.remembered(state.target, old), old.step.first)
        reward_t, discount_t, _, weight = returns.segment(old, self.gamma, 0.0)
        here, there = (jax.tree.map(lambda x, s=s: x[s], obs) for s in (slice(-1), slice(1, None)))
        every = Transitions(
            obs=here, action=old.action[:-1], reward=self.scaled(state, reward_t), discount=discount_t,
            next_obs=there, next_action=policy.mode()[1:], weight=weight,
        ).apart()  # fmt: skip

        def closer(state: State, minibatch: Transitions) -> tuple[State, Report]:
            critic, optimiser = state.critic, self.critic_optimiser(state.counts)
            about = eqx.tree_at(lambda s: s.net, state, critic.q)
            q, memory, report = self.step_down(self.critic_loss, optimiser, critic.optimiser, about, minibatch, None)
            target, policy = self.target((q, state.net), (critic.target, state.target), state.counts.updates)
            return eqx.tree_at(lambda s: (s.critic, s.target), state, (Critic(q, target, memory), policy)), report

        state, reports = every.passes(closer, state, 1, self.critic_steps, key)
        told = {name: jnp.mean(reports.metrics[name]) for name in ("q_loss", "q")}
        return state, Report(told, reports.finite.all())

    def critic_loss(self, q: Network, state: State, batch: Transitions, key: None) -> tuple[Float[Array, ""], Any]:
        ahead = worth(state.critic.target, batch.next_obs, batch.next_action)
        said = worth(q, batch.obs, batch.action)
        loss = weighted_mean(squared(said, batch.reward + batch.discount * ahead), batch.weight)
        return loss, ({"q_loss": loss, "q": weighted_mean(said, batch.weight)}, None)

    def remembered(self, net: ActorCritic, batch: Unroll) -> PyTree:
        """The memory before the first step of each window."""
        return net.initial_memory() if self.core is None else memory_before(batch)


def _streams(batch: Unroll, part: slice) -> Unroll:
    step, action, extras = jax.tree.map(lambda x: x[:, part], (batch.step, batch.action, batch.extras))
    return Unroll(step, action, extras, (), batch.version[part], batch.weight[part])
