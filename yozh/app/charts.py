"""The reports' drawings: SVG that takes its colours from the page, so that they follow light and dark."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

INK, GRID, MAIN, FAINT = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#01020{d}" for d in "789abcde")
"""Of things that are compared, in their order; further ones begin anew, dashed."""
COLOURS = {INK: "var(--muted)", GRID: "var(--line)", MAIN: "var(--accent)", FAINT: "var(--faint)"}
COLOURS |= {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}
"""Stand-ins that matplotlib understands, and what the page calls them."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.edgecolor": GRID, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID,
    "grid.linewidth": 0.8, "axes.axisbelow": True, "font.size": 10, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "lines.linewidth": 1.8, "lines.solid_joinstyle": "round",
}  # fmt: skip


def learning_curve(progress: list[dict], evaluations: list[dict], x: str, label: str) -> str:
    """Training returns faint, with their running mean; evaluations with their 95 % intervals."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 3.2)
        at, value = series(progress, x, "return_mean")
        width = len(value) // 40
        if width > 1:
            axes.plot(*thin(at, value, 600), color=FAINT, linewidth=0.8, label="training episodes")
            axes.plot(*thin(at, smooth(value, width), 600), color=INK, linewidth=1.1, alpha=0.7, label="their running mean")  # fmt: skip
        elif len(at):
            axes.plot(at, value, color=INK, linewidth=1.1, alpha=0.7, label="training episodes")
        rows = [r for r in evaluations if r["evaluation"]["mean_return"] is not None]
        if rows:
            place = np.array([r[x] for r in rows], float)
            mean = np.array([r["evaluation"]["mean_return"] for r in rows], float)
            low, high = np.array([r["evaluation"]["ci95"] for r in rows], float).T
            axes.fill_between(place, low, high, color=MAIN, alpha=0.18, linewidth=0)
            error = np.abs(np.stack([mean - low, high - mean]))
            axes.errorbar(place, mean, error, color=MAIN, marker="o", markersize=4, elinewidth=1.2, label="evaluation, 95 % interval")  # fmt: skip
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=INK)
        return _curves(figure, axes, label, "return")


def histogram(returns: list[float], interval: tuple[float, float]) -> str:
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 2.4)
        values = np.asarray(returns, float)
        spread = np.ptp(values) > 0
        bins: Any = min(30, max(8, len(values) // 4)) if spread else [values[0] - 0.5, values[0] + 0.5]
        axes.hist(values, bins=bins, color=MAIN, alpha=0.75, rwidth=0.9)
        axes.axvspan(*interval, color=MAIN, alpha=0.15, linewidth=0)
        axes.axvline(values.mean(), color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("return of an episode; dashed: their mean, shaded: its 95 % interval")
        axes.set_title("episodes")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        return _svg(figure, "histogram of evaluation returns")


def small(progress: list[dict], name: str) -> str:
    """One metric against steps, faint, and its running mean; empty where it has fewer than two values."""
    at, value = series(progress, "steps", name)
    if len(at) < 2:
        return ""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.2, 1.9)
        axes.plot(*thin(at, value, 300), color=FAINT, linewidth=0.8)
        axes.plot(*thin(at, smooth(value, max(1, len(value) // 30)), 300), color=MAIN, linewidth=1.5)
        axes.set_title(name.replace("_", " "))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return _svg(figure, f"{name} against steps")


def bars(figures: dict[str, Any], title: str, label: str) -> str:
    """A histogram that is there already: `counts` between `edges`, on a logarithmic axis if these grow by a factor."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.2, 1.9)
        counts, edges = np.array(figures["counts"], float), np.array(figures["edges"], float)
        axes.stairs(counts / counts.sum(), edges, fill=True, color=MAIN, alpha=0.75)
        widths = np.diff(edges)
        if edges[0] > 0 and widths[-1] > 2 * widths[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            if edges[-1] >= 1000:
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.set_xlabel(label)
        axes.set_title(title)
        return _svg(figure, title)


def foreseen(evaluations: list[dict]) -> str:
    """What was expected of the visited states, and what came, against steps."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 2.8)
        at = [row["steps"] for row in evaluations]
        for i, name in enumerate(("predicted_value", "discounted_return")):
            axes.plot(at, [row["evaluation"][name] for row in evaluations], label=name.replace("_", " "), marker="o", markersize=4, **_look(i))  # fmt: skip
        _legend_below(figure)
        return _curves(figure, axes, "environment steps", "predicted, and what came")


def divergence(evaluations: list[dict], bound: float) -> str:
    """The largest |value| against steps, beside the largest that rewards allow."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 2.8)
        largest = [row["evaluation"]["largest_value"] for row in evaluations]
        axes.semilogy([row["steps"] for row in evaluations], largest, marker="o", markersize=4, color=MAIN)
        axes.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.minorticks_off()
        return _curves(figure, axes, "environment steps; dashed: the largest return that rewards allow", "largest |value|")  # fmt: skip


def seeds(at: np.ndarray, values: np.ndarray, interval: np.ndarray, title: str) -> str:
    """Curves `[runs, G]` of the seeds of one group faint, their mean, and its interval `[2, G]`, against steps `[G]`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.8, 3.2)
        for i, value in enumerate(values):
            axes.plot(at, value, color=FAINT, linewidth=0.9, label=None if i else "each seed")
        axes.fill_between(at, *interval, color=MAIN, alpha=0.18, linewidth=0)
        marker: Any = {"marker": "o", "markersize": 4} if len(at) <= 25 else {}
        axes.plot(at, values.mean(0), color=MAIN, label="mean of the seeds, 95 % interval", **marker)
        _legend_below(figure)
        return _curves(figure, axes, "environment steps", title)


def learning_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], styles: Mapping[str, int], title: str) -> str:  # fmt: skip
    """Against steps, of every method `(at [G], mean [G], interval [2, G])`, in the style of its number."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.8, 3.2)
        for name, (at, mean, interval) in curves.items():
            look = _look(styles[name])
            axes.fill_between(at, *interval, color=look["color"], alpha=0.16, linewidth=0)
            axes.plot(at, mean, label=_wrapped(name, 30), **look, **({"marker": "o", "markersize": 3.5} if len(at) <= 25 else {}))  # fmt: skip
        _legend_below(figure)
        return _curves(figure, axes, "environment steps", title)


def points(scores: Mapping[str, tuple[Sequence[float], float, Sequence[float]]], styles: Mapping[str, int], title: str, label: str) -> str:  # fmt: skip
    """Of every method `(one score a run, the figure they give, its interval)`, one above the other."""
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure, axes = _figure(4.8, 0.9 + 0.44 * len(scores))
        for row, (name, (each, value, interval)) in enumerate(scores.items()):
            colour = _look(styles[name])["color"]
            axes.plot([*interval], [row, row], color=colour, linewidth=7, alpha=0.28, solid_capstyle="round")
            axes.scatter(each, np.full(len(each), row), s=16, color=colour, alpha=0.75, linewidth=0)
            axes.plot([value, value], [row - 0.27, row + 0.27], color=colour, linewidth=2.4)
        axes.set_yticks(range(len(scores)), [_wrapped(name, 22) for name in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_title(title)
        return _svg(figure, title)


def profiles(curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[Sequence[float]]]], styles: Mapping[str, int]) -> str:  # fmt: skip
    """Of every method `(scores, share of its runs above each, its intervals [G, 2])`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.8, 3.2)
        for name, (at, share, interval) in curves.items():
            look = _look(styles[name])
            axes.fill_between(at, *np.transpose(interval), color=look["color"], alpha=0.16, linewidth=0)
            axes.plot(at, share, label=_wrapped(name, 30), **look)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("normalised score")
        axes.set_title("share of runs that score above it")
        _legend_below(figure)
        return _svg(figure, "performance profile")


def series(rows: list[dict], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(r[x], r[y]) for r in rows if r.get(y) is not None and r.get(x) is not None]
    return tuple(np.array(found, float).reshape(-1, 2).T)  # type: ignore[return-value]


def thin(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The means of neighbours, at most `most` points: the drawing stays small however long the run."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)[:-1]
    count = np.diff([*edges, len(x)])
    return np.add.reduceat(x, edges) / count, np.add.reduceat(y, edges) / count


def smooth(y: np.ndarray, width: int) -> np.ndarray:
    """The mean over `width` points up to each, fewer at the start."""
    total = np.cumsum(np.concatenate([[0.0], y]))
    end = np.arange(1, len(y) + 1)
    start = np.maximum(end - width, 0)
    return (total[end] - total[start]) / (end - start)


def _curves(figure: Figure, axes: Any, label: str, title: str) -> str:
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if "steps" in label else "{x:g}")
    return _svg(figure, f"{title} against {label}")


def _legend_below(figure: Figure) -> None:
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2, labelcolor=INK)


def _look(style: int) -> dict[str, Any]:
    return {"color": SERIES[style % len(SERIES)], "linestyle": ("-", (0, (4, 2)))[style // len(SERIES) % 2]}


def _wrapped(name: str, width: int) -> str:
    return "\n".join(textwrap.wrap(name, width))


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.margins(x=0.02)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"^<svg[^>]*viewBox=\"([^\"]*)\"[^>]*>", rf'<svg viewBox="\1" role="img" aria-label="{title}">', text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    return text
