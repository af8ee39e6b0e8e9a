"""Tuning: Optuna chooses settings, short runs say what they are worth, and a study's folder keeps it all."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from yozh import environments, presets
from yozh.app.commands.common import option
from yozh.app.face import asked, options_asked
from yozh.app.options import override
from yozh.app.tune_report import write_report
from yozh.app.tune_study import Problem, claimed, finished, load_optuna, reopen, retry
from yozh.app.tune_trials import FIRST_SEED, Telling, spread, work
from yozh.core import Agent, YozhError, require
from yozh.presets import Preset
from yozh.settings import describe


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a study has found."""

    agent: Agent
    """With the best settings."""
    steps: int
    """Environment steps of each run."""
    mean_return: float
    """Of the best trial: final evaluations, mean over the seeds. Being the best of many it flatters; train on other seeds."""
    settings: dict[str, str]
    """The best of those that were sought, as typed after `--agent.`."""
    trials: int
    """Finished or pruned."""
    path: Path
    """The study's folder, with `preset.json` and `report.html`."""
    commands: tuple[str, ...]
    """That train with what was found."""


def tune(agent: str | Path | Agent, env: str | Callable[[], Any] | Any, *, trials: int = 40, steps: int | None = None, seeds: int = 2,
         fix: Mapping[str, Any] | None = None, study: str | Path | None = None, jobs: int = 1, timeout: float | None = None,
         eval_episodes: int = 100, backend: str | None = None, env_options: Mapping[str, Any] | None = None,
         tell: Callable[[str], None] | None = None) -> Tuned:  # fmt: skip
    """Looks for better settings of an agent in an environment, and writes the best as `preset.json` beside a report.

    `agent`, `env`, `steps`, `eval_episodes`, `backend` and `env_options` are as for `yozh.train`; `steps` are those of one
    run, of which a trial makes one for each of `seeds` seeds (1000, 1001, ...). `trials` counts all of the study, finished or pruned.
    `fix` holds settings: `{"gamma": 0.99}`. `study` is its folder (`runs/ENV-AGENT-tune` if left out); where it holds
    the same study already, that goes on. With `jobs` above 1 so many trials run at once, each in a process of its own.
    Nothing goes on longer than `timeout` seconds from now. `tell` is given a line for each trial.
    """
    load_optuna()
    for name, value in (("trials", trials), ("seeds", seeds), ("jobs", jobs), ("timeout", timeout), ("eval_episodes", eval_episodes)):  # fmt: skip
        require(value is None or value > 0, f"{name} must be positive, not {value}")
    require(jobs == 1 or isinstance(env, str), "an environment that is an object takes jobs=1; only an id or module:function can be made again in other processes")  # fmt: skip
    own = dict(options_asked(agent, env, env_options))
    agent, name, steps = asked(agent, env, steps=steps, envs=None)
    fixed = {k.replace("_", "-"): str(v) for k, v in (fix or {}).items()}
    problem = Problem(override(agent, fixed), name, env, steps, seeds, eval_episodes, backend, fixed, own)
    _check(problem)
    folder = Path(study or Path("runs") / f"{problem.label}-{name}-tune".replace("/", "-").replace(":", "-"))
    deadline = None if timeout is None else time.time() + timeout
    with claimed(folder, problem) as lock:
        found = reopen(folder)
        retry(found)
        telling = Telling(found, trials, tell)
        if not found.trials:
            found.enqueue_trial(problem.first())
        try:
            if jobs == 1:
                work(problem, folder, trials, deadline, tell=telling)
            else:
                spread(folder, trials, deadline, jobs, lock, telling)
        except KeyboardInterrupt:
            if _best(found):
                _conclude(problem, found, folder)
            raise
        return _conclude(problem, found, folder)


def _check(problem: Problem) -> None:
    """Refuses what no trial could run, before anything is written."""
    require(problem.space(), f"{problem.name} has no setting left to look for")
    made = environments.make(
        problem.env, problem.agent.experience.streams, backend=problem.backend, **problem.env_options
    )
    try:
        jax.eval_shape(lambda: problem.agent.init(jax.random.key(0), made.spec))
    finally:
        made.close()


def _best(study: Any) -> Any:
    """The best complete trial; None if there is none."""
    return max((t for t in finished(study) if t.state.name == "COMPLETE"), key=lambda t: t.value, default=None)


def _conclude(problem: Problem, study: Any, folder: Path) -> Tuned:
    """Writes the preset and the report of what there is."""
    done, best = finished(study), _best(study)
    if best is None:
        why = next((f": {t.user_attrs['why']}" for t in done if "why" in t.user_attrs), "; give it more time or trials")
        raise YozhError(f"no trial in {folder} has finished{why}")
    settings = best.user_attrs["settings"]
    agent = override(problem.agent, settings)
    seeds = " and ".join(str(FIRST_SEED + k) for k in range(problem.seeds))
    reached = f"{best.value:.4g} on seeds {seeds}, which chose it"
    preset = Preset(agent, problem.steps, reached, f"yozh tune, {len(done)} trials", problem.env_options)
    presets.write(folder / "preset.json", preset, agent=problem.name, env=problem.label)
    tuned = Tuned(agent, problem.steps, best.value, settings, len(done), folder, _commands(problem, agent, settings, folder))  # fmt: skip
    write_report(tuned, problem, done, study)
    return tuned


def _commands(problem: Problem, agent: Agent, settings: dict[str, str], folder: Path) -> tuple[str, ...]:
    """By the preset's file and, where the command line can say them all, by the settings themselves."""
    preset = str(folder / "preset.json")
    if not isinstance(problem.env, str):
        return (f"yozh.train({preset!r}, {problem.label})",)
    where = ["--backend", problem.backend] if problem.backend else []
    short = shlex.join(["yozh", "train", "--preset", preset, problem.env, *where])
    said = problem.fixed | settings
    known = problem.name in presets.kinds() and all(option(str(v)) == v for v in problem.env_options.values())
    if not known or describe(override(presets.start(problem.name, problem.env)[0], said)) != describe(agent):
        return (short,)
    words = [w for k, v in said.items() for w in (f"--agent.{k}", v)]
    words += [w for k, v in problem.env_options.items() for w in (f"--env.{k}", str(v))]
    steps = ["--steps", str(problem.steps)]
    return short, shlex.join(["yozh", "train", problem.name, problem.env, *steps, *where, *words])
