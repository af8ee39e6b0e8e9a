"""The training loop and what surrounds it: faults, evaluation, the policy file, hosted environments."""

import dataclasses
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from tests.contract import SMALL, cartpole, learnt, named, playable, roomy
from yozh.agents.schedules import over
from yozh.app.cli import main
from yozh.core import Env, Spec, TimeStep, YozhError, restart, static, transition
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.environments.host import AsHost
from yozh.networks import GRU
from yozh.runners import compiler, evaluation, fused, training
from yozh.runners.hosted import Hosted
from yozh.runners.observers import Observer
from yozh.runners.training import Diverged
from yozh.spaces import Box, Discrete

every = pytest.mark.parametrize("name", SMALL)


class Poisoned(Env):
    """After `after` steps of an episode, a number that is none."""

    after: int = static(30)
    where: str = static("reward")

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,)), Discrete(2), horizon=40)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.zeros((), jnp.int32), restart(jnp.zeros(1))

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        bad = jnp.where(state >= self.after, jnp.nan, 0.0)
        obs = jnp.zeros(1) + (bad if self.where == "observation" else 0.0)
        return state + 1, transition(
            obs, 0.0 + (bad if self.where == "reward" else 0.0), terminated=False, truncated=state >= 39
        )


@every
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_poison_is_named_and_what_was_learnt_is_kept(name: str, where: str, tmp_path: Path):
    with pytest.raises(
        Diverged, match=rf"{where} is not finite in stream 0 between steps .*policy.safetensors"
    ) as caught:
        agent = roomy(SMALL[name].agent, 40)
        env = playable(agent, Poisoned(where=where))
        yozh.train(agent, env, steps=10_000, out=tmp_path / "run", eval_episodes=2)
    kept = yozh.load(tmp_path / "run")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept.params))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "diverged"
    assert caught.value.trained.summary["steps"] < 10_000


def test_exploding_loss_is_named():
    agent = dataclasses.replace(SMALL["a2c"].agent, value_coefficient=3e38, scale_rewards=False)
    with pytest.raises(Diverged, match="loss or gradient is not finite between steps 0 and 16"):
        yozh.train(agent, CartPole(), steps=1000, eval_episodes=2)


@every
def test_policy_file_gives_the_policy_back(name: str, tmp_path: Path):
    env = named(SMALL[name].agent)
    trained = yozh.train(roomy(SMALL[name].agent), env, steps=200, out=tmp_path / "run", eval_episodes=4)
    loaded = yozh.load(tmp_path / "run" / "policy.safetensors")
    spec = loaded.spec
    obs = np.random.default_rng(0).normal(size=(50, *spec.observation.shape)).astype(np.float32)
    assert (trained.policy(obs) == loaded(obs)).all()
    loaded.reset()
    alone = loaded(obs[0])
    assert np.shape(alone) == spec.action.shape
    # One observation alone is another program than fifty, and may round otherwise.
    np.testing.assert_allclose(alone, trained.policy(obs)[0], rtol=1e-5, atol=1e-6)
    one, two = (yozh.evaluate(p, env, episodes=10) for p in (trained.policy, tmp_path / "run"))
    assert one == two


def test_evaluation_draws_actions_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """All actions are drawn at random in this training, which keeps CartPole's pole up for 22 steps."""
    agent = dataclasses.replace(SMALL["dqn"].agent, epsilon=1.0)
    yozh.train(agent, "CartPole-v1", steps=100, out=tmp_path / "run", eval_episodes=2)
    best, drawn = (yozh.evaluate(tmp_path / "run", episodes=100, explore=x)["mean_return"] for x in (False, True))
    assert abs(drawn - 22) < 6 < abs(best - 22)
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "100", "--explore"]) == 0
    assert f"{drawn:.1f}" in capsys.readouterr().out


def test_recurrent_policy_remembers(tmp_path: Path):
    agent = dataclasses.replace(SMALL["ppo"].probe, core=GRU(16))
    trained = yozh.train(agent, probes.Recall(), steps=60_000, eval_episodes=20, out=tmp_path / "run")
    assert trained.summary["evaluation"]["mean_return"] > 0.9
    policy = yozh.load(tmp_path / "run")
    cues = np.array([1.0, -1.0, 1.0], np.float32)
    for t in range(3):
        action = policy(np.stack([cues * (t == 0), np.full(3, t / 3)], -1).astype(np.float32))
    assert (action == (cues > 0)).all()


def hurt(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "foreign":
        content = bytearray(b"\x80\x04\x95" + bytes(200))
    elif how == "huge header":
        content[:8] = (2**62).to_bytes(8, "little")
    elif how == "class":
        content = content.replace(b"yozh.agents.ppo.PPO", b"subprocess.Popen  ")
        content[:8] = (int.from_bytes(content[:8], "little") - 1).to_bytes(8, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "foreign", "huge header", "class"])
def test_bad_policy_files_are_refused(how: str, tmp_path: Path):
    yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=64, out=tmp_path / "run", eval_episodes=2)
    hurt(tmp_path / "run" / "policy.safetensors", how)
    with pytest.raises(
        YozhError, match="is not a policy file" if how != "class" else "subprocess.Popen +is not part of this Yozh"
    ):
        yozh.load(tmp_path / "run")


def test_evaluation_counts_every_stream_alike():
    """Twenty streams, a hundred episodes: five of each, so that short episodes are not preferred."""
    agent = over(SMALL["ppo"].agent, 100)
    env = Vectorised(CartPole(), 20)
    params = agent.policy(agent.init(jax.random.key(0), env.spec))
    found = evaluation.evaluate(agent, params, env, episodes=100, seed=3)
    assert found["episodes"] == 100 == len(found["returns"])
    assert found["mean_length"] == found["mean_return"] == pytest.approx(np.mean(found["returns"]))
    assert found["ci95"][0] < found["mean_return"] < found["ci95"][1]
    assert found == evaluation.evaluate(agent, params, env, episodes=100, seed=3)
    assert found != evaluation.evaluate(agent, params, env, episodes=100, seed=4)
    hosted = evaluation.evaluate(
        agent, params, AsHost(env, jax.random.split(jax.random.key(3))[0]), episodes=100, seed=3
    )
    np.testing.assert_allclose(hosted["returns"], found["returns"])


@every
def test_hosted_equals_fused(name: str):
    """In lock-step, on the same pure environment, bit for bit."""
    agent = over(SMALL[name].agent, 400)
    env = Vectorised(cartpole(agent), agent.experience.streams)
    key = jax.random.key(5)
    one, two = Fused(agent, env), Hosted(agent, AsHost(env, jax.random.split(key, 3)[2]))
    a, b = one.init(key), two.init(key)
    (a, left), (b, right) = one.advance(a, 12), two.advance(b, 12)
    assert int(a.state.counts.updates) > 0
    assert (learnt(a) == learnt(b)).all()
    assert int(left.tally.episodes) == int(right.tally.episodes) > 0
    assert float(left.tally.returns) == float(right.tally.returns)


Fused = fused.Fused


class Corridor(gym.Env):
    """A user's own environment: walk right three times."""

    observation_space = gym.spaces.Box(0, 3, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        return np.array([self.place], np.float32), -0.1, self.place == 3, False, {}


def test_own_gymnasium_environment(tmp_path: Path):
    def make() -> gym.Env:
        return gym.wrappers.TimeLimit(Corridor(), 50)

    trained = yozh.train(SMALL["ppo"].probe, make, steps=6000, out=tmp_path / "run", eval_episodes=5)
    assert trained.summary["backend"] == "gymnasium" and trained.summary["runner"] == "hosted"
    assert trained.summary["evaluation"]["mean_return"] == pytest.approx(-0.3, abs=1e-5)
    assert trained.policy(np.array([0.0], np.float32)) == 1


def test_interrupt_keeps_what_was_learnt(tmp_path: Path):
    class Impatient(Observer):
        def on_iteration(self, row: dict[str, Any]) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    trained = yozh.train(
        SMALL["ppo"].agent, "CartPole-v1", steps=10_000_000, out=tmp_path / "run", observers=[Impatient()]
    )
    assert trained.summary["status"] == "interrupted"
    assert trained.summary["steps"] < 10_000_000
    assert (tmp_path / "run" / "policy.safetensors").exists()


def test_wrong_spaces_are_refused_before_compiling():
    with pytest.raises(YozhError, match=r"dqn takes Discrete actions, not Box\(1,\).*ppo and a2c take those"):
        yozh.train("dqn", "Pendulum-v1", steps=100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 64, "capacity": 32}, "a batch of 64 is larger than the store of 32"),
        ({"n_step": 30, "capacity": 100, "warm_up": 50}, "n_step 30 does not fit into"),
        ({"gamma": 1.5}, r"gamma lies in \[0, 1\], not 1.5"),
        ({"streams": 0}, "streams must be positive, not 0"),
    ],
)
def test_dqn_refuses_what_cannot_be(settings: dict[str, Any], message: str):
    with pytest.raises(YozhError, match=message):
        yozh.agents.DQN(**settings)


def test_unroll_shorter_than_n_is_refused():
    with pytest.raises(YozhError, match="unrolls of 4 steps are shorter than n = 5"):
        yozh.agents.A2C(length=4)
    with pytest.raises(YozhError, match="3 minibatches do not divide 1024 steps"):
        yozh.agents.PPO(minibatches=3)


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"steps": -5}, {"envs": 0}, {"eval_episodes": 0}, {"eval_every": -1}]
)
def test_numbers_that_must_be_positive(settings: dict[str, int]):
    with pytest.raises(YozhError, match=f"{next(iter(settings))} must be positive"):
        yozh.train("ppo", "CartPole-v1", **settings)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux counts them")
def test_programs_do_not_use_up_the_memory_maps_of_a_process():
    """Linux ends a process that has 65,530 of them, which some fifty runs of different shapes take."""

    def maps() -> int:
        return Path("/proc/self/maps").read_bytes().count(b"\n")

    empty, program = maps(), jax.jit(lambda x: [jnp.sin(x + i) @ x for i in range(8)])
    for n in range(1, 20):
        program(jnp.ones((n, n)))
    full = maps()
    compiler.make_room(full + 1)
    assert empty + 100 < full <= maps()
    compiler.make_room(full - 1)
    assert maps() < full - 100


def test_a_run_makes_room_for_its_programs(monkeypatch):
    asked = []
    monkeypatch.setattr(training, "make_room", lambda: asked.append(True))
    yozh.train(SMALL["a2c"].agent, probes.Constant(), steps=64, eval_episodes=1)
    assert asked == [True]
