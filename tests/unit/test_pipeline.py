"""How long the pipeline lets its source wait."""

from typing import Any

import pytest

from tcptrace.pipeline import Limits, Pipeline

MS = 1_000_000
NOW_NS = 1_000 * MS


class Source:
    start_ns = 0


def pipeline(
    *, packets: bool = False, events: bool = False, due_ms: float = 900, duration_s: float | None = None
) -> Pipeline:
    nothing: Any = Source()
    made = Pipeline(
        nothing, nothing, [], 1.0, Limits(duration_s), lambda: False, print, socket_event_sinks=[nothing] * events
    )
    made._packet_sinks = [nothing] * packets
    made._due_ns = NOW_NS + round(due_ms * MS)
    return made


@pytest.mark.parametrize(
    ("options", "wait_ms"),
    [
        ({}, 100),
        ({"packets": True}, 50),
        ({"events": True}, 50),
        ({"due_ms": 70}, 70),
        ({"due_ms": 70, "packets": True}, 50),
        ({"due_ms": 1}, 20),
        ({"due_ms": -5}, 20),
        ({"duration_s": 1.03}, 30),
        ({"duration_s": 2, "due_ms": 41}, 41),
    ],
)
def test_a_read_waits_no_longer_than_it_may(options: dict[str, Any], wait_ms: float) -> None:
    """0.1 s, half of it where something is shown as it comes; not past the end of interval or trace, but for a tick."""
    assert pipeline(**options)._timeout_s(NOW_NS) == pytest.approx(wait_ms / 1_000)
