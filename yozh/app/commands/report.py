import argparse
from pathlib import Path

from yozh.app.commands.common import Parser, need


def add(parser: Parser) -> None:
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="a run's folder")


def run(options: argparse.Namespace) -> int:
    need(options, "report", "dir", example="yozh report runs/lander")
    from yozh.app.report import publish

    print(f"report: {publish(options.dir)}")
    return 0
