"""Runs the cases: Yozh and the peer by turns, each time in a new process, and the median of the ratios."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import cold_start, machine, venvs
from benchmarks.cases import CASES, COLD_START, Case

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"cases, or how their names begin: {', '.join([*CASES, COLD_START])}"
    )
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side (3)")
    parser.add_argument(
        "--steps", type=float, default=1.0, help="factor on the steps of both sides, to try things out (1)"
    )
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder for the figures (benchmarks/results)")
    asked = parser.parse_args()
    names = [n for n in [*CASES, COLD_START] if not asked.names or any(n.startswith(a) for a in asked.names)]
    if not names:
        parser.error(f"no such case; there are {', '.join([*CASES, COLD_START])}")
    lines, failed = [], False
    for name in names:
        try:
            result = start_up(asked.pairs) if name == COLD_START else compare(CASES[name], asked.pairs, asked.steps)
        except (Skipped, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", flush=True)
            failed |= not isinstance(error, Skipped)
            continue
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / f"{name}.json").write_text(json.dumps({"case": name} | result, indent=2) + "\n")
        lines += rows(name, result)
    table(lines)
    return int(failed)


class Skipped(Exception):
    """A case that cannot be measured here."""


def compare(case: Case, pairs: int, factor: float) -> dict[str, Any]:
    if case.needs and not os.environ.get(case.needs):
        raise Skipped(f"skipped: set {case.needs} to a checkout of the peer's sources")
    python = venvs.python(case.venv)
    about = {
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "peer_versions": venvs.versions(case.venv, python),
    }
    if case.needs:
        about["peer_versions"][case.needs.lower()] = machine.commit(Path(os.environ[case.needs]))
    script = HERE / "peers" / f"{case.peer}.py"
    ours = [sys.executable, "-m", "benchmarks.ours", case.ours, str(int(case.steps * factor))]
    theirs = [python, script, str(int(case.peer_steps * factor)), json.dumps(case.settings)]
    measured = []
    for _ in range(pairs):
        load = machine.load()
        yozh, peer = run(ours), run(theirs)
        measured.append({"load": load, "yozh": yozh, "peer": peer, "ratio": yozh["rate"] / peer["rate"]})
        print(
            f"  {yozh['rate']:12,.0f} {peer['rate']:12,.0f} {measured[-1]['ratio']:8.2f}   {case.ours}, {case.peer}",
            flush=True,
        )
    ratio = statistics.median(m["ratio"] for m in measured)
    return about | {"peer": case.peer, "settings": case.settings, "differs": case.differs, "target": case.target,
                    "ratio": ratio, "pairs": measured}  # fmt: skip


def run(command: list[Any]) -> dict[str, Any]:
    """One side in a process of its own, without a compilation cache; what its last line says, and steps a second."""
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=venvs.ROOT, env=env | {"JAX_PLATFORMS": "cpu"})
    if done.returncode:
        raise RuntimeError(f"{Path(command[1]).name} failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return said | {"rate": said["steps"] / said["seconds"]}


def start_up(pairs: int) -> dict[str, Any]:
    about = {"hardware": machine.hardware(), "versions": machine.versions(), "target": cold_start.TARGETS}
    measured = []
    for _ in range(pairs):
        load = machine.load()
        measured.append({"load": load} | cold_start.pair())
        print(f"  cold {measured[-1]['cold']:6.1f} s, warm {measured[-1]['warm']:6.1f} s", flush=True)
    seconds = {kind: statistics.median(m[kind] for m in measured) for kind in cold_start.TARGETS}
    return about | {"command": ["yozh", *cold_start.COMMAND], "seconds": seconds, "pairs": measured}


def rows(name: str, result: dict[str, Any]) -> list[list[str]]:
    if name == COLD_START:
        return [[f"{name}, {kind}", f"{s:.1f} s", "", "", f"≤ {result['target'][kind]:g} s", "", ""] for kind, s in result["seconds"].items()]  # fmt: skip

    def median(side: str, what: str) -> float:
        return statistics.median(m[side][what] for m in result["pairs"])

    rates = [f"{median(side, 'rate'):,.0f}" for side in ("yozh", "peer")]
    compiled = [f"{median(side, 'compile_seconds'):.1f} s" for side in ("yozh", "peer")]
    return [[name, *rates, f"{result['ratio']:.2f}", f"≥ {result['target']:g}", *compiled]]


def table(lines: list[list[str]]) -> None:
    if not lines:
        return
    head = ["case", "Yozh steps/s", "peer steps/s", "ratio", "target", "Yozh compiles", "peer compiles"]
    widths = [max(len(row[i]) for row in [head, *lines]) for i in range(len(head))]
    print(time.strftime("\n%Y-%m-%d"), machine.hardware()["cpu"])
    for row in [head, *lines]:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


if __name__ == "__main__":
    sys.exit(main())
