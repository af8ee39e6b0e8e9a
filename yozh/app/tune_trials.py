"""The trials of a study: settings asked for, measured by short runs and told; in this process or in several."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yozh.app.face import train
from yozh.app.options import override
from yozh.app.stops import StopRule
from yozh.app.tune_study import Problem, finished, load_optuna, read, reopen
from yozh.core import YozhError, require
from yozh.files import Lock

EVALUATIONS = 8
"""Of one run: seven on the way, by which poor trials are pruned, and the last."""
FIRST_SEED = 1000
"""Settings are chosen on seeds from here on, so that those from 0 can say what the choice is worth."""
LATE, POOR = "the time for tuning is over", "worse than the median of the trials before it"


class _Late(Exception):
    """The time is over before the trial is."""


class Telling:
    """Says a line for each trial of a study that has finished since the last call."""

    def __init__(self, study: Any, trials: int, say: Callable[[str], None] | None):
        self._study, self._say = study, say
        self._told = {t.number for t in finished(study)}
        if say and study.trials:
            say(f"the study goes on: {len(self._told)} of {trials} trials are done")

    def __call__(self) -> None:
        for trial in finished(self._study) if self._say else ():
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._say(self._line(trial))

    def _line(self, trial: Any) -> str:
        seconds = trial.duration.total_seconds()
        settings = "  ".join(f"{k} {v}" for k, v in trial.user_attrs["settings"].items())
        if trial.state.name == "PRUNED":
            result = f"pruned after {len(trial.intermediate_values)} evaluations"
        else:
            best = self._study.best_trial
            result = f"return {trial.value:.4g}, best {best.value:.4g} (trial {best.number})"
        return f"trial {trial.number:>3}  {result}  {seconds:.0f} s  {settings}"


def work(problem: Problem, folder: Path, trials: int, deadline: float | None, seed: int = 0, tell: Callable[[], None] | None = None) -> None:  # fmt: skip
    """Makes trials until the study has `trials`, or the time is over, or the process that began this one has ended."""
    optuna, parent = load_optuna(), os.getppid()
    states, study = optuna.trial.TrialState, reopen(folder, seed)
    counted = (states.COMPLETE, states.PRUNED, states.RUNNING)
    while len(study.get_trials(deepcopy=False, states=counted)) < trials and os.getppid() == parent:
        if deadline is not None and time.time() >= deadline:
            return
        trial = study.ask()
        try:
            study.tell(trial, _measure(problem, trial, deadline))
        except optuna.TrialPruned:
            study.tell(trial, state=states.PRUNED)
        except _Late:
            return  # the trial is left as it is, to be tried again when the study goes on
        except Exception:
            study.tell(trial, state=states.FAIL)
            raise
        if tell:
            tell()


def spread(folder: Path, trials: int, deadline: float | None, jobs: int, lock: Lock, tell: Callable[[], None]) -> None:
    """Has `jobs` processes work on the study. They hold its lock too, should this process be killed before them."""
    code = "from yozh.app.tune_trials import worker; worker()"
    environ = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ  # several processes share a GPU's memory
    told = [json.dumps([str(folder), trials, deadline, i]) for i in range(jobs)]
    workers = [subprocess.Popen([sys.executable, "-c", code, t], env=environ, pass_fds=(lock.fileno(),)) for t in told]
    try:
        while any(w.poll() is None for w in workers):
            time.sleep(0.5)
            tell()
        bad = sum(w.returncode != 0 for w in workers)
        require(not bad, f"{bad} of {jobs} processes failed; the same command goes on with the study in {folder}")
    finally:
        for w in workers:
            if w.poll() is None:
                w.terminate()
        for w in workers:
            w.wait()


def worker() -> None:
    """What a process that `spread` started does."""
    sys.path.append(os.getcwd())
    folder, trials, deadline, seed = json.loads(sys.argv[1])
    try:
        work(read(Path(folder)), Path(folder), trials, deadline, seed)
    except KeyboardInterrupt:
        sys.exit(130)
    except YozhError as error:
        sys.exit(f"yozh: {error}")


def _measure(problem: Problem, trial: Any, deadline: float | None) -> float:
    """The mean over the seeds of the final evaluations; raises `TrialPruned`, `_Late` or `KeyboardInterrupt`."""
    optuna = load_optuna()
    settings = {setting: row.suggest(trial, setting) for setting, row in problem.space().items()}
    trial.set_user_attr("settings", settings)
    means: list[float] = []
    try:
        agent = override(problem.agent, settings)
        for k in range(problem.seeds):
            watch = Watch(trial, k * EVALUATIONS, deadline)
            done = train(agent, problem.env, steps=problem.steps, seed=FIRST_SEED + k, backend=problem.backend, env_options=problem.env_options,
                         eval_every=-(-problem.steps // EVALUATIONS), eval_episodes=problem.eval_episodes, observers=(watch,))  # fmt: skip
            if watch.reason == LATE:
                raise _Late
            if watch.reason == POOR:
                raise optuna.TrialPruned
            if done.summary["status"] == "interrupted":
                raise KeyboardInterrupt
            means.append(done.summary["evaluation"]["mean_return"])
    except YozhError as error:  # settings that do not go together, or that diverge
        trial.set_user_attr("why", str(error))
        raise optuna.TrialPruned from error
    return sum(means) / len(means)


class Watch(StopRule):
    """Reports a run's evaluations to its trial, and stops the run if that is poor or the time is over."""

    def __init__(self, trial: Any, first: int, deadline: float | None):
        self._trial, self._place, self._deadline = trial, first, deadline

    def on_iteration(self, row: dict[str, Any]) -> None:
        if self._deadline is not None and time.time() >= self._deadline:
            self.stop(row, LATE)

    def on_evaluation(self, row: dict[str, Any]) -> None:
        if self.reason is None:
            self._trial.report(row["evaluation"]["mean_return"], self._place)
            self._place += 1
            if self._trial.should_prune():
                self.stop(row, POOR)
