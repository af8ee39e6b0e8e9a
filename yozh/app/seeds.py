"""Training with many seeds: the same question asked several times, and one answer with its interval."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import jax

from yozh.app import face
from yozh.app.alarms import warn
from yozh.app.folder import configuration
from yozh.app.group_report import write_group_report
from yozh.app.seed_group import Group, home, numbers
from yozh.app.seed_lanes import train_abreast
from yozh.app.seed_lines import SeedLines
from yozh.app.seed_process import show, train_apart, train_one
from yozh.core import Agent, BatchedEnv, HostEnv, YozhError, require
from yozh.runners.observers import Observer
from yozh.runners.plan import Plan
from yozh.runners.training import Training
from yozh.settings import build, describe


@dataclasses.dataclass(frozen=True)
class Seeds:
    """What a group of seeds came to."""

    path: Path
    """Its folder, with a run folder for each seed, `summary.json` and `report.html`."""
    summary: dict[str, Any]
    """As in `summary.json`: `mean_return` over the seeds that are done, its bootstrap interval `ci95`, and `seeds`."""
    interrupted: bool
    """Whether it was stopped before its end; the same call goes on with what is missing."""

    @property
    def failed(self) -> dict[int, str]:
        """What went wrong, of every seed that failed."""
        return {row["seed"]: row["error"] for row in self.summary["seeds"] if "error" in row}


def train_seeds(agent: str | Path | Agent, env: str | Callable[[], Any] | Any, *, seeds: int | Sequence[int] = 5, seed: int = 0,
                jobs: int | None = None, vectorised: bool | None = None, out: str | Path | None = None,
                steps: int | None = None, envs: int | None = None, backend: str | None = None, env_options: Mapping[str, Any] | None = None,
                eval_every: int | None = None, eval_episodes: int = 100, checkpoint_every: int | None = None, keep: int = 2,
                lag: int | None = None, workers: int = 0, on_nan: Literal["stop", "rollback"] = "stop", observers: Sequence[Observer] = (),
                progress: bool = False) -> Seeds:  # fmt: skip
    """Trains an agent in an environment once for each seed: `seed + k` for each k below `seeds`, or in it.

    Every seed has a process of its own, `jobs` at a time (one a core), and equals the same seed trained alone bit for
    bit. `vectorised` trains all of them in one program instead, which needs a pure environment; it is the way taken on a
    GPU, where there is one. It rounds otherwise than a seed alone. An agent, environment or observer that is an object
    of your own cannot go to another process: then the seeds are trained here, one after the other.

    `out` is the folder of the group (`runs/ENV-AGENT-seeds`), with a run folder for each seed. The same call once
    more trains only the seeds that are not finished, from their last checkpoints where they broke off. One seed that fails stops no other: see `Seeds.failed`.
    `progress` shows a line a seed; the rest is as in `yozh.train`.
    """
    require(jobs is None or jobs > 0, f"jobs must be positive, not {jobs}")
    wanted = numbers(seeds, seed)
    face.cache_programs()
    options = face.options_asked(agent, env, env_options)
    agent, name, steps = face.asked(agent, env, steps=steps, envs=envs)
    plan = Plan(steps=steps, seed=wanted[0], eval_every=eval_every, eval_episodes=eval_episodes, keep=keep, lag=lag,
                checkpoint_every=checkpoint_every, workers=workers, env_options=options, on_nan=on_nan)  # fmt: skip
    task = {"agent": agent, "env": env, "backend": backend}
    trial = Training(**task, plan=dataclasses.replace(plan, on_nan="stop"), name=name, out=None, observers=())
    trial.close()  # it was made to see that everything fits
    asked = task | {k: v for k, v in dataclasses.asdict(plan).items() if k != "seed"}
    plain = {k: describe(v) for k, v in asked.items()} | {"observers": describe(tuple(observers))}
    way = _way(vectorised, trial.env, plan, plain)
    config = {"kind": "seeds"} | configuration(
        {k: v for k, v in trial.about.items() if k not in ("seed", "runner")}
        | {k: v for k, v in asked.items() if k not in (*task, "env_options")}
        | {"object": trial.agent, "envs": trial.env.batch, "eval_every": trial.eval_every}
        | {"observers": plain["observers"], "way": way}
    )
    usual = Path("runs") / f"{config['env']}-{name}-seeds".replace("/", "-").replace(":", "-")
    group = Group(home(usual, config) if out is None else Path(out), config, wanted)
    with group.held(resuming=way != "vectorised") as lock, SeedLines(group.left) if progress else nullcontext() as lines:  # fmt: skip

        def watching(seed: int) -> tuple[Observer, ...]:
            own = build(plain["observers"]) if _crosses(plain["observers"]) else tuple(observers)
            return (*own, lines.seeds[seed]) if lines else own

        if not group.left:
            interrupted = False
        elif way == "processes":
            tell = (lambda s, event, what: getattr(lines.seeds[s], event)(what)) if lines else _warn
            interrupted = train_apart(group, lock, plain, jobs or _cores(), tell)
        elif way == "vectorised":
            interrupted = train_abreast(group, task | {"name": name}, plan, watching)
        else:
            interrupted = _one_by_one(group, asked, watching)
        return _published(group, interrupted)


def _way(vectorised: bool | None, env: BatchedEnv | HostEnv, plan: Plan, plain: dict[str, Any]) -> str:
    """`vectorised`, `processes` or `in turn`."""
    pure, copied, forward = (
        isinstance(env, BatchedEnv) and env.pure,
        _crosses(plain["observers"]),
        plan.on_nan == "stop",
    )
    if vectorised:
        require(forward, "vectorised seeds cannot go back one by one: on_nan='rollback' needs vectorised=False")
        require(pure, f"vectorised seeds need a pure environment, and this one runs on {env.backend}")
        require(copied, "vectorised seeds are trained at once, and an observer of your own cannot be copied for each")
    gpu = jax.default_backend() != "cpu"
    if vectorised or (vectorised is None and gpu and pure and copied and forward):
        return "vectorised"
    objects = [name for name, value in plain.items() if not _crosses(value)]
    if objects:
        warnings.warn(
            f"the seeds are trained one after the other: {' and '.join(objects)} cannot go to another process",
            stacklevel=3,
        )
    return "in turn" if gpu or objects else "processes"


def _crosses(described: Any) -> bool:
    """Whether it can be built anew from its description, in this process or another."""
    try:
        return describe(build(described)) == described
    except (YozhError, TypeError, ValueError):
        return False


def _one_by_one(group: Group, asked: dict[str, Any], observers: Callable[[int], Sequence[Observer]]) -> bool:
    for seed in group.left:
        try:
            done = train_one(asked, seed, group.folder(seed), observers(seed))
        except KeyboardInterrupt:
            return True
        except Exception as error:  # whatever it is, the other seeds go on
            group.errors[seed] = str(error) if isinstance(error, YozhError) else f"{type(error).__name__}: {error}"
        else:
            if done.summary["status"] == "interrupted":
                return True
        group.write_summary()
    return False


def _published(group: Group, interrupted: bool) -> Seeds:
    for seed in group.left:
        if not (group.folder(seed) / "report.html").exists():
            show(group.folder(seed))
    summary = group.write_summary()
    write_group_report(group.path)
    return Seeds(group.path, summary, interrupted)


def _warn(seed: int, event: str, what: Any) -> None:
    """Of what a seed tells, alarms alone, where nothing is shown."""
    if event == "on_alarm":
        warn(what, f"seed {seed}, ")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
