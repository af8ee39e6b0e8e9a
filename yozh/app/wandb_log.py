"""A run told to Weights & Biases as well: what TensorBoard gets, and the files."""

from pathlib import Path
from typing import Any

import numpy as np

from yozh.app.folder import versions
from yozh.core import YozhError
from yozh.runners.observers import Observer
from yozh.settings import describe

FILES = ("config.json", "metrics.jsonl", "summary.json", "report.html", "policy.gif", "policy.safetensors")


class WandbLog(Observer):
    """Mirrors a run to a project of Weights & Biases: scalars under TensorBoard's names, settings, summary and, from the
    run's `folder`, its files.

    Use it as a context manager (or call `close`): the files are taken when it ends, so that a report written after
    training is among them. Where to, with which account, or offline (`WANDB_MODE=offline`), W&B's own settings say.
    """

    def __init__(self, project: str = "yozh", *, folder: str | Path | None = None):
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise YozhError("logging to Weights & Biases needs its package: pip install 'yozh[wandb]'") from None
        self.project, self.folder = project, None if folder is None else Path(folder)
        self._run: Any = None

    def on_start(self, info: dict[str, Any]) -> None:
        import wandb

        plain = {k: v for k, v in info.items() if k != "object"}
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=self.project,
                name=f"{info['env']}-{info['agent']}-{info['seed']}",
                dir=self.folder,
                config=plain | {"settings": describe(info["object"]), "versions": versions()},
            )
        except wandb.Error as error:
            raise YozhError(f"Weights & Biases: {error} (WANDB_MODE=offline logs without it)") from None

    def on_iteration(self, row: dict[str, Any]) -> None:
        self._scalars(row["steps"], "train", {k: v for k, v in row.items() if k not in ("steps", "total_steps")})

    def on_evaluation(self, row: dict[str, Any]) -> None:
        self._scalars(row["steps"], "evaluation", row["evaluation"])
        self._scalars(row["steps"], "replay", {f"{k}_mean": v["mean"] for k, v in row.get("replay", {}).items()})

    def on_end(self, summary: dict[str, Any]) -> None:
        self._run.summary.update({k: v for k, v in summary.items() if k != "evaluation"})
        for name, value in (summary["evaluation"] or {}).items():
            if name != "returns":
                self._run.summary[f"final/{name}"] = value

    def close(self, failed: bool = False) -> None:
        """Takes the files along and ends the run there."""
        if self._run is None:
            return
        for path in [self.folder / name for name in FILES] if self.folder else []:
            if path.is_file():
                self._run.save(str(path), base_path=str(self.folder), policy="now")
        self._run.finish(exit_code=int(failed))
        self._run = None

    def __enter__(self) -> "WandbLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close(failed=error[0] is not None)

    def _scalars(self, step: int, prefix: str, values: dict[str, Any]) -> None:
        plain = {f"{prefix}/{k}": float(v) for k, v in values.items() if np.ndim(v) == 0}
        self._run.log(plain, step=int(step))
