"""Who is told how training goes: the progress line, the run folder, a notebook's plot, a sweep's early stop."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Observer(Protocol):
    """Told of every event in the order of the methods below; inherit and override what is of interest.

    An observer only looks: what it raises stops the training.
    """

    def on_start(self, info: dict[str, Any]) -> None:
        """Everything is checked, nothing compiled. `info` holds `object` (the Agent), `agent` (its name), `env`,
        `backend`, `runner`, `seed`, `steps`, `envs`, `eval_every` and `eval_episodes`."""

    def on_compile(self, seconds: float) -> None:
        """The programs are ready."""

    def on_progress(self, row: dict[str, Any]) -> None:
        """A stretch of training is done. `row` holds `steps`, `total_steps`, `updates`, `seconds`, `steps_per_second`,
        where an episode ended `return_mean`, `length_mean` and `episodes`, and the agent's own metrics."""

    def on_evaluation(self, row: dict[str, Any]) -> None:
        """`row` holds `steps`, `seconds` and `evaluation`: `episodes`, `mean_return`, `std_return`, `ci95`,
        `mean_length` and `returns`, one of each episode."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """Training is over, whatever `summary["status"]` says, and the policy is saved."""
