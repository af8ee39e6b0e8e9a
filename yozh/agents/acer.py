"""Actor-critic with experience replay, after Wang et al. (2017): discrete actions.

    g_t = ρ̄_t ∇_φ log π(a_t | φ) [Q^ret(s_t, a_t) − V(s_t)]
          + Σ_a π(a | φ) [1 − c / ρ_t(a)]₊ ∇_φ log π(a | φ) [Q(s_t, a) − V(s_t)]                          (eq. 9)
    k_t = ∇_φ KL(π̄(· | s_t) ‖ π(· | φ)),     z_t = g_t − max(0, (k_t·g_t − δ) / |k_t|²) k_t              (eqs. 11, 12)
    L(θ) = −E[ z_t · φ_θ(s_t) ] + c_q · E[ ½ (Q^ret(s_t, a_t) − Q(s_t, a_t; θ))² ]

with ρ_t(a) = π(a | s_t) / μ(a | s_t), ρ̄ = min(c, ρ), V = Σ_a π Q, μ the policy that acted and π̄ a running average of the policy's
weights. Q^ret is Retrace's target (section 3.1). The bonus c_e H(π) counts to g before the projection. Here φ are the logits (the
paper takes probabilities), and the fresh unroll and the replayed ones make one batch (the paper takes them one after another).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from yozh import returns
from yozh.agents.actor_q import BEHAVIOUR, ActorQAgent, expected, with_target
from yozh.agents.base import State
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.agents.sequences import check_room
from yozh.agents.targets import Soft, TargetUpdate
from yozh.core import Experience, Spec, Unroll, check_positive, check_share, leaf, require, static
from yozh.losses import explained_variance, select, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.torsos import as_blueprint
from yozh.stores import FreshReplay


def corrected(log_probs: Float[Array, "*b n"], behaviour: Float[Array, "*b n"], action: Int[Array, "*b"],
              worth: Float[Array, "*b"], q: Float[Array, "*b n"], clip: Float[Array, ""]) -> Float[Array, "*b n"]:  # fmt: skip
    """`g` with respect to the logits (eq. 9), `[*b, n]`: `behaviour` are the log-probabilities of the policy that acted, `worth`
    estimates what the action taken was worth, `q` that of each. Ratios are truncated at `clip`; what that leaves out is made up for
    by `q`, so that without error in `worth` and `q` the truncation adds no bias."""
    probs, ratio = jnp.exp(log_probs), jnp.exp(log_probs - behaviour)
    value = jnp.sum(probs * q, -1)
    taken = jax.nn.one_hot(action, log_probs.shape[-1], dtype=q.dtype)
    seen = taken * (jnp.minimum(clip, select(ratio, action)) * (worth - value))[..., None]
    missed = probs * jnp.maximum(0.0, 1.0 - clip / ratio) * (q - value[..., None])
    share = seen + missed
    return share - probs * jnp.sum(share, -1, keepdims=True)


def trust_region(g: Float[Array, "*b n"], k: Float[Array, "*b n"], delta: Float[Array, ""]) -> Float[Array, "*b n"]:
    """The `z` nearest to `g` with `k·z <= delta` (eq. 12): a step along `z` takes the divergence whose gradient is `k` up by at most
    `delta`, to first order."""
    excess = jnp.maximum(0.0, jnp.sum(k * g, -1, keepdims=True) - delta)
    return g - excess / jnp.maximum(jnp.sum(k * k, -1, keepdims=True), 1e-20) * k


class ACER(ActorQAgent):
    """Off-policy; discrete actions, masked or not, recurrent or not. Defaults are those of OpenAI Baselines unless a field says
    otherwise."""

    learning_rate: Schedule = schedule(7e-4)
    """Of RMSProp."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    lam: Float[Array, ""] = leaf(1.0)
    """λ of Retrace: 1 in the paper; 0 bootstraps after one step."""
    truncation: Float[Array, ""] = leaf(10.0)
    """c: where importance ratios are truncated."""
    delta: Float[Array, ""] = leaf(1.0)
    """δ: how far one step may lead away from the average policy; large numbers switch the trust region off."""
    average: TargetUpdate = Soft(0.01)
    """How the average policy follows."""
    q_coefficient: Float[Array, ""] = leaf(0.5)
    """c_q."""
    entropy_coefficient: Schedule = schedule(0.01)
    """c_e (0.001 in the paper)."""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy; the replay then holds its memory too."""
    shared: bool = static(False)
    """One trunk for policy and values (so in the paper)."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    batch: int = static(32)
    """Unrolls of replay in one update, beside the fresh ones: over `streams` this is the replay ratio (4 in the paper). 0 for none."""
    capacity: int = static(50_000)
    """Environment steps that the replay keeps; a few times `streams` · `length` for a "super-small" one."""
    updates: int = static(1)
    """Updates after each unroll, each with new unrolls of replay."""
    streams: int = static(8)
    """Parallel environments (16 in Baselines)."""
    length: int = static(20)
    """Steps T of each stream in one unroll."""

    def __check_init__(self) -> None:
        for name in ("capacity", "updates", "streams", "length"):
            require(getattr(self, name) > 0, f"acer: {name} must be positive, not {getattr(self, name)}")
        require(self.batch >= 0, f"acer: batch must not be negative, and is {self.batch}")
        check_room("acer", self.streams, self.length, self.capacity)
        check_share("acer: lam", self.lam)
        for name in ("truncation", "delta"):
            check_positive(f"acer: {name}", getattr(self, name))

    @property
    def experience(self) -> Experience:
        store = FreshReplay(self.capacity, self.batch, self.length)
        return Experience(
            streams=self.streams, unroll=self.length, store=store, updates=self.updates, max_lag=1_000_000
        )

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        return with_target(super().init(key, spec))

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.rmsprop(self.learning_rate(counts), decay=0.99, eps=1e-5)

    def after(self, state: State) -> State:
        average = self.average(state.net, state.target, state.counts.updates)
        return eqx.tree_at(lambda s: s.target, state, average)

    def loss(self, net: ActorCritic, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        u = eqx.tree_at(lambda u: u.step.reward, batch, self.reward(batch.step.reward))
        (policy, q), (average, _) = self.unroll(net, state, u), self.unroll(state.target, state, u)
        log_probs, action, behaviour = policy.log_probs[:-1], u.action[:-1], u.extras[BEHAVIOUR][:-1]
        said, now = select(q[:-1], action), jax.lax.stop_gradient((policy.log_probs, q))
        probs = jnp.exp(now[0][:-1])
        ratio = jnp.exp(select(now[0][:-1] - behaviour, action))
        reward_t, discount_t, lambda_t, weight = returns.segment(u, self.gamma, self.lam)
        value_t = jax.lax.stop_gradient(expected(policy, q))[1:]
        target = returns.retrace(reward_t, discount_t, lambda_t, select(now[1][:-1], action), value_t, ratio)
        g = corrected(now[0][:-1], behaviour, action, target, now[1][:-1], self.truncation)
        entropy = policy.entropy()[:-1]
        spread = -probs * (now[0][:-1] + jax.lax.stop_gradient(entropy)[..., None])
        g = g + self.entropy_coefficient(state.counts) * spread
        z = trust_region(g, probs - jnp.exp(average.log_probs[:-1]), self.delta)
        # z adds up to 0 over the actions, so that the gradient of the log-probabilities is that of the logits
        policy_loss = weighted_mean(-jnp.sum(jax.lax.stop_gradient(z) * log_probs, -1), weight)
        q_loss = weighted_mean(squared(said, target), weight)
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": q_loss,
            "entropy": weighted_mean(entropy, weight),
            "kl": weighted_mean(jax.lax.stop_gradient(average.kl(policy))[:-1], weight),
            "ratio": weighted_mean(jnp.minimum(ratio, self.truncation), weight),
            "projected": weighted_mean(jnp.any(z != g, -1).astype(jnp.float32), weight),
            "explained_variance": explained_variance(said, target, weight),
        }
        return policy_loss + self.q_coefficient * q_loss, (metrics, None)
