"""Presets that are variants of an agent, found by names of their own."""

import dataclasses

import jax
import numpy as np
import pytest

import yozh
from tests.contract import train
from yozh import presets
from yozh.agents import DQN, Multiplicative
from yozh.agents.values import Expected
from yozh.core import YozhError
from yozh.environments import probes
from yozh.networks import MLP


def test_the_lectures_lander_is_as_its_slides_print_it():
    preset = presets.find("dqn-lecture", "LunarLander-v3")
    agent, usual = preset.agent, DQN()
    assert (preset.agent, preset.steps) == presets.start("dqn-lecture", "LunarLander-v3")
    assert agent.torso == MLP((150, 120), "relu", "uniform") and agent.values == Expected(huber=False)
    assert isinstance(agent.epsilon, Multiplicative)
    printed = [agent.epsilon.start, agent.epsilon.factor, agent.epsilon.floor, agent.learning_rate.value, agent.gamma]
    np.testing.assert_allclose(printed, [1.0, 0.996, 0.01, 0.001, 0.99], rtol=1e-6)
    assert (agent.batch, agent.capacity, agent.streams) == (64, 1_000_000, 1)
    plain = ("double", "dueling", "n_step", "core", "noisy", "normalise_observations")
    assert all(getattr(agent, name) == getattr(usual, name) for name in plain)


def test_the_lectures_lander_updates_every_step_once_there_is_a_batch_and_has_no_target_network():
    agent = dataclasses.replace(presets.find("dqn-lecture", "LunarLander-v3").agent, capacity=200)
    state = train(agent, probes.Endless(limit=200), 100)[0].state
    assert (int(state.counts.steps), int(state.counts.updates)) == (100, 100 - 64)
    jax.tree.map(np.testing.assert_array_equal, state.net, state.target)


@pytest.mark.parametrize(("name", "where"), [("dqn-lecture", "LunarLander-v3"), ("rainbow", "Atari games")])
def test_a_variant_is_refused_elsewhere_and_stands_for_itself_without_an_environment(name: str, where: str):
    assert name in presets.kinds()
    with pytest.raises(YozhError, match=f"{name} is a preset of dqn for {where}; CartPole-v1 takes dqn, with parts"):
        presets.start(name, "CartPole-v1")
    agent, steps = presets.start(name, None)
    assert isinstance(agent, DQN) and steps is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdpo", "pqn", "trpo"])
def test_cartpole(name: str):
    """The median of three: on one machine in some, a seed rounds its way to 474."""
    runs = [yozh.train(name, "CartPole-v1", seed=seed, eval_every=1_000_000) for seed in range(3)]
    assert np.median([run.summary["evaluation"]["mean_return"] for run in runs]) >= 475
