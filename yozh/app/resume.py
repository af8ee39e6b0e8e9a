"""Going on with a run from its checkpoints."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app.face import alarmed, cache_programs
from yozh.app.folder import RunFolder
from yozh.core import Agent, YozhError, require
from yozh.runners import checkpoint, training
from yozh.runners.observers import Observer
from yozh.runners.plan import Plan
from yozh.runners.training import Trained
from yozh.settings import build, describe


def resume(path: str | Path, *, steps: int | None = None, agent: Agent | None = None, env: Any = None, changed: bool = False,
           observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Goes on with the run in a folder from its newest sound checkpoint.

    On pure environments the result is, bit for bit, that of a run that was never interrupted; simulators begin new
    episodes, and all else is exact. `steps` may be raised: schedules then stretch over the new length. An agent or
    environment that a file cannot describe (a torso or a function of yours) is given again as `agent` or `env`. An
    `agent` with other settings is refused unless `changed`.
    """
    cache_programs()
    folder = Path(path)
    found, about, tensors = _newest(folder)
    if agent is None:
        agent = _stored(found, about)
    else:
        other = [] if changed else differences(about["settings"], describe(agent))
        require(not other, lambda: f"{folder} was trained with other settings: {'; '.join(other)}. --changed (changed=True) goes on with the new ones")  # fmt: skip
    plan = Plan(**about["plan"])
    if steps is not None:
        require(steps >= about["progress"]["steps"], f"{folder} has done {about['progress']['steps']:,} steps already, more than {steps:,}")  # fmt: skip
        plan = dataclasses.replace(plan, steps=steps)
    require(about["progress"]["steps"] < plan.steps, f"{folder} has done its {plan.steps:,} steps; say how many it shall do: --steps {2 * plan.steps}")  # fmt: skip
    if env is None:
        require(about["env_named"], f"{folder} was trained in {about['env']}, which no name leads to: give it again, resume(path, env=...)")  # fmt: skip
        env = about["env"]
    watching = (*observers, RunFolder(folder, resumed=True))
    return training.resume(agent, env, plan, name=about["agent"], backend=about["backend"], out=folder, about=about,
                           tensors=tensors, path=found, observers=alarmed(watching))  # fmt: skip


def stored_agent(path: str | Path) -> Agent:
    """The agent of the run in a folder, as its newest checkpoint describes it."""
    found, about, _ = _newest(Path(path))
    return _stored(found, about)


def _newest(folder: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    require((folder / "checkpoints").is_dir(), f"{folder} holds no run that can go on: it has no checkpoints")
    return checkpoint.newest(folder / "checkpoints")


def _stored(found: Path, about: dict[str, Any]) -> Agent:
    try:
        agent = build(about["settings"])
    except (YozhError, TypeError, ValueError) as error:
        raise YozhError(f"{found}: {error}; give the agent that was trained: resume(path, agent=...)") from None
    require(isinstance(agent, Agent), f"{found} describes no agent")
    return agent


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What two descriptions disagree in, one text each: `learning_rate.value 0.001, now 0.0005`."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("class") == now.get("class"):
        keys = dict.fromkeys((*before, *now))
        return [d for k in keys for d in differences(before.get(k), now.get(k), f"{name}.{k}" if name else k)]
    if before == now:
        return []
    return [f"{name.replace('fields.', '')} {json.dumps(before)}, now {json.dumps(now)}"]
