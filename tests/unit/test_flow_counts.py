"""When the kernel's counts of flows are read, and when they are handed on."""

import numpy as np
import pytest

from tcptrace.errors import MissingFeatureError
from tcptrace.records import FLOW_COUNT, FLOW_KEY
from tcptrace.sources.live import flow_counts
from tcptrace.sources.live.flow_counts import FlowCounter, LostAndCounted

READ_NS = 1_000_000_000_000
SECOND = 1_000_000_000
LOST_NS = READ_NS - SECOND


class HandCounter(FlowCounter):
    """Counts its own reading."""

    def __init__(self) -> None:
        self.reads = 0
        self.refuses = False
        self.known_ns: list[int] = []
        self.losses_until_ns = 0

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        if self.refuses:
            raise MissingFeatureError("the kernel's counts cannot be read: Operation not permitted")
        self.reads += 1
        return np.zeros(self.reads, FLOW_KEY), np.zeros(self.reads, FLOW_COUNT)

    def note_read(self, keys: np.ndarray, time_ns: int) -> bool:
        if self.losses_until_ns > time_ns:
            return False
        self.known_ns.append(time_ns)
        return True


class Clock:
    now_ns = READ_NS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(flow_counts.time, "monotonic_ns", lambda: clock.now_ns)
    return clock


@pytest.fixture
def counter(clock: Clock) -> HandCounter:
    return HandCounter()


def test_without_losses_nothing_is_read(counter: HandCounter) -> None:
    counts = LostAndCounted(counter)
    assert counts.take(0, LOST_NS, READ_NS, finished=False) is None
    assert counts.take(0, LOST_NS, READ_NS, finished=True) is None
    assert counter.reads == 0


def test_handed_on_once_all_records_before_are(counter: HandCounter) -> None:
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, READ_NS, finished=False) is None
    assert counts.take(8, LOST_NS, READ_NS - 1, finished=False) is None
    assert counter.reads == 1
    taken = counts.take(8, LOST_NS, READ_NS, finished=False)
    assert taken is not None
    assert (len(taken[0]), len(taken[1]), taken[2]) == (1, 1, READ_NS)


def test_read_again_only_after_further_losses(counter: HandCounter, clock: Clock) -> None:
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(7, LOST_NS, READ_NS, finished=False) is not None
    clock.now_ns += SECOND
    assert counts.take(7, LOST_NS, READ_NS, finished=False) is None
    assert counter.reads == 1
    assert counts.take(8, LOST_NS, READ_NS, finished=False) is None
    assert counter.reads == 2


def test_and_not_at_every_turn(counter: HandCounter, clock: Clock) -> None:
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(7, LOST_NS, READ_NS, finished=False) is not None
    clock.now_ns += SECOND // 100
    assert counts.take(8, LOST_NS, clock.now_ns, finished=False) is None
    assert counter.reads == 1


def test_the_kernel_is_told_when_all_is_known(counter: HandCounter, clock: Clock) -> None:
    """Not by what was read while a program may still have been counting."""
    counts = LostAndCounted(counter)
    lost_ns = READ_NS - SECOND // 10
    assert counts.take(7, lost_ns, 0, finished=False) is None
    assert counts.take(7, lost_ns, READ_NS, finished=False) is not None
    assert counter.known_ns == []
    clock.now_ns += SECOND
    assert counts.take(7, lost_ns, 0, finished=False) is None
    assert counts.take(7, lost_ns, clock.now_ns, finished=False) is not None
    assert lost_ns < counts.known_ns < clock.now_ns
    assert counter.known_ns == [counts.known_ns]
    clock.now_ns += SECOND
    assert counts.take(7, lost_ns, clock.now_ns, finished=False) is None
    assert counter.reads == 2


def test_not_while_more_is_lost(counter: HandCounter, clock: Clock) -> None:
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(8, LOST_NS, READ_NS, finished=False) is not None
    assert counter.known_ns == []


def test_a_kernel_that_refuses_once_is_asked_again(counter: HandCounter, clock: Clock) -> None:
    counts = LostAndCounted(counter)
    counter.refuses = True
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    counter.refuses = False
    clock.now_ns += SECOND
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(7, LOST_NS, clock.now_ns, finished=False) is not None


def test_at_the_end_at_once(counter: HandCounter) -> None:
    """The one that waits, then the last one."""
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    waited = counts.take(9, LOST_NS, 0, finished=True)
    last = counts.take(9, LOST_NS, 0, finished=True)
    assert waited is not None
    assert last is not None
    assert (len(waited[0]), len(last[0])) == (1, 2)
    assert counts.take(9, LOST_NS, 0, finished=True) is None


def test_a_kernel_that_refuses_is_told_of_once(counter: HandCounter) -> None:
    counts = LostAndCounted(counter)
    counter.refuses = True
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(8, LOST_NS, 0, finished=True) is None
    problem = counts.take_problem()
    assert problem is not None
    assert "Operation not permitted" in problem
    assert counts.take_problem() is None


def test_read_again_if_there_were_losses_that_nobody_has_told_of_yet(counter: HandCounter, clock: Clock) -> None:
    """The reader was held up between two of its reads."""
    counts = LostAndCounted(counter)
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    counter.losses_until_ns = READ_NS + 1
    assert counts.take(7, LOST_NS, READ_NS, finished=False) is not None
    assert counter.known_ns == []
    clock.now_ns += SECOND
    assert counts.take(7, LOST_NS, 0, finished=False) is None
    assert counts.take(7, LOST_NS, clock.now_ns, finished=False) is not None
    assert len(counter.known_ns) == 1
