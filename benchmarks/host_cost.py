"""What tracing costs the host: throughput, packet rate and response times, untraced and traced by each tool.

Each round has every tracer once and two untraced runs between them, whose mean is what its tracers are held against.
The order moves on by one a round.  Traced is the receiving end: there each packet comes alone where offloads are off,
while the sender's own pass the hook as super-packets even so.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict

from load import Load
from measure import Figure, Question
from tracers import TRACERS

ROUNDS = 7
UNTRACED = "untraced"
# The two untraced runs are as far apart as can be.
ORDER = (None, *list(TRACERS)[:2], None, *list(TRACERS)[2:])

Measures = Mapping[str, float]
# Of each measure, each subject's value once a round.
Results = Mapping[str, Mapping[str, list[float]]]


def ask() -> list[Question]:
    with Load() as load:
        load.set_offloads(True)
        merged = rounds_of(load, lambda: asdict(load.bulk()))
        load.set_offloads(False)
        single = rounds_of(load, lambda: asdict(load.bulk()))
        load.set_offloads(True)
        trips = rounds_of(load, lambda: asdict(load.exchange()))
    count = statistics.median(trips["count"][UNTRACED])
    return [
        held_against("Bulk transfer, offloads on", "Gbit/s", merged["gbit_per_s"]),
        held_against("Bulk transfer, offloads on, whole machine", "CPU seconds a GB", merged["cpu_s_per_gb"]),
        lost("Bulk transfer, offloads on", merged),
        held_against("Bulk transfer, offloads off", "packets a second", single["packets_per_s"]),
        lost("Bulk transfer, offloads off", single),
        held_against("Request and response, median", "µs", trips["p50_us"], f"some {count:,.0f} of them a run"),
        held_against("Request and response, 99th percentile", "µs", trips["p99_us"]),
    ]


def rounds_of(load: Load, run: Callable[[], Measures]) -> Results:
    """A first round, which warms up, does not count."""
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(ROUNDS + 1):
        start = number % len(ORDER)
        untraced: list[Measures] = []
        measures: dict[str, Measures] = {}
        for tracer in ORDER[start:] + ORDER[:start]:
            if tracer is None:
                untraced.append(run())
            else:
                measures[tracer] = traced(load, tracer, run)
        measures[UNTRACED] = {name: statistics.mean(one[name] for one in untraced) for name in untraced[0]}
        if number:
            for subject, values in measures.items():
                for name, value in values.items():
                    results[name][subject].append(value)
    return results


def traced(load: Load, tracer: str, run: Callable[[], Measures]) -> Measures:
    with TRACERS[tracer](load.far) as loss:
        measures = run()
    return {**measures, "lost_percent": loss.percent}


def held_against(name: str, unit: str, values: Mapping[str, list[float]], note: str = "") -> Question:
    figures = {subject: Figure(subject, values[subject]) for subject in (*TRACERS, UNTRACED)}
    return Question(name, unit, list(figures.values()), note, figures[UNTRACED])


def lost(name: str, results: Results) -> Question:
    figures = [Figure(tracer, results["lost_percent"][tracer]) for tracer in TRACERS]
    note = "tcptrace counts packets and bytes of what it has lost, the others do not"
    return Question(f"{name}, lost to the tracer", "% of its packets", figures, note)
