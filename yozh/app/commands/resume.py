import argparse
from contextlib import ExitStack
from pathlib import Path

from yozh.app.commands import observing
from yozh.app.commands.common import AGENT, Parser, count, need

SETTINGS = True


def add(parser: Parser) -> None:
    parser.epilog = "Pure environments go on bit for bit; simulators begin new episodes, and all else is exact."
    add = parser.add_argument
    add("dir", metavar="DIR", nargs="?", type=Path, help="a run's folder")
    add("--steps", type=count, metavar="N", help="environment steps of the whole run (as planned)")
    add("--changed", action="store_true", help="go on although settings differ from those of the run")
    observing.add(parser)
    add("--quiet", action="store_true", help="no progress, only the result")
    add(f"{AGENT}FIELD", dest="_", metavar="VALUE", help="a hyper-parameter that shall change (needs --changed)")


def run(options: argparse.Namespace) -> int:
    need(options, "resume", "dir", example="yozh resume runs/lander")
    import yozh
    from yozh.app.commands.train import finish
    from yozh.app.options import override
    from yozh.app.progress import Progress
    from yozh.app.resume import stored_agent

    agent = override(stored_agent(options.dir), options.settings) if options.settings else None
    progress = None if options.quiet else Progress()
    with ExitStack() as stack:  # loggers take the report along when they are closed
        observers = [*observing.rules(options), *map(stack.enter_context, observing.loggers(options, options.dir))]
        observers += [progress] if progress else []
        return finish(
            options.dir,
            progress,
            lambda: yozh.resume(
                options.dir, steps=options.steps, agent=agent, changed=options.changed, observers=observers
            ),
        )
