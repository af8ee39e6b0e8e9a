"""Where the time of a case's side of ours goes, operation by operation: `python -m benchmarks.profile ppo-cartpole`.

XLA's own trace, over some turns of the compiled program. An operation that takes a microsecond takes two while it is traced:
compare like with like. `--hlo FILE` writes the program too, in which the names can be looked up.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import jax

from benchmarks.ours import agents, build
from yozh.runners.fused import Fused


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description=__doc__)
    parser.add_argument("name", choices=agents(), metavar="NAME", help=f"one of {', '.join(agents())}")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--before", type=int, default=2000, help="turns before that, so that a replay is filled")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--hlo", type=Path)
    asked = parser.parse_args()
    runner = build(asked.name, 500_000)
    if not isinstance(runner, Fused):
        parser.error(f"{asked.name} is hosted: its program is not in one piece")
    run = runner.init(jax.random.key(0))
    runner.compile(run)
    if asked.hlo and runner._compiled is not None:
        asked.hlo.write_text(runner._compiled.as_text())
    run, _ = jax.block_until_ready(runner.advance(run, asked.before))
    for name, (count, seconds) in traced(runner, run, asked.turns)[: asked.rows]:
        print(f"{seconds * 1e3:10.2f} ms {count:8d} x {seconds / count * 1e6:10.1f} us  {name[:100]}")


def traced(runner: Fused, run: object, turns: int) -> list[tuple[str, tuple[int, float]]]:
    """Operations with how often they ran and the seconds in all; the longest first."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(runner.advance(run, turns))
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        found: dict[str, list[float]] = defaultdict(list)
        for event in (e for plane in planes for line in plane.lines for e in line.events):
            if not event.name.startswith(("$", "end: ")):
                found[event.name].append(event.duration_ns * 1e-9)
    return sorted(((name, (len(s), sum(s))) for name, s in found.items()), key=lambda x: -x[1][1])


if __name__ == "__main__":
    main()
