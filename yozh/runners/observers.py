"""Who is told how training goes: the progress line, the run folder, a notebook's plot, a sweep's early stop."""

from typing import Any, Protocol, runtime_checkable


class Stop(Exception):
    """Raised by an observer: enough is learnt. The text says why, and stands in the summary as `stopped`."""


@runtime_checkable
class Observer(Protocol):
    """Told of every event in the order of the methods below; inherit and override what is of interest.

    An observer only looks. If it raises `Stop` the run ends in good order, with its policy, summary and final evaluation;
    anything else that it raises breaks the run off.
    """

    def on_start(self, info: dict[str, Any]) -> None:
        """Everything is checked, nothing compiled. `info` holds `object` (the Agent), `agent` (its name), `env`,
        `backend`, `runner`, `seed`, `steps`, `envs`, `eval_every` and `eval_episodes`."""

    def on_compile(self, seconds: float) -> None:
        """The programs are ready."""

    def on_iteration(self, row: dict[str, Any]) -> None:
        """A stretch of training is done. `row` holds `steps`, `total_steps`, `updates`, `seconds`, `steps_per_second`,
        where an episode ended `return_mean`, `length_mean` and `episodes`, and the agent's own metrics."""

    def on_evaluation(self, row: dict[str, Any]) -> None:
        """`row` holds `steps`, `seconds`, `took` (seconds of the evaluation) and `evaluation`: `episodes`, `mean_return`, `std_return`, `ci95`,
        `mean_length` and `returns`, one of each episode, and `dead_units` where the network has ReLU units."""

    def on_alarm(self, row: dict[str, Any]) -> None:
        """Training seems to go astray. `row` holds `steps` and `alarm`, which says how."""

    def on_checkpoint(self, row: dict[str, Any]) -> None:
        """A checkpoint is on disk, or could not be written. `row` holds `steps`, `path`, `seconds` (that training stood still) and
        `error` (`None` if all went well)."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """Training is over, whatever `summary["status"]` says, and the policy is saved."""
