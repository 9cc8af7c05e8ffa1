"""What tracing costs the host: throughput, packet rate and response times, untraced and traced by each tool.

Traced is the receiving end: there each packet comes alone where offloads are off, while the sender's own pass the hook
as super-packets even so.
"""

from collections.abc import Mapping
from dataclasses import asdict

from between import UNTRACED, between
from load import Load
from measure import Figure, Question
from tracers import TRACERS

ROUNDS = 7


def ask() -> list[Question]:
    with Load() as load:
        load.set_offloads(True)
        merged = between(load, lambda: asdict(load.bulk()), TRACERS, ROUNDS)
        load.set_offloads(False)
        single = between(load, lambda: asdict(load.bulk()), TRACERS, ROUNDS)
        load.set_offloads(True)
        trips = between(load, lambda: asdict(load.exchange()), TRACERS, ROUNDS)
    count = trips["count"][-1].median
    return [
        held_against("Bulk transfer, offloads on", "Gbit/s", merged["gbit_per_s"]),
        held_against("Bulk transfer, offloads on, whole machine", "CPU seconds a GB", merged["cpu_s_per_gb"]),
        lost("Bulk transfer, offloads on", merged),
        held_against("Bulk transfer, offloads off", "packets a second", single["packets_per_s"]),
        lost("Bulk transfer, offloads off", single),
        held_against("Request and response, median", "µs", trips["p50_us"], f"some {count:,.0f} of them a run"),
        held_against("Request and response, 99th percentile", "µs", trips["p99_us"]),
    ]


def held_against(name: str, unit: str, figures: list[Figure], note: str = "") -> Question:
    return Question(name, unit, figures, note, baseline=UNTRACED)


def lost(name: str, results: Mapping[str, list[Figure]]) -> Question:
    figures = [figure for figure in results["lost_percent"] if figure.values]
    note = "tcptrace counts packets and bytes of what it has lost, the others do not"
    return Question(f"{name}, lost to the tracer", "% of its packets", figures, note)
