"""Tuning: what is looked for, how a study goes on, what it writes."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import yozh
from yozh import agents, presets
from yozh.agents import PPO
from yozh.app import tune_study, tune_trials
from yozh.app.cli import main
from yozh.app.face import options_asked
from yozh.app.options import options, override
from yozh.core import YozhError
from yozh.networks import MLP
from yozh.presets.spaces import SPACE, Choice, Range, space
from yozh.runners.observers import Stop
from yozh.settings import describe

optuna = pytest.importorskip("optuna")
STRUCTURE = {"torso.widths": "16", "epochs": "1", "minibatches": "1"}
TINY = PPO(torso=MLP((16,)), streams=4, length=8, epochs=1, minibatches=1)


@pytest.fixture
def quick(monkeypatch):
    """Runs that take no time: they reach what the learning rate is worth, best at 1e-3."""
    ran = []

    def train(agent, env, *, steps, seed, backend, env_options, eval_every, eval_episodes, observers):
        rate = float(agent.learning_rate.value)
        worth = -abs(float(jax.numpy.log10(rate)) + 3)
        ran.append((rate, seed, steps))
        status = "finished"
        for o in observers:
            o.on_start({"steps": steps, "eval_every": eval_every, "eval_episodes": eval_episodes})
            try:
                for i in range(1, tune_trials.EVALUATIONS + 1):
                    o.on_iteration({"steps": i * eval_every})
                    o.on_evaluation({"steps": i * eval_every, "evaluation": {"mean_return": worth}})
            except Stop:
                status = "stopped"
                o.on_evaluation({"steps": i * eval_every, "evaluation": {"mean_return": worth}})
        return SimpleNamespace(summary={"status": status, "evaluation": {"mean_return": worth + seed / 1e6}})

    monkeypatch.setattr(tune_trials, "train", train)
    return ran


def look(folder, trials, **more):
    return yozh.tune(TINY, "Catch", steps=800, trials=trials, seeds=2, study=folder, fix=STRUCTURE, **more)


def reopened(folder):
    return tune_study.reopen(folder)


@pytest.mark.parametrize("agent", [cls() for cls in agents.names().values()] + [presets.find(*n).agent for n in presets.names()])  # fmt: skip
def test_every_setting_is_read_and_numbers_need_no_new_program(agent):
    now = {o.name: o.value for o in options(agent)}
    for setting, row in space(now).items():
        if isinstance(row, Range):
            inside = row.low <= row.near(now[setting]) <= row.high
            assert inside and (
                float(now[setting]) == 0 or row.near(now[setting]) == pytest.approx(
                    1 - float(now[setting]) if row.complement else float(now[setting]), abs=1e-6)
            ), f"{setting} {now[setting]}"  # fmt: skip
            ends = [optuna.trial.FixedTrial({row.name(setting): int(x) if row.whole else x}) for x in (row.low, row.high)]  # fmt: skip
            texts = [row.suggest(trial, setting) for trial in ends]
        else:
            assert now[setting] in row.options
            texts = [next(o for o in row.options if o != now[setting]), now[setting]]
        one, other = (override(agent, {setting: t}) for t in texts)
        assert describe(one) != describe(other)
        assert (jax.tree.structure(one) == jax.tree.structure(other)) == isinstance(row, Range), setting


def test_the_page_says_which_settings_are_structure():
    page = (Path(__file__).parents[1] / "docs" / "callbacks.md").read_text()
    numbers, structure = page.partition("Numbers are leaves")[2].split("The rest is structure:")
    assert set(re.findall(r"`([\w.-]+)`", numbers)) == {k for k, row in SPACE.items() if isinstance(row, Range)}
    assert set(re.findall(r"`([\w.-]+)`", structure)) == {k for k, row in SPACE.items() if isinstance(row, Choice)}


def test_it_finds_better_settings_and_writes_them(tmp_path, quick):
    said = []
    tuned = look(tmp_path / "s", 16, tell=said.append)
    rate = float(tuned.agent.learning_rate.value)
    assert quick[0][0] == pytest.approx(3e-4) and abs(rate - 1e-3) < 3e-4
    assert {seed for _, seed, _ in quick} == {1000, 1001} and {steps for *_, steps in quick} == {800}
    assert tuned.mean_return == pytest.approx(-abs(float(jax.numpy.log10(rate)) + 3) + 1000.5e-6, abs=1e-6)
    assert tuned.trials == 16 == len(said) and said[0].startswith("trial   0  return -0.5")
    preset = presets.read(tmp_path / "s" / "preset.json")
    assert describe(preset.agent) == describe(tuned.agent) and preset.steps == 800
    assert preset.agent.epochs == 1 and "on seeds 1000 and 1001" in preset.reached
    page = (tmp_path / "s" / "report.html").read_text()
    for part in ("Tuning PPO on Catch", "yozh train --preset", "importance of each setting", "return of each trial", "1 - gamma", "held"):  # fmt: skip
        assert part in page
    assert page.count("<svg") == 2 + len(space({o.name: o.value for o in options(TINY) if o.name not in STRUCTURE}))
    assert not re.search(r"(src|href)=\"(?!data:|#)", page.replace("xlink:href", "href"))


def test_the_command_line_says_it_all(tmp_path, quick):
    tuned = yozh.tune("ppo", "Pendulum-v1", trials=3, seeds=1, study=tmp_path / "s", fix={"gamma": 0.9, "learning_rate": "1e-3"})  # fmt: skip
    words = tuned.commands[1].split()
    assert words[:4] == ["yozh", "train", "ppo", "Pendulum-v1"] and words[words.index("--steps") + 1] == "100000"
    settings = {k.removeprefix("--agent."): v for k, v in itertools.pairwise(words) if k.startswith("--agent.")}
    assert describe(override(presets.start("ppo", "Pendulum-v1")[0], settings)) == describe(tuned.agent)
    assert len(yozh.tune(TINY, "Catch", trials=1, steps=80, study=tmp_path / "t").commands) == 1


def test_options_of_the_environment_are_held(tmp_path, quick, monkeypatch):
    asked = dict(trials=1, seeds=1, study=tmp_path / "s", fix={"learning_rate": "1e-3"})
    train, seen = tune_trials.train, []
    monkeypatch.setattr(tune_trials, "train", lambda *a, **k: seen.append(k["env_options"]) or train(*a, **k))
    tuned = yozh.tune("ppo", "CartPole-v1", env_options={"limit": 7}, **asked)
    assert seen == [{"limit": 7}] and tuned.commands[1].endswith("--env.limit 7")
    assert presets.read(tmp_path / "s" / "preset.json").env_options == {"limit": 7}
    assert "env.limit" in (tmp_path / "s" / "report.html").read_text()
    assert tune_study.read(tmp_path / "s").env_options == {"limit": 7}
    with pytest.raises(YozhError, match="holds a study with other env_options"):
        yozh.tune("ppo", "CartPole-v1", env_options={"limit": 8}, **asked)
    with pytest.raises(YozhError, match="did you mean limit"):
        yozh.tune("ppo", "CartPole-v1", env_options={"limti": 7}, **(asked | {"study": tmp_path / "t"}))
    assert not (tmp_path / "t").exists()
    preset = tmp_path / "s" / "preset.json"
    assert options_asked(str(preset), "CartPole-v1", None) == (("limit", 7),)
    assert options_asked(preset, "CartPole-v1", {"limit": 9}) == (("limit", 9),)


def test_the_same_command_goes_on(tmp_path, quick):
    first = look(tmp_path / "s", 5)
    runs = len(quick)
    assert look(tmp_path / "s", 5).settings == first.settings and len(quick) == runs
    said = []
    assert look(tmp_path / "s", 7, tell=said.append).trials == 7
    assert said[0] == "the study goes on: 5 of 7 trials are done" and len(said) == 3
    rates = [t.params["learning-rate"] for t in reopened(tmp_path / "s").trials]
    assert len(set(rates)) == 7


def test_another_study_is_refused(tmp_path, quick):
    look(tmp_path / "s", 1)
    with pytest.raises(YozhError, match="holds a study with other steps; choose another folder"):
        yozh.tune(TINY, "Catch", steps=900, trials=1, seeds=2, study=tmp_path / "s", fix=STRUCTURE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(YozhError, match="something else than a study"):
        look(tmp_path / "run", 1)


def test_one_process_at_a_time(tmp_path, quick):
    look(tmp_path / "s", 1)
    with tune_study.claimed(tmp_path / "s", tune_study.read(tmp_path / "s")), pytest.raises(YozhError, match="another process"):  # fmt: skip
        look(tmp_path / "s", 2)
    look(tmp_path / "s", 2)


def test_killed_trials_are_tried_again_first(tmp_path, quick):
    look(tmp_path / "s", 2)
    study = reopened(tmp_path / "s")
    problem = tune_study.read(tmp_path / "s")
    left = study.ask()
    params = {row.name(k): row.suggest(left, k) for k, row in problem.space().items()}
    with open(tmp_path / "s" / "study.journal", "a") as journal:
        journal.write('{"op_code": 6, "worker')  # the machine stopped while writing
    tuned = look(tmp_path / "s", 3)
    trials = reopened(tmp_path / "s").trials
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"] and tuned.trials == 3
    assert trials[3].params == trials[2].params == left.params and params and trials[3].user_attrs["tries"] == 2


def test_a_trial_that_always_kills_is_given_up(tmp_path, quick):
    look(tmp_path / "s", 1)
    study, problem = reopened(tmp_path / "s"), tune_study.read(tmp_path / "s")
    for _ in range(5):
        trial = study.ask()
        [row.suggest(trial, k) for k, row in problem.space().items()]
        tune_study.retry(study)
    states = [t.user_attrs.get("tries", 1) for t in study.trials[1:]]
    assert states[:4] == [1, 2, 3, 1]


def test_poor_trials_are_pruned(tmp_path, quick):
    look(tmp_path / "s", 1)
    study = reopened(tmp_path / "s")
    for _ in range(5):  # five trials better than any can be
        study.add_trial(optuna.trial.create_trial(
            params=study.trials[0].params, distributions=study.trials[0].distributions, value=9.0,
            user_attrs=study.trials[0].user_attrs, intermediate_values=dict.fromkeys(range(16), 9.0)))  # fmt: skip
    runs, said = len(quick), []
    look(tmp_path / "s", 8, tell=said.append)
    pruned = [t for t in reopened(tmp_path / "s").trials if t.state.name == "PRUNED"]
    assert len(pruned) == 2 and len(quick) == runs + 2
    assert all(len(t.intermediate_values) == 3 for t in pruned)
    assert "pruned after 3 evaluations" in said[-1] and "2 more were pruned" in (tmp_path / "s/report.html").read_text()


def test_trials_that_diverge_do_not_end_the_study(tmp_path, monkeypatch):
    def train(*args, **options):
        raise YozhError("loss or gradient is not finite")

    monkeypatch.setattr(tune_trials, "train", train)
    with pytest.raises(YozhError, match=r"no trial in .* has finished: loss or gradient is not finite"):
        look(tmp_path / "s", 3)
    assert [t.state.name for t in reopened(tmp_path / "s").trials] == ["PRUNED"] * 3


def test_the_time_can_be_over(tmp_path, quick, monkeypatch):
    look(tmp_path / "s", 2)
    clock = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(1e18))  # over at the third stretch of the third trial
    monkeypatch.setattr(tune_trials, "time", SimpleNamespace(time=lambda: next(clock)))
    tuned = look(tmp_path / "s", 9, timeout=1.0)
    trials = reopened(tmp_path / "s").trials
    assert tuned.trials == 2 and [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert len(trials[2].intermediate_values) == 2
    assert look(tmp_path / "s", 9, timeout=1.0).trials == 2
    assert len(reopened(tmp_path / "s").trials) == 4  # tried again, but not begun


def test_an_interrupt_keeps_what_was_found(tmp_path, quick, monkeypatch):
    look(tmp_path / "s", 2)
    (tmp_path / "s" / "preset.json").unlink()
    monkeypatch.setattr(tune_trials, "train", lambda *a, **k: SimpleNamespace(summary={"status": "interrupted"}))
    with pytest.raises(KeyboardInterrupt):
        look(tmp_path / "s", 9)
    assert presets.read(tmp_path / "s" / "preset.json").steps == 800
    assert [t.state.name for t in reopened(tmp_path / "s").trials] == ["COMPLETE", "COMPLETE", "RUNNING"]


def write(path, **changes):
    presets.write(path, presets.Preset(TINY, 10, ""))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"is not a preset of this version of Yozh \(yozh-preset-1\)"),
        ({"settings": {"class": "os.system"}}, "its settings cannot be read: os.system is not part of this Yozh"),
        ({"settings": {"class": "yozh.agents.estimators.GAE", "lam": 0.9}}, "does not describe an agent"),
        ({"settings": 3}, "does not describe an agent"),
        ({"steps": -1}, "steps must be a positive whole number, not -1"),
        ({"env_options": 3}, "env_options must be a mapping, not 3"),
        ({"steps": True}, "steps must be a positive whole number, not True"),
    ],
)
def test_files_that_are_no_presets_are_refused(tmp_path, changes, message):
    path = tmp_path / "preset.json"
    write(path)
    assert describe(presets.read(path).agent) == describe(TINY)
    write(path, **changes)
    with pytest.raises(YozhError, match=f"{path}.*{message}"):
        presets.read(path)
    for text in (b"{", b"[]", b"\xff", b"{}"):
        path.write_bytes(text)
        with pytest.raises(YozhError, match=f"{path} is not a preset"):
            presets.read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tune ppo", "tune needs AGENT and ENV"),
        ("tune dqm Catch", "Did you mean dqn?"),
        ("tune ppo Catch --trials 0", "--trials takes a positive whole number, not '0'"),
        ("tune ppo Catch --timeout 5x", "--timeout takes a duration such as 90s, 30m or 1h30m, not '5x'"),
        ("tune ppo Catch --fix gamma=1", "--fix takes agent.FIELD=VALUE, not 'gamma=1'"),
        ("tune ppo Catch --fix agent.gama=0.9", "Did you mean --agent.gamma?"),
        ("tune ppo Catch --agent.gamma high", "--agent.gamma takes a number, not 'high'"),
        ("tune ppo Catsh --steps 10", "no environment 'Catsh'"),
        ("tune dqn Pendulum-v1 --steps 10", "dqn takes Discrete actions"),
        ("tune a2c Catch", "a2c has no preset for Catch: say how long a run is, --steps 100_000"),
        ("tune no-such.json Catch", "there is no preset at no-such.json"),
        ("train --preset no-such.json Catch", "there is no preset at no-such.json"),
        ("train --preset no-such.json", "train needs ENV"),
    ],
)
def test_bad_input_is_answered_in_one_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


def test_a_preset_of_another_agent_is_refused(capsys, tmp_path):
    write(tmp_path / "p.json")
    assert main(["train", "dqn", "Catch", "--preset", str(tmp_path / "p.json")]) == 2
    assert "is a preset of ppo, not of dqn" in capsys.readouterr().err


def test_help_lists_what_is_looked_for(capsys):
    assert main(["tune", "dqn", "CartPole-v1", "--help"]) == 0
    assert re.search(r"--agent.gamma +0.99 +0.9 to 0.999", capsys.readouterr().out)


def test_without_optuna_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(YozhError, match=r"pip install 'yozh\[tune\]'"):
        look(tmp_path / "s", 1)
    assert not list(tmp_path.iterdir())


WORDS = "tune ppo Catch --eval-episodes 10 --seeds 1 --agent.streams 4 --agent.length 8 --agent.torso.widths 16 --fix agent.epochs=1 --fix agent.minibatches=1 --study s"  # fmt: skip
RUN = [sys.executable, "-c", "import sys; from yozh.app.cli import main; sys.exit(main())", *WORDS.split()]


@pytest.mark.slow
def test_a_process_killed_while_it_writes_blocks_nobody(tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    look("s", 1)
    code = "import os; from yozh.app.tune_study import _Writing; _Writing('s/study.journal').acquire(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert look("s", 2).trials == 2 and {p.name for p in Path("s").iterdir()} == {
        ".lock", "study.journal", "study.json", "preset.json", "report.html"}  # fmt: skip


@pytest.mark.slow
def test_killed_and_continued_by_two_processes_and_trained(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = ["--steps", "600"]
    began = subprocess.Popen([*RUN, "--trials", "1000", *steps], start_new_session=True)
    journal, limit = tmp_path / "s" / "study.journal", time.monotonic() + 300
    while not (journal.exists() and len(tune_study.finished(reopened(tmp_path / "s"))) >= 2):
        assert began.poll() is None and time.monotonic() < limit
        time.sleep(0.2)
    os.killpg(began.pid, signal.SIGKILL)
    began.wait()
    done = len(tune_study.finished(reopened(tmp_path / "s")))
    subprocess.run([*RUN, "--trials", str(done + 3), "--jobs", "2", *steps], check=True, timeout=500)
    said = capfd.readouterr().out
    assert f"the study goes on: {done} of {done + 3} trials are done" in said and "best mean return" in said
    trials = reopened(tmp_path / "s").trials
    assert not [t for t in trials if t.state.name == "RUNNING"]
    assert len(tune_study.finished(reopened(tmp_path / "s"))) in (done + 3, done + 4)
    assert (
        main(["train", "--preset", "s/preset.json", "Catch", "--eval-episodes", "10", "--quiet", "--out", "run"]) == 0
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["epochs"] == 1 and config["agent"] == "ppo" and config["steps"] == 600


@pytest.mark.slow
def test_real_runs_are_measured_and_pruned(tmp_path):
    found = look(tmp_path / "s", 1, eval_episodes=10)
    assert -1 <= found.mean_return <= 1
    study = reopened(tmp_path / "s")
    assert len(study.trials[0].intermediate_values) == 16
    for _ in range(5):
        study.add_trial(optuna.trial.create_trial(
            params=study.trials[0].params, distributions=study.trials[0].distributions, value=9.0,
            user_attrs=study.trials[0].user_attrs, intermediate_values=dict.fromkeys(range(16), 9.0)))  # fmt: skip
    look(tmp_path / "s", 7, eval_episodes=10)
    last = reopened(tmp_path / "s").trials[-1]
    assert last.state.name == "PRUNED" and len(last.intermediate_values) == 3
