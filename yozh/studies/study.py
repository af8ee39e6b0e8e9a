"""What every study does besides its experiment: it tells its numbers, judges them and writes its picture."""

import argparse
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
from jaxtyping import Array, Key, PyTree
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yozh.core import Agent, BatchedEnv, Env, Spec, TimeStep, static
from yozh.files import atomic_write
from yozh.runners.fused import Metrics, Run, advance, init
from yozh.spaces import Discrete

STYLE = {
    "svg.hashsalt": "yozh",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}


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


class Buttons(Env):
    """An environment with several buttons for each of its actions."""

    env: Env
    each: int = static()

    @property
    def spec(self) -> Spec:
        return dataclasses.replace(self.env.spec, action=Discrete(self.each * self._actions))

    @property
    def _actions(self) -> int:
        assert isinstance(self.env.spec.action, Discrete)
        return self.env.spec.action.n

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.env.reset(key)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.env.step(state, action % self._actions, key)


def watched(agent: Agent, env: BatchedEnv, key: Key[Array, ""], *, looks: int, turns: int, look: Callable[[Run, Metrics], PyTree]) -> tuple[Run, PyTree]:  # fmt: skip
    """Trains for `looks` stretches of `turns` turns: the run at its end, and what `look` saw after each stretch, `[looks, ...]`. A pure
    function: vmap it over keys and settings."""

    def stretch(run: Run, _: None) -> tuple[Run, PyTree]:
        run, metrics = advance(agent, env, run, jnp.int32(turns))
        return run, look(run, metrics)

    return jax.lax.scan(stretch, init(agent, env, key), length=looks)


def panels(columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with some panels side by side, each for one drawing."""
    figure = Figure(figsize=(4.2 * columns, 3.2), layout="constrained")
    with matplotlib.rc_context(STYLE):
        axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


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
