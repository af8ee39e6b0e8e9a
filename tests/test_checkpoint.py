"""Stopping a run anywhere and going on with it."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from tests import kill
from tests.contract import SMALL, learnt, named, roomy
from yozh import files
from yozh.agents.sampling import Prioritised, Sampling, Uniform
from yozh.agents.schedules import over
from yozh.app.folder import read_run
from yozh.core import Env, Spec, TimeStep, YozhError, restart, static, transition
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.environments.host import AsHost
from yozh.networks import MLP
from yozh.runners import checkpoint, fused, memory
from yozh.runners.hosted import Hosted
from yozh.runners.observers import Observer, Stop
from yozh.runners.replayed import replayed
from yozh.runners.training import Diverged
from yozh.spaces import Box, Discrete
from yozh.stores import Replay

every = pytest.mark.parametrize("name", SMALL)
ROOT = Path(__file__).parents[1]


class StopAt(Observer):
    def __init__(self, steps: int):
        self.steps = steps

    def on_iteration(self, row: dict[str, Any]) -> None:
        if row["steps"] >= self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(run: fused.Run) -> np.ndarray:
    """All that a run is, as bytes."""
    return np.concatenate([np.asarray(x).reshape(-1).view(np.uint8) for _, x in _data(run)])


def _data(run: fused.Run) -> list[tuple[str, Any]]:
    return [(n, jax.random.key_data(x) if checkpoint._is_key(x) else x) for n, x in checkpoint.named(run)]


@every
def test_resumed_equals_uninterrupted_bit_for_bit(name: str, tmp_path: Path):
    plan = dict(steps=1200, eval_episodes=4, eval_every=500)
    agent, env = roomy(SMALL[name].agent), named(SMALL[name].agent)
    whole = yozh.train(agent, env, **plan)
    first = yozh.train(agent, env, **plan, out=tmp_path / "run", observers=[StopAt(400)])
    assert first.summary["status"] == "interrupted" and first.summary["steps"] < 1200
    resumed = yozh.resume(tmp_path / "run")
    assert resumed.summary["status"] == "finished"
    assert (weights(resumed.run) == weights(whole.run)).all()
    assert resumed.summary["evaluation"] == whole.summary["evaluation"]
    record = read_run(tmp_path / "run")
    for rows in (record.progress, record.evaluations):
        steps = [row["steps"] for row in rows]
        assert steps == sorted(set(steps)) and steps[-1] == resumed.summary["steps"]


def test_raising_steps_goes_on_and_finished_runs_say_so(tmp_path: Path):
    yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=300, eval_episodes=2, out=tmp_path / "run")
    with pytest.raises(YozhError, match=r"has done its 300 steps; say how many it shall do: --steps"):
        yozh.resume(tmp_path / "run")
    longer = yozh.resume(tmp_path / "run", steps=600)
    assert longer.summary["steps"] >= 600
    assert float(longer.policy.agent.learning_rate.total) == 600


def test_other_settings_are_named_and_refused_unless_told(tmp_path: Path):
    agent = SMALL["ppo"].agent
    yozh.train(agent, "CartPole-v1", steps=300, eval_episodes=2, out=tmp_path / "run")
    other = dataclasses.replace(agent, gamma=0.5)
    with pytest.raises(YozhError, match=r"other settings: gamma 0.99.*, now 0.5"):
        yozh.resume(tmp_path / "run", steps=600, agent=other)
    assert yozh.resume(tmp_path / "run", steps=600, agent=other, changed=True).summary["status"] == "finished"


def break_off(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "torn":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[-5] ^= 1
    elif how == "pickle":
        content = bytearray(b"\x80\x04\x95" + bytes(300))
    elif how == "huge header":
        content[:8] = (2**62).to_bytes(8, "little")
    elif how == "other version":
        content = content.replace(b"yozh-checkpoint-1", b"yozh-checkpoint-0")
    elif how == "empty":
        content = bytearray()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["torn", "flipped", "pickle", "huge header", "other version", "empty"])
def test_damaged_checkpoints_are_passed_over(how: str, tmp_path: Path):
    yozh.train(
        SMALL["ppo"].agent, "CartPole-v1", steps=600, eval_episodes=2, checkpoint_every=200, out=tmp_path / "run"
    )
    new, _ = checkpoint.existing(tmp_path / "run" / "checkpoints")
    break_off(new, how)
    with pytest.warns(UserWarning, match=rf"{new.name}.*the checkpoint before it is taken"):
        resumed = yozh.resume(tmp_path / "run", steps=800)
    assert resumed.summary["steps"] >= 800
    for path in checkpoint.existing(tmp_path / "run" / "checkpoints"):
        break_off(path, how)
    with pytest.raises(YozhError, match="no sound checkpoint"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yozh.resume(tmp_path / "run", steps=1000)


def test_checkpoint_of_another_agent_is_refused(tmp_path: Path):
    yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=100, eval_episodes=2, out=tmp_path / "run")
    with pytest.raises(YozhError, match=r"of another agent or environment|and the run needs"):
        yozh.resume(tmp_path / "run", steps=300, agent=SMALL["dqn"].agent, changed=True)
    with pytest.raises(YozhError, match=r"of another agent or environment|and the run needs"):
        yozh.resume(tmp_path / "run", steps=300, env="Catch")


def test_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = []

    class Listen(Observer):
        def on_checkpoint(self, row: dict[str, Any]) -> None:
            told.append(row)

    real, count = checkpoint.atomic_write, iter(range(1000))

    def full(path: Path, content: bytes) -> None:
        if next(count) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(checkpoint, "atomic_write", full)
    trained = yozh.train(
        SMALL["ppo"].agent, "CartPole-v1", steps=1000, eval_episodes=2, checkpoint_every=100, out=tmp_path / "run",
        observers=[Listen()],
    )  # fmt: skip
    assert trained.summary["status"] == "finished" and (tmp_path / "run" / "policy.safetensors").exists()
    assert [r["error"] for r in told[:2]] == [None, None] and told[-1]["error"] == "No space left on device"
    kept = checkpoint.newest(tmp_path / "run" / "checkpoints")[0]
    assert int(kept.stem) == told[1]["steps"]


def test_a_disk_that_is_full_from_the_start_costs_the_files_and_not_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    real = files._atomic_write

    def full(path: Path, content: bytes) -> None:
        if path.name != "config.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(files, "_atomic_write", full)
    with pytest.warns(UserWarning) as told:
        trained = yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=100, eval_episodes=2, out=tmp_path / "run")
    assert trained.summary["status"] == "finished" and trained.policy(np.zeros(4, np.float32)) in (0, 1)
    for name in ("best.safetensors", "policy.safetensors", "summary.json"):
        assert any(name in str(w.message) and "No space left on device" in str(w.message) for w in told), name


@pytest.mark.slow
def test_the_command_line_says_in_one_line_what_a_full_disk_did_not_take(tmp_path: Path):
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); os.execv(sys.argv[1], sys.argv[1:])"
    words = ["train", "ppo", "CartPole-v1", "--steps", "2000", "--eval-episodes", "2", "--out", "run", "--quiet"]
    limited = [sys.executable, "-c", limit, *kill.YOZH, *words]
    run = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].endswith("could not be written: File too large")
    assert "policy.safetensors could not be written" in run.stderr
    assert not list((tmp_path / "run").glob(".*.safetensors.*"))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path):
    class Second(Observer):
        def on_iteration(self, row: dict[str, Any]) -> None:
            with pytest.raises(YozhError, match="already holds a run"):
                yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=100, out=tmp_path / "run")
            with pytest.raises(
                YozhError, match=r"another process is writing to|no sound checkpoint|has no checkpoints"
            ):
                yozh.resume(tmp_path / "run", steps=10_000)
            raise Stop("seen")

    yozh.train(
        SMALL["ppo"].agent, "CartPole-v1", steps=300, checkpoint_every=1, out=tmp_path / "run", observers=[Second()]
    )


def test_keys_and_every_leaf_come_back(tmp_path: Path):
    agent = over(SMALL["dqn"].agent, 400)
    runner = fused.Fused(agent, Vectorised(CartPole(), agent.experience.streams))
    run, _ = runner.advance(runner.init(jax.random.key(3)), 20)
    told: list[Any] = []
    keeper = checkpoint.Checkpoints(tmp_path, 2, told.append)
    keeper.save(run, 20, {"x": 1})
    keeper.wait()
    path, about, tensors = checkpoint.newest(tmp_path)
    again = checkpoint.restore(runner.outline(), tensors, path)
    assert about == {"x": 1} and told[0]["error"] is None
    assert (weights(again) == weights(run)).all()
    assert jax.tree.structure(again) == jax.tree.structure(run)


def test_severed_replay_never_learns_across_the_cut():
    store = Replay(40, 64, 1)
    agent = over(SMALL["dqn"].agent, 400)
    runner = fused.Fused(agent, Vectorised(CartPole(), agent.experience.streams))
    run, _ = runner.advance(runner.init(jax.random.key(0)), 5)
    ring, cut = run.store, agent.experience.store.sever(run.store)
    assert bool(cut.steps[0].last[ring.head].all()) and not bool(ring.steps[0].last[ring.head].all())
    assert int(cut.head) == int(ring.head) + 1 and int(cut.filled) == int(ring.filled) + 1
    empty = store.init(jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, _unroll(agent, runner, run))))
    assert int(store.sever(empty).filled) == 0


def _unroll(agent: Any, runner: fused.Fused, run: fused.Run) -> Any:
    from yozh.runners.rollout import rollout

    return rollout(agent, agent.policy(run.state), runner.env, run.sim, 2, jnp.int32(0), run.key)[1]


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_hosted_lag_is_exact_and_results_repeat(name: str):
    """Overlapped acting depends on no race: unroll i is acted with the parameters of turn i - 1 - lag."""
    agent = over(SMALL[name].agent, 400)

    def run(lag: int) -> tuple[np.ndarray, list[int]]:
        runner = Hosted(agent, AsHost(Vectorised(CartPole(), agent.experience.streams)), lag)
        state, versions = runner.init(jax.random.key(0)), []
        learn = runner._learn

        def seen(leaves: Any, shape: Any, acted: Any) -> Any:
            out = learn(leaves, shape, acted)
            versions.append((int(acted.version), int(out[2][1])))
            return out

        runner._learn = seen
        for n in (3, 1, 6):
            state, _ = runner.advance(state, n)
        runner.close()
        return learnt(state), versions

    one, versions = run(1)
    again, _ = run(1)
    after = [0, 0, *(after for _, after in versions)]
    assert [acted for acted, _ in versions] == after[: len(versions)]
    assert (one == again).all()
    if name == "ppo":
        none, _ = run(0)
        assert not np.allclose(one, none)


def test_overlap_is_refused_with_the_reason():
    agent = SMALL["a2c"].agent
    with pytest.raises(
        YozhError, match="a2c allows a lag of 0, not 1: it learns only from what its present parameters did"
    ):
        Hosted(agent, AsHost(Vectorised(CartPole(), agent.streams)), 1)
    with pytest.raises(YozhError, match="lag 1 is for hosted environments; jax acts inside the program"):
        yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=100, lag=1)


def test_error_in_the_acting_thread_reaches_the_trainer():
    class Broken(AsHost):
        def recv(self) -> Any:
            raise RuntimeError("the simulator fell over")

    agent = SMALL["ppo"].agent
    runner = Hosted(over(agent, 400), Broken(Vectorised(CartPole(), agent.streams)), 1)
    run = runner.init(jax.random.key(0))
    with pytest.raises(RuntimeError, match="the simulator fell over"):
        runner.advance(run, 3)


class Unlucky(Env):
    """Now and then, by chance, a reward that is no number."""

    chance: float = static(0.001)

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,)), Discrete(2))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.zeros((), jnp.int32), restart(jnp.zeros(1))

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        bad = jax.random.uniform(key) < self.chance
        return state + 1, transition(jnp.zeros(1), jnp.where(bad, jnp.nan, 1.0), terminated=state >= 9)


def test_rollback_goes_on_from_the_last_checkpoint(tmp_path: Path):
    agent = SMALL["a2c"].agent
    with pytest.raises(YozhError, match="rolling back needs checkpoints"):
        yozh.train(agent, Unlucky(), steps=1000, on_nan="rollback")
    plan = dict(steps=1500, eval_episodes=2, checkpoint_every=100)
    with pytest.raises(Diverged):
        yozh.train(agent, Unlucky(), **plan)
    with pytest.warns(UserWarning, match=r"reward is not finite in stream \d.*back to step [\d,]+ \(1 of 3 times\)"):
        trained = yozh.train(agent, Unlucky(), **plan, on_nan="rollback", out=tmp_path / "run")
    assert trained.summary["status"] == "finished" and trained.summary["rollbacks"] >= 1
    with pytest.raises(Diverged), pytest.warns(UserWarning, match="3 of 3 times"):
        yozh.train(agent, Unlucky(chance=0.05), **plan, on_nan="rollback", out=tmp_path / "hopeless", seed=1)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path):
    """kill -9 and resume: the bits of a run that was left alone. `python -m tests.kill` does it longer, and on simulators."""
    words = ["train", "ppo", "CartPole-v1", "--steps", "1_000_000", "--checkpoint-every", "100_000", "--quiet"]
    words += ["--eval-episodes", "5", "--out"]
    kill.run(tmp_path, *words, "whole")
    assert kill.killed(tmp_path, [*words, "killed"], "killed", kills=3) == 3
    one, two = ((tmp_path / d / "policy.safetensors").read_bytes() for d in ("whole", "killed"))
    assert one == two


class Flicker(Env):
    """A stack of two frames; an episode is five of them."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((9, 9, 2), 0.0, 255.0, "uint8"), Discrete(2))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        frame = jax.random.randint(key, (9, 9), 0, 256).astype(jnp.uint8)
        stack = jnp.stack([frame, frame], -1)
        return (stack, jnp.zeros((), jnp.int32)), restart(stack)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        (stack, t), frame = state, jax.random.randint(key, (9, 9), 0, 256).astype(jnp.uint8)
        stack = jnp.stack([stack[..., 1], frame], -1)
        return (stack, t + 1), transition(stack, action.astype(jnp.float32), terminated=t >= 4)


def imaged(agent_steps: int = 400) -> tuple[Any, Vectorised]:
    """An agent of images, and an environment that shows them."""
    agent = dataclasses.replace(SMALL["dqn"].agent, torso=MLP((16,)), normalise_observations=False)
    return over(agent, agent_steps), Vectorised(Flicker(), agent.experience.streams)


@pytest.mark.parametrize("replay", [Uniform(), Prioritised()], ids=["uniform", "prioritised"])
def test_replay_in_host_memory_learns_what_the_compiled_one_does(replay: Sampling, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "LARGE", 0)
    agent, env = imaged()
    agent = dataclasses.replace(agent, replay=over(replay, 400))
    one, two = fused.Fused(agent, env), Hosted(agent, AsHost(env, jax.random.split(jax.random.key(5), 3)[2]))
    assert two.memory is not None and two.memory.replay.stack == "last"
    (a, left), (b, right) = (r.advance(r.init(jax.random.key(5)), 30) for r in (one, two))
    assert int(left.updates) == int(right.updates) > 0
    np.testing.assert_allclose(learnt(a), learnt(b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(float(left.report["loss"]), float(right.report["loss"]), rtol=1e-4)
    assert replayed(agent, one, a) == replayed(agent, two, b) is not None


@pytest.mark.parametrize("replay", [Uniform(), Prioritised()], ids=["uniform", "prioritised"])
def test_replay_in_host_memory_is_resumed(replay: Sampling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "LARGE", 0)
    agent, env = imaged()
    agent = dataclasses.replace(agent, replay=replay)
    plan = dict(steps=1000, eval_episodes=2, checkpoint_every=200, out=tmp_path / "run")
    first = yozh.train(agent, AsHost(env), **plan, observers=[StopAt(500)])
    resumed = yozh.resume(tmp_path / "run", env=AsHost(env))
    assert first.summary["steps"] < resumed.summary["steps"] == 1000
    names = {path.suffix for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert len(names) >= 1 and resumed.summary["updates"] > first.summary["updates"]


class Brittle(gym.Env):
    """Falls over after a while."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        self.left = 5
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Brittle.steps, self.left = Brittle.steps + 1, self.left - 1
        if Brittle.steps > 300:
            raise RuntimeError("a gear is missing")
        return np.zeros(1, np.float32), 0.0, self.left == 0, False, {}


@pytest.mark.parametrize("lag", [0, 1])
def test_turns_before_a_failure_are_not_lost(lag: int):
    """Each turn uses up the run before it: what comes back must be the last one, not the first."""
    Brittle.steps = 0
    agent = over(SMALL["ppo"].agent, 1000)
    runner = Hosted(agent, yozh.make(Brittle, agent.streams, backend="gymnasium"), lag)
    run, _ = runner.advance(runner.init(jax.random.key(0)), 100)
    assert 0 < int(run.state.counts.steps) <= 300 and np.isfinite(learnt(run)).all()
    with pytest.raises(RuntimeError, match="a gear is missing"):
        runner.advance(run, 1)
    assert np.isfinite(learnt(run)).all()


@pytest.mark.parametrize("lag", [0, 1])
def test_what_was_learnt_before_an_environment_failed_is_kept(lag: int, tmp_path: Path):
    Brittle.steps = 0
    with pytest.raises(RuntimeError, match="a gear is missing"):
        yozh.train(SMALL["ppo"].agent, Brittle, steps=1000, lag=lag, out=tmp_path / "run", eval_episodes=2)
    record = read_run(tmp_path / "run")
    assert record.summary["status"] == "failed" and 200 <= record.summary["steps"] <= 300
    assert yozh.load(tmp_path / "run")(np.zeros(1, np.float32)) in (0, 1)
    Brittle.steps = -10_000
    assert yozh.resume(tmp_path / "run", env=Brittle).summary["status"] == "finished"


def test_the_same_run_writes_the_same_bytes(tmp_path: Path):
    for name in ("one", "two", "three"):
        yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=100, eval_episodes=2, out=tmp_path / name)
    files = {(tmp_path / name / "policy.safetensors").read_bytes() for name in ("one", "two", "three")}
    assert len(files) == 1


def test_several_actors_share_the_streams():
    """Each acts for its own; together they are one unroll, and nothing depends on which is quicker."""
    agent = over(SMALL["ppo"].agent, 400)
    half = agent.streams // 2

    def run(lag: int) -> tuple[np.ndarray, fused.Metrics]:
        runner = Hosted(agent, [AsHost(Vectorised(CartPole(), half)), AsHost(Vectorised(CartPole(), half))], lag)
        state = runner.init(jax.random.key(0))
        state, metrics = runner.advance(state, 8)
        runner.close()
        assert len(np.unique(np.asarray(state.sim.step.obs), axis=0)) == agent.streams
        return learnt(state), metrics

    for lag in (0, 1):
        (one, metrics), (again, _) = run(lag), run(lag)
        assert (one == again).all() and int(metrics.tally.episodes) > 0


def test_workers_step_a_run(tmp_path: Path):
    trained = yozh.train(SMALL["ppo"].agent, "CartPole-v1", steps=300, workers=3, eval_episodes=2, out=tmp_path / "run")
    assert trained.summary["backend"] == "gymnasium" and trained.summary["steps"] >= 300
    assert yozh.resume(tmp_path / "run", steps=500).summary["status"] == "finished"
