"""What commands share: how arguments are read, and what is said in the end."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from yozh.app.text import positive, whole

AGENT = "--agent."
"""How the name of a hyper-parameter begins."""

ENV = "--env."
"""How the name of an option of the environment begins."""


class Refused(Exception):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise Refused(message.removeprefix("argument ").replace(": takes", " takes"))


def number(read: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    """A type for argparse: `read`, and what is said where it fails."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"takes {what}, not {text!r}") from None

    return reader


def _not_negative(text: str) -> int:
    if (found := whole(text)) < 0:
        raise ValueError(text)
    return found


count = number(positive, "a positive whole number")
seed = number(_not_negative, "a whole number from 0")


def option(text: str) -> Any:
    """The value of an environment's option: true, false, none, a number, or else the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for read in (whole, float):
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return text


def need(options: argparse.Namespace, command: str, *names: str, example: str) -> None:
    """Refuses a command line that lacks one of these arguments."""
    if any(getattr(options, name) is None for name in names):
        raise Refused(f"{command} needs {' and '.join(n.upper() for n in names)}: {example}")


def say(message: str, code: int) -> int:
    """One line to standard error; returns the exit code."""
    print(f"yozh: {' '.join(message.split())}", file=sys.stderr)
    return code


def print_evaluation(evaluation: dict[str, Any] | None) -> None:
    if evaluation:
        low, high = evaluation["ci95"]
        print(f"mean return {evaluation['mean_return']:.4g} (95 % interval {low:.4g} to {high:.4g}) over {evaluation['episodes']} episodes of {evaluation['mean_length']:.4g} steps")  # fmt: skip
