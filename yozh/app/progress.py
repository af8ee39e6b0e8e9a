"""How training goes, on one line: live on a terminal, now and then in a log."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from yozh.runners.observers import Observer

PAUSE = 10.0
"""Seconds between two lines of a log, unless a tenth of the run goes by sooner."""


class Progress(Observer):
    """A live line if standard error is a terminal, else a plain line every tenth of the run or ten seconds."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._live: Live | None = None
        self._info: dict[str, Any] = {}
        self._row: dict[str, Any] = {}
        self._return: float | None = None
        self._evaluation: dict[str, Any] | None = None
        self._told = (0.0, -1)

    def on_start(self, info: dict[str, Any]) -> None:
        self._info = info
        self._console.print(
            f"{info['agent']} on {info['env']} ({info['backend']}, {info['runner']}), "
            f"{info['steps']:,} steps, seed {info['seed']}"
        )
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._line, console=self._console, refresh_per_second=8)
            self._live.start()
        else:
            self._console.print("compiling…")

    def on_compile(self, seconds: float) -> None:
        self._console.print(f"compiled in {seconds:.1f} s")
        self._row = {"steps": 0, "total_steps": self._info["steps"], "seconds": 0.0, "steps_per_second": 0.0}

    def on_iteration(self, row: dict[str, Any]) -> None:
        self._row = row
        self._return = row.get("return_mean", self._return)
        now, tenth = time.monotonic(), 10 * row["steps"] // max(row["total_steps"], 1)
        if not self._live and (tenth > self._told[1] or now - self._told[0] > PAUSE):
            self._told = (now, tenth)
            self._console.print("  ".join(self._words()), soft_wrap=True)

    def on_evaluation(self, row: dict[str, Any]) -> None:
        self._evaluation = row["evaluation"]
        if not self._live:
            self._console.print(f"{row['steps']:>11,} steps  evaluation {_figure(row['evaluation'])}", soft_wrap=True)

    def on_alarm(self, row: dict[str, Any]) -> None:
        self._console.print(f"{row['steps']:>11,} steps  {row['alarm']}", soft_wrap=True)

    def on_checkpoint(self, row: dict[str, Any]) -> None:
        if row["error"]:
            self._console.print(f"{row['path']} could not be written: {row['error']}; the run goes on, and the checkpoint before it stands", soft_wrap=True)  # fmt: skip

    def on_end(self, summary: dict[str, Any]) -> None:
        self.close()
        text = f"{summary['status']}: {summary['steps']:,} steps in {summary['train_seconds']:.1f} s"
        text += (
            f" ({_rate(summary['steps_per_second'])} steps/s) after {summary['compile_seconds']:.1f} s of compilation"
        )
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was; `on_end` does so by itself."""
        if self._live:
            self._live.stop()
            self._live = None

    def _line(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=12)
        table.add_column(no_wrap=True, overflow="ellipsis")
        if self._row:
            share = ProgressBar(total=self._row["total_steps"], completed=self._row["steps"], width=12)
            table.add_row(share, "  ".join(self._words()))
        else:
            table.add_row(ProgressBar(pulse=True, width=12), "compiling…")
        return table

    def _words(self) -> list[str]:
        """What matters most first: a narrow terminal cuts the end."""
        row = self._row
        words = [f"{row['steps']:>11,} / {row['total_steps']:,}", f"{_rate(row['steps_per_second'])} steps/s"]
        if row["steps_per_second"] > 0:
            words.append(f"{_clock((row['total_steps'] - row['steps']) / row['steps_per_second'])} left")
        if self._return is not None:
            words.append(f"return {self._return:.4g}")
        if self._evaluation:
            words.append(f"evaluation {_figure(self._evaluation)}")
        shares = {k.removeprefix("time_"): v for k, v in row.items() if k.startswith("time_")}
        return [*words, *(f"{name} {share:.0%}" for name, share in shares.items())]


def _figure(evaluation: dict[str, Any]) -> str:
    low, high = evaluation["ci95"]
    return f"{evaluation['mean_return']:.4g} ± {(high - low) / 2:.2g}"


def _rate(per_second: float) -> str:
    return f"{per_second / 1000:,.1f}k" if per_second >= 10_000 else f"{per_second:,.0f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
