"""The run folder: what a run was asked, what it said on the way, and what came of it."""

import dataclasses
import datetime
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from yozh.app.options import options
from yozh.core import YozhError
from yozh.files import atomic_write
from yozh.runners.observers import Observer
from yozh.settings import describe


def free(path: str | Path) -> Path:
    """The path itself if no run lives there, else the first of `path-2`, `path-3` ... that is free."""
    path, n = Path(path), 1
    candidate = path
    while _occupied(candidate):
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def claim(path: str | Path) -> Path:
    """The path, if a new run may be written there; a `YozhError` that names another one otherwise."""
    path = Path(path)
    if _occupied(path):
        what = "already holds a run" if path.is_dir() else "is a file"
        raise YozhError(f"{path} {what}; choose another folder, such as --out {free(path)}")
    return path


class RunFolder(Observer):
    """Writes `config.json`, `metrics.jsonl`, TensorBoard's events and `summary.json` under `path`."""

    def __init__(self, path: str | Path, *, resumed: bool = False):
        self.path, self._resumed = Path(path) if resumed else claim(path), resumed
        self._lines: TextIO | None = None
        self._told: set[str] = set()
        self._board: Any = None

    def on_start(self, info: dict[str, Any]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if not self._resumed:
            claim(self.path).mkdir(parents=True, exist_ok=True)
        atomic_write(self.path / "config.json", as_json(configuration(info), indent=2))
        self._lines = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._board = EventFileWriter(str(self.path), flush_secs=10)

    def on_iteration(self, row: dict[str, Any]) -> None:
        row = {k: v for k, v in row.items() if k != "total_steps"}
        self._write(row)
        self._scalars(row["steps"], {f"train/{k}": v for k, v in row.items() if k != "steps"})

    def on_evaluation(self, row: dict[str, Any]) -> None:
        self._write(row)
        figures = row["evaluation"].items()
        self._scalars(row["steps"], {f"evaluation/{k}": v for k, v in figures if k not in ("returns", "ci95")})
        self._scalars(row["steps"], {f"replay/{k}_mean": v["mean"] for k, v in row.get("replay", {}).items()})

    def on_alarm(self, row: dict[str, Any]) -> None:
        self._write(row)

    def on_checkpoint(self, row: dict[str, Any]) -> None:
        self._write({"checkpoint": row})

    def on_end(self, summary: dict[str, Any]) -> None:
        summary = dict(summary)
        if evaluation := summary.get("evaluation"):
            summary["evaluation"] = {k: v for k, v in evaluation.items() if k != "returns"}
        with self._spared("summary.json"):
            atomic_write(self.path / "summary.json", as_json(summary, indent=1))
        if self._lines:
            with self._spared("metrics.jsonl"):
                self._lines.close()
            with self._spared("TensorBoard's events"):
                self._board.close()

    def _write(self, row: dict[str, Any]) -> None:
        assert self._lines is not None, "on_start comes first"
        with self._spared("metrics.jsonl"):
            self._lines.write(as_json(row) + "\n")
            self._lines.flush()

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """What cannot be written is told once, and the run goes on."""
        try:
            yield
        except OSError as error:
            if name not in self._told:
                warnings.warn(
                    f"{name} in {self.path} cannot be written, the run goes on: {error.strerror}", stacklevel=4
                )
            self._told.add(name)

    def _scalars(self, step: int, values: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        tags = [Summary.Value(tag=k, simple_value=float(v)) for k, v in values.items() if np.ndim(v) == 0]
        with self._spared("TensorBoard's events"):
            self._board.add_event(Event(wall_time=time.time(), step=int(step), summary=Summary(value=tags)))


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run folder, read; what the run has not written (yet) is empty."""

    path: Path
    config: dict[str, Any]
    progress: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    others: list[dict[str, Any]]
    """Checkpoints and alarms."""
    summary: dict[str, Any]


def read_run(path: str | Path) -> RunRecord:
    path = Path(path)
    if not (path / "config.json").is_file():
        raise YozhError(f"{path} is not a run folder: it has no config.json")
    progress, evaluations, others = _rows(path / "metrics.jsonl")
    return RunRecord(
        path,
        json.loads((path / "config.json").read_text(encoding="utf-8")),
        progress,
        evaluations,
        others,
        json.loads((path / "summary.json").read_text(encoding="utf-8")) if (path / "summary.json").is_file() else {},
    )


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Progress, evaluations, and the rest. What a run did after the checkpoint it was resumed from is done again, and counts once."""
    progress: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run that was killed may leave half a line
        if "steps" not in row or "alarm" in row:
            others.append(row)
            continue
        for rows in (progress, evaluations):
            while rows and rows[-1]["steps"] > row["steps"]:
                rows.pop()
        rows = evaluations if "evaluation" in row else progress
        if rows and rows[-1]["steps"] == row["steps"]:
            rows.pop()
        rows.append(row)
    return progress, evaluations, others


def configuration(info: dict[str, Any]) -> dict[str, Any]:
    agent = info["object"]
    plain = {k: v for k, v in info.items() if k not in ("object", "agent")}
    return {
        "agent": info["agent"],
        "settings": describe(agent),
        "options": [list(option) for option in options(agent)],
        **plain,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("yozh", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "envpool", "gymnax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    import jax

    devices = [d.device_kind for d in jax.devices()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "platform": jax.default_backend(),
        "devices": devices,
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _occupied(path: Path) -> bool:
    return path.is_file() or any((path / name).exists() for name in ("config.json", "summary.json"))


def as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; what is not finite becomes null, which JSON can say."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
