"""The machinery of Atari on this machine: `python -m benchmarks.atari [--steps N] [--env ID]`.

DQN's preset on Pong with a replay of 100,000 steps in the host's memory, 200,000 frames of it, then 2,000 steps more in another
process, from the last checkpoint. It shows speed, memory and files; so short a run learns next to nothing.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yozh
from benchmarks import machine
from benchmarks.replay_memory import peak
from yozh import presets
from yozh.runners.observers import Observer

STEPS, CAPACITY, WARM_UP, MORE = 50_000, 100_000, 5_000, 2_000
"""Environment steps; frames are four times as many."""


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.atari")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--env", default="Pong-v5")
    parser.add_argument("--run", nargs=2, metavar=("HOW", "DIR"), help="one part alone: begin or resume, in a folder")
    options = parser.parse_args()
    if options.run:
        how, folder = options.run
        print(json.dumps((begin if how == "begin" else go_on)(Path(folder), options.env, options.steps)))
        return 0
    result: dict[str, Any] = {"env": options.env, "hardware": machine.hardware()} | machine.versions()
    with tempfile.TemporaryDirectory() as folder:
        for how in ("begin", "resume"):
            words = ["--run", how, folder, "--env", options.env, "--steps", str(options.steps)]
            said = subprocess.run([sys.executable, "-m", "benchmarks.atari", *words], check=True, stdout=subprocess.PIPE, text=True)  # fmt: skip
            result[how] = json.loads(said.stdout.splitlines()[-1])
    result["load_after"] = machine.load()
    print(json.dumps(result, indent=2))
    (machine.RESULTS / "atari.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def begin(folder: Path, env: str, steps: int) -> dict[str, Any]:
    agent = dataclasses.replace(presets.find("dqn", env).agent, capacity=CAPACITY, warm_up=min(WARM_UP, steps // 10))
    log, began = Log(), time.perf_counter()
    trained = yozh.train(agent, env, steps=steps, out=folder / "run", env_options=presets.env_options("dqn", env), eval_every=steps,
                         eval_episodes=2, checkpoint_every=steps // 2, observers=[log])  # fmt: skip
    acting = [row for row in log.rows if row["updates"] == 0][-1]
    last = log.rows[-1]
    learning = last["seconds"] - acting["seconds"]
    return told(trained, began) | {
        "acting_steps_per_second": round(acting["steps"] / acting["seconds"], 1),
        "learning_steps_per_second": round((last["steps"] - acting["steps"]) / learning, 1),
        "updates_per_second": round(last["updates"] / learning, 1),
        "checkpoint_pauses": [round(row["seconds"], 3) for row in log.saved],
        "checkpoint_mb": round(sum(f.stat().st_size for f in (folder / "run" / "checkpoints").rglob("*") if f.is_file()) / 1e6, 1),
    }  # fmt: skip


def go_on(folder: Path, env: str, steps: int) -> dict[str, Any]:
    log, began = Log(), time.perf_counter()
    trained = yozh.resume(folder / "run", steps=steps + MORE, observers=[log])
    return told(trained, began) | {
        "first_look_after_seconds": round(log.first - began, 2),
        "steps_before": log.resumed,
        "learning_steps_per_second": round((log.rows[-1]["steps"] - log.resumed) / log.spent, 1),
    }


class Log(Observer):
    """Keeps what is told of a run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []
        self.first, self.resumed, self._before = 0.0, 0, 0.0

    def on_start(self, info: dict[str, Any]) -> None:
        since = info.get("resumed", {"steps": 0, "train_seconds": 0.0})
        self.resumed, self._before = since["steps"], since["train_seconds"]

    def on_iteration(self, row: dict[str, Any]) -> None:
        self.first = self.first or time.perf_counter()
        self.rows.append(row)

    def on_checkpoint(self, row: dict[str, Any]) -> None:
        self.saved.append(row)

    @property
    def spent(self) -> float:
        """Seconds of training since the run began here."""
        return self.rows[-1]["seconds"] - self._before


def told(trained: Any, began: float) -> dict[str, Any]:
    summary = trained.summary
    return {
        "steps": summary["steps"],
        "updates": summary["updates"],
        "runner": summary["runner"],
        "train_seconds": summary["train_seconds"],
        "compile_seconds": summary["compile_seconds"],
        "whole_seconds": round(time.perf_counter() - began, 1),
        "status": summary["status"],
        "mean_return": summary["evaluation"] and summary["evaluation"]["mean_return"],
        "peak_gb": round(peak() / 1e9, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
