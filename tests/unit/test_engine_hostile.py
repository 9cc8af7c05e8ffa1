"""What a stranger on the network may send, and what this host's own queue does."""

import time

import numpy as np
import numpy.typing as npt
import pytest

from tcptrace.engine.table import Table
from tcptrace.records import FLAG_ACK, FLAG_SYN, NOTE_FIRST_SEND, PACKET_RECORD

SECOND = 10**9


def table(rows: int = 65_536) -> Table:
    return Table(rows, 600 * SECOND, 60 * SECOND, 0, 0x5EED)


def packets(count: int, flags: int = FLAG_ACK) -> npt.NDArray[np.void]:
    records = np.zeros(count, PACKET_RECORD)
    records["time_ns"] = np.arange(1, count + 1)
    records["ip_version"] = 6
    records["segments"] = 1
    records["frame_bytes"] = 74
    records["flags"] = flags
    return records


def test_addresses_and_ports_cannot_be_chosen_to_collide() -> None:
    """One that changes as the other makes up for it, which a sum of the two would not see."""

    def seconds(address_step: int) -> float:
        records = packets(20_000, FLAG_SYN)
        ports = 1024 + np.arange(20_000)
        low = (1 << 60) - ports.astype(np.uint64) * np.uint64(address_step)
        records["src_addr"][:, 8:] = low.astype("<u8").view("u1").reshape(-1, 8)
        records["src_port"] = ports
        records["dst_port"] = 443
        engine = table()
        started = time.process_time()
        assert engine.process(records) == 20_000
        assert engine.totals().connections == 20_000
        return time.process_time() - started

    # Colliding, they took 100 times as long; a busy machine does not.
    assert seconds((1 << 32) + 1) < 20 * seconds(3) + 0.2


def test_v4_mapped_addresses_in_ipv6_are_not_those_of_ipv4() -> None:
    records = packets(2)
    records["ip_version"] = (4, 6)
    engine = table()
    engine.process(records)
    assert engine.totals().connections == 2


def test_the_rate_of_a_row_that_leaves_within_an_interval_is_not_known() -> None:
    records = packets(2)
    records["src_port"] = (1, 2)
    engine = table(1)
    engine.process(records)
    (ended,) = engine.take_ended()
    assert (ended["sent"]["bytes"], ended["received"]["bytes"]) in {(74, 0), (0, 74)}
    assert np.isnan(ended["sent"]["bytes_per_s"])
    assert np.isnan(ended["received"]["packets_per_s"])


def test_a_record_out_of_order_does_not_turn_time_back() -> None:
    records = packets(2)
    records["time_ns"] = (500, 400)
    engine = table()
    engine.process(records)
    assert engine.rows_view()["last_ns"].tolist() == [500]


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_what_the_own_queue_refused_is_no_retransmission(pieces: int) -> None:
    """A super-packet of 10 segments is refused, and sent again in pieces: 10 were refused, however it goes on."""
    records = packets(1 + pieces)
    records["payload_bytes"] = [1000, *[1000 // pieces] * pieces]
    records["segments"] = [10, *[10 // pieces] * pieces]
    records["seq"] = [7, *(7 + 1000 // pieces * piece for piece in range(pieces))]
    records["note"] = NOTE_FIRST_SEND
    records["src_port"] = 9
    records["dst_port"] = 8
    engine = table()
    engine.process(records)
    (row,) = engine.rows_view()
    assert (row["sent"]["local_drops"], row["sent"]["retransmissions"], row["sent"]["packets"]) == (10, 0, 20)


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="PACKET_RECORD"):
        table().process(np.zeros(3, "u8"))
