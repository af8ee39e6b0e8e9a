"""Black-box search over the weights: evolution strategies, augmented random search, finite differences.

    θ ← θ + α · Σ_i u_i ε_i,      member i plays one episode with θ + σ ε_i and scores its return J_i

`directions` says how ε is drawn and how u follows from the scores. There is no gradient of the policy and no credit for single
actions, so it does not matter how long an episode is or when its rewards come; and every member is a stream of its own.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import networks, returns
from yozh.agents.base import GradientAgent, Params, State, acquainted, check_horizon, check_store
from yozh.agents.directions import Differences, Directions, Ranks, Top
from yozh.agents.schedules import Constant, Counts, Schedule, schedule
from yozh.agents.statistics import normalise
from yozh.core import AnyArray, Experience, Report, Spec, TimeStep, Unroll, check_positive, leaf, require, static
from yozh.networks import Auto, Blueprint, Network, PolicyNetwork
from yozh.networks.cores import CoreBlueprint
from yozh.networks.network import initial_memory
from yozh.networks.torsos import as_blueprint
from yozh.stores import Episodes


class Population(eqx.Module):
    """The members that act; weights lead with `[P]`."""

    nets: PolicyNetwork
    statistics: PyTree


class ES(GradientAgent):
    """Evolution strategies; any action space, masked or not, recurrent or not. A policy acts by its mode, exploration is of weights.
    The environment must say how long its episodes can get."""

    learning_rate: Schedule = schedule(3e-2)
    """α, of Adam."""
    sigma: Schedule = schedule(0.05)
    """σ: how far members stand from the middle."""
    gamma: Float[Array, ""] = leaf(1.0)
    """Discount of one step in the score."""
    weight_decay: Float[Array, ""] = leaf(0.0)
    """λ of `½ λ |θ|²`, which the step goes down as well."""
    directions: Directions = Ranks()
    """`Ranks()`, `Top(share)` or `Differences()`."""
    max_gradient_norm: Float[Array, ""] = leaf(jnp.inf)
    """Global norm to which the estimated gradient is clipped."""
    torso: Blueprint = eqx.field(default=Auto(), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent policy."""
    squash: bool = static(False)
    """Continuous actions: squash into the bounds by tanh, instead of clipping what is carried out."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    streams: int = static(64)
    """Parallel environments: P, one for each member."""
    length: int = static(50)
    """Steps of each stream between two looks at whether all episodes have ended."""
    horizon: int = static(500)
    """Room for the steps of one episode; at least the environment's time limit."""

    def __check_init__(self) -> None:
        name = type(self).__name__.lower()
        check_store(name, self.experience.store, (Episodes,))
        for field in ("streams", "length", "horizon"):
            require(getattr(self, field) > 0, f"{name}: {field} must be positive, not {getattr(self, field)}")
        if isinstance(self.sigma, Constant):
            check_positive(f"{name}: sigma", self.sigma.value)
        self.directions.check(self.streams)

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Episodes(self.horizon))

    def network(self, spec: Spec, key: Key[Array, ""]) -> PolicyNetwork:
        return PolicyNetwork(self.torso, self.core, spec, key, squash=self.squash)

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        check_horizon(type(self).__name__.lower(), spec, self.horizon)
        fresh, noise = super().init(key, spec), jax.random.key_data(jax.random.fold_in(key, 1))
        return eqx.tree_at(
            lambda s: (s.noise, s.begun),
            fresh,
            (noise, jax.tree.map(jnp.copy, fresh.counts)),
            is_leaf=lambda x: x is None,
        )

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts))

    def policy(self, state: State) -> Params:
        """With the counts under which members began, so that each is the same from its episode's first step to its last."""
        return Params(state.net, state.statistics, state.begun, state.noise)

    def poised(self, params: Params) -> Population:
        weights, unravel = ravel_pytree(params.net)
        moved = weights[None] + self.sigma(params.counts) * self.drawn(params, params.counts.updates)
        return Population(jax.vmap(unravel)(moved), params.statistics)

    def drawn(self, about: Params | State, version: Int[AnyArray, ""]) -> Float[Array, "P n"]:
        """ε of the members that this many updates have led to."""
        key = jax.random.fold_in(jax.random.wrap_key_data(about.noise), version)
        size = sum(x.size for x in jax.tree.leaves(about.net))
        return self.directions.draw(key, self.streams, size)

    def initial_memory(self, params: Params | Population, batch: int) -> PyTree:
        """The network's memory, and which member the stream belongs to."""
        net = params.net if isinstance(params, Params) else jax.tree.map(lambda x: x[0], params.nets)
        return initial_memory(net, batch), jnp.arange(batch, dtype=jnp.int32)

    def act(self, params: Params | Population, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        remembered, member = memory
        if isinstance(params, Params):
            policy, remembered = self.forward(params, remembered, step)
            return policy.mode(), {}, (remembered, member)
        nets = params.nets if len(member) == self.streams else jax.tree.map(lambda x: x[member], params.nets)
        seen, legal = normalise(params.statistics, step.obs), step.extras.get("legal")
        policy, remembered = networks.forward_each(nets, seen, remembered, step.first, legal)
        return policy.mode(), {}, (remembered, member)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        reward_t, discount_t, lambda_t, _ = returns.segment(batch, self.gamma, 1.0)
        scores, sigma = returns.reward_to_go(reward_t, discount_t, lambda_t)[0], self.sigma(state.begun)
        gradient = self.directions.weigh(scores, sigma) @ self.drawn(state, batch.version[0])
        state, report = self.descend(state, gradient, key)
        state = acquainted(state, batch.step, ~batch.step.last[:-1])
        state = eqx.tree_at(lambda s: s.begun, state, state.counts)
        told = {"score": jnp.mean(scores), "best_score": jnp.max(scores), "score_deviation": jnp.std(scores)}
        return state, Report(report.metrics | told, report.finite)

    def loss(self, net: Network, state: State, batch: Float[Array, " n"], key: Any) -> tuple[Float[Array, ""], Any]:
        """Linear, with the estimated gradient of J as its slope, `batch`; and the weight decay."""
        weights, _ = ravel_pytree(net)
        return 0.5 * self.weight_decay * jnp.dot(weights, weights) - jnp.dot(batch, weights), ({}, None)


class ARS(ES):
    """Augmented random search (Mania et al. 2018, V2-t): a linear policy of normalised observations, plain ascent along the best
    directions."""

    learning_rate: Schedule = schedule(0.02)
    """α."""
    sigma: Schedule = schedule(0.03)
    """ν in the paper."""
    directions: Directions = Top()
    torso: Blueprint = eqx.field(default=Auto(()), converter=as_blueprint)
    """Without layers: a linear policy."""
    normalise_observations: bool = static(True)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate(counts))


class FiniteDifferences(ES):
    """Change the policy a little, evaluate: the lectures' first idea."""

    directions: Directions = Differences()
    torso: Blueprint = eqx.field(default=Auto(()), converter=as_blueprint)
    """Without layers: a linear policy."""
