import argparse
from pathlib import Path

from yozh.app.commands.common import Parser, Refused


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("paths", metavar="RUN", nargs="*", type=Path, help="run folders, groups of seeds, or folders that contain them")
    add(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("compare.html"),
        help="the report; figures beside it, as .json (compare.html)",
    )
    add("--normalise", metavar="HOW", default="minmax", help="scores over environments: minmax, human, none (minmax)")
    add(
        "--references",
        metavar="FILE",
        type=Path,
        help='for human, of other environments than the 57 Atari games: JSON, {"Env-v0": {"random": 1.0, "human": 30.0}}',
    )


def run(options: argparse.Namespace) -> int:
    if not options.paths:
        raise Refused("compare needs RUN: yozh compare runs/dqn runs/ppo")
    import yozh

    done = yozh.compare(options.paths, out=options.out, normalise=options.normalise, references=options.references)
    for warning in done.warnings:
        print(f"note: {warning}")
    for env, row in done.figures["environments"].items():
        for name, m in row["methods"].items():
            low, high = m["ci95"]
            print(f"{env}  {name}  mean return {m['mean_return']:.4g} (95 % interval {low:.4g} to {high:.4g}) over {len(m['scores'])} seeds")  # fmt: skip
    print(f"report: {done.path}")
    return 0
