"""Parallelised Q-network: Q-learning without replay and without a target network (Gallici et al. 2024).

    L(θ) = ½ E[ (G_t − Q(s_t, a_t; θ))² ]                                                        (algorithm 1)
    G_t = r_{t+1} + γ [ (1 − λ) max_a Q(s_{t+1}, a; θ₀) + λ G_{t+1} ],   θ₀: the weights that acted

Many streams make the batch broad enough to do without a replay, and a layer norm before each activation keeps the values from
running away where nothing else holds the target still (section 3). Each unroll is gone through `epochs` times in shuffled
minibatches, as PPO does; a recurrent network keeps its sequences whole and rebuilds its memory in every update.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import networks, returns, spaces
from yozh.agents.base import Params, State, ValueAgent, check_store
from yozh.agents.exploration import epsilon_greedy, greedy
from yozh.agents.minibatches import Sequences, check_sizes
from yozh.agents.scales import Raw, Rewards
from yozh.agents.schedules import Counts, Linear, Schedule, check_ends, schedule
from yozh.core import Experience, Report, Spec, TimeStep, Unroll, YozhError, check_share, leaf, static
from yozh.losses import select, squared, weighted_mean
from yozh.networks import Auto, Blueprint, QNetwork
from yozh.networks.cores import CoreBlueprint
from yozh.networks.torsos import as_blueprint
from yozh.stores import Latest


class Samples(Sequences):
    """What one minibatch needs, `[T, B, ...]`; without recurrence time is folded into B."""

    step: TimeStep
    """Its observation is normalised already."""
    action: Int[Array, "T B"]
    target: Float[Array, "T B"]
    """G"""
    weight: Float[Array, "T B"]
    memory: PyTree
    """`[B, ...]`"""


class PQN(ValueAgent):
    """On fresh experience; discrete actions, masked or not, recurrent or not. Defaults are those of the authors' program for
    MinAtar, with fewer streams, unless a field says otherwise."""

    learning_rate: Schedule = schedule(Linear(5e-4, 0.0))
    """Of RAdam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    lam: Float[Array, ""] = leaf(0.65)
    """λ: 0 bootstraps after one step, 1 at the end of the unroll or the episode."""
    epsilon: Schedule = schedule(Linear(1.0, 0.05, 0.1))
    """Chance of a random action while training."""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto((128, 128), "relu", norm=True), converter=as_blueprint)
    """With `norm`, which stands in for the target network."""
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent network."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation, clip to ±10."""
    epochs: int = static(2)
    """Passes over each unroll."""
    minibatches: int = static(8)
    """Updates in one epoch (32 of 128 steps each in the authors' program)."""
    streams: int = static(32)
    """Parallel environments (128 in the authors' program)."""
    length: int = static(32)
    """Steps T of each stream in one unroll."""

    def __check_init__(self) -> None:
        check_store("pqn", self.experience.store)
        check_sizes(
            "pqn",
            streams=self.streams,
            length=self.length,
            epochs=self.epochs,
            minibatches=self.minibatches,
            whole=self.core is not None,
        )
        check_ends("pqn: epsilon", self.epsilon)
        check_share("pqn: lam", self.lam)

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Latest())

    def network(self, spec: Spec, key: Key[Array, ""]) -> QNetwork:
        if not isinstance(spec.action, spaces.Discrete):
            raise YozhError(f"pqn takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those")
        return QNetwork(self.torso, self.core, spec, key, actions=spec.action.n, dueling=False)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.radam(self.learning_rate(counts))

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        q, memory = self.forward(params, memory, step)
        return epsilon_greedy(q, self.epsilon(params.counts), key) if explore else greedy(q), {}, memory

    def expected(self, params: Params, memory: PyTree, step: TimeStep) -> Float[Array, " B"]:
        return jnp.max(self.forward(params, memory, step)[0], -1)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        seen = self.see(state, batch.step), self.reward(batch.step.reward)
        batch = eqx.tree_at(lambda u: (u.step.obs, u.step.reward), batch, seen)
        q, _ = self.unroll(state.net, batch.step, batch.memory)
        reward_t, discount_t, lambda_t, weight = returns.segment(batch, self.gamma, self.lam)
        target = returns.lambda_return(reward_t, discount_t, lambda_t, jnp.max(q, -1)[1:])
        step, action = jax.tree.map(lambda x: x[:-1], (batch.step, batch.action))
        samples = Samples(step=step, action=action, target=target, weight=weight, memory=batch.memory).apart()

        def update(state: State, minibatch: Samples) -> tuple[State, Report]:
            return self.descend(state, minibatch, key)

        state, reports = samples.passes(update, state, self.epochs, self.minibatches, key)
        metrics = jax.tree.map(jnp.mean, reports.metrics) | {"reward_max": jnp.max(jnp.abs(reward_t))}
        return state, Report(metrics, reports.finite.all())

    def loss(self, net: QNetwork, state: State, batch: Samples, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        q, _ = self.unroll(net, batch.step, batch.memory)
        said = select(q, batch.action)
        loss = weighted_mean(squared(said, batch.target), batch.weight)
        return loss, ({"q": weighted_mean(said, batch.weight)}, None)

    def unroll(self, net: QNetwork, step: TimeStep, memory: PyTree) -> tuple[Float[Array, "T B actions"], PyTree]:
        """The values of all actions at each of T steps, whose observations are normalised already."""
        return networks.unroll(net, step.obs, memory, step.first, step.extras.get("legal"))
