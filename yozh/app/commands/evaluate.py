import argparse
from pathlib import Path

from yozh.app.commands.common import Parser, count, need, print_evaluation, seed


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("env", metavar="ENV", nargs="?", help="an environment's id (the one it was trained in)")
    add("--episodes", type=count, default=100, metavar="N", help="(100)")
    add("--seed", type=seed, default=1, metavar="S", help="(1)")


def run(options: argparse.Namespace) -> int:
    need(options, "evaluate", "policy", example="yozh evaluate runs/lander")
    import yozh

    print_evaluation(yozh.evaluate(options.policy, options.env, episodes=options.episodes, seed=options.seed))
    return 0
