"""What is asked of a run, and how far it has come."""

import dataclasses
import json
from typing import Any, Literal

from yozh.core import YozhError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run goes; with the agent and the environment it is all that a repetition needs."""

    steps: int
    """Environment steps."""
    seed: int = 0
    eval_every: int | None = None
    """Steps between evaluations of a tenth of the episodes; a fifth of the run if left out."""
    eval_episodes: int = 100
    """Of the final evaluation."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; every minute if left out. There is always one at the end and at an interrupt."""
    keep: int = 2
    """Checkpoints that stay."""
    lag: int | None = None
    """Turns that acting may be ahead of learning on hosted environments; one if left out, none where the agent allows none."""
    workers: int = 0
    """Processes that step a Gymnasium environment; 0 for this one."""
    env_options: Any = ()
    """For the environment's own constructor: a mapping or pairs of plain data, kept as sorted pairs."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """What a number that is not finite leads to: the end, or the last checkpoint and another random key."""

    def __post_init__(self) -> None:
        for name in ("steps", "eval_episodes", "keep"):
            require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}")
        for name in ("eval_every", "checkpoint_every"):
            given = getattr(self, name)
            require(given is None or given > 0, f"{name} must be positive, not {given}")
        require(self.workers >= 0, f"workers must not be negative, but is {self.workers}")
        object.__setattr__(self, "env_options", plain_options(self.env_options))
        require(self.on_nan in ("stop", "rollback"), f"on_nan is stop or rollback, not {self.on_nan!r}")


TAKEN = ("env", "n", "backend", "hosted", "workers")
"""What `make` takes beside an environment's own options."""


def plain_options(options: Any) -> tuple[tuple[str, Any], ...]:
    """Options of an environment, a mapping or pairs, as sorted pairs; a `YozhError` for what no file could hold."""
    for name, value in (options := dict(options)).items():
        require(isinstance(name, str) and name not in TAKEN, f"env_options: {name} is no option of an environment")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise YozhError(
                f"env_options: {name} is {value!r}, and a file holds numbers, texts and lists; give a function that makes the environment"
            ) from None
    return tuple((name, _frozen(options[name])) for name in sorted(options))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@dataclasses.dataclass
class Progress:
    """How far a run has come, as its checkpoints remember it."""

    steps: int = 0
    due: int = 0
    """Steps at which the next evaluation comes."""
    evaluated: int = -1
    """Steps at which the last one came."""
    best: float | None = None
    """The best mean return of an evaluation."""
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    rollbacks: int = 0
