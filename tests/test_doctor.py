"""The doctor names what is wrong, says nothing of the healthy, and survives everything; training names what it can."""

import time
import warnings

import gymnasium.spaces as gs
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console

import yozh
from tests import sick
from yozh.app.cli import main
from yozh.app.doctor import Diagnosis, Finding, patience
from yozh.core import YozhError
from yozh.environments import make, probes
from yozh.environments.declared import fields


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr("yozh.app.doctor.speed.SECONDS", 0.02)
    monkeypatch.setattr("yozh.app.doctor.speed.HANDING_OVER", 1.0)


@pytest.mark.parametrize("env", sick.SICK, ids=lambda env: env.__name__)
def test_each_illness_is_named(env, monkeypatch):
    if env is sick.Hangs:
        monkeypatch.setattr(patience, "LIMIT", 0.5)
    severity, where, what = sick.SICK[env]
    found = yozh.doctor(env, steps=300, envs=2)
    assert any(f.severity == severity and f.where.startswith(where) and what in str(f) for f in found.findings), str(
        found
    )
    assert found.healthy == (severity != "error")
    grave = {f.severity for f in found.findings if f.severity != "note" and what not in str(f)}
    assert not grave, f"more than one illness: {found}"


@pytest.mark.parametrize("env", [sick.Walk, sick.Rich, sick.Pure, "Catch", "CartPole-v1", probes.Several()], ids=str)
def test_the_healthy_are_left_alone(env):
    found = yozh.doctor(env, steps=300, envs=2, backend="gymnasium" if env == "CartPole-v1" else None)
    assert found.healthy and found.verdict == "0 errors, 0 warnings", str(found)
    assert any("taken by" in f.what for f in found.findings) and any("steps a second" in f.what for f in found.findings)


@pytest.mark.slow
def test_worker_processes_are_measured_where_steps_are_slow(monkeypatch):
    monkeypatch.setattr("yozh.app.doctor.speed.HANDING_OVER", 0.0)
    found = yozh.doctor(sick.Walk, steps=100, envs=2)
    assert "2 in worker processes" in str(found) and found.verdict == "0 errors, 0 warnings", str(found)


def test_a_vector_environment_must_reset_at_the_next_step():
    found = yozh.doctor(SyncVectorEnv([sick.Walk] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    assert not found.healthy and "NEXT_STEP" in str(found)
    found = yozh.doctor(SyncVectorEnv([lambda: type("Out", (sick.Walk,), {"reset": lambda self, **_: 1 / 0})()]))
    assert "making it: raised ZeroDivisionError: division by zero (test_doctor.py" in str(found)
    assert yozh.doctor(SyncVectorEnv([sick.Walk] * 2), steps=300).verdict == "0 errors, 0 warnings"


@pytest.mark.parametrize(
    ("env", "what"),
    [
        (lambda: object(), "is a builtins.object, not a gymnasium.Env"),
        (lambda: 1 / 0, "raised ZeroDivisionError: division by zero (test_doctor.py"),
        (lambda: type("Bare", (sick.Walk,), {"observation_space": None})(), "observation_space: is None"),
        (lambda: type("Text", (sick.Walk,), {"observation_space": gs.Text(3)})(), "Text(1, 3"),
        (lambda: type("Out", (sick.Walk,), {"step": lambda self, a: exit(3)})(), "raised SystemExit: 3"),
        (lambda: type("None_", (sick.Walk,), {"step": lambda self, a: None})(), "returned None"),
    ],
)  # fmt: skip
def test_nothing_makes_the_doctor_ill(env, what):
    found = yozh.doctor(env, steps=100, envs=2)
    assert not found.healthy and what in str(found), str(found)


def test_making_one_may_hang(monkeypatch):
    monkeypatch.setattr(patience, "LIMIT", 0.2)
    found = yozh.doctor(lambda: time.sleep(2))
    assert not found.healthy and "making it: did not come back" in str(found)


def test_what_does_not_exist_is_refused():
    with pytest.raises(YozhError, match="did you mean"):
        yozh.doctor("CartPoel-v1")
    with pytest.raises(YozhError, match="give a function"):
        yozh.doctor(sick.Walk())
    with pytest.raises(YozhError, match="steps must be positive"):
        yozh.doctor("Catch", steps=0)


def test_the_command_counts_and_ends_with_the_verdict(capsys):
    assert main(["doctor", "tests.sick:NotANumber", "--steps", "100", "--envs", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("tests.sick:NotANumber (gymnasium): observation Box(2,)")
        and lines[-1] == "1 error, 0 warnings"
    )
    assert lines[1].startswith("error    observation, step 7: element [0] is nan, and so ")
    assert main(["doctor", "tests.sick:OutOfBounds", "--steps", "100", "--envs", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 errors, 1 warning"


def test_a_diagnosis_is_readable_on_a_terminal():
    found = Diagnosis("x", (Finding("error", "is 3", "reward, step 2", "make it 2"), Finding("note", "n", "speed", "")))
    console = Console(force_terminal=True, width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found)
    text = console.export_text()
    assert "reward, step 2  is 3; make it 2" in text and text.rstrip().endswith("1 error, 0 warnings")


def test_training_names_what_does_not_fit():
    with pytest.raises(YozhError, match=r"WrongShape: observation has shape \(1, 2\).* at step 0 of stream 0"):
        make(sick.WrongShape, 2)
    with pytest.raises(YozhError, match=r"KeyMissing: observation\.place is missing from the keys seen"):
        make(sick.KeyMissing, 2)
    env = make(sick.OutOfRange, 2)
    env.reset(0)
    with pytest.raises(
        YozhError, match=r"OutOfRange: observation.place is 3 at step 3 of stream 0, outside its declared \[0, 2\]"
    ):
        for _ in range(5):
            env.send(np.zeros(2, np.int32))
            env.recv()


def test_training_warns_once_of_bounds_that_do_not_hold():
    env = make(sick.OutOfBounds, 2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        env.reset(0)
        for _ in range(20):
            env.send(np.ones(2, np.int32))
            env.recv()
    (one,) = [str(w.message) for w in told]
    assert one.startswith("OutOfBounds: observation[0] is ") and "outside its declared [-1, 1]" in one


def test_an_error_of_the_environments_own_stays_what_it_was():
    env = make(sick.Raises, 2)
    env.reset(0)
    with pytest.raises(KeyError, match="the fifth step"):
        for _ in range(6):
            env.send(np.ones(2, np.int32))
            env.recv()


@pytest.mark.parametrize(
    ("space", "x", "at"),
    [
        (gs.Box(-1, 1, (2,), np.float32), [[0.0, 1.0 + 1e-6], [0.0, -1.0]], None),
        (gs.Box(-1, 1, (2,), np.float32), [[0.0, 1.0], [0.0, -1.001]], (1, 1)),
        (gs.Box(np.array([-1, 0]), np.array([1, 5]), (2,), np.float64), [[0.0, 5.0], [1.5, 5.0]], (1, 0)),
        (gs.Box(-1, 1, (1,), np.float32), [[np.nan]], None),
        (gs.Discrete(3, start=-1), [-1, 1, 2], (2,)),
        (gs.MultiDiscrete([2, 4]), [[1, 3], [2, 0]], (1, 0)),
        (gs.MultiBinary(2), [[0, 2]], (0, 1)),
    ],
)
def test_bounds_are_found_where_they_are_passed(space, x, at):
    (field,) = fields(space)
    assert field.bounded and field.outside(np.asarray(x, space.dtype)) == at


def test_bounds_of_the_number_type_are_not_looked_at():
    assert not any(
        f.bounded for f in fields(gs.Dict(a=gs.Box(0, 255, (2,), np.uint8), b=gs.Box(-np.inf, np.inf, (1,))))
    )
