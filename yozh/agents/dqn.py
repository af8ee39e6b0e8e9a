"""Deep Q-learning (Mnih et al. 2015), with the parts that change its target, its network or its replay.

    L(θ) = E[ w ℓ( Z(s, a; θ), h(R + Γ h⁻¹(Z(s', a*; θ⁻))) ) ],  a* = argmax_a E[Z(s', a)]          (Mnih et al. 2015, eq. 2)

where R and Γ are the reward and the discount of n steps cut at the episode's end, and s' the observation they lead to. What
stands here is said by parts: Z and ℓ by `values` (plainly: Q(s, a) and Huber's loss), R + Γ Z by `backup`, h by `scale` (plainly:
the identity), which windows come and their weight w by `replay`. Double Q-learning chooses a* with θ and values it with θ⁻
(van Hasselt et al. 2016, eq. 4).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import losses, networks, spaces
from yozh.agents.backups import Backup, Greedy, Look, Munchausen, Target, Traced
from yozh.agents.base import GradientAgent, Params, State
from yozh.agents.sampling import Sampling, Uniform
from yozh.agents.scales import PopArt, Raw, Rewards, Same, Scale
from yozh.agents.schedules import Counts, Linear, Schedule, schedule
from yozh.agents.targets import Hard, TargetUpdate
from yozh.agents.values import C51, Expected, Outcomes, Values, taken
from yozh.core import Experience, Report, Spec, TimeStep, Unroll, YozhError, leaf, require, static
from yozh.distributions import masked
from yozh.networks import Auto, Blueprint
from yozh.networks.network import Network
from yozh.networks.noisy import Noise, as_noise, mean_sigma, perturbed
from yozh.networks.torsos import as_blueprint


class DQN(GradientAgent):
    """Off-policy; discrete actions, masked or not. Defaults are those of Stable-Baselines3 2.9 unless a field says otherwise."""

    learning_rate: Schedule = schedule(1e-4)
    """Of Adam."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    epsilon: Schedule = schedule(Linear(1.0, 0.05, 0.1))
    """Chance of a random action while training; not used where the layers are noisy."""
    target: TargetUpdate = Hard(2500)
    """How the target network follows: `Hard(updates)` or `Soft(rate)`. (10,000 environment steps at the default ratio.)"""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    adam_epsilon: Float[Array, ""] = leaf(1e-8)
    torso: Blueprint = eqx.field(default=Auto(activation="relu", init="uniform"), converter=as_blueprint)
    double: bool = static(False)
    """Choose the bootstrap action with the online network."""
    dueling: bool = static(False)
    """Separate value and advantage streams."""
    values: Values = Expected()
    """What is learnt of an action: `Expected()`, or the distribution of its return by `C51(low, high)`, `QuantileRegression()` or
    `ImplicitQuantile()`."""
    backup: Backup = Greedy()
    """Where the target comes from: `Greedy()`, `Munchausen()`, `Retrace(lam)` or `Peng(lam)`."""
    n_step: int = static(1)
    """Steps of a window: before the bootstrap, or at most before a trace ends."""
    replay: Sampling = Uniform()
    """How windows are drawn: `Uniform()` or `Prioritised(alpha, beta)`."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    scale: Scale = Same()
    """On which the network says returns: the same one, `Squashed()` or `PopArt()`."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights instead of random actions: true, `Factorised(sigma)` or `Independent(sigma)`."""
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
            lambda: (
                f"dqn: length {self.length} x {self.streams} streams is no multiple of update_every {self.update_every}"
            ),
        )
        room = self.capacity // self.streams
        require(room > self.n_step, f"dqn: n_step {self.n_step} does not fit into {room} stored steps of each stream")
        require(
            self.warm_up <= self.capacity, f"dqn: warm_up {self.warm_up} is larger than the store of {self.capacity}"
        )
        require(
            not isinstance(self.backup, Traced) or (isinstance(self.values, Expected) and self.n_step > 1),
            f"dqn: {type(self.backup).__name__} traces expected returns over windows: it takes values=Expected() and n_step > 1",
        )
        require(
            not (self.double and isinstance(self.backup, Munchausen)),
            "dqn: Munchausen has no best action for double to choose: its policy is the target network's; use double=False",
        )
        require(
            not (isinstance(self.values, C51) and isinstance(self.scale, PopArt)),
            "dqn: C51 learns chances of fixed returns, which PopArt cannot rescale; use quantiles, or scale=Squashed()",
        )

    @property
    def experience(self) -> Experience:
        unroll = self.length or math.lcm(self.streams, self.update_every) // self.streams
        return Experience(
            streams=self.streams,
            unroll=unroll,
            store=self.replay.store(self.capacity, self.batch, self.n_step),
            updates=unroll * self.streams // self.update_every,
            warm_up=max(self.warm_up, self.streams * (self.n_step + 1)),
            max_lag=1_000_000,
        )

    def network(self, spec: Spec, key: Key[Array, ""]) -> Network:
        if not isinstance(spec.action, spaces.Discrete):
            raise YozhError(f"dqn takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those")
        net = self.values.network(self.torso, spec, key, actions=spec.action.n, dueling=self.dueling)
        noise = as_noise(self.noisy)
        return self.scale.install(net if noise is None else noise.install(net))

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        state = super().init(key, spec)
        return eqx.tree_at(lambda s: s.target, state, jax.tree.map(jnp.copy, state.net), is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate(counts), eps=self.adam_epsilon)

    def answer(self, net: Network, about: Params | State, step: TimeStep, key: Key[Array, ""] | None) -> tuple[Array, PyTree]:  # fmt: skip
        """What the network says of a batch of steps, `[B, actions, n]`, and what it was asked."""
        question = self.values.question(self.see(about, step), key)
        return networks.forward(net, question, (), step.first)[0], question

    def outcomes(self, net: Network, answer: Float[Array, "*b n"]) -> Outcomes:
        found = self.values.outcomes(answer)
        return Outcomes(self.scale.decode(net, found.worth), found.chance)

    def look(self, net: Network, about: Params | State, step: TimeStep, key: Key[Array, ""] | None) -> Look:
        outcomes = self.outcomes(net, self.answer(net, about, step, key)[0])
        prefer, legal = self.values.prefer(outcomes), step.extras.get("legal")
        return Look(prefer if legal is None else masked(prefer, legal), outcomes)

    def forward(self, params: Params | State, memory: PyTree, step: TimeStep) -> tuple[Float[Array, "B actions"], PyTree]:  # fmt: skip
        """What to choose actions by."""
        return self.look(params.net, params, step, None).prefer, memory

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        if explore:
            params = eqx.tree_at(lambda p: p.net, params, perturbed(params.net, key))
        q, memory = self.forward(params, memory, step)
        greedy = jnp.argmax(q, -1).astype(jnp.int32)
        if not explore or self.noisy is not None:
            return greedy, {}, memory
        # One draw decides both: below epsilon, its position within [0, epsilon) is the rank of the random action.
        epsilon = self.epsilon(params.counts)
        rank = jax.random.uniform(key, greedy.shape) / jnp.maximum(epsilon, 1e-8)
        allowed = q > jnp.finfo(q.dtype).min
        nth = jnp.floor(rank * allowed.sum(-1).astype(jnp.float32)).astype(jnp.int32) + 1
        random = jnp.argmax(jnp.cumsum(allowed, axis=-1) >= nth[:, None], -1).astype(jnp.int32)
        return jnp.where(rank < 1.0, random, greedy), {}, memory

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """`batch`: windows `[n+1, B, ...]` of replay."""
        key, k_target, k_online = jax.random.split(key, 3)
        fixed, online = perturbed(state.target, k_target), perturbed(state.net, k_online)

        def look(step: TimeStep) -> Look:
            seen = self.look(fixed, state, step, k_target)
            return Look(self.look(online, state, step, k_online).prefer, seen.outcomes) if self.double else seen

        batch = eqx.tree_at(lambda u: u.step.reward, batch, self.reward(batch.step.reward))
        target = self.backup(look, batch, self.gamma)
        state = eqx.tree_at(lambda s: s.net, state, self.scale.follow(state.net, *target))
        return self.descend(state, (batch, target), key)

    def loss(self, net: Network, state: State, batch: tuple[Unroll, Target], key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: windows and what their first actions were worth."""
        window, (outcomes, weight) = batch
        known = self.values.known(outcomes)
        target = Outcomes(self.scale.encode(net, known.worth), known.chance)
        step_tm1 = jax.tree.map(lambda x: x[0], window.step)
        answer, question = self.answer(perturbed(net, key), state, step_tm1, key)
        said = taken(answer, window.action[0])
        errors, priority, metrics = self.values.lesson(said, question, target)
        loss = losses.weighted_mean(errors * self.replay.weights(window.weight, state.counts), weight)
        metrics = {name: losses.weighted_mean(x, weight) for name, x in metrics.items()}
        metrics["q"] = losses.weighted_mean(self.outcomes(net, said).mean(), weight)
        metrics["reward_max"] = jnp.max(jnp.abs(window.step.reward))
        if self.noisy is not None:
            metrics["noise"] = mean_sigma(net)
        return loss, (metrics, priority)

    def after(self, state: State) -> State:
        return eqx.tree_at(lambda s: s.target, state, self.target(state.net, state.target, state.counts.updates))
