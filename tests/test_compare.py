"""Comparing runs: figures against hand-computed ones, what is left out and said, and the page."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import trim_mean

import yozh
from yozh.app import aggregates
from yozh.app.cli import main
from yozh.core import YozhError

HARDWARE = {"processor": "a", "cores": 2, "memory_gib": 8.0, "platform": "cpu", "devices": ["cpu"], "system": "Linux"}


def fake(path: Path, *, agent: str = "ppo", env: str = "A-v0", seed: int = 0, score: float = 1.0, steps: int = 1000,
         status: str = "finished", options: dict[str, str] | None = None, at: tuple[int, ...] = (500, 1000), **config: Any) -> Path:  # fmt: skip
    """A run folder as a run would have left it, its evaluations on a line from 0 to the score."""
    path.mkdir(parents=True)
    settings = {"learning-rate": "0.001", "gamma": "0.99"} | (options or {})
    (path / "config.json").write_text(json.dumps({
        "agent": agent, "env": env, "seed": seed, "steps": steps, "backend": "jax", "runner": "fused", "envs": 8,
        "eval_every": 500, "eval_episodes": 100, "settings": {"class": f"yozh.agents.{agent}.{agent.upper()}"},
        "options": [[k, v, f"What {k} is."] for k, v in settings.items()], "started": "2025-01-01T00:00:00+00:00",
        "versions": {"yozh": "0.1.0"}, "hardware": HARDWARE, **config,
    }))  # fmt: skip
    rows = [{"steps": s, "seconds": s / 100, "return_mean": score * s / steps, "episodes": 4} for s in range(100, steps + 1, 100)]  # fmt: skip
    rows += [{"steps": s, "seconds": s / 100, "evaluation": {"mean_return": score * s / steps, "ci95": [0, 1], "episodes": 10}} for s in at]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in sorted(rows, key=lambda r: r["steps"])))
    if status != "unfinished":
        evaluation = {"mean_return": float(score), "ci95": [score, score], "episodes": 100}
        (path / "summary.json").write_text(json.dumps({"status": status, "steps": steps, "train_seconds": 10.0, "evaluation": evaluation}))  # fmt: skip
    return path


def group(folder: Path, scores: list[float], **what: Any) -> Path:
    for seed, score in enumerate(scores):
        fake(folder / f"seed-{seed}", seed=seed, score=score, **what)
    return folder


@pytest.fixture
def suite(tmp_path):
    """Two agents, two environments, five seeds each."""
    group(tmp_path / "ppo-a", [1, 2, 3, 4, 5])
    group(tmp_path / "ppo-b", [10, 20, 30, 40, 50], env="B-v0")
    group(tmp_path / "dqn-a", [3, 4, 5, 6, 11], agent="dqn")
    group(tmp_path / "dqn-b", [0, 5, 10, 20, 25], agent="dqn", env="B-v0")
    return tmp_path


def test_mean_interval_of_the_bootstrap():
    low, high = aggregates.mean_interval([0.0, 1.0])  # a mean of two draws is 0, 0.5 or 1, with 1/4, 1/2, 1/4
    assert (low, high) == (0.0, 1.0)
    assert aggregates.mean_interval([7.0]) == [7.0, 7.0]
    scores = np.random.default_rng(0).normal(size=400)
    low, high = aggregates.mean_interval(scores)
    half = 1.96 * scores.std() / 20
    np.testing.assert_allclose([low, high], scores.mean() + np.array([-half, half]), atol=0.01)


def test_mean_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    inside = [low <= 0 <= high for low, high in (aggregates.mean_interval(rng.normal(size=30)) for _ in range(200))]
    assert 0.89 < np.mean(inside) < 0.98  # the percentile bootstrap of 30 is a little too narrow: 94 %


def test_curves_meet_on_the_stretch_they_share():
    one = (np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0]))
    two = (np.array([5.0, 25.0]), np.array([1.0, 3.0]))
    grid, values = aggregates.on_one_grid([one, two])
    assert grid.tolist() == [5, 10, 20]
    np.testing.assert_allclose(values, [[5, 10, 20], [1, 1.5, 2.5]])
    same, _ = aggregates.on_one_grid([one, one])
    assert same.tolist() == [0, 10, 20]
    assert len(aggregates.on_one_grid([(np.arange(999.0), np.arange(999.0))], most=50)[0]) == 50


def test_curve_interval_draws_whole_runs():
    values = np.array([[0.0, 1.0]] * 3 + [[1.0, 0.0]])
    low, high = aggregates.curve_interval(values)  # of four draws with chance 1/4, up to three in 97.5 %
    assert low.tolist() == [0, 0.25] and high.tolist() == [0.75, 1]


def test_one_environment_needs_no_rliable(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rliable", None)
    found = yozh.compare(group(tmp_path / "ppo", [1, 2, 3, 4, 10]), out=tmp_path / "c.html")
    row = found.figures["environments"]["A-v0"]["methods"]["ppo"]
    assert row["mean_return"] == 4 and row["scores"] == [1, 2, 3, 4, 10] and row["seeds"] == [0, 1, 2, 3, 4]
    assert row["ci95"][0] < 4 < row["ci95"][1]
    assert row["curves"]["evaluation"]["steps"] == [500, 1000]
    np.testing.assert_allclose(row["curves"]["evaluation"]["mean"], [2, 4])
    assert found.figures["aggregates"] is None and found.warnings == []


def test_missing_rliable_is_named(suite, monkeypatch):
    monkeypatch.setitem(sys.modules, "rliable", None)
    with pytest.raises(YozhError, match=r"pip install 'yozh\[compare\]'"):
        yozh.compare(suite, out=suite / "c.html")
    assert not (suite / "c.html").exists()


def test_aggregates_against_hand_computed_ones(suite):
    found = yozh.compare(suite, out=suite / "c.html").figures["aggregates"]
    # Environment A goes from 1 to 11, B from 0 to 50.
    ppo = np.stack([np.arange(5) / 10, np.arange(1, 6) / 5], 1)
    dqn = np.stack([np.array([2, 3, 4, 5, 10]) / 10, np.array([0, 5, 10, 20, 25]) / 50], 1)
    np.testing.assert_allclose(found["scores"]["ppo"], ppo)
    np.testing.assert_allclose(found["scores"]["dqn"], dqn)
    row = found["methods"]["ppo"]
    assert row["mean"]["value"] == pytest.approx(0.4) and row["median"]["value"] == pytest.approx(0.4)
    assert row["optimality_gap"]["value"] == pytest.approx(0.6)
    for name, scores in (("ppo", ppo), ("dqn", dqn)):
        assert found["methods"][name]["iqm"]["value"] == pytest.approx(trim_mean(scores.ravel(), 0.25))
        assert all(e["ci95"][0] <= e["value"] <= e["ci95"][1] for e in found["methods"][name].values())
    (pair,) = found["improvement"]
    # Of the pairs of runs in one environment; two that are equal count half.
    above = [np.mean((d[:, None] > p) + 0.5 * (d[:, None] == p)) for d, p in zip(dqn.T, ppo.T, strict=True)]
    assert (pair["better"], pair["than"]) == ("dqn", "ppo") and pair["value"] == pytest.approx(np.mean(above))
    profile = found["profiles"]["ppo"]
    np.testing.assert_allclose(profile["share"], [(ppo > t).mean() for t in profile["at"]])


def test_the_same_figures_every_time_and_no_trace_in_numpys_generator(suite):
    np.random.seed(3)
    first = yozh.compare(suite, out=suite / "c.html").figures["aggregates"]
    drawn = np.random.rand()
    assert yozh.compare(suite, out=suite / "d.html").figures["aggregates"] == first
    np.random.seed(3)
    assert np.random.rand() == drawn


def test_scores_by_reference(suite):
    table = {"A-v0": {"random": 1.0, "human": 6.0}, "B-v0": {"random": 0, "human": 100}}
    (suite / "scores.json").write_text(json.dumps(table))
    found = yozh.compare(suite, out=suite / "c.html", normalise="human", references=suite / "scores.json")
    np.testing.assert_allclose(np.array(found.figures["aggregates"]["scores"]["ppo"])[1], [0.2, 0.2])
    with pytest.raises(YozhError, match="lacks B-v0"):
        yozh.compare(suite, out=suite / "c.html", normalise="human", references={"A-v0": table["A-v0"]})
    (suite / "scores.json").write_text('{"A-v0": {"random": 1.0}}')
    with pytest.raises(YozhError, match="does not hold"):
        yozh.compare(suite, out=suite / "c.html", normalise="human", references=suite / "scores.json")


def test_raw_scores_have_no_optimality_gap(suite):
    row = yozh.compare(suite, out=suite / "c.html", normalise="none").figures["aggregates"]["methods"]["ppo"]
    assert row["mean"]["value"] == pytest.approx(16.5) and "optimality_gap" not in row


def test_settings_that_differ_make_methods(tmp_path):
    group(tmp_path / "one", [1] * 5)
    group(tmp_path / "two", [2] * 5, options={"learning-rate": "0.01"})
    group(tmp_path / "b", [3] * 5, env="B-v0")
    group(tmp_path / "b2", [3] * 5, env="B-v0", options={"learning-rate": "0.01"})
    found = yozh.compare(tmp_path, out=tmp_path / "c.html")
    names = {"ppo, learning-rate 0.001", "ppo, learning-rate 0.01"}
    assert all(set(env["methods"]) == names for env in found.figures["environments"].values())
    assert found.warnings == []


def test_what_a_reader_must_know(tmp_path):
    group(tmp_path / "ppo", [1, 2, 3], options={"gamma": "0.9"})
    fake(tmp_path / "half", seed=3, status="unfinished", options={"gamma": "0.9"})
    fake(tmp_path / "stopped", seed=4, status="interrupted", options={"gamma": "0.9"})
    fake(tmp_path / "again", seed=2, options={"gamma": "0.9"})
    fake(tmp_path / "long", seed=5, steps=2000, backend="envpool", options={"gamma": "0.9"}, versions={"yozh": "0.2.0"})
    group(tmp_path / "b", [1] * 6, env="B-v0")
    group(tmp_path / "c", [1] * 5, env="B-v0", agent="dqn")
    warnings = yozh.compare(tmp_path, out=tmp_path / "c.html").warnings
    text = "\n".join(warnings)
    for part in (
        "half is left out: it is unfinished",
        "stopped is left out: it is interrupted",
        "seed-2 is left out: it asks the same with the same seed as",
        "ppo on A-v0 has 4 seeds",
        "ppo on A-v0: runs differ in steps (1000, 2000)",
        "ppo on A-v0: runs differ in backend (envpool, jax)",
        "ppo on A-v0: runs are of several versions of Yozh (0.1.0, 0.2.0)",
        "methods on A-v0 were trained for different numbers of steps (1,000, 2,000)",
        "the settings of ppo differ from environment to environment",
        "dqn is left out of the aggregates: it lacks A-v0",
        "the aggregates take the first 4 seeds of ppo",
    ):
        assert part in text
    assert len(warnings) == 11
    page = (tmp_path / "c.html").read_text()
    assert all(w.replace("'", "&#x27;") in page for w in warnings)


def test_nothing_in_common_is_said_and_not_aggregated(tmp_path):
    group(tmp_path / "a", [1] * 5)
    group(tmp_path / "b", [1] * 5, agent="dqn", env="B-v0")
    found = yozh.compare(tmp_path, out=tmp_path / "c.html")
    assert found.figures["aggregates"] is None
    assert found.warnings == ["no aggregates over environments: the methods have fewer than two of them in common"]


def test_a_run_named_twice_counts_once(suite):
    found = yozh.compare([suite, suite / "ppo-a", suite / "ppo-a" / "seed-0"], out=suite / "c.html")
    assert len(found.figures["environments"]["A-v0"]["methods"]["ppo"]["scores"]) == 5 and found.warnings == []


def test_page_and_figures_stand_alone(suite):
    found = yozh.compare(suite, out=suite / "c.html")
    page = found.path.read_text()
    assert json.loads((suite / "c.json").read_text()) == json.loads(json.dumps(found.figures))
    assert not re.search(r"(src|href)=\"(?!data:|#)|url\((?!#)|@import", page.replace("xlink:href", "href"))
    assert (
        page.count("<svg") == 2 * 3 + 5
    )  # of each environment two curves and the scores; four aggregates, the profile
    assert "#01020" not in page and "What gamma is." in page
    ids = re.findall(r'<clipPath id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "two drawings share an id, and the browser takes the first"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compare", "compare needs RUN"),
        ("compare no-such-folder", "there is no no-such-folder"),
        ("compare .", ". holds no run"),
        ("compare . --normalise max", "normalise takes minmax, human, none, not 'max'"),
        ("compare . --references scores.json", "go together"),
        ("compare . --out c.pdf", "c.pdf is not an HTML file: name one, such as c.html"),
        ("compare . --out no/c.html", "there is no folder no"),
    ],
)
def test_bad_input_is_answered_in_one_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out and not list(tmp_path.iterdir())


def test_the_command_says_what_the_page_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    group(tmp_path / "runs", [1, 2, 3])
    assert main(["compare", "runs"]) == 0
    out = capsys.readouterr().out
    assert "note: ppo on A-v0 has 3 seeds" in out and "A-v0  ppo  mean return 2 (95 % interval 1" in out
    assert out.endswith("report: compare.html\n") and (tmp_path / "compare.json").exists()
