import argparse
from pathlib import Path

from yozh.app.commands.common import ENV, Parser, count, need, print_evaluation, seed

ENV_OPTIONS = True
"""Takes `--env.NAME VALUE`."""


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("env", metavar="ENV", nargs="?", help="an environment's id (the one it was trained in)")
    add("--episodes", type=count, default=100, metavar="N", help="(100)")
    add("--seed", type=seed, default=1, metavar="S", help="(1)")
    add("--explore", action="store_true", help="draw actions as in training, instead of the best ones")
    add(f"{ENV}NAME", dest="_", metavar="VALUE", help="an option of the environment (as trained)")


def run(options: argparse.Namespace) -> int:
    need(options, "evaluate", "policy", example="yozh evaluate runs/lander")
    import yozh

    asked = dict(episodes=options.episodes, seed=options.seed, env_options=options.env_options, explore=options.explore)
    print_evaluation(yozh.evaluate(options.policy, options.env, **asked))
    return 0
