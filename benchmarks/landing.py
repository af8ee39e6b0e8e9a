"""Seconds from the command to a DQN that lands, mean return 200 over ten episodes: `python -m benchmarks.landing [seeds]`.

Yozh with its preset, stopped by `--stop-at-return`; Stable-Baselines3's DQN with rl-zoo3's settings, evaluated as often. Both with one
thread, seed by seed, by turns. `seconds` are those of the clock, `cpu_seconds` those of a core, which other load on the machine moves little.
Writes `benchmarks/results/landing.json`.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, venvs
from benchmarks.cold_start import YOZH
from yozh.files import atomic_write

RETURN, EVERY, MOST = 200.0, 10_000, 400_000
"""What is to be reached, steps between looks, and steps of patience."""


def ours(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [*YOZH, "train", "dqn", "LunarLander-v3", "--seed", str(seed), "--steps", str(MOST), "--eval-every", str(EVERY),
                   "--stop-at-return", str(RETURN), "--out", f"{folder}/run", "--quiet"]  # fmt: skip
        subprocess.run(
            command, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(venvs.ROOT)}, capture_output=True
        )
        said = json.loads(Path(folder, "run", "summary.json").read_text())
    return {"steps": said["steps"], "return": said["evaluation"]["mean_return"]}


def theirs(seed: int) -> dict[str, Any]:
    script = Path(__file__).parent / "peers" / "sb3_landing.py"
    asked = json.dumps({"seed": seed, "return": RETURN, "every": EVERY})
    done = subprocess.run([venvs.python("sb3"), script, str(MOST), asked], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def core() -> float:
    """Seconds that processes started from here have kept cores busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    python = venvs.python("sb3")
    about = {
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "peer_versions": venvs.versions("sb3", python),
    }
    found: dict[str, Any] = {"return": RETURN, "yozh": [], "stable_baselines3": []} | about
    for seed in map(int, sys.argv[1:] or ["400", "401", "402"]):
        for name, side in (("yozh", ours), ("stable_baselines3", theirs)):
            began, before = time.perf_counter(), core()
            told = side(seed)
            seconds = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(core() - before, 1)}
            found[name].append({"seed": seed} | seconds | told)
            print(name, found[name][-1], flush=True)
            atomic_write(machine.RESULTS / "landing.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
