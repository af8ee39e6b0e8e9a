"""Trust-region policy optimisation (Schulman et al. 2015) and the natural policy gradient (Kakade 2001).

    θ ← θ + αʲ √(2δ / xᵀ F x) · x,   F x = g                                      (deck S1, algorithm 1; appendix C)
    g = ∇ E[ r_t(θ) A_t ],   F = ∇² E[ KL(π(· | s_t; θ_old) ‖ π(· | s_t; θ)) ]     both at θ = θ_old
    r_t(θ) = π(a_t | s_t; θ) / π(a_t | s_t; θ_old)

F is never formed: conjugate gradients need its products only. TRPO takes the smallest j = 0, 1, … for which E[ r_t A_t ] grows
and the mean KL divergence is at most δ, and stays where it is if there is none; NPG takes j = 0, whatever comes of it. The
value has weights of its own, fitted by Adam in `epochs` passes over the unroll in shuffled minibatches.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from yozh.agents.base import State
from yozh.agents.estimators import GAE, Estimator
from yozh.agents.natural import Judge, Vector, backtrack, conjugate_gradients, fisher_product
from yozh.agents.on_policy import OnPolicyAgent, Samples
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Counts, Schedule, schedule
from yozh.core import Experience, Report, Unroll, check_not_negative, check_positive, check_share, leaf, require, static
from yozh.distributions import Distribution
from yozh.losses import explained_variance, squared, weighted_mean
from yozh.networks import ActorCritic, Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.noisy import Noise, as_noise
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class NaturalAgent(OnPolicyAgent):
    """What TRPO and NPG share: all but what becomes of the natural step."""

    delta: Float[Array, ""] = leaf(0.01)
    """δ: the mean KL divergence of a step, in nats."""
    damping: Float[Array, ""] = leaf(0.1)
    """What is added to the diagonal of F."""
    learning_rate: Schedule = schedule(1e-3)
    """Of the value's Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    estimator: Estimator = GAE(0.95)
    """What an action was worth: `GAE(lam)`, `NStep(n)` or `VTrace()`."""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which the value's gradients are clipped (they are not in sb3-contrib)."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    shared: bool = static(False)
    """Always false: policy and value have a trunk each."""
    squash: bool = static(False)
    """Continuous actions: squash into the bounds by tanh, instead of clipping what is carried out."""
    normalise_advantage: bool = static(True)
    """Over the whole unroll."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    scale_rewards: bool = static(False)
    """Divide rewards by the running deviation of the discounted return, clip to ±10."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights besides: true, `Factorised(sigma)` or `Independent(sigma)`."""
    solver_steps: int = static(15)
    """Steps of conjugate gradients, at the most."""
    thin: int = static(1)
    """F is estimated from every so many-th step (sequence, if recurrent) of the unroll; the gradient always from all."""
    epochs: int = static(10)
    """Passes over each unroll to fit the value."""
    minibatches: int = static(16)
    """Updates of the value in one epoch."""
    streams: int = static(8)
    """Parallel environments (1 in sb3-contrib)."""
    length: int = static(256)
    """Steps T of each stream in one unroll (2,048 in sb3-contrib)."""

    def __check_init__(self) -> None:
        name = type(self).__name__.lower()
        require(
            not self.shared,
            f"{name}: a natural step of a shared trunk would move the value too, which is fitted on its own; leave shared false",
        )
        check_positive(f"{name}: delta", self.delta)
        check_not_negative(f"{name}: damping", self.damping)
        for field in ("solver_steps", "thin"):
            size = getattr(self, field)
            require(size > 0, f"{name}: {field} must be positive, not {size}")

    @abc.abstractmethod
    def move(self, judge: Judge, weights: Vector, step: Vector) -> tuple[Vector, dict[str, Array]]:
        """The policy's next weights, from the natural step that F promises to cost δ, and what there is to say of it."""

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest())

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts))

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        noise = self.noise(state, batch.version[0])
        state, samples = self.samples(state, batch, noise, policy=True)
        net, metrics, finite = self.improved(state.net, samples, noise)
        state = eqx.tree_at(lambda s: s.net, state, net)

        def update(state: State, minibatch: Samples) -> tuple[State, Report]:
            return self.descend(state, minibatch, noise)

        state, reports = samples.passes(update, state, self.epochs, self.minibatches, key)
        metrics |= jax.tree.map(jnp.mean, reports.metrics)
        metrics["explained_variance"] = explained_variance(samples.value, samples.target, samples.weight)
        return state, Report(metrics, finite & reports.finite.all())

    def improved(self, net: ActorCritic, samples: Samples, noise: Key[Array, ""] | None) -> tuple[ActorCritic, dict[str, Array], Array]:  # fmt: skip
        """The network after the policy's step, and whether all numbers of it were finite."""
        weights, unravel = ravel_pytree(_policy(net))
        samples = eqx.tree_at(lambda s: s.advantage, samples, self.advantage(samples))

        def at(weights: Vector) -> ActorCritic:
            return eqx.tree_at(_policy, net, unravel(weights))

        def judge(weights: Vector) -> tuple[Float[Array, ""], Float[Array, ""]]:
            policy, _ = self.look(at(weights), samples, noise)
            grown = weighted_mean(self.surrogate(policy, samples), samples.weight)
            return grown, weighted_mean(samples.policy.kl(policy), samples.weight)

        few = samples.thinned(self.thin)
        fisher = fisher_product(lambda w: self.look(at(w), few, noise)[0], weights, few.weight)

        def damped(v: Vector) -> Vector:
            return fisher(v) + self.damping * v

        gradient = jax.grad(lambda w: judge(w)[0])(weights)
        x = conjugate_gradients(damped, gradient, self.solver_steps)
        length = jnp.maximum(jnp.dot(x, damped(x)), jnp.finfo(x.dtype).tiny)
        step = jnp.sqrt(2.0 * self.delta / length) * x
        moved, metrics = self.move(judge, weights, step)
        finite = jnp.isfinite(jnp.dot(gradient, gradient)) & jnp.isfinite(jnp.dot(step, step))
        metrics["entropy"] = weighted_mean(samples.policy.entropy(), samples.weight)
        metrics["policy_gradient_norm"] = jnp.sqrt(jnp.dot(gradient, gradient))
        return at(jnp.where(finite, moved, weights)), metrics, finite

    def surrogate(self, policy: Distribution, samples: Samples) -> Float[Array, "T B"]:
        """What shall grow: r_t(θ) A_t."""
        return jnp.exp(policy.log_prob(samples.action) - samples.log_prob) * samples.advantage

    def loss(self, net: ActorCritic, state: State, batch: Samples, key: Key[Array, ""] | None) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """Of the value alone, which shares no weight with the policy."""
        _, value = self.look(net, batch, key)
        loss = weighted_mean(squared(value, batch.target), batch.weight)
        return loss, ({"value_loss": loss}, None)


def _policy(net: ActorCritic) -> PyTree:
    return net.actor, net.policy


class TRPO(NaturalAgent):
    """On-policy; any action space, masked or not, recurrent or not. Defaults are those of sb3-contrib unless a field says
    otherwise."""

    shrink: Float[Array, ""] = leaf(0.8)
    """α: by how much each try of the line search is shorter than the one before."""
    tries: int = static(10)
    """Steps that the line search tries, at the most."""

    def __check_init__(self) -> None:
        name = type(self).__name__.lower()
        check_share(f"{name}: shrink", self.shrink, "(0, 1)")
        require(self.tries > 0, f"{name}: tries must be positive, not {self.tries}")

    def move(self, judge: Judge, weights: Vector, step: Vector) -> tuple[Vector, dict[str, Array]]:
        return backtrack(judge, weights, step, shrink=self.shrink, tries=self.tries, delta=self.delta)


class NPG(NaturalAgent):
    """On-policy; any action space, masked or not, recurrent or not: TRPO without its line search, and with its defaults."""

    def move(self, judge: Judge, weights: Vector, step: Vector) -> tuple[Vector, dict[str, Array]]:
        moved = weights + step
        return moved, {"kl": judge(moved)[1]}
