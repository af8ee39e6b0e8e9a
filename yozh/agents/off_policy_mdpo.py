"""Off-policy mirror-descent policy optimisation (Tomar et al. 2022), for discrete actions.

    θ_{k+1} = argmin_θ E_{s ~ replay}[ KL(π_θ(· | s) ‖ π_{θ_k}(· | s)) / t − Σ_a π_θ(a | s) Q(s, a) − τ H(π_θ(· | s)) ]
    L(ψ)    = E[ ½ (r + γ Σ_a π(a | s') (Q⁻(s', a) − τ log π(a | s')) − Q(s, a; ψ))² ]

The minimum over θ is approached by a few gradient steps on minibatches of replay, θ_k held still; where a table stands for π it is
π ∝ (π_k exp(t Q))^{1/(1 + t τ)}. τ = 0 is the hard form of the paper, τ > 0 the soft one, and t → ∞ then leads to soft
actor-critic. The sum over actions is exact here, and there is one Q (the paper takes the smaller of two in practice).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from yozh import returns
from yozh.agents.actor_q import ActorQAgent, expected, with_target
from yozh.agents.base import State
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Constant, Counts, Schedule, schedule
from yozh.agents.sequences import check_room
from yozh.agents.targets import Soft, TargetUpdate
from yozh.core import Experience, Report, Spec, Unroll, check_not_negative, check_positive, leaf, require, static
from yozh.distributions import Categorical
from yozh.losses import select, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.torsos import as_blueprint
from yozh.stores import Replay


def mirror(policy: Categorical, before: Categorical, q: Float[Array, "*b n"], step: Float[Array, ""],
           temperature: Float[Array, ""]) -> Float[Array, "*b"]:  # fmt: skip
    """`KL(pi || pi_k) / t - sum_a pi(a) Q(a) - tau H(pi)`: what one iteration of the policy minimises, `[*b]`."""
    return policy.kl(before) / step - expected(policy, q) - temperature * policy.entropy()


class OffPolicyMDPO(ActorQAgent):
    """Off-policy; discrete actions, masked or not, recurrent or not."""

    learning_rate: Schedule = schedule(3e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    step: Schedule = schedule(1.0)
    """t: how far one iteration goes from π_k, in units of 1 / Q."""
    temperature: Float[Array, ""] = leaf(0.0)
    """τ: 0 for the hard form, which wants exploration from elsewhere once the policy is sure."""
    target: TargetUpdate = Soft(0.005)
    """How the target network Q⁻ follows: `Soft(rate)` or `Hard(updates)`."""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy; the replay then holds its memory too."""
    shared: bool = static(False)
    """One trunk for policy and values."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    gradient_steps: int = static(10)
    """m: gradient steps of one iteration, in which π_k stands still."""
    batch: int = static(64)
    """Windows of replay in one gradient step."""
    sequence: int = static(1)
    """Consecutive steps of a window, each learnt from; more than 1 where a `core` shall learn to remember."""
    capacity: int = static(1_000_000)
    """Environment steps that the replay keeps."""
    warm_up: int = static(1000)
    """Environment steps before the first iteration."""
    streams: int = static(8)
    """Parallel environments."""
    length: int = static(8)
    """Steps of each stream between two iterations."""

    def __check_init__(self) -> None:
        for name in ("gradient_steps", "batch", "sequence", "streams", "length"):
            require(getattr(self, name) > 0, f"offpolicymdpo: {name} must be positive, not {getattr(self, name)}")
        check_room("offpolicymdpo", self.streams, self.length, self.capacity)
        room = self.capacity // self.streams
        require(
            room > self.sequence,
            f"offpolicymdpo: sequence {self.sequence} does not fit into {room} stored steps of each stream",
        )
        require(
            0 <= self.warm_up <= self.capacity,
            f"offpolicymdpo: warm_up lies between 0 and the store of {self.capacity}, not at {self.warm_up}",
        )
        if isinstance(self.step, Constant):
            check_positive("offpolicymdpo: step", self.step.value)
        check_not_negative("offpolicymdpo: temperature", self.temperature)

    @property
    def experience(self) -> Experience:
        return Experience(
            streams=self.streams,
            unroll=self.length,
            store=Replay(self.capacity, self.gradient_steps * self.batch, self.sequence),
            warm_up=max(self.warm_up, self.streams * (self.sequence + 1)),
            max_lag=1_000_000,
        )

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        return with_target(super().init(key, spec))

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts))

    def after(self, state: State) -> State:
        return eqx.tree_at(lambda s: s.target, state, self.target(state.net, state.target, state.counts.updates))

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """`batch`: the windows of all gradient steps, `[sequence + 1, gradient_steps · batch, ...]`."""
        batch = eqx.tree_at(lambda u: u.step.reward, batch, self.reward(batch.step.reward))
        before, _ = self.unroll(state.net, state, batch)

        def apart(x: Array) -> Array:
            return jnp.moveaxis(x.reshape(len(x), self.gradient_steps, self.batch, *x.shape[2:]), 1, 0)

        def update(state: State, part: tuple[Any, Any, Any, Array]) -> tuple[State, Report]:
            step, action, extras, logits = part
            minibatch = Unroll(step, action, extras, (), batch.version[: self.batch], batch.weight[: self.batch])
            return self.descend(state, (minibatch, logits), key)

        parts = jax.tree.map(apart, (batch.step, batch.action, batch.extras, before.logits))
        state, reports = jax.lax.scan(update, state, parts)
        return state, Report(jax.tree.map(jnp.mean, reports.metrics), reports.finite.all())

    def loss(self, net: ActorCritic, state: State, batch: tuple[Unroll, Float[Array, "T1 B actions"]], key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: windows of replay, and the logits of π_k there."""
        u, before = batch[0], Categorical(batch[1][:-1])
        (policy, q), (_, q_target) = self.unroll(net, state, u), self.unroll(state.target, state, u)
        reward_t, discount_t, _, weight = returns.segment(u, self.gamma, 0.0)
        soft_value_t = (expected(policy, q_target) + self.temperature * policy.entropy())[1:]
        target = jax.lax.stop_gradient(reward_t + discount_t * soft_value_t)
        said = select(q, u.action)[:-1]
        now = Categorical(policy.logits[:-1])
        fixed = jax.lax.stop_gradient(q[:-1])
        policy_loss = weighted_mean(mirror(now, before, fixed, self.step(state.counts), self.temperature), weight)
        q_loss = weighted_mean(squared(said, target), weight)
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": q_loss,
            "q": weighted_mean(said, weight),
            "entropy": weighted_mean(now.entropy(), weight),
            "kl": weighted_mean(now.kl(before), weight),
        }
        return policy_loss + q_loss, (metrics, None)
