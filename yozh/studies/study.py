"""What every study does besides its experiment: it tells its numbers, judges them and writes its picture."""

import argparse
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from yozh.files import atomic_write

STYLE = {"svg.hashsalt": "yozh", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}


@dataclasses.dataclass(frozen=True)
class Check:
    """A number, and where it must lie."""

    what: str
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return bool(self.low <= self.found <= self.high)

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.what}: {self.found:.5g}, from {self.low:.5g} to {self.high:.5g}: {verdict}"


def near(what: str, found: float, expected: float, within: float) -> Check:
    return Check(what, found, expected - within, expected + within)


@dataclasses.dataclass(frozen=True)
class Outcome:
    checks: list[Check]
    picture: str
    """SVG."""


def panels(columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with some panels side by side, each for one drawing."""
    figure = Figure(figsize=(4.2 * columns, 3.2), layout="constrained")
    with matplotlib.rc_context(STYLE):
        return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def drawn(figure: Figure) -> str:
    """The figure as SVG, the same for the same numbers."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return text.getvalue()


def main(name: str, run: Callable[..., Outcome], repetitions: int | None = None, arguments: Sequence[str] | None = None) -> int:  # fmt: skip
    """Runs the study, prints its numbers and writes `NAME.svg`; 1 if a number does not hold. One that draws nothing at random has no
    repetitions."""
    parser = argparse.ArgumentParser(prog=f"python -m yozh.studies.{name}")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for the picture (this one)")
    if repetitions is not None:
        said = f"independent runs ({repetitions:,})"
        parser.add_argument("--repetitions", type=int, default=repetitions, metavar="N", help=said)
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    if not out.is_dir():
        parser.error(f"there is no folder {out}")
    if options.get("repetitions", 1) < 1:
        parser.error(f"--repetitions must be positive, not {options['repetitions']}")
    outcome = run(**options)
    atomic_write(out / f"{name}.svg", outcome.picture)
    print(*outcome.checks, f"picture: {out / f'{name}.svg'}", sep="\n")
    return int(not all(check.holds for check in outcome.checks))
