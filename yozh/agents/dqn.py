"""Deep Q-learning (Mnih et al. 2015), with the parts that change its target, its network or its replay.

    L(θ) = E[ w ℓ( Z(s, a; θ), h(R + Γ h⁻¹(Z(s', a*; θ⁻))) ) ],  a* = argmax_a E[Z(s', a)]          (Mnih et al. 2015, eq. 2)

where R and Γ are the reward and the discount of n steps cut at the episode's end, and s' the observation they lead to. What
stands here is said by parts: Z and ℓ by `values` (plainly: Q(s, a) and Huber's loss), R + Γ Z by `backup`, h by `scale` (plainly:
the identity), which windows come and their weight w by `replay`. Double Q-learning chooses a* with θ and values it with θ⁻
(van Hasselt et al. 2016, eq. 4). With a recurrent network s is all that was seen in the episode: the loss is the mean over the
steps of a sequence, before which θ and θ⁻ each rebuild their memory from the one that acting had (Kapturowski et al. 2019). With
several `heads` the loss is the mean of theirs.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from yozh import losses, networks, spaces
from yozh.agents.backups import Backup, Greedy, Look, Munchausen, Target, Traced
from yozh.agents.base import Params, State, ValueAgent
from yozh.agents.exploration import epsilon_greedy, greedy
from yozh.agents.heads import Heads, Hyperbolic, Single
from yozh.agents.optimisers import Adam, Optimiser
from yozh.agents.sampling import Sampling, Uniform
from yozh.agents.scales import Clipped, PopArt, Raw, Rewards, Same, Scale
from yozh.agents.schedules import Counts, Linear, Schedule, check_ends, schedule
from yozh.agents.sequences import MEMORY, check_room, check_window, folded, memory_before, part, windows
from yozh.agents.targets import Hard, TargetUpdate
from yozh.agents.values import C51, Expected, Outcomes, Values, taken
from yozh.core import Experience, Report, Spec, TimeStep, Unroll, YozhError, concrete, leaf, require, static
from yozh.distributions import masked
from yozh.networks import Auto, Blueprint
from yozh.networks.cores import CoreBlueprint
from yozh.networks.network import Network, initial_memory
from yozh.networks.noisy import Noise, as_noise, mean_sigma, perturbed
from yozh.networks.torsos import as_blueprint


class DQN(ValueAgent):
    """Off-policy; discrete actions, masked or not. Defaults are those of Stable-Baselines3 2.9 unless a field says otherwise."""

    learning_rate: Schedule = schedule(1e-4)
    """η of `descent`."""
    gamma: Float[Array, ""] = leaf(0.99)
    """Discount of one step."""
    epsilon: Schedule = schedule(Linear(1.0, 0.05, 0.1))
    """Chance of a random action while training; not used where the layers are noisy or heads explore."""
    target: TargetUpdate = Hard(2500)
    """How the target network follows: `Hard(updates)` or `Soft(rate)`. (10,000 environment steps at the default ratio.)"""
    max_gradient_norm: Float[Array, ""] = leaf(10.0)
    """Global norm to which gradients are clipped."""
    descent: Optimiser = Adam()
    """How a step follows from gradients: `Adam(epsilon)` or `RMSProp(decay, epsilon)`."""
    torso: Blueprint = eqx.field(default=Auto(activation="relu", init="uniform"), converter=as_blueprint)
    core: CoreBlueprint | None = None
    """`GRU(size)` or `LSTM(size)` for a recurrent network; the replay then holds its memory too."""
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
    sequence: int | None = static(None)
    """Consecutive steps that are learnt from together, each with a window of its own; none: 1, or 10 with a `core` (80 in the
    paper). Gradients flow through the memory from one to the next."""
    burn_in: int = static(0)
    """Steps before these which only rebuild the memory (40 in the paper)."""
    replay: Sampling = Uniform()
    """How windows are drawn: `Uniform()` or `Prioritised(alpha, beta)`."""
    heads: Heads = Single()
    """One answer, or several side by side: `Bootstrapped(count)` explores by them, `Horizons(others)` and `Hyperbolic(k)` learn at
    several discounts."""
    reward: Rewards = Raw()
    """What is learnt from: the rewards as they come, `Clipped(bound)` or `Scaled(factor)`. Evaluation counts them as they come."""
    scale: Scale = Same()
    """On which the network says returns: the same one, `Squashed()` or `PopArt()`."""
    noisy: Noise | bool | None = eqx.field(default=None, converter=as_noise)
    """Explore by learnt noise on the weights instead of random actions, which remain until the first update: true,
    `Factorised(sigma)` or `Independent(sigma)`."""
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
        check_room("dqn", self.streams, self.unroll, self.capacity)
        room = self.capacity // self.streams
        check_window(self.burn_in, self.positions, self.n_step, remembers=self.core is not None, room=room)
        require(
            0 <= self.warm_up <= self.capacity,
            f"dqn: warm_up lies between 0 and the store of {self.capacity}, not at {self.warm_up}",
        )
        check_ends("dqn: epsilon", self.epsilon)
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
        if isinstance(self.values, C51) and isinstance(self.reward, Clipped):
            low, high, bound = self.values.low, self.values.high, self.reward.bound
            require(
                not all(map(concrete, (low, high, bound))) or jnp.maximum(-low, high) >= self.scale.encode(None, bound),
                lambda: (
                    f"dqn: C51's support from {low:g} to {high:g} does not hold one reward of {bound:g}, which Clipped lets through"
                ),
            )
        self.heads.check(self.values, self.scale, self.gamma)

    @property
    def unroll(self) -> int:
        """Steps of each stream between two bouts of learning."""
        return self.length or math.lcm(self.streams, self.update_every) // self.streams

    @property
    def positions(self) -> int:
        """Steps of a window of replay that are learnt from."""
        return self.sequence if self.sequence is not None else 1 if self.core is None else 10

    @property
    def window(self) -> int:
        """Transitions of a window of replay."""
        return self.burn_in + self.positions - 1 + self.n_step

    @property
    def experience(self) -> Experience:
        return Experience(
            streams=self.streams,
            unroll=self.unroll,
            store=self.replay.store(self.capacity, self.batch, self.window, self.burn_in, self.positions),
            updates=self.unroll * self.streams // self.update_every,
            warm_up=max(self.warm_up, self.streams * (self.window + 1)),
            max_lag=1_000_000,
        )

    def network(self, spec: Spec, key: Key[Array, ""]) -> Network:
        if not isinstance(spec.action, spaces.Discrete):
            raise YozhError(f"dqn takes Discrete actions, not {spaces.describe(spec.action)}; ppo and a2c take those")
        sizes = dict(actions=spec.action.n, dueling=self.dueling, heads=self.heads.count)
        build = functools.partial(self.values.network, self.torso, spec, **sizes)
        net = build(key, core=self.core)
        noise = as_noise(self.noisy)
        net = self.scale.install(net if noise is None else noise.install(net), spec)
        return self.heads.install(net, lambda: build(jax.random.fold_in(key, 1)))

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        state = super().init(key, spec)
        return eqx.tree_at(lambda s: s.target, state, jax.tree.map(jnp.copy, state.net), is_leaf=lambda x: x is None)

    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        return self.descent(self.learning_rate(counts))

    def beside(self, key: Key[Array, ""]) -> Key[Array, ""]:
        """Of what is drawn beside the noise of the network, which takes the key itself."""
        return key if self.noisy is None else jax.random.fold_in(key, 1)

    def answer(self, net: Network, about: Params | State, memory: PyTree, step: TimeStep, key: Key[Array, ""] | None) -> tuple[Array, PyTree, PyTree]:  # fmt: skip
        """What the network says of a batch of steps `[B, ...]`, or of sequences of them `[T, B, ...]`, after the memory `[B, ...]`
        (`None`: an empty one); what it was asked, and the memory after them."""
        axes = step.first.ndim
        memory = initial_memory(net, step.first.shape[-1]) if memory is None else memory
        question = self.values.question(self.see(about, step), None if key is None else self.beside(key), axes)
        lift = networks.forward if axes == 1 else networks.unroll
        answer, memory = lift(net, question, memory, step.first)
        return self.heads.apart(answer), question, memory

    def outcomes(self, net: Network, answer: Float[Array, "*b n"], obs: PyTree) -> Outcomes:
        """What may come, by the network's answer about observations."""
        found = self.values.outcomes(answer)
        return Outcomes(self.scale.decode(net, found.worth, obs), found.chance)

    def look(self, net: Network, about: Params | State, memory: PyTree, step: TimeStep, key: Key[Array, ""] | None) -> tuple[Look, PyTree]:  # fmt: skip
        axes = step.first.ndim
        answer, _, memory = self.answer(net, about, memory, step, key)
        outcomes = self.outcomes(net, answer, step.obs)
        prefer, legal = self.values.prefer(outcomes), step.extras.get("legal")
        if legal is not None:
            legal = jnp.expand_dims(legal, tuple(range(axes, prefer.ndim - 1)))
            prefer = masked(prefer, jnp.broadcast_to(legal, prefer.shape))
        return Look(prefer, outcomes), memory

    def forward(self, params: Params | State, memory: PyTree, step: TimeStep) -> tuple[Float[Array, "B actions"], PyTree]:  # fmt: skip
        """What to choose actions by."""
        look, memory = self.look(params.net, params, memory, step, None)
        return self.heads.judge(look.prefer, self.gamma), memory

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        if explore:
            params = eqx.tree_at(lambda p: p.net, params, perturbed(params.net, key))
        extras = {} if self.core is None else {MEMORY: memory}
        look, memory = self.look(params.net, params, memory, step, None)
        if not explore:
            return greedy(self.heads.judge(look.prefer, self.gamma)), extras, memory
        q, more, memory = self.heads.explore(look.prefer, self.gamma, memory, self.beside(key))
        if self.heads.explores:
            return greedy(q), extras | more, memory
        # A noisy network hardly ever leaves an action that it never saw anything else than: its replay begins at random.
        epsilon = self.epsilon(params.counts) if self.noisy is None else jnp.where(params.counts.updates == 0, 1.0, 0.0)
        return epsilon_greedy(q, epsilon, self.beside(key)), extras | more, memory

    def expected(self, params: Params, memory: PyTree, step: TimeStep) -> Float[Array, " B"] | None:
        """None of Munchausen's backup, which pays itself besides, and of hyperbolic heads, whose discount is no power."""
        if isinstance(self.backup, Munchausen) or isinstance(self.heads, Hyperbolic):
            return None
        look, _ = self.look(params.net, params, memory, step, None)
        chosen = greedy(self.heads.judge(look.prefer, self.gamma))
        return losses.select(self.heads.judge(look.outcomes.mean(), self.gamma), chosen)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        """`batch`: windows of replay, `[burn_in + sequence + n_step, B, ...]`."""
        key, k_target, k_online = jax.random.split(key, 3)
        fixed, online = perturbed(state.target, k_target), perturbed(state.net, k_online)

        def look(step: TimeStep, memory: PyTree = None) -> Look:
            seen, _ = self.look(fixed, state, memory, step, k_target)
            if not self.double:
                return seen
            return Look(self.look(online, state, memory, step, k_online)[0].prefer, seen.outcomes)

        batch = eqx.tree_at(lambda u: u.step.reward, batch, self.reward(batch.step.reward))
        if self.core is None:
            window = windows(batch, 0, self.positions, self.n_step)
            target = self.heads.targets(self.backup, look, window, self.gamma)
        else:  # a step's memory follows from the steps before it: all are looked at at once, and a backup finds its look there
            looked = eqx.tree_at(lambda u: u.step.obs, batch, look(batch.step, memory_before(batch)))
            window = windows(looked, self.burn_in, self.positions, self.n_step)
            target = self.heads.targets(self.backup, lambda step: step.obs, window, self.gamma)
        net = self.scale.follow(state.net, *target, folded(self.learnt_from(batch)).obs)
        state = eqx.tree_at(lambda s: s.net, state, net)
        return self.descend(state, (batch, window, target), key)

    def learnt_from(self, batch: Unroll) -> TimeStep:
        """The steps of windows of replay that are learnt from, `[positions, B, ...]`."""
        return part(batch.step, self.burn_in, self.burn_in + self.positions)

    def said(self, net: Network, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[Array, PyTree]:
        """What the network says of the steps that are learnt from, `[positions · B, actions, n]`, and what it was asked."""
        steps = self.learnt_from(batch)
        if (
            self.core is None
        ):  # as sequences of one step: products of their gradient reach XLA in the form of its quick kernels
            return folded(self.answer(net, state, None, jax.tree.map(lambda x: x[None], folded(steps)), key)[:2])
        memory = memory_before(batch)
        if self.burn_in:
            memory = self.answer(jax.lax.stop_gradient(net), state, memory, part(batch.step, 0, self.burn_in), key)[2]
        return folded(self.answer(net, state, memory, steps, key)[:2])

    def loss(self, net: Network, state: State, batch: tuple[Unroll, Unroll, Target], key: Key[Array, ""]) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """`batch`: windows of replay, the windows of n transitions in them, and what the first actions of these were worth."""
        sequence, window, (outcomes, weight) = batch
        known, obs = self.values.known(outcomes), folded(self.learnt_from(sequence)).obs
        target = Outcomes(self.scale.encode(net, known.worth, obs), known.chance)
        answer, question = self.said(perturbed(net, key), state, sequence, key)
        said = taken(answer, window.action[0])
        errors, error, metrics = self.heads.lesson(self.values, said, question, target, window)
        loss = losses.weighted_mean(errors * self.replay.weights(window.weight, state.counts), weight)
        metrics = {name: losses.weighted_mean(x, weight) for name, x in metrics.items()}
        q = self.outcomes(net, said, obs).mean()
        metrics["q"] = losses.weighted_mean(q.reshape(len(weight), -1).mean(-1), weight)
        metrics["reward_max"] = jnp.max(jnp.abs(window.step.reward))
        if self.noisy is not None:
            metrics["noise"] = mean_sigma(net)
        error, weight = (x.reshape(self.positions, -1) for x in (error, weight))
        return loss, (metrics, self.replay.priority(error, weight))

    def after(self, state: State) -> State:
        return eqx.tree_at(lambda s: s.target, state, self.target(state.net, state.target, state.counts.updates))
