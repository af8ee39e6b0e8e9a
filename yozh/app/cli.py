"""The command line. Nothing heavy is imported before it is known that it will be used."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from yozh.app.commands import COMMANDS
from yozh.app.commands.common import AGENT, ENV, Parser, Refused, option, say
from yozh.app.text import near

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What the system says where nothing more can be written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command: 0 if done, 1 if training diverged or a file could not be written, 2 if what was asked cannot be done,
    130 if interrupted."""
    sys.path.append(os.getcwd())  # where `module:function` of the user's own is likely to lie
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except Refused as error:
        return say(str(error), 2)
    except KeyboardInterrupt:
        return say("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        return say(f"{error.filename or 'a file'} could not be written: {error.strerror}", 1)
    except Exception as error:
        if not _is(error, "yozh.core", "YozhError"):
            raise
        return say(str(error), 1 if _is(error, "yozh.runners.training", "Diverged") else 2)


def _run(argv: list[str]) -> int:
    parser = _parser()
    if not argv or argv[0].startswith("-"):
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            raise Refused(f"there is no option {unknown[0]!r}.{near(unknown[0], ['--help', '--version'])}")
        print(f"yozh {_version()}" if options.version else parser.format_help(), end="\n" if options.version else "")
        return 0
    name, words = argv[0], argv[1:]
    if name not in COMMANDS:
        raise Refused(f"there is no command {name!r}.{near(name, COMMANDS)}")
    command = importlib.import_module(f"yozh.app.commands.{name}")
    parser = Parser(prog=f"yozh {name}", description=f"{COMMANDS[name].capitalize()}.", add_help=False)
    command.add(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    words, settings = _split(words, AGENT) if hasattr(command, "SETTINGS") else (words, {})
    words, given = _split(words, ENV) if hasattr(command, "ENV_OPTIONS") else (words, {})
    options, unknown = parser.parse_known_args(words)
    if unknown:
        known = [s for action in parser._actions for s in action.option_strings]
        known += [p for p, mark in ((AGENT, "SETTINGS"), (ENV, "ENV_OPTIONS")) if hasattr(command, mark)]
        what = "option" if unknown[0].startswith("-") else "argument"
        raise Refused(f"{name} has no {what} {unknown[0]!r}.{near(unknown[0].partition('=')[0], known)}")
    if options.help and not getattr(options, "agent", None):
        parser.print_help()
        return 0
    options.settings = settings
    options.env_options = {name.replace("-", "_"): option(text) for name, text in given.items()}
    return command.run(options)


def _parser() -> Parser:
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
    return parser


def _split(argv: list[str], prefix: str) -> tuple[list[str], dict[str, str]]:
    """Takes `--agent.FIELD VALUE` and `--agent.FIELD=VALUE` out of the arguments, or those of another prefix."""
    rest, settings, words = [], {}, iter(argv)
    for word in words:
        if not word.startswith(prefix):
            rest.append(word)
            continue
        name, given, value = word.removeprefix(prefix).partition("=")
        if not given and ((value := next(words, "--")).startswith("--")):
            raise Refused(f"{word} needs a value")
        settings[name] = value
    return rest, settings


def _is(error: Exception, module: str, name: str) -> bool:
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(error, cls)


def _version() -> str:
    from importlib.metadata import version

    return version("yozh")
