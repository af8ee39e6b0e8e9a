import argparse
import dataclasses
import re

from yozh.app.commands.common import AGENT, ENV, Parser, Refused
from yozh.app.commands.train import starting_point
from yozh.app.text import near

LISTS = ("agents", "environments", "presets")


def add(parser: Parser) -> None:
    parser.add_argument("what", metavar="WHAT", nargs="?", help="agents, environments, presets, or an agent's name")


def run(options: argparse.Namespace) -> int:
    if options.what is not None and options.what not in LISTS:
        return show_agent(options.what, None)
    for what in [options.what] if options.what else LISTS:
        print("\n".join(_lines(what)))
    return 0


def show_agent(name: str, env: str | None) -> int:
    """What an agent is, and every setting with its value and its meaning."""
    from yozh import presets
    from yozh.app.options import docstrings, options
    from yozh.environments import atari

    if name not in presets.kinds():
        raise Refused(f"there is no agent or list {name!r}.{near(name, [*presets.kinds(), *LISTS])}")
    agent, steps = starting_point(name, env)
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
    if env is not None and atari.is_game(env):
        print("\nOptions of the environment:")
        now = dataclasses.asdict(atari.Options()) | presets.env_options(name, env)
        for option, doc in docstrings(atari.Options).items():
            print(f"  {ENV + option.replace('_', '-'):<{width}}  {str(now[option]).lower():<12}  {doc}")
    return 0


def _lines(what: str) -> list[str]:
    if what == "agents":
        from yozh import agents

        return [
            f"{name:<18} {re.split(r'(?<!et al)[.:] ', ' '.join((cls.__doc__ or '').split()))[0].rstrip('.')}"
            for name, cls in agents.names().items()
        ]
    if what == "environments":
        from yozh import environments

        return list(environments.names())
    from yozh import presets

    return [f"{agent:<18} {env:<24} {presets.find(agent, env).reached}" for agent, env in presets.names()]
