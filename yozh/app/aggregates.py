"""Figures over many runs: means with bootstrap intervals, curves on one grid, and the aggregates of rliable."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from yozh.core import YozhError

DRAWS = 2_000
"""Bootstrap samples of an aggregate over environments, and of a curve."""

PLACES = 51
"""Scores at which a performance profile is evaluated."""


def mean_interval(scores: Sequence[float] | Float[np.ndarray, " runs"]) -> list[float]:
    """The 95 % percentile bootstrap interval of the mean of one score a run; a single run's is the score itself."""
    low, high = curve_interval(np.asarray(scores, float)[:, None], draws=10_000)
    return [float(low[0]), float(high[0])]


def curve_interval(values: Float[np.ndarray, "runs at"], draws: int = DRAWS) -> Float[np.ndarray, "2 at"]:
    """The 95 % percentile bootstrap interval of the mean over runs, at each place. Whole runs are drawn."""
    drawn = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    return np.percentile(values[drawn].mean(1), [2.5, 97.5], axis=0)


def on_one_grid(curves: Sequence[tuple[np.ndarray, np.ndarray]], most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """`(at [G], values [runs, G])`: the curves over the stretch that all of them cover, in between interpolated.

    The grid is that of the curves if they share it, else their places together, at most `most` of them.
    """
    start, stop = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    grid = np.unique(np.concatenate([at for at, _ in curves]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if len(grid) > most:
        grid = np.linspace(start, stop, most)
    return grid, np.stack([np.interp(grid, at, value) for at, value in curves])


def normalised(scores: Float[np.ndarray, " runs"], low: float, high: float) -> Float[np.ndarray, " runs"]:
    """Scores of one environment with `low` at 0 and `high` at 1; all 1 where there is nothing between."""
    return (scores - low) / (high - low) if high != low else np.ones_like(scores)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval from the stratified bootstrap."""

    value: float
    ci95: tuple[float, float]


def aggregate(scores: Mapping[str, Float[np.ndarray, "runs envs"]], *, gap: bool) -> dict[str, dict[str, Estimate]]:
    """Of every method: `iqm`, `median`, `mean` and, with `gap`, `optimality_gap` of its normalised scores.

    Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    library, metrics = _rliable()
    figures = {"iqm": metrics.aggregate_iqm, "median": metrics.aggregate_median, "mean": metrics.aggregate_mean}
    figures |= {"optimality_gap": metrics.aggregate_optimality_gap} if gap else {}
    with _seeded():
        points, intervals = library.get_interval_estimates(
            dict(scores), lambda x: np.array([f(x) for f in figures.values()]), reps=DRAWS
        )
    return {
        method: {name: _estimate(points[method][i], intervals[method][:, i]) for i, name in enumerate(figures)}
        for method in scores
    }


def improvement(scores: Mapping[str, Float[np.ndarray, "runs envs"]]) -> list[dict[str, Any]]:
    """For every two methods, how likely a run of `better` scores above one of `than`, averaged over environments."""
    library, metrics = _rliable()
    names = list(scores)
    pairs = {(a, b): [scores[a], scores[b]] for i, a in enumerate(names) for b in names[i + 1 :]}
    if not pairs:
        return []
    with _seeded():
        points, intervals = library.get_interval_estimates(
            pairs, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=DRAWS
        )
    return [
        {"better": a, "than": b, **dataclasses.asdict(_estimate(points[a, b][0], intervals[a, b][:, 0]))}
        for a, b in pairs
    ]


def profiles(scores: Mapping[str, Float[np.ndarray, "runs envs"]]) -> dict[str, dict[str, list]]:
    """Of every method, the share of its runs that score above each of `at`, with its interval."""
    library, _ = _rliable()
    everything = np.concatenate([x.ravel() for x in scores.values()])
    at = np.linspace(everything.min(), everything.max(), PLACES)
    with _seeded():
        points, intervals = library.create_performance_profile(dict(scores), at, reps=DRAWS)
    return {m: {"at": at.tolist(), "share": points[m].tolist(), "ci95": intervals[m].T.tolist()} for m in scores}


def _rliable() -> tuple[Any, Any]:
    try:
        from rliable import library, metrics
    except ImportError:
        raise YozhError("figures over several environments need rliable: pip install 'yozh[compare]'") from None
    return library, metrics


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """rliable draws from NumPy's global generator, whatever it is given: the same figures every time, and no trace of it."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def _estimate(value: Any, interval: Any) -> Estimate:
    return Estimate(float(value), (float(interval[0]), float(interval[1])))
