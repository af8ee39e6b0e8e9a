"""The report's drawings: SVG that takes its colours from the page, so that they follow light and dark."""

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

INK, GRID, MAIN, FAINT = "#010203", "#010204", "#010205", "#010206"
COLOURS = {INK: "var(--muted)", GRID: "var(--line)", MAIN: "var(--accent)", FAINT: "var(--faint)"}
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
        axes.set_xlabel(label)
        axes.set_title("return")
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if x == "steps" else "{x:g}")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=INK)
        return _svg(figure, f"return against {label}")


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
