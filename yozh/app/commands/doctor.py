import argparse

from yozh.app.commands.common import Parser, count, need, seed


def add(parser: Parser) -> None:
    parser.epilog = "Ends with 1 if there is an error, with 0 if there are at most warnings."
    add = parser.add_argument
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function that makes one")
    add("--backend", metavar="B", help="what runs the environment: jax, envpool, gymnasium (the fastest that has it)")
    add("--steps", type=count, default=1000, metavar="N", help="random actions to look at (1000)")
    add("--envs", type=count, default=8, metavar="N", help="parallel environments, where a vector is looked at (8)")
    add("--seed", type=seed, default=0, metavar="S", help="of actions and starts (0)")


def run(options: argparse.Namespace) -> int:
    need(options, "doctor", "env", example="yozh doctor LunarLander-v3")
    from rich.console import Console

    import yozh

    found = yozh.doctor(options.env, backend=options.backend, steps=options.steps, envs=options.envs, seed=options.seed)
    console = Console()
    if console.is_terminal:
        console.print(found)
    else:
        print(found)
    return 0 if found.healthy else 1
