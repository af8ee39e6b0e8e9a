"""Who else looks at a run of `train`: the rules that stop it, and loggers."""

import argparse
from pathlib import Path
from typing import Any

from yozh.app.commands.common import Parser, Refused, count, number
from yozh.app.stops import duration

OPTIONS = ("--stop-at-return", "--stop-after", "--stop-when-flat", "--log")


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("--stop-at-return", type=number(float, "a number"), metavar="X", help="stop when an evaluation's mean return reaches X")  # fmt: skip
    add("--stop-after", type=number(duration, "a duration such as 90s, 10m or 1h30m"), metavar="TIME", help="stop after so long: 10m")  # fmt: skip
    add("--stop-when-flat", type=count, metavar="N", help="stop when N evaluations bring nothing better")
    add("--log", type=number(_logger, "tensorboard (always on) or wandb[:PROJECT]"), action="append", default=[], metavar="LOGGER", help="tensorboard (always on) or wandb[:PROJECT]")  # fmt: skip


def rules(options: argparse.Namespace) -> list[Any]:
    """The stop rules that are asked for."""
    from yozh.app.stops import StopAfter, StopAtReturn, StopWhenFlat

    asked = {StopAtReturn: options.stop_at_return, StopAfter: options.stop_after, StopWhenFlat: options.stop_when_flat}
    return [rule(value) for rule, value in asked.items() if value is not None]


def loggers(options: argparse.Namespace, out: Path) -> list[Any]:
    """Context managers that are observers, beside the run's folder."""
    projects = [project for name, project in options.log if name == "wandb"]
    if not projects:
        return []
    from yozh.app.wandb_log import WandbLog

    return [WandbLog(project or "yozh", folder=out) for project in projects]


def refuse(options: argparse.Namespace, why: str) -> None:
    """Refuses these options where they could not be followed."""
    for option in OPTIONS:
        if getattr(options, option.removeprefix("--").replace("-", "_")) not in (None, []):
            raise Refused(f"{option} {why}")


def _logger(text: str) -> tuple[str, str]:
    name, _, project = text.partition(":")
    if name not in ("tensorboard", "wandb") or (project and name != "wandb"):
        raise ValueError(text)
    return name, project
