import argparse
from pathlib import Path

from yozh.app.commands.common import ENV, Parser, count, need, seed

ENV_OPTIONS = True
"""Takes `--env.NAME VALUE`."""


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function (the one it was trained in)")
    add("--out", metavar="FILE", type=Path, help="an .mp4 or .gif instead of a window")
    add("--episodes", type=count, default=1, metavar="N", help="(1)")
    add("--seed", type=seed, default=0, metavar="S", help="(0)")
    add(f"{ENV}NAME", dest="_", metavar="VALUE", help="an option of the environment (as trained)")


def run(options: argparse.Namespace) -> int:
    need(options, "watch", "policy", example="yozh watch runs/lander")
    import yozh

    asked = dict(episodes=options.episodes, seed=options.seed, env_options=options.env_options)
    seen = yozh.watch(options.policy, options.env, out=options.out, **asked)
    for i, (total, length) in enumerate(zip(seen.returns, seen.lengths, strict=True), 1):
        print(f"episode {i}: return {total:.4g} in {length} steps")
    if seen.path is not None:
        print(f"film: {seen.path}")
    return 0
