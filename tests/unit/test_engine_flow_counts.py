"""Which differences between the kernel's counts and the records that came are losses."""

from typing import Any

import numpy as np
import pytest

from tcptrace.engine.table import Table
from tcptrace.records import FLAG_ACK

from .conversation import SECOND

CLIENT, SERVER = ("10.0.0.1", 40_000), ("10.0.0.2", 443)
FRAME_BYTES = 66
RECORD = 1 << 32


@pytest.fixture
def table() -> Table:
    return Table(9, 10**18, 10**18, 0, 1)


@pytest.fixture
def take(table: Table, make_packet: Any) -> Any:
    """The client's packet that the kernel counted as the `number`th, at `time_s`."""

    def take(number: int, time_s: int) -> None:
        table.process(
            make_packet(
                CLIENT,
                SERVER,
                time_ns=time_s * SECOND,
                flags=FLAG_ACK,
                frame_bytes=FRAME_BYTES,
                flow_count=number * (RECORD + 1),
                flow_bytes=number * FRAME_BYTES,
                flow_since=1,
            )
        )

    return take


def counts(table: Table) -> tuple[int, int, int]:
    """Packets, bytes, records lost."""
    (row,) = table.rows_view()
    return int(row["sent"]["packets"]), int(row["sent"]["bytes"]), int(row["records_lost"])


def test_what_did_not_come_was_lost(table: Table, take: Any) -> None:
    table.expect_gaps(3 * SECOND)
    take(1, 1)
    take(7, 2)
    assert counts(table) == (7, 7 * FRAME_BYTES, 5)


@pytest.mark.parametrize("lost_s", [0, 1])
def test_what_another_cpu_is_about_to_bring_was_not(table: Table, take: Any, lost_s: int) -> None:
    """Nothing was lost, or only before the last record of this end."""
    table.expect_gaps(lost_s * SECOND)
    for number, time_s in ((1, 2), (4, 3), (2, 4), (3, 5), (5, 6)):
        take(number, time_s)
        assert counts(table)[2] == 0
    assert counts(table) == (5, 5 * FRAME_BYTES, 0)


def test_nor_when_it_is_the_first_one(table: Table, take: Any) -> None:
    table.expect_gaps(0)
    for number, time_s in ((2, 1), (1, 2), (3, 3)):
        take(number, time_s)
        assert counts(table)[2] == 0
    assert counts(table) == (3, 3 * FRAME_BYTES, 0)


def test_a_straggler_is_none_of_those_that_were_lost(table: Table, take: Any) -> None:
    table.expect_gaps(3 * SECOND)
    for number, time_s in ((1, 1), (7, 2), (8, 4), (10, 5), (9, 6)):
        take(number, time_s)
    assert counts(table) == (10, 10 * FRAME_BYTES, 5)


def test_one_that_was_taken_for_lost_may_come_all_the_same(table: Table, take: Any) -> None:
    table.expect_gaps(9 * SECOND)
    for number, time_s in ((1, 1), (3, 2), (2, 3)):
        take(number, time_s)
    assert counts(table) == (3, 3 * FRAME_BYTES, 0)


def test_counts_that_the_kernel_began_anew_add_up(table: Table, take: Any, make_packet: Any) -> None:
    for number, time_s in ((1, 1), (2, 2)):
        take(number, time_s)
    packet = make_packet(CLIENT, SERVER, time_ns=3 * SECOND, flags=FLAG_ACK, frame_bytes=FRAME_BYTES, flow_since=2)
    packet["flow_count"], packet["flow_bytes"] = RECORD + 1, FRAME_BYTES
    table.process(packet)
    assert counts(table) == (3, 3 * FRAME_BYTES, 0)
    take(3, 4)  # of the old ones, from a CPU that still had them
    assert counts(table) == (4, 4 * FRAME_BYTES, 0)


def test_dtypes_are_checked(table: Table) -> None:
    with pytest.raises(TypeError, match="FLOW_KEY"):
        table.process_flows(np.zeros(1), np.zeros(1), 0)
