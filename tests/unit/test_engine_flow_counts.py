"""What the kernel has counted of lost records, as records tell of it, and what is unsure until they do."""

from typing import Any

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.records import FLAG_ACK, FLOW_COUNT, FLOW_KEY, NOTE_COUNTED

from .conversation import SECOND

CLIENT, SERVER = ("10.0.0.1", 40_000), ("10.0.0.2", 443)
FRAME_BYTES = 66
RECORD = 1 << 32


@pytest.fixture
def table() -> Table:
    return Table(9, 300 * SECOND, 60 * SECOND, 0, 1)


@pytest.fixture
def take(table: Table, make_packet: Any) -> Any:
    """The client's packet at `time_s`; `lost`: so many of its records before, as the kernel counts since `since`."""

    def take(time_s: int, lost: int | None = None, since: int = 1, reverse: int = 0) -> Any:
        counted = {}
        if lost is not None:
            counted = {
                "note": NOTE_COUNTED,
                "flow_count": lost * (RECORD + 1),
                "flow_bytes": lost * FRAME_BYTES,
                "reverse_records": reverse,
                "flow_since": since,
            }
        packet = make_packet(
            CLIENT, SERVER, time_ns=time_s * SECOND, flags=FLAG_ACK, frame_bytes=FRAME_BYTES, seq=time_s, **counted
        )
        table.process(packet)
        return packet

    return take


def since_of(time_s: int) -> int:
    """FLOW_TIME() of records.h."""
    return time_s * SECOND >> 24


def counts(table: Table) -> tuple[int, int, int]:
    """Packets, bytes, records lost."""
    (row,) = table.rows_view()
    return int(row["sent"]["packets"]), int(row["sent"]["bytes"]), int(row["records_lost"])


def test_what_did_not_come_was_lost(table: Table, take: Any) -> None:
    take(1)
    take(2, lost=5)
    assert counts(table) == (7, 7 * FRAME_BYTES, 5)
    take(3, lost=5)
    take(4)
    assert counts(table) == (9, 9 * FRAME_BYTES, 5)


def test_an_older_count_that_comes_later_adds_nothing(table: Table, take: Any) -> None:
    """CPUs add at once, and what they read is not in the order of their records."""
    for time_s, lost in ((1, 3), (2, 2), (3, 3)):
        take(time_s, lost)
    assert counts(table) == (6, 6 * FRAME_BYTES, 3)


def test_what_was_lost_before_the_first_record_is_its_connections(table: Table, take: Any) -> None:
    take(9, lost=5, since=since_of(8))
    assert counts(table) == (6, 6 * FRAME_BYTES, 5)


def test_what_is_lost_of_one_that_left_and_came_back(table: Table, take: Any) -> None:
    """What it had before it left was told; the kernel begins anew with each bout of losses."""
    take(1)
    take(2, lost=5, since=since_of(1))
    assert table.expire(302 * SECOND)
    assert len(table.take_ended()) == 1
    take(400)
    take(401, lost=7, since=since_of(400))
    assert counts(table) == (9, 9 * FRAME_BYTES, 7)


def read_counts(table: Table, lost: int, since_s: int, now_s: int) -> None:
    """What the kernel has of the client's records."""
    keys, found = np.zeros(1, FLOW_KEY), np.zeros(1, FLOW_COUNT)
    for name, (address, port) in (("lower", SERVER), ("higher", CLIENT)):
        keys[f"{name}_addr"][0][10:] = [255, 255, *map(int, address.split("."))]
        keys[f"{name}_port"] = port
    keys["ip_version"] = 4
    found["from_higher"]["count"], found["from_higher"]["bytes"] = lost * (RECORD + 1), lost * FRAME_BYTES
    found["since_ns"] = since_s * SECOND
    assert table.process_flows(keys, found, now_s * SECOND) == 1


def test_what_no_record_tells_of(table: Table, take: Any) -> None:
    take(1)
    read_counts(table, lost=5, since_s=2, now_s=3)
    assert counts(table) == (6, 6 * FRAME_BYTES, 5)
    read_counts(table, lost=5, since_s=2, now_s=4)
    assert counts(table) == (6, 6 * FRAME_BYTES, 5)


def test_counts_that_are_older_than_a_connection_are_not_its(table: Table, take: Any) -> None:
    """The same ports used again before what was read has been handed on."""
    take(9)
    read_counts(table, lost=50, since_s=2, now_s=8)
    assert counts(table) == (1, FRAME_BYTES, 0)


def retransmissions(table: Table) -> int:
    (row,) = table.rows_view()
    return int(row["sent"]["retransmissions"])


def test_what_was_unsure_for_the_sake_of_others(table: Table, make_packet: Any) -> None:
    """A connection that began while others lost records, and lost none itself, is told of again afterwards."""

    def send(time_s: float, seq: int) -> None:
        packet = make_packet(CLIENT, SERVER, time_ns=int(time_s * SECOND), flags=FLAG_ACK, seq=seq, payload_bytes=9)
        table.process(packet)

    def acknowledge(time_s: float, ack: int) -> None:
        table.process(make_packet(SERVER, CLIENT, time_ns=int(time_s * SECOND), flags=FLAG_ACK, seq=1, ack=ack))

    table.expect_gaps(0)
    send(1, 100)
    acknowledge(2, 109)
    table.expect_gaps(None)
    for again in range(3):
        send(3 + again, 100)
    assert retransmissions(table) == 3


def test_but_not_what_one_had_that_has_left(table: Table, take: Any) -> None:
    """The same ports again after it was forgotten: what the kernel still has of it was told."""
    take(1)
    take(2, lost=5, since=since_of(1))
    assert table.expire(302 * SECOND)
    assert len(table.take_ended()) == 1
    take(400, lost=5, since=since_of(1))
    take(401, lost=7, since=since_of(1))
    assert counts(table) == (4, 4 * FRAME_BYTES, 2)


def test_counts_that_the_kernel_began_anew_add_up(table: Table, take: Any) -> None:
    take(1, lost=3, since=1)
    take(2, lost=2, since=2)
    assert counts(table) == (7, 7 * FRAME_BYTES, 5)
    take(3, lost=3, since=1)  # from a CPU that still had the old ones
    assert counts(table) == (8, 8 * FRAME_BYTES, 5)


def gaps(table: Table) -> int:
    (row,) = table.rows_view()
    return int(row["sent"]["gaps"])


def test_a_jump_after_a_loss_is_no_gap(table: Table, take: Any) -> None:
    take(1)
    take(5, lost=1)
    assert gaps(table) == 0


def test_nor_one_that_may_follow_on_a_loss(table: Table, take: Any) -> None:
    """Its record does not tell."""
    take(1)
    table.expect_gaps(2 * SECOND)
    take(5)
    assert gaps(table) == 0
    assert counts(table) == (2, 2 * FRAME_BYTES, 0)


@pytest.mark.parametrize("since_ns", [None, 6 * SECOND])
def test_else_it_is_one(table: Table, take: Any, since_ns: int | None) -> None:
    table.expect_gaps(since_ns)
    take(1)
    take(5)
    assert gaps(table) == 1


def test_a_record_that_tells_of_no_loss_follows_on_the_last(table: Table, take: Any) -> None:
    table.expect_gaps(0)
    take(1, lost=0, since=0)
    take(5, lost=0, since=0)
    assert gaps(table) == 1


def test_dtypes_are_checked(table: Table) -> None:
    with pytest.raises(TypeError, match="FLOW_KEY"):
        table.process_flows(np.zeros(1), np.zeros(1), 0)
    with pytest.raises(TypeError, match="FLOW_COUNT"):
        table.process_flows(np.zeros(2, FLOW_KEY), np.zeros(1, FLOW_COUNT), 0)
