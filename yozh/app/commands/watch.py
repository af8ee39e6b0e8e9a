import argparse
from pathlib import Path

from yozh.app.commands.common import Parser, count, need, seed


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function (the one it was trained in)")
    add("--out", metavar="FILE", type=Path, help="an .mp4 or .gif instead of a window")
    add("--episodes", type=count, default=1, metavar="N", help="(1)")
    add("--seed", type=seed, default=0, metavar="S", help="(0)")


def run(options: argparse.Namespace) -> int:
    need(options, "watch", "policy", example="yozh watch runs/lander")
    import yozh

    seen = yozh.watch(options.policy, options.env, out=options.out, episodes=options.episodes, seed=options.seed)
    for i, (total, length) in enumerate(zip(seen.returns, seen.lengths, strict=True), 1):
        print(f"episode {i}: return {total:.4g} in {length} steps")
    if seen.path is not None:
        print(f"film: {seen.path}")
    return 0
