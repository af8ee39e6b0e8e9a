"""When a run has learnt enough: observers that end it in good order."""

import re
import time
from typing import Any

from yozh.runners.observers import Observer, Stop

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class StopRule(Observer):
    """Stops a run once, and never at its last evaluation, where there is nothing left to stop."""

    reason: str | None = None
    """Why it stopped the run, if it did."""

    def on_start(self, info: dict[str, Any]) -> None:
        self._total, self.reason = info["steps"], None

    def stop(self, row: dict[str, Any], reason: str) -> None:
        """Raises `Stop(reason)`, unless the run that the row tells of is over already."""
        if self.reason is None and row["steps"] < self._total:
            self.reason = reason
            raise Stop(reason)


class StopAtReturn(StopRule):
    """Stops when the mean return of an evaluation reaches `value`.

    Evaluations of fewer than `episodes` say too little. A run whose evaluations on the way (a tenth of `eval_episodes`
    each) are that small is refused with a `YozhError` before anything compiles. The mean of few episodes can be luck: the
    final evaluation, of `eval_episodes`, is the figure to report.
    """

    def __init__(self, value: float, *, episodes: int = 10):
        self.value, self.episodes = value, episodes

    def on_start(self, info: dict[str, Any]) -> None:
        super().on_start(info)
        if (few := -(-info["eval_episodes"] // 10)) < self.episodes:
            raise _error(
                f"stopping at a return needs evaluations of {self.episodes} episodes, not {few}: "
                f"ask for eval_episodes of {10 * self.episodes - 9} or more, a tenth of which each has"
            )

    def on_evaluation(self, row: dict[str, Any]) -> None:
        found = row["evaluation"]
        if found["mean_return"] >= self.value and found["episodes"] >= self.episodes:
            self.stop(
                row, f"mean return {found['mean_return']:.4g} of {found['episodes']} episodes reached {self.value:g}"
            )


class StopAfter(StopRule):
    """Stops `seconds` of wall clock after the start, compilation and evaluations included; the final evaluation is extra."""

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise _error(f"the seconds to stop after must be positive, not {seconds}")
        self.seconds = seconds

    def on_start(self, info: dict[str, Any]) -> None:
        super().on_start(info)
        self._began = time.monotonic()

    def on_iteration(self, row: dict[str, Any]) -> None:
        if (gone := time.monotonic() - self._began) >= self.seconds:
            self.stop(row, f"{gone:.0f} s are over")


class StopWhenFlat(StopRule):
    """Stops when this many evaluations in a row have no mean return above the best before them.

    A run that has too few evaluations for that is refused with a `YozhError` before anything compiles.
    """

    def __init__(self, evaluations: int):
        if evaluations < 1:
            raise _error(f"the evaluations without improvement must be positive, not {evaluations}")
        self.evaluations = evaluations

    def on_start(self, info: dict[str, Any]) -> None:
        super().on_start(info)
        best = info.get("resumed", {}).get("best")
        self._best, self._since = -float("inf") if best is None else best, 0
        has = -(-info["steps"] // info["eval_every"]) - 1
        if has <= self.evaluations:
            raise _error(
                f"a run of {has} evaluations on the way cannot be flat for {self.evaluations} after its first: "
                f"ask for eval_every of {max(1, info['steps'] // (self.evaluations + 2)):,} steps or fewer"
            )

    def on_evaluation(self, row: dict[str, Any]) -> None:
        mean = row["evaluation"]["mean_return"]
        self._best, self._since = (mean, 0) if mean > self._best else (self._best, self._since + 1)
        if self._since >= self.evaluations:
            self.stop(row, f"no better than {self._best:.4g} in {self.evaluations} evaluations")


def duration(text: str) -> float:
    """Seconds in `90s`, `10m`, `1h30m` or `90` (seconds); a `ValueError` for anything else."""
    if not re.fullmatch(r"\d+(\.\d+)?|(?=.)(\d+h)?(\d+m)?(\d+(\.\d+)?s)?", text):
        raise ValueError(f"{text} is not a duration")
    seconds = sum(float(n) * UNITS[unit or "s"] for n, unit in re.findall(r"([\d.]+)([hms]?)", text))
    if seconds <= 0:
        raise ValueError(f"{text} is not positive")
    return seconds


def _error(message: str) -> Exception:
    from yozh.core import YozhError  # JAX comes with it, and the command line wants `duration` without

    return YozhError(message)
