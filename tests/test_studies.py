"""Every study: its numbers hold, its picture is written, and a number that does not hold is told."""

import functools
import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from yozh.studies import (
    action_baselines,
    annealing_noise,
    bank,
    blind_cliffwalk,
    credit,
    deadly_triad,
    deep_sea,
    duplicated_actions,
    entropy,
    gae_map,
    hindsight,
    hyperbolic,
    iid,
    ladder,
    left_rock,
    maximisation_bias,
    n_step_u,
    natural_gradient,
    overestimation,
    poor_critic,
    popart_outlier,
    pqn_lambda,
    recall,
    replay,
    risk,
    soft_divergence,
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
    "hyperbolic": (hyperbolic, None),
    "iid": (iid, 2),
    "ladder": (ladder, 20_000),
    "left_rock": (left_rock, 40),
    "maximisation_bias": (maximisation_bias, 600),
    "n_step_u": (n_step_u, 500),
    "natural_gradient": (natural_gradient, None),
    "poor_critic": (poor_critic, 10),
    "pqn_lambda": (pqn_lambda, 2),
    "recall": (recall, 2),
    "staleness": (staleness, None),
}
"""With fewer repetitions than they have by themselves."""
ENDS = {name: bank.METHODS[name] for name in ("finite differences", "actor-critic")}
TWO = {name: iid.AGENTS[name] for name in ("16 streams × 5 steps", "1 stream × 80 steps")}
SMALLER = {"bank": {"METHODS": ENDS}, "iid": {"AGENTS": TWO}, "deep_sea": {"LIMITS": {6: 300, 8: 500}, "BLIND": 500}}
LONG = {"bank", "iid", "n_step_u", "poor_critic", "pqn_lambda", "recall"}

NAMES = [*STUDIES, "annealing_noise", "blind_cliffwalk", "duplicated_actions", "overestimation", "popart_outlier", "replay", "risk",
         "soft_divergence"]  # fmt: skip
"""Those that have tests of their own below stand at the end."""
PICTURES = Path(__file__).parents[1] / "docs" / "algorithms"


def test_every_study_is_tried_and_its_picture_shown():
    found = {p.stem for p in Path(study.__file__).parent.glob("*.py")} - {"__init__", "study"}
    assert found == set(NAMES)
    pages = "".join(p.read_text(encoding="utf-8") for p in PICTURES.glob("*.md"))
    for name in NAMES:
        assert f"(studies/{name}.svg)" in pages and f"`python -m yozh.studies.{name}`" in pages, name
        assert (PICTURES / "studies" / f"{name}.svg").read_text(encoding="utf-8").count("<svg") == 1


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


@pytest.mark.slow
def test_noise_fades_where_something_was_learnt():
    sigma, _, seen, unseen = annealing_noise.learnt(1)
    assert sigma[0, -1] < 0.5 * sigma[0, 0] and unseen[0, -1] > 1.5 * seen[0, -1]


@pytest.mark.slow
def test_dueling_tells_duplicated_actions_better():
    single, dueling = (duplicated_actions.errors(20, which, 1) for which in (False, True))
    assert np.log(dueling / single).mean() < np.log(0.6)


@pytest.mark.slow
def test_double_promises_less_too_much():
    (predicted, came), (less, came_double) = (overestimation.values(double, 2) for double in (False, True))
    late = slice(overestimation.LOOKS // 2, None)
    bias = (predicted - came)[:, late].mean()
    assert bias > 0.3 and (less - came_double)[:, late].mean() < 0.85 * bias


@pytest.mark.slow
def test_popart_learns_beside_an_outlier():
    outcome = popart_outlier.run(2)
    assert not [str(check) for check in outcome.checks if not check.holds]
    assert outcome.picture.count("<svg") == 1


@pytest.mark.slow
def test_without_a_replay_streaks_are_forgotten():
    kept, newest = (replay.returns(*replay.WAYS[f"{name}, 1 environment"], 2) for name in ("replay", "newest steps"))
    assert kept[:, -7:].mean() > 0.9 and replay.forgotten(newest) > 0.5 + replay.forgotten(kept)


@pytest.mark.slow
def test_two_peaks_are_seen_and_a_risk_is_shunned():
    outcomes, chosen = risk.learnt(risk.METHODS["C51"], 2000)
    worth, chance = np.asarray(outcomes.worth[0]), np.asarray(outcomes.chance[0])
    for peak in (-1.0, 1.0):
        assert chance[np.abs(worth - peak) < risk.WIDTH].sum() > 0.42
    assert chosen == {name: best for name, (_, best) in risk.RISKS.items()}


@pytest.mark.slow
def test_a_target_network_holds_values_down():
    share = soft_divergence.share(1, False, 4)
    assert share[0] == 100 and share[-1] == 0


@pytest.mark.slow
def test_what_is_drawn_decides_how_long_the_blind_cliffwalk_takes():
    median = {draw: float(np.median(found)) for draw, found in blind_cliffwalk.table(8, 8).items()}
    assert all(median[b] < 0.9 * median[a] for a, b in itertools.pairwise(blind_cliffwalk.DRAWS)), median
    assert median["greedy"] == pytest.approx(780, rel=0.4) and median["uniform"] == pytest.approx(5500, rel=0.5)


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
    for name in NAMES:
        source = Path(importlib.import_module(f"yozh.studies.{name}").__file__ or "").read_text()
        assert f'sys.exit(main("{name}", run' in source
