"""The parts that agents share: schedules, running statistics, target updates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import SMALL, train
from yozh import agents
from yozh.agents import DQN, Constant, Linear, Multiplicative
from yozh.agents.minibatches import shuffle
from yozh.agents.optimisers import Adam, RMSProp
from yozh.agents.sampling import Uniform
from yozh.agents.schedules import Counts, over
from yozh.agents.statistics import Running, normalise, observation_statistics, update
from yozh.agents.targets import Hard, Soft
from yozh.core import YozhError
from yozh.environments.classic import CartPole
from yozh.spaces import Box, Dict, Discrete


def counts(steps: int = 0, episodes: int = 0) -> Counts:
    return Counts(jnp.int32(steps), jnp.int32(episodes), jnp.int32(0))


def test_schedules():
    assert Constant(0.3)(counts(7)) == jnp.float32(0.3)
    linear = Linear(1.0, 0.2, 0.5, total=100)
    np.testing.assert_allclose([linear(counts(s)) for s in (0, 25, 50, 100)], [1.0, 0.6, 0.2, 0.2], rtol=1e-6)
    decay = Multiplicative(1.0, 0.996, 0.01)
    np.testing.assert_allclose(
        [decay(counts(9, e)) for e in (0, 1, 100, 5000)], [1.0, 0.996, 0.996**100, 0.01], rtol=1e-5
    )


def test_the_length_of_the_run_is_written_into_schedules_without_one():
    agent = over(DQN(learning_rate=Linear(1.0, 0.0), epsilon=Linear(1.0, 0.0, total=7)), 50)
    assert agent.learning_rate.total == 50 and agent.epsilon.total == 7
    with pytest.raises(YozhError, match="steps must be positive"):
        over(agent, 0)


def test_epsilon_by_episodes_trains():
    agent = dataclasses.replace(SMALL["dqn"].agent, epsilon=Multiplicative())
    run, _ = train(agent, CartPole(), 100)
    episodes = int(run.state.counts.episodes)
    assert episodes > 5
    np.testing.assert_allclose(agent.epsilon(run.state.counts), 0.996**episodes, rtol=1e-5)


def test_counts_leave_resets_out():
    agent = SMALL["a2c"].agent
    run, metrics = train(agent, CartPole(), 50)
    slots = 50 * agent.experience.streams * agent.experience.unroll
    # Every finished episode but those that the last step closed was followed by one step that only reset.
    assert slots - int(run.state.counts.steps) in range(
        int(metrics.tally.episodes) - agent.streams, int(metrics.tally.episodes) + 1
    )
    assert int(run.state.counts.episodes) == int(metrics.tally.episodes)


def test_running_statistics_equal_those_of_all_data():
    data = np.random.default_rng(0).normal(3.0, 5.0, (7, 40, 2)).astype(np.float32)
    running = Running.of((2,))
    for part in data:
        running = running.update(jnp.asarray(part))
    flat = data.reshape(-1, 2)
    np.testing.assert_allclose(running.mean, flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(running.variance, flat.var(0), rtol=1e-4)
    seen = running.normalise(jnp.asarray(flat))
    np.testing.assert_allclose([seen.mean(), seen.std()], [0.0, 1.0], atol=1e-3)
    assert running.normalise(jnp.full((1, 2), 1e6)).max() == 10.0


def test_only_floats_are_normalised():
    space = Dict.of({"speed": Box((2,)), "goal": Discrete(3), "image": Box((4, 4, 1), 0, 255, "uint8")})
    obs = {"speed": jnp.ones((5, 2)), "goal": jnp.ones(5, jnp.int32), "image": jnp.ones((5, 4, 4, 1), jnp.uint8)}
    statistics = update(observation_statistics(space), obs)
    seen = normalise(statistics, obs)
    assert seen["goal"] is obs["goal"] and seen["image"] is obs["image"]
    np.testing.assert_allclose(seen["speed"], 0.0, atol=1e-4)
    assert normalise(None, obs) is obs


def test_targets():
    online, target = {"w": jnp.ones(2)}, {"w": jnp.zeros(2)}
    for updates, expected in ((2, 0.0), (3, 1.0), (4, 0.0), (6, 1.0)):
        assert (Hard(3)(online, target, jnp.int32(updates))["w"] == expected).all()
    np.testing.assert_allclose(Soft(0.1)(online, target, jnp.int32(1))["w"], 0.1)
    for bad in (lambda: Hard(0), lambda: Soft(0.0), lambda: Soft(1.5)):
        with pytest.raises(YozhError, match="target"):
            bad()


@pytest.mark.parametrize("part", [Adam(0.1), RMSProp(0.8, 0.1), RMSProp(0.8, 0.1, centred=False)], ids=["adam", "centred", "plain"])  # fmt: skip
def test_steps_as_written_out(part: Adam | RMSProp, lenient):
    rate, gradients = 0.3, np.random.default_rng(0).normal(1.0, 2.0, (12, 3))
    descent = part(jnp.float32(rate))
    state, mean, square = descent.init(jnp.zeros(3)), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, 1):
        step, state = descent.update(jnp.asarray(g, jnp.float32), state)
        if isinstance(part, Adam):
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
            expected = -rate * mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 0.1)
        else:
            mean, square = 0.8 * mean + 0.2 * g, 0.8 * square + 0.2 * g**2
            expected = -rate * g / np.sqrt(square - part.centred * mean**2 + 0.1)
        np.testing.assert_allclose(step, expected, rtol=1e-4)


def test_optimisers_that_there_are_not():
    for bad in (lambda: Adam(0.0), lambda: RMSProp(1.0), lambda: RMSProp(epsilon=0.0)):
        with pytest.raises(YozhError, match="descent"):
            bad()


@pytest.mark.parametrize("name", agents.names())
def test_a_replay_is_refused_by_all_that_have_none_to_choose(name: str):
    """In one line that says why, where Python would only say that it knows no such keyword."""
    kind = agents.names()[name]
    if "replay" in {f.name for f in dataclasses.fields(kind)}:
        assert name == "dqn" and kind(replay=Uniform()).replay == Uniform()
        return
    own = name in ("acer", "offpolicymdpo", "qprop")
    says = (
        "its replay is its own: set capacity and batch; .*"
        if own
        else "it learns from .* and a replay hands out .* use acer or dqn"
    )
    with pytest.raises(YozhError, match=f"^{name}: {says}$"):
        kind(replay=Uniform())
    with pytest.raises(TypeError, match="unexpected keyword argument 'replays'"):
        kind(replays=Uniform())


@pytest.mark.parametrize("n", [1, 2, 7, 512, 1000])
def test_shuffle_is_a_fair_permutation(n: int):
    keys = jax.random.split(jax.random.key(0), 2000)
    orders = np.asarray(jax.vmap(lambda k: shuffle(k, n))(keys))
    assert (np.sort(orders, 1) == np.arange(n)).all()
    if n > 2:
        mean = orders.mean(0)
        assert np.abs(mean - (n - 1) / 2).max() < 5 * n / np.sqrt(12 * 2000), "no place prefers small or large numbers"
