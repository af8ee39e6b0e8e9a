"""Runs told to Weights & Biases, offline."""

import sys
import time

import pytest

from tests.test_app import EVALUATION, SUMMARY, play
from yozh.app.cli import main
from yozh.app.folder import RunFolder
from yozh.app.wandb_log import WandbLog
from yozh.core import YozhError


class Fake:
    """What `wandb.init` gives, as far as it is used."""

    def __init__(self):
        self.rows, self.summary, self.files, self.code = [], {}, [], None

    def log(self, row, step):
        self.rows.append((step, row))

    def save(self, path, base_path, policy):
        self.files.append(path.removeprefix(base_path + "/"))

    def finish(self, exit_code):
        self.code = exit_code


def test_it_gets_what_tensorboard_gets(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wandb = pytest.importorskip("wandb")
    fake, asked = Fake(), {}
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options) or fake)
    path = tmp_path / "run"
    with WandbLog("hedgehogs", folder=path) as log:
        play(log, RunFolder(path))
        (path / "report.html").write_text("later")
        assert not fake.files and fake.code is None
    events = EventAccumulator(str(path)).Reload()
    board = {(e.step, tag, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    told = {(step, tag): x for step, row in fake.rows for tag, x in row.items()}
    assert told == {(step, tag): pytest.approx(x, rel=1e-6) for step, tag, x in board}
    assert asked["project"] == "hedgehogs" and asked["name"] == "Field-v0-toy-3"
    assert asked["config"]["settings"]["gamma"] == 0.99 and asked["config"]["seed"] == 3
    assert fake.summary["status"] == "finished" and fake.summary["final/mean_return"] == EVALUATION["mean_return"]
    assert "final/returns" not in fake.summary and fake.summary["steps"] == SUMMARY["steps"]
    assert fake.files == ["config.json", "metrics.jsonl", "summary.json", "report.html"] and fake.code == 0


def test_a_run_that_breaks_off_is_marked(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    fake = Fake()
    monkeypatch.setattr(wandb, "init", lambda **options: fake)
    with pytest.raises(ValueError, match="out of order"), WandbLog() as log:
        log.on_start({"object": 1, "agent": "toy", "env": "Field-v0", "seed": 0})
        raise ValueError("out of order")
    assert fake.code == 1


def test_without_the_package_it_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(YozhError, match=r"pip install 'yozh\[wandb\]'"):
        WandbLog()
    assert main(["train", "ppo", "Catch", "--quiet", "--log", "wandb:p"]) == 2
    assert "pip install 'yozh[wandb]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    words = "train ppo Catch --steps 1500 --agent.streams 8 --agent.length 16 --eval-episodes 10 --quiet --out run --log wandb:p"
    assert main(words.split()) == 0
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (records,) = offline.glob("*.wandb")
    until = time.monotonic() + 60  # a process of wandb's own writes it
    while records.stat().st_size <= 1000 and time.monotonic() < until:
        time.sleep(0.1)
    assert records.stat().st_size > 1000
    assert {"report.html", "summary.json", "policy.safetensors"} <= {p.name for p in (offline / "files").iterdir()}
