"""What tuning looks for, and where: one table for all agents, of which each takes the rows whose fields it has."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`. Array leaves of the agent: all of them run in one compiled program."""

    low: float
    high: float
    log: bool = False
    """Evenly spread on a logarithmic scale."""
    complement: bool = False
    """The number sought is one minus the setting."""
    whole: bool = False

    def name(self, setting: str) -> str:
        """What the number sought is called."""
        return f"1 - {setting}" if self.complement else setting

    def suggest(self, trial: Any, setting: str) -> str:
        """The trial's choice, as it is typed after `--agent.`."""
        if self.whole:
            return str(trial.suggest_int(self.name(setting), int(self.low), int(self.high), log=self.log))
        found = trial.suggest_float(self.name(setting), self.low, self.high, log=self.log)
        return f"{1 - found:.6g}" if self.complement else f"{found:.4g}"

    def near(self, text: str) -> float | int:
        """The number sought nearest to a setting."""
        found = 1 - float(text) if self.complement else float(text)
        found = min(max(found, self.low), self.high)
        return round(found) if self.whole else round(found, 9)

    def bounds(self) -> str:
        """The settings it holds, for people."""
        low, high = (1 - self.high, 1 - self.low) if self.complement else (self.low, self.high)
        near = f", logarithmic in {self.name('it')}" if self.complement else ", logarithmic"
        return f"{low:g} to {high:g}{near if self.log else ''}"

    def including(self, text: str) -> "Range":
        return self


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few settings, as they are typed. Static fields of the agent: each needs a compiled program of its own."""

    options: tuple[str, ...]

    def name(self, setting: str) -> str:
        return setting

    def suggest(self, trial: Any, setting: str) -> str:
        return trial.suggest_categorical(setting, self.options)

    def near(self, text: str) -> str:
        return text

    def bounds(self) -> str:
        return " or ".join(self.options)

    def including(self, text: str) -> "Choice":
        """With this setting too, in the order of the numbers."""
        return Choice(tuple(sorted({*self.options, text}, key=lambda o: [float(n) for n in o.split(",") if n])))


SPACE: dict[str, Range | Choice] = {
    "learning-rate": Range(1e-5, 3e-2, log=True),
    "gamma": Range(1e-3, 0.1, log=True, complement=True),
    "estimator.lam": Range(5e-3, 0.3, log=True, complement=True),
    "clip": Range(0.1, 0.4),
    "delta": Range(1e-3, 1.0, log=True),
    "damping": Range(1e-3, 1.0, log=True),
    "value-coefficient": Range(0.1, 1.0, log=True),
    "entropy-coefficient": Range(1e-5, 0.5, log=True),
    "max-gradient-norm": Range(0.3, 10.0, log=True),
    "epsilon.end": Range(0.01, 0.2, log=True),
    "epsilon.fraction": Range(0.02, 0.8),
    "target.rate": Range(1e-3, 0.1, log=True),
    "target.period": Range(1.0, 10_000.0, log=True, whole=True),
    "torso.widths": Choice(("64,64", "128,128", "256,256")),
    "epochs": Choice(("2", "4", "8", "16")),
    "minibatches": Choice(("1", "4", "16")),
    "estimator.n": Choice(("3", "5")),
    "batch": Choice(("32", "64", "128")),
    "n-step": Choice(("1", "3", "5")),
    "update-every": Choice(("1", "2", "4", "8")),
}
"""By the setting's name after `--agent.`; a schedule's row is of its first value. Wide around the defaults and the presets,
which all lie within (an entropy coefficient of 0 counts as the low end)."""


def space(settings: dict[str, str]) -> dict[str, Range | Choice]:
    """The rows for an agent with these settings, by the setting's full name; what it has now is within each `Choice`. What is
    switched off, by a discount of 1 or an infinite norm, is not tuned."""
    found = {}
    for setting, text in settings.items():
        row = SPACE.get(setting) or SPACE.get(setting.removesuffix(".start"))
        off = isinstance(row, Range) and (float(text) == math.inf or (row.complement and float(text) == 1.0))
        if row is not None and not off:
            found[setting] = row.including(text)
    return found
