"""The command line. Nothing heavy is imported before it is known that it will be used."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from yozh.app.text import near, positive, whole

COMMANDS = {
    "train": "train an agent in an environment",
    "evaluate": "measure a trained policy",
    "list": "show agents, environments, presets, or the settings of an agent",
    "report": "write the report of a run anew",
}
LISTS = ("agents", "environments", "presets")
AGENT = "--agent."


class Refused(Exception):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise Refused(message.removeprefix("argument ").replace(": takes", " takes"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command: 0 if done, 1 if training diverged, 2 if what was asked cannot be done, 130 if interrupted."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except Refused as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not _is(error, "yozh.core", "YozhError"):
            raise
        return _say(str(error), 1 if _is(error, "yozh.runners.training", "Diverged") else 2)


def _run(argv: list[str]) -> int:
    parser, commands = _parsers()
    if not argv or argv[0].startswith("-"):
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            raise Refused(f"there is no option {unknown[0]!r}.{near(unknown[0], ['--help', '--version'])}")
        print(f"yozh {_version()}" if options.version else parser.format_help(), end="\n" if options.version else "")
        return 0
    if argv[0] not in commands:
        raise Refused(f"there is no command {argv[0]!r}.{near(argv[0], commands)}")
    command = commands[argv[0]]
    rest, settings = _split_settings(argv[1:]) if argv[0] == "train" else (argv[1:], {})
    options, unknown = command.parse_known_args(rest)
    if unknown:
        known = [s for action in command._actions for s in action.option_strings] + [AGENT]
        what = "option" if unknown[0].startswith("-") else "argument"
        raise Refused(f"{argv[0]} has no {what} {unknown[0]!r}.{near(unknown[0].partition('=')[0], known)}")
    if options.help and not getattr(options, "agent", None):
        command.print_help()
        return 0
    return {"train": _train, "evaluate": _evaluate, "list": _list, "report": _report}[argv[0]](options, settings)


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    lines = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="yozh",
        add_help=False,
        usage="yozh COMMAND [ARGUMENT ...]",
        description=f"Deep reinforcement learning on JAX.\n\ncommands:\n{lines}\n\n  yozh COMMAND --help says more.",
        epilog="example: yozh train dqn LunarLander-v3 --steps 300_000 --agent.learning-rate 6e-4 --out runs/lander",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    parser.add_argument("--version", action="store_true", help="show the version")
    made = {name: Parser(prog=f"yozh {name}", description=text.capitalize() + ".", add_help=False) for name, text in COMMANDS.items()}  # fmt: skip

    add = made["train"].add_argument
    made["train"].epilog = "Steps may be written 300_000 or 3e5. `yozh train dqn LunarLander-v3 --help` lists the agent's settings."  # fmt: skip
    add("agent", metavar="AGENT", nargs="?", help="an agent's name: see `yozh list agents`")
    add("env", metavar="ENV", nargs="?", help="an environment's id: LunarLander-v3, Catch, Breakout-MinAtar ...")
    add("--steps", type=_number(positive, "a positive whole number"), metavar="N", help="environment steps (preset's)")
    add("--seed", type=_number(_seed, "a whole number from 0"), default=0, metavar="S", help="of everything random (0)")
    add(
        "--envs",
        type=_number(positive, "a positive whole number"),
        metavar="N",
        help="parallel environments (agent's)",
    )
    add("--backend", metavar="B", help="what runs the environment: jax, envpool, gymnasium (the fastest that has it)")
    add("--out", metavar="DIR", type=Path, help="folder of the run (runs/ENV-AGENT-SEED)")
    add("--eval-episodes", type=_number(positive, "a positive whole number"), default=100, metavar="N", help="of each evaluation (100)")  # fmt: skip
    add(
        "--eval-every", type=_number(positive, "a positive whole number"), metavar="N", help="steps between evaluations"
    )
    add("--quiet", action="store_true", help="no progress, only the result")
    add(f"{AGENT}FIELD", dest="_", metavar="VALUE", help="a hyper-parameter: --agent.learning-rate 6e-4")

    add = made["evaluate"].add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("env", metavar="ENV", nargs="?", help="an environment's id (the one it was trained in)")
    add("--episodes", type=_number(positive, "a positive whole number"), default=100, metavar="N", help="(100)")
    add("--seed", type=_number(_seed, "a whole number from 0"), default=1, metavar="S", help="(1)")

    made["list"].add_argument(
        "what", metavar="WHAT", nargs="?", help="agents, environments, presets, or an agent's name"
    )
    made["report"].add_argument("dir", metavar="DIR", nargs="?", type=Path, help="a run's folder")
    for command in made.values():
        command.add_argument("-h", "--help", action="store_true", help="show this")
    return parser, made


def _train(options: argparse.Namespace, settings: dict[str, str]) -> int:
    if options.help:
        return _show_agent(options.agent, options.env)
    _need(options, "train", "agent", "env", example="yozh train dqn LunarLander-v3")
    import yozh
    from yozh import presets
    from yozh.app.folder import claim, free
    from yozh.app.options import override
    from yozh.app.progress import Progress
    from yozh.runners.training import Diverged

    agent, steps = _starting_point(options.agent, options.env)
    agent, steps = override(agent, settings), options.steps or steps
    if steps is None:
        likely = near(options.env, [env for name, env in presets.names() if name == options.agent])
        raise Refused(
            f"{options.agent} has no preset for {options.env}: say how long to train, --steps 100_000.{likely}"
        )
    name = f"{options.env}-{options.agent}-{options.seed}".replace("/", "-").replace(":", "-")
    out = claim(options.out) if options.out else free(Path("runs") / name)
    progress = None if options.quiet else Progress()
    try:
        run = yozh.train(
            agent,
            options.env,
            steps=steps,
            seed=options.seed,
            envs=options.envs,
            backend=options.backend,
            out=out,
            eval_every=options.eval_every,
            eval_episodes=options.eval_episodes,
            observers=(progress,) if progress else (),
        )
    except Diverged:
        from yozh.app.report import write_report

        print(f"report: {write_report(out)}")
        raise
    finally:
        if progress:
            progress.close()
    from yozh.app.report import publish

    _print_evaluation(run.summary["evaluation"])
    print(f"report: {publish(out)}")
    if run.summary["status"] == "interrupted":
        return _say(f"interrupted; what was learnt is in {out}", 130)
    return 0


def _evaluate(options: argparse.Namespace, _: dict[str, str]) -> int:
    _need(options, "evaluate", "policy", example="yozh evaluate runs/lander")
    import yozh

    _print_evaluation(yozh.evaluate(options.policy, options.env, episodes=options.episodes, seed=options.seed))
    return 0


def _list(options: argparse.Namespace, _: dict[str, str]) -> int:
    if options.what is not None and options.what not in LISTS:
        return _show_agent(options.what, None)
    for what in [options.what] if options.what else LISTS:
        print("\n".join(_lines(what)))
    return 0


def _lines(what: str) -> list[str]:
    if what == "agents":
        from yozh import agents

        return [
            f"{name:<12} {' '.join((cls.__doc__ or '').split()).partition('. ')[0]}"
            for name, cls in agents.names().items()
        ]
    if what == "environments":
        from yozh import environments

        return list(environments.names())
    from yozh import presets

    return [f"{agent:<12} {env:<24} {presets.find(agent, env).reached}" for agent, env in presets.names()]


def _report(options: argparse.Namespace, _: dict[str, str]) -> int:
    _need(options, "report", "dir", example="yozh report runs/lander")
    from yozh.app.report import publish

    print(f"report: {publish(options.dir)}")
    return 0


def _starting_point(name: str, env: str | None) -> tuple[Any, int | None]:
    from yozh import agents, presets

    if name not in agents.names():
        raise Refused(f"there is no agent {name!r}.{near(name, agents.names())}")
    return presets.start(name, env)


def _show_agent(name: str, env: str | None) -> int:
    from yozh import agents
    from yozh.app.options import options

    if name not in agents.names():
        raise Refused(f"there is no agent or list {name!r}.{near(name, [*agents.names(), *LISTS])}")
    agent, steps = _starting_point(name, env)
    if env:
        print(
            f"yozh train {name} {env}: "
            + (f"a preset of {steps:,} steps" if steps else "no preset, the agent's defaults")
        )
    print(f"\n{(type(agent).__doc__ or '').strip()}\n")
    rows = options(agent)
    width = max(len(AGENT + row.name) for row in rows)
    for row in rows:
        print(f"  {AGENT + row.name:<{width}}  {row.value:<12}  {row.doc}".rstrip())
    return 0


def _print_evaluation(evaluation: dict[str, Any] | None) -> None:
    if evaluation:
        low, high = evaluation["ci95"]
        print(f"mean return {evaluation['mean_return']:.4g} (95 % interval {low:.4g} to {high:.4g}) over {evaluation['episodes']} episodes of {evaluation['mean_length']:.4g} steps")  # fmt: skip


def _split_settings(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes `--agent.FIELD VALUE` and `--agent.FIELD=VALUE` out of the arguments."""
    rest, settings, words = [], {}, iter(argv)
    for word in words:
        if not word.startswith(AGENT):
            rest.append(word)
            continue
        name, given, value = word.removeprefix(AGENT).partition("=")
        if not given and ((value := next(words, "--")).startswith("--")):
            raise Refused(f"{word} needs a value")
        settings[name] = value
    return rest, settings


def _number(read: Callable[[str], int], what: str) -> Callable[[str], int]:
    def reader(text: str) -> int:
        try:
            return read(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"takes {what}, not {text!r}") from None

    return reader


def _seed(text: str) -> int:
    if (number := whole(text)) < 0:
        raise ValueError(text)
    return number


def _need(options: argparse.Namespace, command: str, *names: str, example: str) -> None:
    if any(getattr(options, name) is None for name in names):
        raise Refused(f"{command} needs {' and '.join(n.upper() for n in names)}: {example}")


def _is(error: Exception, module: str, name: str) -> bool:
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(error, cls)


def _version() -> str:
    from importlib.metadata import version

    return version("yozh")


def _say(message: str, code: int) -> int:
    print(f"yozh: {' '.join(message.split())}", file=sys.stderr)
    return code
