"""Q-Prop (Gu et al. 2017): an actor-critic whose baseline is a line in the action, drawn by a critic that learns from replay.

    L(θ) = −E[ log π(a_t | s_t; θ) (A_t − η_t b_t) + η_t ∇_a Q(s_t, μ_t) · μ(s_t; θ) ] + c_v · E[ ½ (G_t − V(s_t; θ))² ] − c_e · E[ H ]
    b_t  = ∇_a Q(s_t, a)|_{a = μ_t} · (a_t − μ_t),     μ_t = μ(s_t) the mean of the policy                     (sections 3.1, 3.2)
    L(w) = E_replay[ ½ (r + γ Q⁻(s', μ⁻(s')) − Q(s, a; w))² ]

A_t is the estimator's (GAE in the paper) and no A, b, η or ∇_a Q carries a gradient. The second part of the first term gives back
the mean that b takes away, so that with a constant η the gradient is that of the policy whatever Q is. Only the fresh unroll is
in L(θ), only replay in L(w). A step of Adam stands where the paper has one of TRPO.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks, returns, spaces
from yozh.agents.actor_critic import ActorCriticAgent, stirred
from yozh.agents.actor_q import with_target
from yozh.agents.base import Params, State
from yozh.agents.estimators import GAE, Estimator
from yozh.agents.minibatches import Sequences
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Constant, Counts, Schedule, schedule
from yozh.agents.sequences import MEMORY, check_room, memory_before
from yozh.agents.targets import Soft
from yozh.core import (
    AnyArray,
    Experience,
    Report,
    Spec,
    TimeStep,
    Unroll,
    YozhError,
    check_positive,
    leaf,
    require,
    static,
)
from yozh.losses import action_baseline, explained_variance, linear_baseline, squared, weighted_mean, weighted_variance
from yozh.networks import ActionValue, ActorCritic, Auto, Blueprint, Network
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
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


class QProp(ActorCriticAgent):
    """On-policy, with a critic that is off-policy; Box actions, recurrent or not (the critic sees the observation alone)."""

    learning_rate: Schedule = schedule(7e-4)
    """Of the Adam of policy and value."""
    critic_learning_rate: Schedule = schedule(1e-3)
    """Of the critic's Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = GAE(0.95)
    """What an action was worth: `GAE(lam)`, `NStep(n)` or `VTrace()`."""
    eta: str = static("conservative")
    """How much of the baseline: 1 where it and the advantage have the same sign, else 0 (`conservative`); 1 or -1 (`aggressive`);
    1 (`full`); 0, which leaves A2C with GAE (`none`). The first two look at the action and so have some bias, the others none."""
    target: Soft = Soft(0.005)
    """How the critic's target networks, Q⁻ and μ⁻, follow after each of its steps."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """c_v."""
    entropy_coefficient: Schedule = schedule(0.0)
    """c_e."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped, those of the critic too."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    """Of policy, value and critic, for each one of its own."""
    critic_widths: tuple[int, ...] = static((64,))
    """Units of the critic's layers in which features and action meet; with none, `()`, Q is linear in the action."""
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy; the replay then holds its memory too."""
    shared: bool = static(False)
    """One trunk for policy and value."""
    squash: bool = static(False)
    """Always false: the baseline's mean is known for noise that is symmetric about the mean."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    scale_rewards: bool = static(False)
    """Divide rewards by the running deviation of the discounted return, clip to ±10."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights besides: true, `Factorised(sigma)` or `Independent(sigma)`."""
    critic_steps: int = static(64)
    """Steps of the critic after each unroll (as many as the unroll has transitions in the paper)."""
    batch: int = static(64)
    """Transitions of replay in one of them."""
    capacity: int = static(1_000_000)
    """Environment steps that the replay keeps."""
    streams: int = static(8)
    """Parallel environments."""
    length: int = static(16)
    """Steps T of each stream in one unroll, and in one window of replay."""

    stores = (FreshReplay,)

    def __check_init__(self) -> None:
        for name in ("critic_steps", "batch", "streams", "length"):
            require(getattr(self, name) > 0, f"qprop: {name} must be positive, not {getattr(self, name)}")
        require(self.eta in ETAS, f"qprop: eta is {', '.join(ETAS)}, not {self.eta!r}")
        require(
            not self.squash,
            "qprop: squash bends the noise, and the mean of its baseline is then not known; clip (squash=False), or take ppo",
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
            raise YozhError(f"qprop takes Box actions, not {what}; qac takes Discrete ones, a2c and ppo take any")
        state = with_target(super().init(key, spec))
        q = ActionValue(self.torso, None, spec, jax.random.fold_in(key, 2), widths=self.critic_widths)
        memory = self.critic_optimiser(state.counts).init(q)
        critic = Critic(q, jax.tree.map(jnp.copy, q), memory)
        return eqx.tree_at(lambda s: s.critic, state, critic, is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts))

    def critic_optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.critic_learning_rate(counts))

    def heard(self, reward: Float[AnyArray, "*b"]) -> Float[AnyArray, "*b"]:
        return self.reward(reward)

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        action, extras, after = super().act(params, memory, step, key, explore=explore)
        return action, extras | ({} if self.core is None else {MEMORY: memory[0]}), after

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """`batch`: the fresh unroll of each stream, then windows of replay, `[T+1, streams + windows, ...]`."""
        fresh, old = (_streams(batch, part) for part in (slice(self.streams), slice(self.streams, None)))
        state, reward = self.rewards(state, fresh)
        # The critic has not seen the actions yet that it is the baseline of: what it learns from them would be a bias.
        state, report = self.descend(state, (fresh, reward), self.noise(state, state.counts.updates))
        state, told = self.judged(state, old, key)
        return state, Report(report.metrics | told.metrics, report.finite & told.finite)

    def loss(self, net: ActorCritic, state: State, batch: tuple[Unroll, Array], key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: a fresh unroll and its rewards `[T+1, B]`."""
        u, reward = batch
        obs, q = self.see(state, u.step), state.critic.q
        (policy, value), _ = networks.unroll(stirred(net, key), obs, self.remembered(net, u), u.step.first)
        found = jax.lax.stop_gradient(self.estimator(u, reward, value, self.gamma))
        here = jax.tree.map(lambda x: x[:-1], obs)
        line, expected = linear_baseline(lambda a: worth(q, here, a), u.action[:-1], policy.mode()[:-1])
        advantage, weight, log_prob = found.advantage, found.weight, policy.log_prob(u.action)[:-1]
        eta = share(self.eta, advantage, line)
        policy_loss = weighted_mean(action_baseline(log_prob, advantage, eta * line, eta * expected), weight)
        value_loss = weighted_mean(squared(value[:-1], found.target), weight)
        entropy = weighted_mean(policy.entropy()[:-1], weight)
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient(state.counts) * entropy
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "value": jnp.mean(value)}
        left = weighted_variance(advantage - eta * line, weight) / (weighted_variance(advantage, weight) + 1e-8)
        metrics |= {"eta": weighted_mean(eta, weight), "variance_left": left}
        metrics["explained_variance"] = explained_variance(value[:-1], found.target, weight)
        return loss, (metrics, None)

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
