"""Hindsight credit assignment (Harutyunyan et al. 2019): an action is credited with what it made more likely, for discrete actions.

    h(a | x, y): how likely action a at x was, now that y came of it; learnt as a classifier of the actions taken

    by states:   Q(x_s, a) = r̂(x_s, a) + E[ Σ_{k>s} γ^{k−s} (h(a | x_s, x_k) / π(a | x_s)) R_k ]              (theorem 1)
                 L(θ) = −E[ Σ_a π(a | x_s; θ) Q(x_s, a) ]
    by returns:  A(x_s, a) = E[ (1 − π(a | x_s) / h(a | x_s, Z_s)) (Z_s − V(x_s)) | a ]                         (theorem 2)
                 L(θ) = −E[ A(x_s, a_s) log π(a_s | x_s; θ) ]

Where the action made no difference to the outcome, h = π, and what is found there counts for all actions alike or for none. R_k is what
was earned at x_k; r̂ is learnt. The sum runs to the end of the episode or, in one that goes on, to the end of the unroll, where V
stands for the rest as a reward found there. By returns, Z is the return to that point; V is subtracted because that leaves the mean as it
is (the paper has Z alone) and makes errors of h weigh less.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks, returns, spaces
from yozh.agents.base import GradientAgent, Params, State, check_store
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Spec, TimeStep, Unroll, YozhError, concrete, leaf, require, static
from yozh.losses import explained_variance, policy_gradient, select, squared, weighted_mean
from yozh.networks import Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.hindsight import Hindsight, Seen
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


def found(reward_t: Float[Array, "T B"], discount_t: Float[Array, "T B"], lambda_t: Float[Array, "T B"],
          value_t: Float[Array, "T B"]) -> tuple[Float[Array, "T T B"], Float[Array, "T T B"]]:  # fmt: skip
    """`[k, s, B]`: what was found at step k+1, discounted to step s, and whether it belongs to the future of s (1 or 0). That is the
    reward earned at step k+1 where the episode goes on there, and its value where it was cut or the unroll ends."""
    length = len(reward_t)
    go_t = jnp.concatenate([lambda_t[:-1], jnp.zeros_like(lambda_t[:1])])
    later = jnp.concatenate([reward_t[1:], jnp.zeros_like(reward_t[:1])])
    worth = go_t * later + (1.0 - go_t) * value_t
    k, s = jnp.arange(length)[:, None], jnp.arange(length)[None]

    def reach(x: Float[Array, "T B"], last: Float[Array, "T B"]) -> Float[Array, "T T B"]:
        """`last[k] · prod x[s .. k-1]` for k >= s, else 0."""

        def step(before: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            one, x, last = now
            before = jnp.where(one[:, None], 1.0, before)
            return before * x[None], before * last[None]

        start = jnp.zeros((length, reward_t.shape[1]), reward_t.dtype)
        return jax.lax.scan(step, start, (k == s, x, last))[1]

    alive = (discount_t > 0).astype(reward_t.dtype)
    return reach(discount_t * go_t, discount_t) * worth[:, None], reach(alive * go_t, alive)


class HCA(GradientAgent):
    """On-policy; discrete actions, masked or not, recurrent or not."""

    learning_rate: Schedule = schedule(1e-3)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    value_coefficient: Float[Array, ""] = leaf(0.5)
    """Of the value and of r̂."""
    hindsight_coefficient: Float[Array, ""] = leaf(1.0)
    """Of the classifier's cross-entropy."""
    entropy_coefficient: Schedule = schedule(0.01)
    """Of the bonus that keeps the policy from settling."""
    max_gradient_norm: Float[Array, ""] = leaf(0.5)
    """Global norm to which gradients are clipped."""
    truncation: Float[Array, ""] = leaf(10.0)
    """Where h / π (by states) or π / h (by returns) is truncated; the paper does not."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    """Of policy, value and hindsight, each with its own."""
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)`, for each of the three."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    by: str = static("states")
    """What an action is credited by: each state that came of it, or the return."""
    units: int = static(64)
    """Of the layer in which an action's state and its outcome meet."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    streams: int = static(16)
    """Parallel environments."""
    length: int = static(32)
    """Steps T of each stream in one update; better longer than an episode than shorter. Work grows with its square by states."""

    def __check_init__(self) -> None:
        check_store("hca", self.experience.store)
        for name in ("units", "streams", "length"):
            require(getattr(self, name) > 0, f"hca: {name} must be positive, not {getattr(self, name)}")
        require(self.by in ("states", "returns"), f"hca: by is states or returns, not {self.by!r}")
        require(
            not concrete(self.truncation) or float(self.truncation) >= 1,
            lambda: f"hca: truncation must be 1 or more, not {self.truncation}",
        )

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest())

    def network(self, spec: Spec, key: Key[Array, ""]) -> Hindsight:
        if not isinstance(spec.action, spaces.Discrete):
            raise YozhError(f"hca takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those")
        sizes = dict(actions=spec.action.n, units=self.units, returns=self.by == "returns")
        return Hindsight(self.torso, self.core, spec, key, **sizes)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=1e-5)

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        (policy, _), memory = self.forward(params, memory, step)
        return policy.sample(key) if explore else policy.mode(), {}, memory

    def forward(self, params: Params | State, memory: PyTree, step: TimeStep) -> tuple[PyTree, PyTree]:
        """Policy and value of a batch of steps `[B, ...]`, and the memory after them."""
        seen, memory = super().forward(params, memory, step)
        return (seen.policy, seen.value), memory

    def loss(self, net: Hindsight, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        u = eqx.tree_at(lambda u: u.step.reward, batch, self.reward(batch.step.reward))
        obs, legal = self.see(state, u.step), u.step.extras.get("legal")
        seen, _ = networks.unroll(net, obs, u.memory, u.step.first, legal)
        segment = returns.segment(u, self.gamma, 1.0)
        reward_t, weight, value_t = segment.reward_t, segment.weight_tm1, jax.lax.stop_gradient(seen.value[1:])
        target = returns.lambda_return(reward_t, segment.discount_t, segment.lambda_t, value_t)
        credit = self.by_states if self.by == "states" else self.by_returns
        policy_loss, hindsight_loss = credit(net, seen, u, segment, target)
        value_loss = weighted_mean(squared(seen.value[:-1], target), weight)
        entropy = weighted_mean(seen.policy.entropy()[:-1], weight)
        earned_loss = weighted_mean(squared(select(seen.earned, u.action)[:-1], reward_t), weight)
        loss = policy_loss + self.value_coefficient * (value_loss + earned_loss)
        loss = loss + self.hindsight_coefficient * hindsight_loss - self.entropy_coefficient(state.counts) * entropy
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "hindsight_loss": hindsight_loss,
            "entropy": entropy,
            "explained_variance": explained_variance(seen.value[:-1], target, weight),
        }
        return loss, (metrics, None)

    def by_states(self, net: Hindsight, seen: Seen, u: Unroll, segment: returns.Segment, target: Float[Array, "T B"]) -> tuple[Array, Array]:  # fmt: skip
        """The loss of the policy, and of the classifier."""
        log_probs, value_t = seen.policy.log_probs[:-1], jax.lax.stop_gradient(seen.value[1:])
        fixed = jax.lax.stop_gradient(log_probs)
        log_h = net.log_hindsight(fixed[None], seen.features[None, :-1], seen.features[1:, None])
        worth, future = found(segment.reward_t, segment.discount_t, segment.lambda_t, value_t)
        ratio = jnp.minimum(jnp.exp(jax.lax.stop_gradient(log_h) - fixed[None]), self.truncation)
        q = jax.lax.stop_gradient(seen.earned[:-1]) + jnp.sum(ratio * worth[..., None], 0)
        weight = segment.weight_tm1
        policy_loss = weighted_mean(-jnp.sum(jnp.exp(log_probs) * q, -1), weight)
        action = jnp.broadcast_to(u.action[:-1], future.shape)
        return policy_loss, weighted_mean(-select(log_h, action), future * weight[None])

    def by_returns(self, net: Hindsight, seen: Seen, u: Unroll, segment: returns.Segment, target: Float[Array, "T B"]) -> tuple[Array, Array]:  # fmt: skip
        """The loss of the policy, and of the classifier."""
        log_probs, action = seen.policy.log_probs[:-1], u.action[:-1]
        fixed = jax.lax.stop_gradient(log_probs)
        surprise = target - jax.lax.stop_gradient(seen.value[:-1])  # who knows x learns as much from it as from Z
        log_h = select(net.log_hindsight(fixed, seen.features[:-1], surprise), action)
        ratio = jnp.minimum(jnp.exp(select(fixed, action) - jax.lax.stop_gradient(log_h)), self.truncation)
        advantage = (1.0 - ratio) * surprise
        policy_loss = weighted_mean(policy_gradient(select(log_probs, action), advantage), segment.weight_tm1)
        return policy_loss, weighted_mean(-log_h, segment.weight_tm1)
