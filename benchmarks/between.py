"""Runs of a load with something beside it, each between two without: what disturbs the machine disturbs all of them.

results = between(load, run, {"tcpdump": tcpdump}, rounds=7)
results["gbit_per_s"]    # a Figure of each subject, of UNTRACED last
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from load import Load
from measure import Figure
from netns_tools import Namespace

UNTRACED = "untraced"

# What stands beside the load; if it yields something, `percent` of that is what it has lost, once it has ended.
Beside = Callable[[Namespace], AbstractContextManager[Any]]
Measures = Mapping[str, float]


def between(
    load: Load, run: Callable[[], Measures], subjects: Mapping[str, Beside], rounds: int
) -> Mapping[str, list[Figure]]:
    """Of each measure of `run`, and of "lost_percent".  A first round, which warms up, does not count."""
    results: dict[str, dict[str, Figure]] = defaultdict(
        lambda: {subject: Figure(subject) for subject in (*subjects, UNTRACED)}
    )
    before = run()
    for number in range(rounds + 1):
        for subject, beside in rotated(subjects, number).items():
            with beside(load.far) as loss:
                measures = run()
            after = run()
            if number:
                for measure, value in measures.items():
                    figure = results[measure][subject]
                    figure.values.append(value)
                    figure.beside.append((before[measure] + after[measure]) / 2)
                    results[measure][UNTRACED].values.append(after[measure])
                if loss is not None:
                    results["lost_percent"][subject].values.append(loss.percent)
            before = after
    return {measure: list(figures.values()) for measure, figures in results.items()}


def rotated(subjects: Mapping[str, Beside], number: int) -> Mapping[str, Beside]:
    """Each round begins with another one."""
    order = list(subjects)
    start = number % len(order)
    return {subject: subjects[subject] for subject in order[start:] + order[:start]}
