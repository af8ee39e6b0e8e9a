"""PQN beyond the contract: its target, its minibatches, its torso's norm, its exploration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import SMALL, train
from yozh.agents import PQN
from yozh.agents.exploration import epsilon_greedy
from yozh.agents.minibatches import Sequences
from yozh.agents.scales import Scaled
from yozh.agents.schedules import over
from yozh.core import TimeStep, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.networks import CNN, GRU, MLP, Auto
from yozh.runners import fused
from yozh.runners.rollout import rollout
from yozh.spaces import Box, Dict


@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
@pytest.mark.parametrize("ends", [True, False], ids=["terminated", "truncated"])
def test_the_loss_as_the_paper_prints_it(core: GRU | None, ends: bool):
    """One update on a whole unroll, against loops over time; episodes end within it."""
    agent = PQN(torso=Auto((16,), "tanh"), core=core, streams=3, length=20, epochs=1, minibatches=1, gamma=0.9, lam=0.6,
                reward=Scaled(0.5))  # fmt: skip
    agent, env = over(agent, 100), Vectorised(probes.Endless(limit=7, ends=ends), 3)
    run = fused.init(agent, env, jax.random.key(0))
    _, u = rollout(agent, agent.policy(run.state), env, run.sim, 20, jnp.int32(0), jax.random.key(1))
    q, memory = [], u.memory
    for t in range(21):
        step = jax.tree.map(lambda x, t=t: x[t], u.step)
        said, memory = agent.forward(run.state, memory, step)
        q.append(np.asarray(said, np.float64))
    reward, discount, last = (np.asarray(x, np.float64) for x in (u.step.reward, u.step.discount, u.step.last))
    errors = []
    for b in range(3):
        worth = q[20][b].max()
        for t in reversed(range(20)):
            bootstrap = q[t + 1][b].max()
            ahead = bootstrap if last[t + 1, b] else 0.4 * bootstrap + 0.6 * worth
            worth = 0.5 * reward[t + 1, b] + 0.9 * discount[t + 1, b] * ahead
            if not last[t, b]:
                errors.append(0.5 * (worth - q[t][b][int(u.action[t, b])]) ** 2)
    assert len(errors) < 60, "no episode ended"
    _, report = agent.learn(run.state, u, jax.random.key(2))
    np.testing.assert_allclose(report.metrics["loss"], np.mean(errors), rtol=1e-4)
    assert report.metrics["reward_max"] == 0.5


class Few(Sequences):
    x: jax.Array
    weight: jax.Array
    memory: tuple[jax.Array, ...]


def few(memory: bool) -> Few:
    number = jnp.arange(12).reshape(3, 4)
    return Few(x=number, weight=jnp.ones((3, 4)), memory=(jnp.arange(4),) if memory else ())


def passed(samples: Few, n: int, seed: int) -> Few:
    """The minibatches of one pass, `[n, T, B/n]`."""
    _, parts = samples.apart().passes(lambda carry, part: (carry, part), None, 1, n, jax.random.key(seed))
    return jax.tree.map(lambda x: x[0], parts)


def test_minibatches_cover_every_step_once():
    parts = passed(few(False), 3, 0)
    assert parts.x.shape == parts.weight.shape == (3, 1, 4)
    assert sorted(parts.x.ravel().tolist()) == [*range(12)]
    assert (parts.x != passed(few(False), 3, 1).x).any()


def test_sequences_with_memory_stay_whole_beside_it():
    parts = passed(few(True), 2, 0)
    assert parts.x.shape == (2, 3, 2) and parts.memory[0].shape == (2, 2)
    assert (parts.x == parts.memory[0][:, None, :] + jnp.array([0, 4, 8])[None, :, None]).all()
    assert sorted(parts.memory[0].ravel().tolist()) == [0, 1, 2, 3]


def test_sizes_that_make_no_equal_minibatches_are_refused():
    for settings, message in (
        ({"minibatches": 7}, "pqn: 7 minibatches do not divide 1024 steps"),
        ({"core": GRU(8), "minibatches": 64}, "pqn: 64 minibatches do not divide 32 streams"),
        ({"epochs": 0}, "pqn: epochs must be positive, not 0"),
        ({"lam": 1.1}, r"pqn: lam lies in \[0, 1\], not 1.1"),
    ):
        with pytest.raises(YozhError, match=message):
            PQN(**settings)


def test_epsilon_greedy_draws_what_is_legal_alike():
    low = jnp.finfo(jnp.float32).min
    q = jnp.broadcast_to(jnp.array([1.0, low, 3.0, 2.0, low]), (60_000, 5))
    found = np.bincount(epsilon_greedy(q, jnp.float32(0.3), jax.random.key(0)), minlength=5) / len(q)
    np.testing.assert_allclose(found, [0.1, 0.0, 0.8, 0.1, 0.0], atol=0.006)
    assert (epsilon_greedy(q, jnp.float32(0.0), jax.random.key(0)) == 2).all()


@pytest.mark.parametrize(
    ("torso", "shape"), [(MLP, (6,)), (CNN.minatar, (10, 10, 4)), (Auto, (6,))], ids=["mlp", "cnn", "auto"]
)
def test_a_norm_before_every_activation(torso, shape):
    """The answer does not change with the scale of the observation, once that is far above the norm's epsilon; without the norm it
    does."""
    space = Box(shape)
    obs = 100.0 * jax.random.normal(jax.random.key(1), space.shape)
    plain, normed = (torso(norm=norm, activation="relu").build(space, jax.random.key(0)) for norm in (False, True))
    np.testing.assert_allclose(normed(obs), normed(10.0 * obs), rtol=1e-3, atol=1e-3)
    assert np.abs(plain(obs) - plain(10.0 * obs)).max() > 1.0


def test_the_norm_goes_into_every_torso_of_a_dict():
    space = Dict.of({"speed": Box((3,)), "image": Box((10, 10, 4))})
    shapes = [
        sorted(x.shape for x in jax.tree.leaves(Auto(norm=n).build(space, jax.random.key(0)))) for n in (False, True)
    ]
    assert shapes[1].count((8, 8, 16)) - shapes[0].count((8, 8, 16)) == 2
    assert len(shapes[1]) - len(shapes[0]) == 2 * (2 + 2 + 1), (
        "convolution and layer, two layers, the one in which they meet"
    )


def test_values_without_replay_stay_within_what_rewards_allow():
    """Rewards of 1 and gamma .9: no value passes 10, though every unroll is learnt from many times."""
    agent = dataclasses.replace(SMALL["pqn"].probe, epochs=16, torso=Auto((16,), "relu", norm=True))
    run, _ = train(agent, probes.Endless(limit=5, ends=False), 300)
    step = TimeStep(jnp.ones((1, 1)), jnp.zeros(1), jnp.ones(1), jnp.ones(1, bool), jnp.zeros(1, bool))
    assert 9.0 < float(agent.forward(run.state, (), step)[0].max()) < 10.5
