"""The folder of a group of seeds: one run folder each, and what they amount to."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app.aggregates import mean_interval
from yozh.app.folder import as_json, claim, free
from yozh.core import YozhError, require
from yozh.files import Lock, atomic_write
from yozh.runners import checkpoint

DONE = ("finished", "stopped")
"""What a run's summary says where nothing is left to do."""

QUESTION = ("agent", "settings", "env", "env_options", "backend", "steps", "envs", "eval_every", "eval_episodes", "lag", "on_nan", "observers")  # fmt: skip
"""What seeds of one group have in common."""


def read_group(path: str | Path) -> dict[str, Any] | None:
    """The `config.json` of a group of seeds, or `None` if the folder is none."""
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return config if config.get("kind") == "seeds" else None


def home(path: Path, config: dict[str, Any]) -> Path:
    """The path, or the first of `path-2`, `path-3` ... that is free or holds seeds of the same question."""
    candidate, n = path, 1
    while free(candidate) != candidate and _differences(candidate, config):
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


class Group:
    """A folder that holds `seed-0`, `seed-1` ... of one question, begun or continued."""

    def __init__(self, path: Path, config: dict[str, Any], seeds: Sequence[int]):
        if (old := read_group(path)) is None:
            claim(path)
        elif different := _differences(path, config):
            raise YozhError(
                f"{path} holds seeds of another question ({', '.join(different)} differ); "
                f"choose another folder, such as --out {free(path)}"
            )
        self.path, self.errors = path, dict[int, str]()
        self.seeds = sorted({*(old or {}).get("seeds", ()), *seeds})
        self.left = [s for s in seeds if self.run(s).get("status") not in DONE]
        self.config: dict[str, Any] = (old or config) | {"seeds": self.seeds}

    @contextlib.contextmanager
    def held(self, *, resuming: bool) -> Iterator[Lock]:
        """Keeps a second command out, and clears away seeds that broke off, unless their checkpoints are gone on from."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(self.path)
        except BlockingIOError as error:
            raise YozhError(f"{error}; wait for it, or choose another folder") from None
        try:
            atomic_write(self.path / "config.json", as_json(self.config, indent=2))
            for seed in self.left:
                if not (resuming and self._goes_on(seed)):
                    shutil.rmtree(self.folder(seed), ignore_errors=True)
            self.write_summary()
            yield lock
        finally:
            lock.release()

    def _goes_on(self, seed: int) -> bool:
        """Whether a seed broke off, and has a checkpoint from which there is something left to do."""
        saved = checkpoint.existing(self.folder(seed) / "checkpoints")
        broken_off = self.run(seed).get("status") in (None, "interrupted")
        return broken_off and bool(saved) and int(saved[0].stem) < self.config["steps"]

    def folder(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def run(self, seed: int) -> dict[str, Any]:
        """The summary of one seed; empty if it has none (yet)."""
        try:
            return json.loads((self.folder(seed) / "summary.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def write_summary(self) -> dict[str, Any]:
        """Writes `summary.json`: each seed with its status and figures, and the mean over those that are done."""
        rows = [self._row(seed) for seed in self.seeds]
        points = [r["mean_return"] for r in rows if r["mean_return"] is not None]
        summary = {
            "agent": self.config["agent"],
            "env": self.config["env"],
            "finished": sum(r["status"] in DONE for r in rows),
            "mean_return": float(np.mean(points)) if points else None,
            "ci95": mean_interval(points) if points else None,
            "seeds": rows,
        }
        atomic_write(self.path / "summary.json", as_json(summary, indent=1))
        return summary

    def _row(self, seed: int) -> dict[str, Any]:
        run, error = self.run(seed), self.errors.get(seed)
        evaluation = run.get("evaluation") or {}
        row = {
            "seed": seed,
            "path": self.folder(seed).name,
            "status": run.get("status") or ("failed" if error else "missing"),
            "mean_return": evaluation.get("mean_return"),
            "ci95": evaluation.get("ci95"),
            "steps": run.get("steps"),
            "train_seconds": run.get("train_seconds"),
        }
        return row | ({"error": error} if error else {})


def numbers(seeds: int | Sequence[int], first: int) -> list[int]:
    """The seeds that are meant: `first + k` for each k below `seeds`, or in it."""
    if isinstance(seeds, int):
        require(seeds > 0, f"seeds must be positive, not {seeds}")
    found = [first + k for k in (range(seeds) if isinstance(seeds, int) else seeds)]
    require(found, "seeds are empty: give a number of them, or which")
    require(min(found) >= 0, f"a seed is a whole number from 0, not {min(found)}")
    require(len(set(found)) == len(found), f"a seed is there twice in {found}")
    return found


def _differences(path: Path, config: dict[str, Any]) -> list[str]:
    """What the group in the folder was asked otherwise; everything if it holds something else."""
    old, new = read_group(path) or {}, json.loads(as_json(config))
    return [k for k in QUESTION if old.get(k) != new.get(k)]
