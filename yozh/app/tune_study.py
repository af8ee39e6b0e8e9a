"""A study's folder: what is looked for, Optuna's journal of the trials, and a lock for who is at work on it."""

import dataclasses
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yozh.app.options import options
from yozh.core import Agent, YozhError, require
from yozh.files import Lock, atomic_write
from yozh.presets.spaces import Choice, Range, space
from yozh.settings import build, describe

FORMAT = "yozh-study-1"
ABOUT, JOURNAL = "study.json", "study.journal"
TRIES = 3
"""Of a trial whose process is killed."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a study looks for, and how it measures; the same for all its trials."""

    agent: Agent
    """What is not sought stays as it is here; the first trial is of this agent."""
    name: str
    env: Any
    steps: int
    """Environment steps of one run."""
    seeds: int
    """Runs of one trial."""
    eval_episodes: int
    backend: str | None
    fixed: dict[str, str]
    """Settings that are held, with the values that the agent has."""
    env_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """For the environment's own constructor, as plain data."""

    @property
    def label(self) -> str:
        """The environment's name."""
        return self.env if isinstance(self.env, str) else getattr(self.env, "__name__", type(self.env).__name__)

    def now(self) -> dict[str, str]:
        """The agent's settings that are sought."""
        return {o.name: o.value for o in options(self.agent) if o.name not in self.fixed}

    def space(self) -> dict[str, Range | Choice]:
        return space(self.now())

    def first(self) -> dict[str, Any]:
        """The trial of the agent's own settings, as near as the space has them."""
        now = self.now()
        return {row.name(setting): row.near(now[setting]) for setting, row in self.space().items()}

    def about(self) -> dict[str, Any]:
        """As plain data, in full but for an environment that is an object."""
        plain = {
            k: getattr(self, k) for k in ("name", "steps", "seeds", "eval_episodes", "backend", "fixed", "env_options")
        }
        return {"format": FORMAT, "env": self.label, **plain, "agent": describe(self.agent)}


def read(folder: Path) -> Problem:
    """The problem whose `about` lies in the folder."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return Problem(**{k: v for k, v in about.items() if k not in ("format", "agent")}, agent=build(about["agent"]))


@contextmanager
def claimed(folder: Path, problem: Problem) -> Iterator[Lock]:
    """Takes a folder for the problem, new or where the same one was left."""
    about = problem.about()
    if (folder / ABOUT).is_file():
        there = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        other = [k for k in about if there.get(k, {}) != about[k]]
        require(not other, lambda: f"{folder} holds a study with other {', '.join(other)}; choose another folder: --study {folder}-2")  # fmt: skip
    elif folder.exists():
        empty = folder.is_dir() and {p.name for p in folder.iterdir()} <= {".lock"}
        require(empty, f"{folder} holds something else than a study; choose another folder: --study {folder}-2")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(folder)
    except BlockingIOError as error:
        raise YozhError(f"{error}; wait for it, or end it") from None
    try:
        if not (folder / ABOUT).is_file():
            atomic_write(folder / ABOUT, json.dumps(about, indent=1))
        _mend(folder / JOURNAL)
        yield lock
    finally:
        lock.release()


def load_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise YozhError("tuning needs Optuna: pip install 'yozh[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def reopen(folder: Path, seed: int = 0) -> Any:
    """The folder's Optuna study. The sampler draws by the seed and by how many trials there are, so that a study that
    goes on does not draw again what it drew before."""
    optuna = load_optuna()
    journal = str(folder / JOURNAL)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal, _Writing(journal)))
    study = optuna.create_study(
        study_name="yozh",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    drawn = 10_000 * seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, n_startup_trials=8, seed=drawn)
    return study


def retry(study: Any) -> None:
    """Trials that an ended process left behind are marked as failed, and tried again before new ones."""
    states = load_optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        tries = trial.user_attrs.get("tries", 1)
        if trial.params and tries < TRIES:
            study.enqueue_trial(trial.params, user_attrs={"tries": tries + 1})


def finished(study: Any) -> list[Any]:
    """The trials that count, complete or pruned."""
    states = load_optuna().trial.TrialState
    return study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))


class _Writing:
    """A lock on the journal while a line is written. Optuna's own is a file, which a process that is killed leaves behind;
    this one goes with the process."""

    def __init__(self, path: str):
        self._path = path

    def acquire(self) -> bool:
        self._file = open(self._path, "a")  # noqa: SIM115
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        self._file.close()


def _mend(journal: Path) -> None:
    """Cuts off half a line, which a machine that stopped may have left and Optuna would refuse."""
    if journal.is_file():
        with open(journal, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
