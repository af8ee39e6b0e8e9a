"""The command line, the settings, the run folder and the report."""

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from PIL import Image
from rich.console import Console

from yozh.app import folder, options, report, video
from yozh.app.cli import main
from yozh.app.progress import Progress
from yozh.core import YozhError, leaf, require, static
from yozh.files import atomic_write
from yozh.settings import describe


class Fixed(eqx.Module):
    value: Float[Array, ""] = leaf(0.0)


class Falling(eqx.Module):
    start: Float[Array, ""] = leaf(1.0)
    """Where it begins."""
    end: Float[Array, ""] = leaf(0.1)


class Toy(eqx.Module):
    """A toy."""

    rate: Fixed = eqx.field(default=1e-3, converter=lambda x: x if isinstance(x, eqx.Module) else Fixed(x))
    """How fast."""
    epsilon: Falling = Falling()
    """How often
    at random."""
    gamma: Float[Array, ""] = leaf(0.99)
    widths: tuple[int, ...] = static((64, 64))
    batch_size: int = static(32)
    capacity: int = static(100_000)
    double: bool = static(False)
    clip: float | None = static(None)
    init: str = static("uniform")

    def __check_init__(self):
        require(self.batch_size <= self.capacity, f"a batch of {self.batch_size} is larger than {self.capacity}")


def test_override_reads_each_kind_and_runs_converters():
    toy = options.override(
        Toy(),
        {"rate": "6e-4", "epsilon.end": "0.05", "gamma": "0.5", "widths": "256, 128", "batch-size": "1_000",
         "capacity": "3e5", "double": "true", "clip": "0.5", "init": "orthogonal"},
    )  # fmt: skip
    assert toy.rate == Fixed(6e-4) and toy.rate.value.dtype == jnp.float32
    assert toy.epsilon == Falling(1.0, 0.05)
    assert toy.gamma == jnp.float32(0.5)
    assert (toy.widths, toy.batch_size, toy.capacity) == ((256, 128), 1000, 300_000)
    assert (toy.double, toy.clip, toy.init) == (True, 0.5, "orthogonal")
    assert options.override(toy, {"clip": "none", "batch_size": "8"}).clip is None


def test_settings_that_depend_on_each_other_change_together():
    assert options.override(Toy(), {"batch-size": "200_000", "capacity": "400_000"}).batch_size == 200_000
    with pytest.raises(YozhError, match="200000 is larger"):
        options.override(Toy(), {"batch-size": "200_000"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("raet", "1", r"--agent.raet. Did you mean --agent.rate\?"),
        ("epsilon.edn", "1", r"Falling has no option --agent.epsilon.edn. Did you mean --agent.epsilon.end\?"),
        ("gamma", "high", "--agent.gamma takes a number, not 'high'"),
        ("batch-size", "1.5", "--agent.batch-size takes a whole number, not '1.5'"),
        ("double", "yes", "--agent.double takes true or false, not 'yes'"),
        ("widths", "64,x", "--agent.widths takes whole numbers separated by commas, not '64,x'"),
        ("clip", "x", "--agent.clip takes a number or none, not 'x'"),
        ("epsilon", "1", "--agent.epsilon is made of parts, set through --agent.epsilon.start, --agent.epsilon.end"),
        ("gamma.end", "1", "--agent.gamma is 0.99: it has no settings of its own"),
    ],
)
def test_override_says_what_is_wrong(name, value, message):
    with pytest.raises(YozhError, match=message):
        options.override(Toy(), {name: value})


def test_options_carry_value_and_docstring():
    listed = {o.name: o for o in options.options(Toy())}
    assert listed["rate"].value == "0.001" and listed["rate"].doc == "How fast."
    assert listed["epsilon.start"].doc == "Where it begins." and listed["epsilon.end"].doc == "How often at random."
    assert listed["capacity"].value == "100_000" and listed["widths"].value == "64,64"
    again = options.override(Toy(), {n: o.value for n, o in listed.items()})
    assert describe(again) == describe(Toy())


def test_atomic_write_replaces_whole_files_and_leaves_nothing_behind(tmp_path):
    atomic_write(tmp_path / "a", "old")
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"
    with pytest.raises(TypeError):
        atomic_write(tmp_path / "a", 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "new"


EVALUATION = {"episodes": 4, "mean_return": 2.5, "std_return": 1.29, "ci95": [1.0, 4.0], "mean_length": 9.0}
SUMMARY = {"agent": "toy", "env": "Field-v0", "backend": "jax", "runner": "fused", "seed": 3, "steps": 400, "updates": 40,
           "compile_seconds": 1.5, "train_seconds": 4.0, "steps_per_second": 100.0, "status": "finished"}  # fmt: skip


def play(*observers):
    """The events of a short run."""
    info = {"object": Toy(), "agent": "toy", "env": "Field-v0", "backend": "jax", "runner": "fused", "seed": 3, "steps": 400,
            "envs": 2, "eval_every": 200, "eval_episodes": 4}  # fmt: skip
    for o in observers:
        o.on_start(info)
        o.on_compile(1.5)
        for steps in (100, 200, 300, 400):
            row = {"steps": steps, "total_steps": 400, "updates": steps // 10, "seconds": steps / 100,
                   "steps_per_second": 100.0, "loss": np.float32(1 / steps), "entropy": jnp.float32(0.5)}  # fmt: skip
            o.on_iteration(
                row | ({"return_mean": steps / 100, "episodes": 5, "length_mean": 9.0} if steps > 100 else {})
            )
        o.on_evaluation({"steps": 400, "seconds": 4.0, "evaluation": EVALUATION | {"returns": np.arange(1.0, 5.0)}})
        o.on_end(SUMMARY | {"evaluation": EVALUATION | {"returns": [1.0, 2.0, 3.0, 4.0]}})


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    play(folder.RunFolder(path))
    return path


def test_run_folder_holds_what_happened(run):
    assert json.loads((run / "summary.json").read_text()) == SUMMARY | {"evaluation": EVALUATION}
    record = folder.read_run(run)
    assert [r["steps"] for r in record.progress] == [100, 200, 300, 400]
    assert record.progress[0]["loss"] == pytest.approx(0.01) and "total_steps" not in record.progress[0]
    assert record.evaluations[0]["evaluation"]["returns"] == [1, 2, 3, 4]
    assert record.config["settings"] == describe(Toy()) and record.config["seed"] == 3
    assert record.config["versions"]["python"] and record.config["hardware"]["cores"] > 0


def test_tensorboard_reads_the_events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [100, 200, 300, 400]
    assert events.Scalars("evaluation/mean_return")[0].value == 2.5


def test_a_folder_with_a_run_is_refused_and_another_suggested(run):
    with pytest.raises(YozhError, match=f"{run} already holds a run.*{run}-2"):
        folder.RunFolder(run)
    assert folder.free(run) == run.with_name("run-2")


def test_numbers_that_are_not_finite_stay_json(tmp_path):
    writer = folder.RunFolder(tmp_path / "run")
    play(writer)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in folder.as_json({"loss": math.nan}) and json.loads(folder.as_json({"loss": math.nan})) == {
        "loss": None
    }
    assert all(json.loads(line) for line in rows.splitlines())


def test_half_a_line_does_not_spoil_the_rest(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"steps": 5')
    assert len(folder.read_run(run).progress) == 4


def test_report_is_one_file_with_everything(run):
    video.record([np.full((40, 60, 3), 20 * i, np.uint8) for i in range(5)], run / "policy.gif")
    text = report.write_report(run).read_text()
    for part in (
        "Toy on Field-v0",
        "2.5",
        "1 to 4",
        "data:image/gif;base64,",
        "How fast.",
        "epsilon.end",
        "jaxlib",
        "seed 3",
    ):
        assert part in text
    assert text.count("<svg") == 2 + 1 + 4  # two curves, the histogram, four metrics
    assert not re.search(r"(src|href)=\"(?!data:|#)", text.replace("xlink:href", "href")), (
        "the report asks for another file"
    )
    assert "DejaVu" not in text and "#01020" not in text


def test_report_of_a_run_that_has_only_begun(tmp_path):
    writer = folder.RunFolder(tmp_path / "run")
    writer.on_start({"object": Toy(), "agent": "toy", "env": "E", "backend": "jax", "seed": 0, "steps": 10})
    assert "Nothing was recorded" in report.write_report(tmp_path / "run").read_text()


def test_a_long_film_is_kept_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), np.uint8)
    path = video.record(list(noise), tmp_path / "noise.gif")
    assert path.stat().st_size <= video.LIMIT
    with Image.open(path) as image:
        assert image.n_frames > 1 and image.info["duration"] == 40


def test_a_gymnasium_policy_is_filmed(tmp_path):
    pytest.importorskip("pygame")
    with Image.open(
        video.film(lambda obs: int(obs[2] > 0), "CartPole-v1", tmp_path / "p.gif", max_steps=20, seed=0)
    ) as image:
        assert image.n_frames > 5


def test_observations_become_pixels():
    board = np.zeros((10, 5), np.float32)
    board[0, 2] = 1
    (frame,) = video.frames_from_obs([board])
    assert frame.shape == (320, 160, 3) and frame.dtype == np.uint8
    assert frame[5, 70].tolist() == [255] * 3 and frame[100, 0].max() < 40
    (frame,) = video.frames_from_obs([np.eye(10, dtype=bool)[..., None] & np.array([True, False, True, False])])
    assert frame.shape == (320, 320, 3)
    with pytest.raises(YozhError, match="cannot be shown"):
        video.frames_from_obs([np.zeros(8)])


def test_progress_in_a_log_and_on_a_terminal():
    for terminal in (False, True):
        console = Console(force_terminal=terminal, width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        play(Progress(console))
        text = console.export_text()
        assert "toy on Field-v0" in text and "compiled in 1.5 s" in text
        assert "finished: 400 steps in 4.0 s (100 steps/s) after 1.5 s of compilation" in text
        assert terminal or ("400 / 400" in text and "evaluation 2.5 ± 1.5" in text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian dqn CartPole-v1", "there is no command 'trian'. Did you mean train?"),
        ("--verison", "there is no option '--verison'. Did you mean --version?"),
        ("train", "train needs AGENT and ENV"),
        ("train dqn", "train needs AGENT and ENV"),
        ("train dqm CartPole-v1", "there is no agent 'dqm'. Did you mean dqn?"),
        ("train dqn CartPole-v1 --step 100", "train has no option '--step'. Did you mean --steps?"),
        ("train dqn CartPole-v1 --steps 0", "--steps takes a positive whole number, not '0'"),
        ("train dqn CartPole-v1 --steps 1e400", "--steps takes a positive whole number, not '1e400'"),
        ("train dqn CartPole-v1 --seed -1", "--seed takes a whole number from 0, not '-1'"),
        ("train dqn CartPole-v1 --agent.gamma", "--agent.gamma needs a value"),
        ("train dqn CartPole-v1 --agent.lerning-rate 1", "Did you mean --agent.learning-rate?"),
        ("train dqn CartPole-v1 --agent.gamma big", "--agent.gamma takes a number, not 'big'"),
        ("train dqn CartPoel-v1 --steps 100", "CartPole-v1"),
        ("train dqn CartPole-v1 extra", "train has no argument 'extra'"),
        ("evaluate no-such-folder", "there is no policy at no-such-folder"),
        ("report no-such-folder", "no-such-folder is not a run folder"),
        ("list agnets", "Did you mean agents?"),
    ],
)
def test_bad_input_is_answered_in_one_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and err.startswith("yozh: ") and not out
    assert not list(tmp_path.iterdir())


def test_help_is_quick_and_light():
    code = "import sys; from yozh.app.cli import main; main(['--help']); main(['train', '--help']); print('jax' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.endswith("False\n") and "train an agent" in done.stdout
    assert time.perf_counter() - start < 2  # alone it takes a tenth of that


def test_list_shows_the_settings_of_an_agent(capsys):
    assert main(["list", "dqn"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"--agent.learning-rate +\S+ +η of `descent`", out)
