"""What a run leaves in its folder: checkpoints, a replay's files, policies."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yozh.core import YozhError
from yozh.files import Lock
from yozh.runners import checkpoint
from yozh.runners.checkpoint import Checkpoints, Told
from yozh.runners.fused import Fused, Run
from yozh.runners.hosted import Hosted
from yozh.runners.plan import Plan, Progress
from yozh.runners.policy import Policy

PAUSE = 60.0
"""Seconds of training between two checkpoints, where steps are not given."""


class Archive:
    """The folder of one run, which no other run may write to meanwhile. What cannot be written is told, and training goes on."""

    def __init__(self, folder: Path, plan: Plan, told: Told):
        self.folder, self._plan, self._told = folder, plan, told
        self._checkpoints = Checkpoints(folder / "checkpoints", plan.keep, told)
        self._lock: Lock | None = None
        self._saved = (0, 0.0)

    def open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = Lock(self.folder)
        except BlockingIOError as error:
            raise YozhError(f"{error}; choose another folder") from None

    def begin(self, runner: Any, progress: Progress) -> None:
        """From here on a replay in the host's memory is written as it grows."""
        self._saved = progress.steps, progress.train_seconds
        if isinstance(runner, Hosted) and runner.memory is not None:
            runner.memory.replay.mirror(self._checkpoints.replay)

    def is_due(self, progress: Progress) -> bool:
        """Whether the last checkpoint is long enough ago."""
        steps, seconds = self._saved
        every = self._plan.checkpoint_every
        return progress.train_seconds - seconds >= PAUSE if every is None else progress.steps - steps >= every

    def checkpoint(self, runner: Any, run: Run, progress: Progress, about: dict[str, Any]) -> None:
        """`about` is JSON: what is needed to build the objects that the arrays belong to."""
        self._saved = progress.steps, progress.train_seconds
        about = about | {"plan": dataclasses.asdict(self._plan), "progress": dataclasses.asdict(progress)}
        try:
            about["replay"] = self._save_replay(runner)
        except OSError as error:
            row = {"steps": progress.steps, "path": str(self._checkpoints.folder), "seconds": 0.0}
            self._told(row | {"error": error.strerror or str(error)})
        else:
            self._checkpoints.save(run, progress.steps, about)

    def newest(self) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]] | None:
        """The newest sound checkpoint, if there is any."""
        self._checkpoints.wait()
        return checkpoint.newest(self._checkpoints.folder) if checkpoint.existing(self._checkpoints.folder) else None

    def restore(self, runner: Fused | Hosted, path: Path, about: dict[str, Any], tensors: dict[str, np.ndarray], rollbacks: int) -> tuple[Run, Progress]:  # fmt: skip
        """The run and how far it had come; with `rollbacks` under another key: what led to the fault shall not come again."""
        run = checkpoint.restore(runner.outline(), tensors, path)
        if rollbacks:
            run = Run(run.state, run.sim, run.store, jax.random.fold_in(run.key, rollbacks), run.fault)
        run = runner.reopen(run, anew=rollbacks > 0)
        if isinstance(runner, Hosted):
            runner.restore_memory(self._checkpoints.replay, about["replay"])
        return run, Progress(**about["progress"])

    def keep(self, policy: Policy, name: str) -> None:
        """Writes a policy; a full disk costs the file, not the run."""
        try:
            policy.save(self.folder / name)
        except OSError as error:
            warnings.warn(f"{self.folder / name} could not be written: {error.strerror}", stacklevel=2)

    def wait(self) -> None:
        """Until nothing is being written."""
        self._checkpoints.wait()

    def close(self) -> None:
        self._checkpoints.wait()
        if self._lock is not None:
            self._lock.release()

    def _save_replay(self, runner: Any) -> dict[str, Any] | None:
        """What a replay in the host's memory needs to come back; files that no checkpoint needs any more are deleted."""
        if not isinstance(runner, Hosted) or runner.memory is None:
            return None
        saved = runner.save_memory(self._checkpoints.replay)
        self._checkpoints.wait()
        kept = [checkpoint.described(path)["replay"] for path in checkpoint.existing(self._checkpoints.folder)]
        runner.memory.replay.prune(self._checkpoints.replay, [saved, *kept])
        return saved
