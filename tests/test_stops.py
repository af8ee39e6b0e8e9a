"""Stop rules, and the page about observers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import yozh
from yozh.app import stops
from yozh.app.cli import main
from yozh.app.stops import StopAfter, StopAtReturn, StopRule, StopWhenFlat
from yozh.core import YozhError
from yozh.runners.observers import Observer, Stop

PAGE = (Path(__file__).parents[1] / "docs" / "callbacks.md").read_text()
INFO = {"steps": 1000, "eval_every": 100, "eval_episodes": 100}


def evaluation(steps, mean, episodes=10):
    return {"steps": steps, "seconds": 0.0, "evaluation": {"mean_return": mean, "episodes": episodes}}


def stopped(rule: StopRule, means, info=INFO, episodes=10):
    """The steps at which the rule stops a run of such evaluations, and why."""
    rule.on_start(info)
    found = []
    for i, mean in enumerate(means, 1):
        try:
            rule.on_evaluation(evaluation(i * info["eval_every"], mean, episodes))
        except Stop as stop:
            found.append((i * info["eval_every"], str(stop)))
    return found


def test_a_return_that_is_reached_stops_once():
    rule = StopAtReturn(2.5)
    assert stopped(rule, [1.0, 2.4, 2.5, 9.0]) == [(300, "mean return 2.5 of 10 episodes reached 2.5")]
    assert rule.reason == "mean return 2.5 of 10 episodes reached 2.5"
    assert stopped(rule, [1.0]) == [] and rule.reason is None


def test_the_last_evaluation_stops_nothing():
    assert stopped(StopAtReturn(2.5), [0.0] * 9 + [3.0]) == []
    assert stopped(StopAtReturn(2.5), [0.0] * 8 + [3.0])[0][0] == 900


def test_few_episodes_reach_nothing():
    assert stopped(StopAtReturn(2.5, episodes=10), [3.0, 3.0], episodes=9) == []
    for eval_episodes, refused in ((90, True), (91, False)):
        try:
            StopAtReturn(2.5).on_start(INFO | {"eval_episodes": eval_episodes})
        except YozhError as error:
            assert refused and "not 9: ask for eval_episodes of 91 or more" in str(error)
        else:
            assert not refused


def test_the_clock_starts_with_the_run(monkeypatch):
    now = 50.0
    monkeypatch.setattr(stops.time, "monotonic", lambda: now)
    rule = StopAfter(10.0)
    now = 100.0
    rule.on_start(INFO)
    now = 109.9
    rule.on_iteration({"steps": 10})
    now = 110.0
    with pytest.raises(Stop, match="10 s are over"):
        rule.on_iteration({"steps": 20})
    rule.on_iteration({"steps": 30})


def test_flat_counts_from_the_best():
    assert stopped(StopWhenFlat(2), [1.0, 3.0, 2.0, 4.0, 4.0, 3.9]) == [(600, "no better than 4 in 2 evaluations")]
    assert stopped(StopWhenFlat(3), [1.0, 3.0, 2.0, 4.0, 4.0, 3.9]) == []
    assert stopped(StopWhenFlat(1), [-5.0, -5.0])[0][0] == 200


def test_a_run_too_short_to_be_flat_is_refused():
    StopWhenFlat(4).on_start(INFO | {"eval_every": 167})  # five evaluations on the way
    with pytest.raises(YozhError, match=r"4 evaluations on the way cannot be flat for 4.*eval_every of 166 steps"):
        StopWhenFlat(4).on_start(INFO | {"eval_every": 200})


@pytest.mark.parametrize("make", [lambda: StopAfter(0.0), lambda: StopAfter(float("nan")), lambda: StopWhenFlat(0)])
def test_rules_that_make_no_sense_are_refused(make):
    with pytest.raises(YozhError, match="must be positive"):
        make()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("90", 90), ("0.5", 0.5), ("1m2.5s", 62.5)])  # fmt: skip
def test_durations(text, seconds):
    assert stops.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "m", "1d", "m10", "1m1h", "1h30", "-3s", "1.5h", "nan", "10 m"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        stops.duration(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stop-after 5x", "--stop-after takes a duration such as 90s, 10m or 1h30m, not '5x'"),
        ("--stop-at-return high", "--stop-at-return takes a number, not 'high'"),
        ("--stop-when-flat 0", "--stop-when-flat takes a positive whole number, not '0'"),
        ("--log tensorbored", "--log takes tensorboard (always on) or wandb[:PROJECT], not 'tensorbored'"),
        ("--log tensorboard:x", "--log takes tensorboard (always on) or wandb[:PROJECT], not 'tensorboard:x'"),
        ("--stop-at-return 1 --seeds 2", "--stop-at-return is for one run, not for --seeds"),
        ("--log wandb --seeds 2", "--log is for one run, not for --seeds"),
    ],
)
def test_bad_options_are_answered_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ppo", "Catch", "--quiet", *words.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_is_stopped(tmp_path, capsys):
    words = "--steps 20_000 --stop-at-return -1 --eval-every 512 --agent.streams 8 --agent.length 16 --quiet --out"
    assert main(["train", "ppo", "Catch", *words.split(), str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"stopped: mean return \S+ of 10 episodes reached -1\n", said) and "over 100 episodes" in said
    record = yozh.app.folder.read_run(tmp_path / "run")
    assert record.summary["status"] == "stopped" and record.summary["steps"] < 2000
    assert record.summary["stopped"].startswith("mean return")


def test_the_page_names_what_there_is():
    assert all(callable(getattr(Observer, event)) for event in re.findall(r"`(on_\w+)", PAGE))
    assert set(re.findall(r"`(on_\w+)", PAGE)) == {name for name in vars(Observer) if name.startswith("on_")}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        assert len(block.splitlines()) <= 25


@pytest.mark.slow
def test_the_page_runs(tmp_path):
    """In a process of its own, as a reader would run it."""
    script, shortened = re.subn(
        r"steps=[\d_]+", "steps=2048", "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    )
    script, fewer = re.subn(r"trials=\d+", "trials=2, seeds=1", script)
    assert shortened == 3 and fewer == 1
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=500)
    rows = (tmp_path / "evaluations.csv").read_text().splitlines()
    assert len(rows) >= 2 and all(len(row.split(",")) == 3 for row in rows)
