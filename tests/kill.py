"""Kill a run at random moments and resume it each time: `python -m tests.kill [AGENT ENV BACKEND STEPS KILLS]`.

On a pure environment the final policy must have the bits of a run that was left alone; on simulators, the counters must be
exact and the curve must go on.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

YOZH = [sys.executable, "-c", "import sys; from yozh.app.cli import main; sys.exit(main())"]


def run(folder: Path, *words: str) -> None:
    subprocess.run([*YOZH, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def checkpoints(run: Path) -> set[Path]:
    return set((run / "checkpoints").glob("[0-9]*.safetensors"))


def killed(folder: Path, train: list[str], out: str, kills: int, seed: int = 0) -> int:
    """Starts `train`, kills it `kills` times, each some time after a new checkpoint, and lets it end. Returns how many kills hit."""
    draw, hits = random.Random(seed), 0
    for _ in range(kills):
        words = ["resume", out, "--quiet"] if checkpoints(folder / out) else train
        before = checkpoints(folder / out)
        process = subprocess.Popen([*YOZH, *words], cwd=folder, stdout=subprocess.DEVNULL)
        while process.poll() is None and not checkpoints(folder / out) - before:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        hits += 1
    run(folder, "resume", out, "--quiet")
    return hits


def main() -> None:
    agent, env, backend, steps, kills = (*sys.argv[1:], *["ppo", "CartPole-v1", "jax", "4_000_000", "10"][len(sys.argv) - 1 :])  # fmt: skip
    every = str(int(steps.replace("_", "")) // (2 * int(kills) + 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["train", agent, env, "--backend", backend, "--steps", steps, "--checkpoint-every", every]
        words += ["--eval-episodes", "20", "--quiet", "--out"]
        run(folder, *words, "whole")
        hits = killed(folder, [*words, "killed"], "killed", int(kills))
        same = len({(folder / d / "policy.safetensors").read_bytes() for d in ("whole", "killed")}) == 1
        for d in ("whole", "killed"):
            summary = json.loads((folder / d / "summary.json").read_text())
            print(f"{d}: {summary['steps']:,} steps, {summary['updates']:,} updates, mean return {summary['evaluation']['mean_return']:.4g}")  # fmt: skip
        print(f"killed {hits} times; the final policies are {'the same, bit for bit' if same else 'different'}")
        sys.exit(0 if same or backend != "jax" else 1)


if __name__ == "__main__":
    main()
