"""Each alarm rings for its own trouble, once, and none in a run that went well."""

import json
import math
import types
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from yozh import spaces
from yozh.agents import DQN, PPO
from yozh.app.alarms import Alarms
from yozh.core import Spec
from yozh.environments import probes
from yozh.networks import CNN, MLP, Auto
from yozh.networks.dead import dead_units
from yozh.runners.observers import Observer
from yozh.runners.policy import Policy

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded_ppo.jsonl").read_text().splitlines()]
"""What a run of PPO's preset on CartPole-v1, seed 0, told."""


def listen(rows, *, gamma=0.99, **options):
    """The alarms that a run's rows make ring."""
    told = []
    alarms = Alarms(told.append, **options)
    alarms.on_start({"object": types.SimpleNamespace(gamma=gamma, max_gradient_norm=0.5), "steps": 1000})
    for i, row in enumerate(rows):
        row = {"steps": 10 * (i + 1), "total_steps": 1000} | row
        (alarms.on_evaluation if "evaluation" in row else alarms.on_iteration)(row)
    return told


def evaluation(mean, width=1.0, **more):
    return {"evaluation": {"mean_return": mean, "ci95": [mean - width, mean + width], **more}}


def test_a_healthy_run_is_silent():
    assert len(RECORDED) > 100 and sum("evaluation" in row for row in RECORDED) == 5
    told = []
    alarms = Alarms(told.append)
    alarms.on_start({"object": PPO(), "steps": RECORDED[0]["total_steps"]})
    for row in RECORDED:
        (alarms.on_evaluation if "evaluation" in row else alarms.on_iteration)(row)
    assert told == []


def test_entropy_that_collapses_is_told_unless_the_policy_is_good():
    start, end = {"entropy": 0.7, "return_mean": 20.0}, {"entropy": 0.0035, "return_mean": 9.0}
    (told,) = listen([start, evaluation(40), end, evaluation(9), end, evaluation(9)])
    assert told["steps"] == 40 and "entropy fell to 0.0035, 0.50% of its first value" in told["alarm"]
    assert "evaluation is 9 (best 40)" in told["alarm"]
    assert listen([start, end, evaluation(9)])  # no better than at random
    assert not listen([start, evaluation(40), end, evaluation(500, 0)])  # still improving
    assert not listen([start, evaluation(500, 0), end, evaluation(500, 0)])  # nothing left to improve
    assert not listen([start, evaluation(40), start | {"entropy": 0.01}, evaluation(9)])
    assert not listen([{"entropy": 1.4, "return_mean": 20.0}, {"entropy": -2.0}, evaluation(9)])  # differential


def test_q_beyond_what_rewards_allow():
    assert not listen([{"q": 104.0, "reward_max": 1.0}])
    told = listen([{"q": 106.0, "reward_max": 1.0}, {"q": 900.0, "reward_max": 0.5}, {"q": 1.1e3}, {"q": 1.2e3}])
    assert [t["steps"] for t in told] == [10, 30] and "rewards up to 1 allow no more than 100" in told[0]["alarm"]
    assert not listen([{"q": 106.0, "reward_max": 1.0}], reward_bound=2.0)
    assert listen([{"q": -211.0}], reward_bound=2.0) and not listen([{"q": 1e9}])
    assert not listen([{"q": 1e9, "reward_max": 1.0}], gamma=1.0)


def test_kl_that_leaps():
    calm = [{"kl": 0.004}] * 8
    (told,) = listen([*calm, {"kl": 0.2}, {"kl": 0.2}])
    assert "kl is 0.2, and its median 0.004" in told["alarm"]
    assert not listen([*calm, {"kl": 0.09}]) and not listen([{"kl": 0.05}] * 8 + [{"kl": 0.4}])
    assert not listen([{"kl": 0.004}, {"kl": 0.2}])  # no median yet


def test_gradients_that_explode():
    calm = [{"gradient_norm": 0.5}] * 12
    (told,) = listen([*calm, {"gradient_norm": 60.0}, {"gradient_norm": 70.0}])
    assert "gradient_norm is 60, and its median 0.5" in told["alarm"]
    assert len(listen([*calm, {"gradient_norm": 60.0}, {"gradient_norm": 700.0}])) == 2
    assert not listen([*calm, {"gradient_norm": 40.0}])
    assert not listen([{"gradient_norm": 1e-6}] * 12 + [{"gradient_norm": 1.0}])  # the first reward of a sparse one


def test_a_support_that_cannot_hold_the_targets():
    (told,) = listen([{"clipped_targets": 0.03}] * 12)
    assert told["steps"] == 100 and "3.0% of the mass of targets lies beyond the support" in told["alarm"]
    assert not listen([{"clipped_targets": 0.03}] * 9 + [{"clipped_targets": 0.005}] * 20)
    assert not listen([{"clipped_targets": 0.009}] * 30)


def test_a_loss_that_runs_away():
    (told,) = listen([{"loss": 0.01 * 1.2**i} for i in range(35)])
    assert told["steps"] == 300 and "loss has doubled 5 times over" in told["alarm"]
    assert not listen([{"loss": 0.01 * 1.1**i} for i in range(60)])
    assert not listen([{"loss": 1.0 + i % 7} for i in range(60)])


def test_a_value_that_explains_nothing_for_long():
    poor, good = {"explained_variance": -0.3, "value_loss": 2.0}, {"explained_variance": 0.4, "value_loss": 2.0}
    (told,) = listen([good, *[poor] * 30])
    assert told["steps"] == 220 and "negative since 20 steps" in told["alarm"]
    assert not listen([*[poor] * 15, good, *[poor] * 15])
    assert not listen([good, *[poor | {"value_loss": 0.001}] * 60])  # all returns are alike


def test_dead_units_are_told():
    (told,) = listen([evaluation(1, dead_units=0.4), evaluation(1, dead_units=0.6), evaluation(1, dead_units=0.9)])
    assert told["alarm"].startswith("60% of the ReLU units are zero")


def test_without_a_listener_it_is_a_warning():
    alarms = Alarms(reward_bound=1.0)
    alarms.on_start({"object": types.SimpleNamespace(gamma=0.0), "steps": 10})
    with pytest.warns(UserWarning, match="at 5 steps: q is 3"):
        alarms.on_iteration({"steps": 5, "q": 3.0})


RUNAWAY = DQN(learning_rate=3.0, gamma=0.0, torso=MLP((8,)), streams=2, batch=8, capacity=200, warm_up=16)
"""What it thinks a reward of 1 is worth leaps far beyond 1."""
SHORT = {"steps": 400, "eval_every": 400, "eval_episodes": 2}


class Deaf(Observer):
    """Told of all, and looks at nothing."""


class Listener(Observer):
    def __init__(self):
        self.told = []

    def on_alarm(self, row):
        self.told.append(row)


@pytest.mark.filterwarnings("error:.*q is")
def test_a_run_tells_who_listens():
    listener = Listener()
    yozh.train(RUNAWAY, probes.Constant(), observers=[Deaf(), listener], **SHORT)
    assert "q is" in listener.told[0]["alarm"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_run_that_nobody_listens_to_warns(tmp_path, folder):
    with pytest.warns(UserWarning, match=r"^at \d+ steps: q is"):
        yozh.train(RUNAWAY, probes.Constant(), out=tmp_path / "run" if folder else None, observers=[Deaf()], **SHORT)


@pytest.mark.slow
def test_seeds_that_are_trained_abreast_warn_too(tmp_path):
    with pytest.warns(UserWarning, match=r"^seed 4, at \d+ steps: q is"):
        yozh.train_seeds(RUNAWAY, probes.Constant(), seeds=[3, 4], vectorised=True, out=tmp_path / "g", **SHORT)
    rows = map(json.loads, (tmp_path / "g" / "seed-3" / "metrics.jsonl").read_text().splitlines())
    assert any("alarm" in row for row in rows)


def test_numbers_that_are_not_finite_do_no_harm():
    assert not listen([{"loss": math.nan, "kl": math.inf, "q": math.nan, "gradient_norm": math.nan}] * 40)


def made(agent, spec):
    return Policy(agent, agent.policy(agent.init(jax.random.key(0), spec)), spec)


@pytest.mark.parametrize("dead", [0, 2, 8])
def test_dead_units_of_layers(dead):
    spec = Spec(spaces.Box((3,)), spaces.Discrete(2))
    obs = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    policy = made(DQN(torso=MLP((8,), activation="relu")), spec)
    bias = jnp.where(jnp.arange(8) < dead, -1e3, 1e3)
    policy.params = eqx.tree_at(lambda p: p.net.trunk.torso.layers.layers[0].bias, policy.params, bias)
    assert dead_units(policy.params.net, obs) == dead / 8
    assert dead_units(made(DQN(torso=MLP((8,), activation="tanh")), spec).params.net, obs) is None


def test_dead_units_of_convolutions_are_channels():
    image = spaces.Box((6, 5, 4), 0, 255, "uint8")
    policy = made(PPO(torso=CNN((3,), (2,), (1,), (8,)), shared=True), Spec(image, spaces.Discrete(2)))
    torso = policy.params.net.actor.torso
    bias = (jnp.array([-1.0, 1.0, -1.0]).reshape(3, 1, 1), jnp.ones(8))
    head = torso.layers.layers[0]
    net = eqx.tree_at(
        lambda n: (n.actor.torso.convolutions[0].bias, n.actor.torso.layers.layers[0].bias, n.actor.torso.layers.layers[0].weight),
        policy.params.net, (*bias, jnp.zeros_like(head.weight)),
    )  # fmt: skip
    assert dead_units(net, np.zeros((7, 6, 5, 4), np.uint8)) == pytest.approx(2 / (3 + 8))


def test_dead_units_of_a_dict():
    space = spaces.Dict.of({"image": spaces.Box((10, 10, 4), 0, 255, "uint8"), "vector": spaces.Box((2,))})
    policy = made(PPO(torso=Auto((8,), "relu"), normalise_observations=True), Spec(space, spaces.Discrete(2)))
    rng = np.random.default_rng(0)
    obs = {
        "image": rng.integers(0, 256, (16, 10, 10, 4), np.uint8),
        "vector": rng.normal(size=(16, 2)).astype(np.float32),
    }
    assert 0.0 <= dead_units(policy.params.net, obs) < 0.5
    assert dead_units(policy.params.net, jax.tree.map(np.zeros_like, obs)) > dead_units(policy.params.net, obs)
