"""Paired runs, their medians and spread; a table a question, and JSON beside it."""

import json
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass
class Figure:
    """One subject's answer to a question, once a round; `beside`: at each of these times, the baseline's."""

    subject: str
    values: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass
class Question:
    """`unit` is that of all its figures; the first figure is ours, which the others are compared with.

    `baseline` names what each figure is also held against, as far as it has values beside its own.
    """

    name: str
    unit: str
    figures: list[Figure]
    note: str = ""
    baseline: str = ""

    def ratio(self, figure: Figure) -> float:
        """How many times as much as ours."""
        return figure.median / self.figures[0].median if self.figures[0].median else float("nan")


def held_against_beside(figure: Figure) -> Figure:
    """Percent, round by round."""
    pairs = zip(figure.values, figure.beside, strict=True)
    return Figure(figure.subject, [100 * value / other for value, other in pairs])


def paired(runs: Mapping[str, Callable[[], float]], rounds: int) -> list[Figure]:
    """A B A B …: what disturbs the machine disturbs all of them.  A first round, which warms up, does not count."""
    figures = {name: Figure(name) for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            value = run()
            if number:
                figures[name].values.append(value)
    return list(figures.values())


def show(question: Question) -> None:
    table = Table(title=f"{question.name} ({question.unit})", title_justify="left", caption=question.note or None)
    table.add_column("")
    headings = ["median", "quartiles", "× ours"]
    if question.baseline:
        headings += [f"% of {question.baseline}", "quartiles"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for figure in question.figures:
        ratio = "" if figure is question.figures[0] else f"{question.ratio(figure):.2f}"
        cells = [*_median_and_quartiles(figure), ratio]
        if figure.beside:
            cells += _median_and_quartiles(held_against_beside(figure))
        table.add_row(figure.subject, *cells)
    Console(width=120).print(table)


def _median_and_quartiles(figure: Figure) -> list[str]:
    low, high = figure.quartiles
    return [readable(figure.median), f"{readable(low)} – {readable(high)}"]


def readable(value: float) -> str:
    """Four digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def machine() -> dict[str, str]:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": f"{len(models)} × {models[0]}" if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "clock": Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip(),
    }


def write(questions: list[Question], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "questions": [asdict(one) for one in questions]}, indent=1))
