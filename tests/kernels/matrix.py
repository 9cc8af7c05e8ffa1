"""Outcomes of the tests of one kernel, by ability, and the table of all kernels."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from abilities import ABILITIES, shows


@dataclass(frozen=True)
class Outcome:
    """Of one test, or of a file that could not be collected."""

    test: str
    outcome: str
    seconds: float
    reason: str


@dataclass(frozen=True)
class Row:
    """One kernel of the table."""

    kernel: str
    outcomes: Sequence[Outcome]
    boot_s: float | None
    seconds: float | None
    """None where it did not come to its end."""
    trouble: str = ""
    """Why there is nothing more to tell."""

    def of(self, ability: str) -> list[Outcome]:
        return [one for one in self.outcomes if shows(one.test, ability)]

    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.outcome == "failed"]

    def never_shown(self) -> list[str]:
        """Abilities that have tests, of which not one passed."""
        return [name for name in ABILITIES if self.of(name) and all(one.outcome != "passed" for one in self.of(name))]


HEADER: Final = ("kernel", *ABILITIES, "boot", "in all")


def read_outcomes(file: Path) -> list[Outcome]:
    """What the guest has written; nothing if it never came to that."""
    if not file.exists():
        return []
    return [Outcome(**json.loads(line)) for line in file.read_text().splitlines()]


def table(rows: Sequence[Row]) -> str:
    """In Markdown, aligned for the terminal, too."""
    cells = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    )


def remarks(rows: Sequence[Row]) -> list[str]:
    """What the table has no room for: troubles, and why tests were skipped."""
    lines = []
    for row in rows:
        if row.trouble:
            lines.append(f"{row.kernel}: {row.trouble}")
        reasons = Counter(one.reason for one in row.outcomes if one.outcome == "skipped")
        lines += [f"{row.kernel}: {count} skipped: {reason}" for reason, count in sorted(reasons.items())]
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    times = ("-" if value is None else f"{value:.0f} s" for value in (row.boot_s, row.seconds))
    return (row.kernel, *(_cell(row.of(name)) for name in ABILITIES), *times)


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "not tested"
    counts = Counter(one.outcome for one in outcomes)
    words = [f"{counts[kind]} {kind}" for kind in ("passed", "failed", "skipped") if counts[kind]]
    return f"{', '.join(words)}; {sum(one.seconds for one in outcomes):.0f} s"
