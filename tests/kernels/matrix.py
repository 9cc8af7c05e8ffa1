"""Outcomes of the tests of one kernel, by ability, and the table of all kernels."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    boots: int = 1
    """More where the emulator failed."""

    def of(self, tests: Sequence[str]) -> list[Outcome]:
        """Of an ability's tests."""
        return [one for one in self.outcomes if shows(one.test, tests)]

    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.outcome == "failed"]

    def never_shown(self, abilities: Mapping[str, Sequence[str]] = ABILITIES) -> list[str]:
        """Abilities that have tests, of which not one passed."""
        ran = {name: self.of(tests) for name, tests in abilities.items()}
        return [name for name, found in ran.items() if found and all(one.outcome != "passed" for one in found)]


def read_outcomes(file: Path) -> list[Outcome]:
    """What the guest has written; nothing if it never came to that."""
    if not file.exists():
        return []
    return [Outcome(**json.loads(line)) for line in file.read_text().splitlines()]


def table(rows: Sequence[Row], abilities: Mapping[str, Sequence[str]] = ABILITIES) -> str:
    """In Markdown, aligned for the terminal, too."""
    cells = [("kernel", *abilities, "boot", "in all"), *(_cells(row, abilities) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
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
        if row.boots > 1:
            lines.append(f"{row.kernel}: booted {row.boots} times, as the emulator failed; no finished test ran again")
        reasons = Counter(one.reason for one in row.outcomes if one.outcome == "skipped")
        lines += [f"{row.kernel}: {count} skipped: {reason}" for reason, count in sorted(reasons.items())]
    return lines


def _cells(row: Row, abilities: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    times = ("-" if value is None else f"{value:.0f} s" for value in (row.boot_s, row.seconds))
    return (row.kernel, *(_cell(row.of(tests)) for tests in abilities.values()), *times)


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "not tested"
    counts = Counter(one.outcome for one in outcomes)
    words = [f"{counts[kind]} {kind}" for kind in ("passed", "failed", "skipped") if counts[kind]]
    return f"{', '.join(words)}; {sum(one.seconds for one in outcomes):.0f} s"
