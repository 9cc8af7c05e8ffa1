"""Up to when a live source has read everything: by the clock of its last read, however late the question comes."""

from typing import Any

import pytest

from tcptrace.sources.live import source as live
from tcptrace.sources.live.source import LiveSource

MS = 1_000_000


class FakeRing:
    """Nothing in it; complete up to 60 ms before the clock that it is told, as of CPUs that rest."""

    has_more = False

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def wait(self, timeout_s: float) -> None:
        self.waits_s.append(timeout_s)

    def read(self, out: Any, now_ns: int, frames: Any = None) -> int:
        return 0

    def complete_ns(self, now_ns: int) -> int:
        return now_ns - 60 * MS


def test_it_waits_unless_there_is_more() -> None:
    source = LiveSource.__new__(LiveSource)
    made: Any = source
    made._ring, made._buffer, made._frames = FakeRing(), [], None
    for has_more, timeout_s in ((False, 0.05), (True, 0.05), (False, 0), (False, 0.02)):
        made._ring.has_more = has_more
        source.read(timeout_s)
    assert made._ring.waits_s == [0.05, 0.02]


class FakeSockets:
    def __init__(self) -> None:
        self.asked_until_ns: list[int] = []

    def read(self, until_ns: int, *, is_last: bool = False) -> None:
        self.asked_until_ns.append(until_ns)


def with_sockets() -> tuple[LiveSource, Any]:
    """The source, and the same to reach into."""
    source = LiveSource.__new__(LiveSource)
    made: Any = source
    made._ring, made.sockets = FakeRing(), FakeSockets()
    made._buffer, made._frames, made._stop_ns, made._sockets_due_ns = [], None, None, 0
    return source, made


def test_sockets_wait_for_packets_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """While packets come without a pause, what is told of sockets is read every 50 ms."""
    clock_ns = [1_000 * MS]
    monkeypatch.setattr(live.time, "monotonic_ns", lambda: clock_ns[0])
    source, made = with_sockets()
    read_at_ms = []
    for now_ms, has_more in (
        (1, True),
        (2, True),
        (50, True),
        (52, True),
        (53, True),
        (54, False),
        (55, False),
        (56, True),
    ):
        clock_ns[0] = now_ms * MS
        made._ring.has_more = has_more
        source.read(0)
        before = len(made.sockets.asked_until_ns)
        source.read_sockets()
        read_at_ms += [now_ms] * (len(made.sockets.asked_until_ns) - before)
    assert read_at_ms == [1, 52, 54, 55]


def test_a_reader_that_was_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading packets and sockets 100 ms pass: packets of that time are unread, so its sockets must wait."""
    clock_ns = [1_000 * MS]
    monkeypatch.setattr(live.time, "monotonic_ns", lambda: clock_ns[0])
    source, made = with_sockets()
    source.read(0)
    clock_ns[0] += 100 * MS
    source.read_sockets()
    assert source.complete_ns() == 940 * MS
    source.read(0)
    source.read_sockets()
    assert made.sockets.asked_until_ns == [940 * MS, 1_040 * MS]
