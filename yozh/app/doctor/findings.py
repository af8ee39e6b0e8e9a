"""What the doctor found, and how it is told."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "dim"}
"""The gravest first, with its colour."""


@dataclasses.dataclass(frozen=True)
class Finding:
    severity: str
    """`error`: training would be wrong or break; `warning`: training would suffer; `note`: good to know."""
    what: str
    """What was seen, with its value."""
    where: str
    """The field, and the step after `reset` at which it was seen first."""
    advice: str
    """What to change; empty where there is nothing to."""

    def __str__(self) -> str:
        return f"{self.severity:<8} {self.where}: {self._said}"

    @property
    def _said(self) -> str:
        return "; ".join(filter(None, (self.what, self.advice)))


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Printed, it is one line a finding and their count in the end."""

    subject: str
    """What was looked at, and for how long."""
    findings: tuple[Finding, ...]
    """The gravest first."""

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not self._count("error")

    @property
    def verdict(self) -> str:
        """`N errors, M warnings`."""
        counts = {s: self._count(s) for s in ("error", "warning")}
        return ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts.items())

    def __str__(self) -> str:
        return "\n".join([self.subject, *map(str, self.findings), self.verdict])

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for f in self.findings:
            colour = SEVERITIES[f.severity]
            table.add_row(Text(f.severity, colour), Text.assemble((f.where, "bold"), f"  {f._said}"))
        colour = next((c for s, c in SEVERITIES.items() if s != "note" and self._count(s)), "bold green")
        yield Group(Text(self.subject), table, Text(self.verdict, colour))

    def _count(self, severity: str) -> int:
        return sum(f.severity == severity for f in self.findings)


class Findings:
    """Collects: of one kind in one field the first is told, and how many more there were."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[Any]] = {}

    def add(self, severity: str, kind: str, field: str, what: str, advice: str = "", *, step: int | None = None, stream: int | None = None) -> None:  # fmt: skip
        """`kind` is what makes two findings in one field the same."""
        where = (
            field + ("" if step is None else f", step {step:,}") + ("" if stream is None else f" of stream {stream}")
        )
        entry = self._found.setdefault((severity, field, kind), [Finding(severity, what, where, advice), 0])
        entry[1] += 1

    def any(self, severity: str, field: str | None = None) -> bool:
        return any(s == severity and field in (None, f) for s, f, _ in self._found)

    def listed(self) -> tuple[Finding, ...]:
        order = list(SEVERITIES)
        told = [
            dataclasses.replace(
                f, what=f.what + (f", and so {n - 1:,} more time{'s' if n > 2 else ''}" if n > 1 else "")
            )
            for f, n in self._found.values()
        ]
        return tuple(sorted(told, key=lambda f: order.index(f.severity)))
