"""A watch on the metrics of a run: says in plain words when training goes astray in one of the known ways."""

import itertools
import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from yozh.runners.observers import Observer

REMEMBERED = 100
"""Rows over which a metric's running median goes."""
WINDOW = 5
"""Rows whose median stands for one moment of the loss."""
SLACK = 1.05
"""How far Q may pass what rewards allow: that of an agent which earns the largest reward at every step wavers about that bound."""
DOUBLINGS = 5
"""Windows in a row over which the loss doubles each time before that is a trend."""

Alarm = tuple[float, str]
"""How many times worse than tolerable, and the text."""


def warn(row: dict[str, Any], who: str = "") -> None:
    """An alarm as a warning."""
    warnings.warn(f"{who}at {row['steps']:,} steps: {row['alarm']}", stacklevel=2)


class Alarms(Observer):
    """Watches for collapse and divergence; each trouble is told once, and again whenever it is ten times as bad.

    It rings where entropy falls below 1 % of its first value while evaluation does not hold its own (not for differential
    entropy, which goes below zero in the best of runs); where the mean Q passes `reward_bound / (1 - gamma)` by 5 %; where the KL of
    an update is above 0.1 and ten times its median; where the explained variance stays negative for a fifth of the run, unless the
    value loss is below 1 % of its largest (where all returns are alike there is nothing to explain); where the gradient's norm is a hundred times its median and ten times what it is clipped to; where the loss doubles again and
    again; where more than 1 % of the mass of C51's targets has lain beyond its support for ten rows; where more than half of the ReLU
    units are dead. A metric that an agent does not report is not watched.

    `tell` takes the row `{"steps": ..., "alarm": text}`; a warning is given if it is left out. `reward_bound` is the
    largest absolute reward; left out, it is the largest that the rows have told as `reward_max`.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None] | None = None, *, reward_bound: float | None = None):
        self._tell = tell or warn
        self._reward, self._given = reward_bound or 0.0, reward_bound is not None
        self._told: dict[str, float] = {}
        self._past: dict[str, deque[float]] = {}
        self._first_entropy = self._entropy = self._first_return = math.nan
        self._best, self._largest_error = -math.inf, 0.0
        self._negative_since: int | None = None

    def on_start(self, info: dict[str, Any]) -> None:
        agent, self._total = info["object"], info["steps"]
        self._gamma = float(getattr(agent, "gamma", 1.0))
        self._clip = float(getattr(agent, "max_gradient_norm", 0.0))

    def on_iteration(self, row: dict[str, Any]) -> None:
        if math.isnan(self._first_return):
            self._first_return = row.get("return_mean", math.nan)
        if not self._given:
            self._reward = max(self._reward, row.get("reward_max", 0.0))
        if "entropy" in row:
            self._entropy = row["entropy"]
            if math.isnan(self._first_entropy):
                self._first_entropy = self._entropy
        watched = {"q": self._q, "kl": self._kl, "gradient_norm": self._gradient, "loss": self._loss,
                   "clipped_targets": self._clipped}  # fmt: skip
        for name, rule in watched.items():
            if math.isfinite(value := row.get(name, math.nan)):
                self._ring(row, name, rule(value))
                self._past.setdefault(name, deque(maxlen=REMEMBERED)).append(value)
        if "explained_variance" in row:
            error = abs(row.get("value_loss", math.inf))
            self._largest_error = max(self._largest_error, error)
            poor = row["explained_variance"] < 0 and error >= 0.01 * self._largest_error
            self._ring(row, "explained_variance", self._variance(row["explained_variance"], row["steps"], poor))

    def on_evaluation(self, row: dict[str, Any]) -> None:
        found = row["evaluation"]
        self._ring(row, "entropy", self._collapse(found))
        self._best = max(self._best, found["mean_return"])
        if (share := found.get("dead_units") or 0.0) > 0.5:
            text = f"{share:.0%} of the ReLU units are zero whatever is observed: lower --agent.learning-rate"
            self._ring(row, "dead_units", (2 * share, text))

    def _ring(self, row: dict[str, Any], name: str, alarm: Alarm | None) -> None:
        if alarm and alarm[0] >= 10 * self._told.get(name, 0.0):
            self._told[name] = alarm[0]
            self._tell({"steps": row["steps"], "alarm": alarm[1]})

    def _median(self, name: str, least: int) -> float:
        """Of the rows before this one; infinite while they are few."""
        past = self._past.get(name, ())
        return statistics.median(past) if len(past) >= least else math.inf

    def _collapse(self, found: dict[str, Any]) -> Alarm | None:
        if not 0 <= self._entropy < 0.01 * self._first_entropy:
            return None
        low, high = found["ci95"]
        learnt = not low <= self._first_return
        if learnt and high >= self._best:
            return None
        share, best = self._entropy / self._first_entropy, max(self._best, found["mean_return"])
        text = f"entropy fell to {self._entropy:.2g}, {share:.2%} of its first value, and evaluation is {found['mean_return']:.4g} (best {best:.4g}): "  # fmt: skip
        text += "the policy has stopped to explore; raise --agent.entropy-coefficient or lower --agent.learning-rate"
        return 0.01 / max(share, 1e-12), text

    def _q(self, value: float) -> Alarm | None:
        bound = self._reward / (1.0 - self._gamma) if self._gamma < 1 else math.inf
        if not 0 < SLACK * bound < abs(value):
            return None
        text = f"q is {value:.4g}, and rewards up to {self._reward:.4g} allow no more than {bound:.4g}: "
        text += "the values feed on themselves; lower --agent.learning-rate or update the target more slowly"
        return abs(value) / bound, text

    def _kl(self, value: float) -> Alarm | None:
        tolerable = max(10 * self._median("kl", 5), 0.1)
        if value <= tolerable:
            return None
        text = f"kl is {value:.3g}, and its median {self._median('kl', 5):.2g}: "
        text += "one update changed the policy too much; lower --agent.learning-rate or set --agent.target-kl 0.02"
        return value / tolerable, text

    def _gradient(self, value: float) -> Alarm | None:
        tolerable = max(100 * self._median("gradient_norm", 10), 10 * self._clip)
        if value <= tolerable:
            return None
        text = f"gradient_norm is {value:.3g}, and its median {self._median('gradient_norm', 10):.2g}: "
        text += "lower --agent.learning-rate, or scale rewards and observations"
        return value / tolerable, text

    def _clipped(self, value: float) -> Alarm | None:
        """The least of ten rows, since a network that has learnt nothing yet puts mass anywhere."""
        rows = [*self._past.get("clipped_targets", ()), value][-10:]
        least = min(rows)
        if len(rows) < 10 or least <= 0.01:
            return None
        text = f"{least:.1%} of the mass of targets lies beyond the support of C51 and is moved to its ends: "
        text += "widen --agent.values.low and --agent.values.high"
        return least / 0.01, text

    def _loss(self, value: float) -> Alarm | None:
        rows = [*self._past.get("loss", ()), value][-WINDOW * (DOUBLINGS + 1) :]
        if len(rows) < WINDOW * (DOUBLINGS + 1):
            return None
        medians = [statistics.median(map(abs, rows[i : i + WINDOW])) for i in range(0, len(rows), WINDOW)]
        if not all(b > 2 * a for a, b in itertools.pairwise(medians)):
            return None
        text = (
            f"loss has doubled {DOUBLINGS} times over, to {medians[-1]:.3g}: it runs away; lower --agent.learning-rate"
        )
        return medians[-1] / (medians[0] or 1e-12), text

    def _variance(self, value: float, steps: int, poor: bool) -> Alarm | None:
        if not poor:
            self._negative_since = None
            return None
        if self._negative_since is None:
            self._negative_since = steps
        for_long = (steps - self._negative_since) / (self._total / 5)
        if for_long < 1:
            return None
        text = (
            f"explained_variance is {value:.2g}, and negative since {self._negative_since:,} steps: the value is worse "
        )
        text += "than a constant; lower --agent.learning-rate, or raise --agent.value-coefficient"
        return for_long, text
