"""Deep Q-learning (Mnih et al. 2015), with the parts that change its target or its network.

    L(θ) = E[ ℓ( R + Γ · max_a Q(s', a; θ⁻) − Q(s, a; θ) ) ]                          (Mnih et al. 2015, eq. 2)

where R and Γ are the reward and the discount of n steps cut at the episode's end, and s' the observation they lead to
(n = 1: r + γ · max Q). Double Q-learning chooses a with θ and values it with θ⁻ (van Hasselt et al. 2016, eq. 4).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import losses, networks, returns, spaces
from yozh.agents.base import GradientAgent, Params, State
from yozh.agents.schedules import Counts, Linear, Schedule, schedule
from yozh.agents.targets import Hard, TargetUpdate
from yozh.core import Experience, Spec, TimeStep, Unroll, YozhError, leaf, require, static
from yozh.networks import Auto, Blueprint, QNetwork
from yozh.networks.torsos import as_blueprint
from yozh.stores import Replay


class DQN(GradientAgent):
    """Off-policy; discrete actions, masked or not. Defaults are those of Stable-Baselines3 2.9 unless a field says otherwise."""

    learning_rate: Schedule = schedule(1e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    epsilon: Schedule = schedule(Linear(1.0, 0.05, 0.1))
    """Chance of a random action while training."""
    target: TargetUpdate = Hard(2500)
    """How the target network follows: `Hard(updates)` or `Soft(rate)`. (10,000 environment steps at the default ratio.)"""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    torso: Blueprint = eqx.field(default=Auto(activation="relu", init="uniform"), converter=as_blueprint)
    double: bool = static(False)
    """Choose the bootstrap action with the online network."""
    dueling: bool = static(False)
    """Separate value and advantage streams."""
    huber: bool = static(True)
    """Huber loss with threshold 1 instead of half the square."""
    n_step: int = static(1)
    """Steps before the bootstrap."""
    normalise_observations: bool = static(False)
    """Subtract the running mean and divide by the running deviation."""
    batch: int = static(32)
    """Windows in one update."""
    capacity: int = static(1_000_000)
    """Environment steps that the replay keeps."""
    warm_up: int = static(100)
    """Environment steps before the first update."""
    update_every: int = static(4)
    """Environment steps for one update."""
    streams: int = static(8)
    """Parallel environments (1 in Stable-Baselines3)."""
    length: int | None = static(None)
    """Steps of each stream between two bouts of learning; none: as few as `update_every` allows. Long ones let one policy
    act for a while, and then learn much at once (`train_freq` 256 in rl-zoo's CartPole)."""

    def __check_init__(self) -> None:
        for name in ("batch", "capacity", "update_every", "streams", "n_step"):
            require(getattr(self, name) > 0, f"dqn: {name} must be positive, not {getattr(self, name)}")
        require(
            self.batch <= self.capacity, f"dqn: a batch of {self.batch} is larger than the store of {self.capacity}"
        )
        require(
            self.length is None or (self.length > 0 and self.length * self.streams % self.update_every == 0),
            lambda: f"dqn: length {self.length} x {self.streams} streams is no multiple of update_every {self.update_every}",
        )
        room = self.capacity // self.streams
        require(room > self.n_step, f"dqn: n_step {self.n_step} does not fit into {room} stored steps of each stream")
        require(
            self.warm_up <= self.capacity, f"dqn: warm_up {self.warm_up} is larger than the store of {self.capacity}"
        )

    @property
    def experience(self) -> Experience:
        unroll = self.length or math.lcm(self.streams, self.update_every) // self.streams
        return Experience(
            streams=self.streams,
            unroll=unroll,
            store=Replay(self.capacity, self.batch, self.n_step),
            updates=unroll * self.streams // self.update_every,
            warm_up=max(self.warm_up, self.streams * (self.n_step + 1)),
            max_lag=1_000_000,
        )

    def network(self, spec: Spec, key: Key[Array, ""]) -> QNetwork:
        if not isinstance(spec.action, spaces.Discrete):
            raise YozhError(f"dqn takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those")
        return QNetwork(self.torso, None, spec, key, actions=spec.action.n, dueling=self.dueling)

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        state = super().init(key, spec)
        return eqx.tree_at(lambda s: s.target, state, jax.tree.map(jnp.copy, state.net), is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts))

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        q, memory = self.forward(params, memory, step)
        greedy = jnp.argmax(q, -1).astype(jnp.int32)
        if not explore:
            return greedy, {}, memory
        # One draw decides both: below epsilon, its position within [0, epsilon) is the rank of the random action.
        epsilon = self.epsilon(params.counts)
        rank = jax.random.uniform(key, greedy.shape) / jnp.maximum(epsilon, 1e-8)
        allowed = q > jnp.finfo(q.dtype).min
        nth = jnp.floor(rank * allowed.sum(-1).astype(jnp.float32)).astype(jnp.int32) + 1
        random = jnp.argmax(jnp.cumsum(allowed, -1) >= nth[:, None], -1).astype(jnp.int32)
        return jnp.where(rank < 1.0, random, greedy), {}, memory

    def loss(self, net: QNetwork, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:
        """`batch`: windows `[n+1, B, ...]` of replay."""
        reward, discount, step_t, weight = returns.window(batch, self.gamma)
        step_tm1 = jax.tree.map(lambda x: x[0], batch.step)

        def q_values(net: QNetwork, step: TimeStep) -> Float[Array, "B actions"]:
            return networks.forward(net, self.see(state, step), (), step.first, step.extras.get("legal"))[0]

        q_tm1 = losses.select(q_values(net, step_tm1), batch.action[0])
        q_t = q_values(state.target, step_t)
        if self.double:
            target = losses.double_q_target(reward, discount, q_values(jax.lax.stop_gradient(net), step_t), q_t)
        else:
            target = losses.q_target(reward, discount, q_t)
        target = jax.lax.stop_gradient(target)
        errors = losses.huber(q_tm1, target, 1.0) if self.huber else losses.squared(q_tm1, target)
        loss = losses.weighted_mean(errors, weight * batch.weight)
        metrics = {"q": losses.weighted_mean(q_tm1, weight), "reward_max": jnp.max(jnp.abs(batch.step.reward))}
        return loss, (metrics, jnp.abs(target - q_tm1))

    def after(self, state: State) -> State:
        return eqx.tree_at(lambda s: s.target, state, self.target(state.net, state.target, state.counts.updates))
