"""Many seeds: a group equals its seeds alone, goes on where it was left, and survives one that fails."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import yozh
from yozh.agents import PPO
from yozh.app.cli import main
from yozh.app.seed_group import Group, numbers
from yozh.app.seed_lines import SeedLines
from yozh.app.seed_process import _Relay
from yozh.app.seeds import _warn
from yozh.core import YozhError
from yozh.environments import probes
from yozh.runners.observers import Observer

AGENT = PPO(streams=2, length=8, minibatches=1, epochs=1)
SHORT = {"steps": 64, "eval_episodes": 4, "eval_every": 32}


@pytest.fixture(autouse=True)
def one_cache(monkeypatch):
    """Processes share the programs of the test run."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))


def policy(path: Path) -> tuple[dict, bytes]:
    """The header, read, because safetensors writes its two entries of metadata in any order; and the bytes of all arrays."""
    content = (path / "policy.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


@pytest.mark.slow
def test_seeds_in_processes_equal_the_same_seeds_alone_and_go_on_where_they_were_left(tmp_path):
    found = yozh.train_seeds(AGENT, "Catch", seeds=2, seed=100, jobs=2, out=tmp_path / "g", **SHORT)
    alone = yozh.train(AGENT, "Catch", seed=101, out=tmp_path / "alone", **SHORT)
    assert policy(tmp_path / "g" / "seed-101") == policy(tmp_path / "alone")
    assert policy(tmp_path / "g" / "seed-100")[1] != policy(tmp_path / "alone")[1]
    assert not found.failed and not found.interrupted and [r["seed"] for r in found.summary["seeds"]] == [100, 101]
    assert found.summary["seeds"][1]["mean_return"] == alone.summary["evaluation"]["mean_return"]
    points = [r["mean_return"] for r in found.summary["seeds"]]
    assert found.summary["mean_return"] == pytest.approx(np.mean(points)) and found.summary["finished"] == 2
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    assert (config["kind"], config["way"], config["seeds"]) == ("seeds", "processes", [100, 101])
    page = (tmp_path / "g" / "report.html").read_text()
    assert 'href="seed-100/report.html"' in page and (tmp_path / "g" / "seed-100" / "report.html").exists()
    assert 'href="../report.html"' in (tmp_path / "g" / "seed-101" / "report.html").read_text()
    assert not list((tmp_path / "g").glob("*.log"))

    kept = (tmp_path / "g" / "seed-100" / "metrics.jsonl").stat().st_mtime_ns
    (tmp_path / "g" / "seed-101" / "summary.json").unlink()  # as if it had been killed
    (tmp_path / "g" / "seed-101" / "policy.safetensors").unlink()
    again = yozh.train_seeds(AGENT, "Catch", seeds=3, seed=100, vectorised=True, out=tmp_path / "g", **SHORT)
    assert [r["status"] for r in again.summary["seeds"]] == ["finished"] * 3
    assert (tmp_path / "g" / "seed-100" / "metrics.jsonl").stat().st_mtime_ns == kept
    with pytest.raises(YozhError, match=r"another question \(steps differ\); choose another folder, such as --out"):
        yozh.train_seeds(AGENT, "Catch", seeds=3, out=tmp_path / "g", **SHORT | {"steps": 128})


@pytest.mark.slow
def test_one_program_for_all_seeds_learns_what_each_learns_alone(tmp_path):
    found = yozh.train_seeds(AGENT, probes.Seen(), seeds=[3, 5], vectorised=True, out=tmp_path / "g", **SHORT)
    assert [r["status"] for r in found.summary["seeds"]] == ["finished"] * 2
    for seed in (3, 5):
        alone = yozh.train(AGENT, probes.Seen(), seed=seed, out=tmp_path / f"alone-{seed}", **SHORT)
        together = yozh.load(tmp_path / "g" / f"seed-{seed}")
        leaves = zip(jax.tree.leaves(alone.policy.params), jax.tree.leaves(together.params), strict=True)
        for one, two in leaves:
            np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-4)
        rows = (tmp_path / "g" / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
        evaluations = [json.loads(r)["steps"] for r in rows if "evaluation" in json.loads(r)]
        assert evaluations == [32, 64]


class Fragile(Observer):
    """Of one's own, so it stays in this process; breaks off seed 1 the first time."""

    def __init__(self):
        self.seen, self.broken = [], True

    def on_start(self, info):
        self.seen.append(info["seed"])
        self.seed = info["seed"]

    def on_evaluation(self, row):
        if self.seed == 1 and self.broken:
            raise RuntimeError("no more")


@pytest.mark.slow
def test_one_that_fails_is_named_and_the_others_go_on(tmp_path):
    fragile = Fragile()
    with pytest.warns(UserWarning, match="one after the other: observers cannot go to another process"):
        found = yozh.train_seeds(AGENT, "Catch", seeds=3, out=tmp_path / "g", observers=[fragile], **SHORT)
    assert fragile.seen == [0, 1, 2]
    assert found.failed == {1: "RuntimeError: no more"}
    assert [r["status"] for r in found.summary["seeds"]] == ["finished", "failed", "finished"]
    page = (tmp_path / "g" / "report.html").read_text()
    assert "seed 1 is left out: failed, RuntimeError: no more" in page
    fragile.broken = False
    with pytest.warns(UserWarning):
        found = yozh.train_seeds(AGENT, "Catch", seeds=3, out=tmp_path / "g", observers=[fragile], **SHORT)
    assert fragile.seen == [0, 1, 2, 1] and not found.failed and found.summary["finished"] == 3
    with pytest.raises(YozhError, match="cannot be copied"):
        yozh.train_seeds(AGENT, "Catch", vectorised=True, out=tmp_path / "h", observers=[fragile], **SHORT)


class Impatient(Observer):
    """Presses Ctrl-C in its first run."""

    pressed = False

    def on_evaluation(self, row):
        if not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the seeds are trained one after the other")
def test_a_seed_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path):
    impatient = Impatient()
    found = yozh.train_seeds(AGENT, "Catch", seeds=2, out=tmp_path / "g", observers=[impatient], **SHORT)
    assert found.interrupted and [r["status"] for r in found.summary["seeds"]] == ["interrupted", "missing"]
    found = yozh.train_seeds(AGENT, "Catch", seeds=2, out=tmp_path / "g", observers=[impatient], **SHORT)
    assert not found.interrupted and found.summary["finished"] == 2
    assert "resumed" in json.loads((tmp_path / "g" / "seed-0" / "config.json").read_text())
    yozh.train(AGENT, "Catch", out=tmp_path / "alone", **SHORT)
    assert policy(tmp_path / "g" / "seed-0") == policy(tmp_path / "alone")


CRASHING = """
import os

def make():
    from yozh.environments.catch import Catch

    if os.getpid() != {parent}:
        try:
            os.mkdir("crashed")
        except FileExistsError:
            return Catch()
        os.kill(os.getpid(), 9)
    return Catch()
"""


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_the_other_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "crashing.py").write_text(CRASHING.format(parent=os.getpid()))
    found = yozh.train_seeds(AGENT, "crashing:make", seeds=2, jobs=1, out=tmp_path / "g", **SHORT)
    assert list(found.failed) == [0] and "killed by SIGKILL" in found.failed[0]
    assert [r["status"] for r in found.summary["seeds"]] == ["failed", "finished"]
    assert (tmp_path / "g" / "seed-0.log").exists() and not (tmp_path / "g" / "seed-1.log").exists()


@pytest.mark.slow
def test_an_interrupt_reaches_the_children_and_the_same_command_goes_on(tmp_path):
    line = [sys.executable, "-c", "import sys; from yozh.app.cli import main; sys.exit(main())", "train", "ppo", "Catch",
            "--seeds", "2", "--jobs", "1", "--out", "g", "--eval-episodes", "4", "--steps"]  # fmt: skip
    process = subprocess.Popen([*line, "20_000_000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    rows = tmp_path / "g" / "seed-0" / "metrics.jsonl"
    while time.monotonic() < deadline and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130 and "the same command goes on" in said
    summary = json.loads((tmp_path / "g" / "summary.json").read_text())
    assert [r["status"] for r in summary["seeds"]] == ["interrupted", "missing"]
    assert (tmp_path / "g" / "seed-0" / "policy.safetensors").exists() and (tmp_path / "g" / "report.html").exists()


def test_which_seeds_are_meant():
    assert numbers(3, 0) == [0, 1, 2] and numbers(5, 100) == [100, 101, 102, 103, 104] and numbers([4, 2], 1) == [5, 3]
    for wrong in (0, [], [1, 1], [-1]):
        with pytest.raises(YozhError):
            numbers(wrong, 0)


def test_two_commands_do_not_share_a_folder(tmp_path):
    group = Group(tmp_path / "g", {"kind": "seeds", "agent": "ppo", "env": "Catch"}, [0])
    with group.held(resuming=True), pytest.raises(YozhError, match="another process is writing"), group.held(resuming=True):  # fmt: skip
        pass
    with pytest.raises(YozhError, match="already holds a run"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_text('{"agent": "ppo"}')
        Group(tmp_path / "run", {"kind": "seeds"}, [0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train ppo Catch --steps 10 --jobs 2", "--jobs is for several seeds"),
        ("train ppo Catch --steps 10 --seeds 0", "--seeds takes a positive whole number, not '0'"),
        ("train dqn Pendulum-v1 --steps 10 --seeds 2", "takes Discrete actions"),
        ("train ppo Catsh --steps 10 --seeds 2", "did you mean Catch"),
    ],
)
def test_bad_input_is_answered_in_one_line_before_anything_starts(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and not out and not list(tmp_path.iterdir())
    assert message in err


def test_a_process_passes_on_all_that_observers_are_told():
    written = io.StringIO()
    events = [name for name in vars(Observer) if name.startswith("on_")]
    for name in events:
        getattr(_Relay(written), name)({"steps": 40, "alarm": "q is 3"})
    assert [json.loads(line)[0] for line in written.getvalue().splitlines()] == events


def test_where_no_line_is_shown_alarms_of_a_process_are_warnings():
    with pytest.warns(UserWarning, match="^seed 8, at 40 steps: q is 3") as told:
        for event in ("on_alarm", "on_iteration"):
            _warn(8, event, {"steps": 40, "alarm": "q is 3"})
    assert len(told) == 1


def test_a_line_for_each_seed():
    row = {"steps": 50, "total_steps": 100, "updates": 5, "seconds": 1.0, "steps_per_second": 50.0}
    info = {"agent": "ppo", "env": "Catch", "backend": "jax", "runner": "fused", "steps": 100, "seed": 7}
    for terminal in (False, True):
        written = io.StringIO()
        with SeedLines([7, 8], Console(force_terminal=terminal, width=120, file=written)) as lines:
            lines.seeds[7].on_start(info)
            lines.seeds[7].on_compile(1.0)
            lines.seeds[7].on_iteration(row)
            lines.seeds[8].on_alarm({"steps": 40, "alarm": "q is 3"})
        text = written.getvalue()
        assert "50 / 100" in text and ("waiting" in text) == terminal
        assert re.search(r"(?m)^.*seed 8: +40 steps  q is 3", text)
        assert re.search(r"seed 7 .*50 / 100" if terminal else r"(?m)^seed 7: +50 / 100", text)
