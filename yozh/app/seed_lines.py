"""How a group of seeds goes: one live line a seed on a terminal, else each seed's own lines with its number before them."""

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from yozh.app.progress import Progress


class SeedLines:
    """A `Progress` for each seed, shown together; alarms stand above the live lines."""

    def __init__(self, seeds: list[int], console: Console | None = None):
        console = console or Console(stderr=True, highlight=False)
        live = console.is_terminal
        self.seeds = {seed: _Line(f"seed {seed}:", console) if live else Progress(_Labelled(f"seed {seed}:", console)) for seed in seeds}  # fmt: skip
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8) if live else None

    def __enter__(self) -> "SeedLines":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.stop()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for seed, progress in self.seeds.items():
            table.add_row(f"seed {seed}", progress._line() if progress._info else "waiting")
        return table


class _Line(Progress):
    """Drawn by the table, so it prints nothing itself but alarms."""

    def __init__(self, label: str, console: Console):
        super().__init__(Console(quiet=True, force_terminal=False))
        self._label, self._loud = label, console

    def on_alarm(self, row: dict[str, Any]) -> None:
        self._loud.print(self._label, f"{row['steps']:>11,} steps  {row['alarm']}", soft_wrap=True, highlight=False)


class _Labelled(Console):
    def __init__(self, label: str, console: Console):
        super().__init__(file=console.file, width=console.width, highlight=False)
        self._label = label

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(self._label, *objects, **{**how, "soft_wrap": True})
