"""Every study: its numbers hold, its picture is written, and a number that does not hold is told."""

import functools
import importlib
from pathlib import Path

import numpy as np
import pytest

from yozh.studies import (
    action_baselines,
    bank,
    credit,
    deadly_triad,
    deep_sea,
    entropy,
    gae_map,
    hindsight,
    iid,
    ladder,
    left_rock,
    maximisation_bias,
    n_step_u,
    natural_gradient,
    poor_critic,
    staleness,
    study,
)
from yozh.studies.study import Check, Outcome, near

STUDIES = {
    "action_baselines": (action_baselines, 40),
    "bank": (bank, 3),
    "credit": (credit, 4000),
    "deadly_triad": (deadly_triad, None),
    "deep_sea": (deep_sea, 1),
    "entropy": (entropy, 200),
    "gae_map": (gae_map, None),
    "hindsight": (hindsight, 20),
    "iid": (iid, 2),
    "ladder": (ladder, 20_000),
    "left_rock": (left_rock, 40),
    "maximisation_bias": (maximisation_bias, 600),
    "n_step_u": (n_step_u, 500),
    "natural_gradient": (natural_gradient, None),
    "poor_critic": (poor_critic, 10),
    "staleness": (staleness, None),
}
"""With fewer repetitions than they have by themselves."""
ENDS = {name: bank.METHODS[name] for name in ("finite differences", "actor-critic")}
TWO = {name: iid.AGENTS[name] for name in ("16 streams × 5 steps", "1 stream × 80 steps")}
SMALLER = {"bank": {"METHODS": ENDS}, "iid": {"AGENTS": TWO}, "deep_sea": {"LIMITS": {6: 300, 8: 500}, "BLIND": 500}}
LONG = {"bank", "iid", "n_step_u", "poor_critic"}


def test_every_study_is_tried():
    found = {p.stem for p in Path(study.__file__).parent.glob("*.py")} - {"__init__", "study"}
    assert found == set(STUDIES)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in STUDIES])
def test_its_numbers_hold(name: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    module, repetitions = STUDIES[name]
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(module, constant, value)
    arguments = [] if repetitions is None else ["--repetitions", str(repetitions)]
    code = study.main(name, module.run, repetitions, [*arguments, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.count(": holds") >= 3 and f"picture: {tmp_path / name}.svg" in said
    assert (tmp_path / f"{name}.svg").read_text().count("<svg") == 1


@functools.cache
def few() -> np.ndarray:
    return n_step_u.table(60)


def test_the_u_of_n():
    """Sixty runs say each error to about .01; the step sizes to either side of the best are worse."""
    best = few().min(1)
    np.testing.assert_allclose(best, [*n_step_u.KNOWN.values()], atol=0.025)
    assert best.argmin() in (1, 2) and (np.diff(best[2:]) > 0).all()
    assert [n_step_u.ALPHAS[i] for i in few().argmin(1)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.1, 0.05], abs=0.11)


def test_what_does_not_hold_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    checks = [near("one", 1.0, 1.0, 0.1), Check("two", 3.0, 0.0, 2.0), near("three", float("nan"), 0.0, 9.0)]
    assert study.main("made-up", lambda: Outcome(checks, "<svg/>"), None, ["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0].endswith("holds")
        and said[1] == "two: 3, from 0 to 2: DOES NOT HOLD"
        and said[2].endswith("DOES NOT HOLD")
    )


@pytest.mark.parametrize("arguments", [["--out", "nowhere"], ["--repetitions", "0"]])
def test_bad_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        study.main("made-up", lambda repetitions: Outcome([], ""), 3, arguments)
    assert "nowhere" in (said := capsys.readouterr().err) or "must be positive, not 0" in said


def test_the_same_numbers_make_the_same_picture():
    assert deadly_triad.run().picture == deadly_triad.run().picture


def test_a_study_is_a_program():
    for name in STUDIES:
        source = Path(importlib.import_module(f"yozh.studies.{name}").__file__ or "").read_text()
        assert f'sys.exit(main("{name}", run' in source
