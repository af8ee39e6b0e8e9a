"""From typing `yozh train` to the first update: with an empty compilation cache, and again with what it then holds."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.venvs import ROOT

YOZH = [sys.executable, "-c", "import sys; from yozh.app.cli import main; sys.exit(main())"]  # what `yozh` runs
COMMAND = ["train", "dqn", "LunarLander-v3"]
TARGETS = {"cold": 12.0, "warm": 6.0}
PATIENCE = 120.0


def pair() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return {kind: first_update(Path(folder), kind) for kind in TARGETS}


def first_update(folder: Path, kind: str) -> float:
    """Seconds until the run's folder tells of an update; the run is then stopped."""
    out, said = folder / kind, folder / f"{kind}.txt"
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    with open(said, "w") as log:
        process = subprocess.Popen([*YOZH, *COMMAND, "--out", out], env=env, stdout=log, stderr=log, cwd=folder)
    try:
        while not _updated(out / "metrics.jsonl"):
            seconds = time.perf_counter() - began
            if process.poll() is not None or seconds > PATIENCE:
                raise RuntimeError(f"no update after {seconds:.0f} s:\n{said.read_text()[-2000:]}")
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def _updated(path: Path) -> bool:
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return any(json.loads(line).get("updates", 0) > 0 for line in lines if line.endswith("\n"))
