"""Connection rows, packet records and views made by hand, for the tests of the outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tcptrace import records
from tcptrace.model import (
    ANALYSIS,
    CLOSE_KINDS,
    CLOSED_BY,
    CONNECTION,
    END_REASONS,
    FINDING,
    HANDSHAKES,
    STATES,
    Clock,
    Indices,
    PacketBatch,
    Rows,
    Totals,
    TraceInfo,
)

from .handmade import START_NS, raw_address, socket_view

UNKNOWN_INTEGERS = (
    "seq",
    "ack",
    "window",
    "window_bytes",
    "window_min_bytes",
    "window_max_bytes",
    "in_flight_bytes",
    "in_flight_max_bytes",
)
UNKNOWN_SHORTS = ("mss_bytes", "window_scale", "ttl", "traffic_class")

RowMaker = Callable[..., Rows]
SocketPutter = Callable[..., None]
PacketMaker = Callable[..., np.ndarray]
BatchMaker = Callable[..., PacketBatch]

BY_NAME = {
    "end_reason": END_REASONS,
    "handshake": HANDSHAKES,
    "closed_by": CLOSED_BY,
    "close_kind": CLOSE_KINDS,
}


def blank_row() -> Rows:
    """One connection of which nothing but its ends is known."""
    row = np.zeros(1, CONNECTION)
    row["handshake_rtt_us"] = row["initial_rtt_us"] = row["half_closed_us"] = np.nan
    row["vlan_id"] = -1
    for direction in ("sent", "received"):
        side = row[direction]
        for name in side.dtype.names:
            if side.dtype[name] == np.float64:
                side[name] = np.nan
        for name in UNKNOWN_INTEGERS + UNKNOWN_SHORTS:
            side[name] = -1
    row["in_use"] = row["changed"] = row["initiator_known"] = 1
    row["ip_version"] = 4
    row["start_ns"] = row["last_ns"] = START_NS
    return row


@pytest.fixture
def make_row() -> RowMaker:
    """A row: src and dst as (address, port), any field by name, those of a direction as sent_… and received_…."""

    def make(number: int, src: tuple[str, int], dst: tuple[str, int], **fields: Any) -> Rows:
        row = blank_row()
        row["id"] = number
        row["ip_version"] = 6 if ":" in src[0] else 4
        for end, (address, port) in (("src", src), ("dst", dst)):
            row[f"{end}_addr"] = raw_address(address)
            row[f"{end}_port"] = port
        for name, value in fields.items():
            direction, _, rest = name.partition("_")
            if direction in ("sent", "received"):
                row[direction][rest] = value
            elif name.endswith("state"):
                row[name] = STATES.index(value)
            elif name in BY_NAME:
                row[name] = BY_NAME[name].index(value)
            elif name == "duration_s":
                row["last_ns"] = row["start_ns"] + round(value * 1e9)
            else:
                row[name] = value
        return row

    return make


@pytest.fixture
def put_socket() -> SocketPutter:
    """Gives a row the socket at its src or dst, any field by name."""

    def put(row: Rows, end: str, **fields: Any) -> None:
        row[f"{end}_socket"] = socket_view(**fields)

    return put


@pytest.fixture
def make_packet() -> PacketMaker:
    """A packet record: src and dst as (address, port), any field by name."""

    def make(src: tuple[str, int], dst: tuple[str, int], **fields: Any) -> np.ndarray:
        packet = np.zeros(1, records.PACKET_RECORD)
        packet["time_ns"] = START_NS
        packet["ip_version"] = 6 if ":" in src[0] else 4
        packet["segments"] = 1
        for end, (address, port) in (("src", src), ("dst", dst)):
            packet[f"{end}_addr"] = raw_address(address)
            packet[f"{end}_port"] = port
        for name, value in fields.items():
            packet[name] = value
        return packet

    return make


@pytest.fixture
def make_batch() -> BatchMaker:
    """Records with what was found about them: nothing but for the fields given, a value for each; analysis by names."""

    def make(packets: np.ndarray, **fields: Any) -> PacketBatch:
        findings = np.zeros(len(packets), FINDING)
        findings["connection_id"] = 1
        findings["rtt_us"] = np.nan
        findings["in_flight_bytes"] = -1
        for name, values in fields.items():
            findings[name] = list(map(bits, values)) if name == "analysis" else values
        return PacketBatch(packets, findings, None)

    return make


def bits(names: str) -> int:
    """Findings as the engine has them."""
    return sum(1 << ANALYSIS.index(name) for name in names.split())


@dataclass
class HandView:
    """A view that says what it is told to."""

    rows: Rows = field(default_factory=lambda: np.zeros(0, CONNECTION))
    totals: Totals = field(default_factory=Totals)
    time_ns: int = START_NS + 1_000_000_000
    start_ns: int = START_NS
    interval_s: float = 1.0
    cpu_percent: float = 2.5

    def table(self) -> Rows:
        return self.rows

    def touched(self) -> Indices:
        """As far as anybody can tell, all of them."""
        return np.arange(len(self.rows))


@pytest.fixture
def make_view() -> type[HandView]:
    return HandView


@pytest.fixture
def info() -> TraceInfo:
    return TraceInfo(interface="eth0", hook="tc", filter="tcp port 443", clock=Clock(0), version="1.2.3")


@pytest.fixture
def file_info() -> TraceInfo:
    """Of one capture file."""
    return TraceInfo(
        interface=None, hook=None, filter=None, clock=Clock(0), version="1.2.3", files=("/captures/trace.pcapng",)
    )


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same service names on every machine."""
    from tcptrace.sinks import human

    known = {22: "ssh", 80: "http", 443: "https", 5432: "postgresql"}
    monkeypatch.setattr(human, "service", known.get)
    assert human.service(443) == "https"


@pytest.fixture
def sample_rows(make_row: RowMaker) -> Rows:
    """Six connections: ordinary ones, IPv6 at full length, huge numbers, and one of which nothing is known."""
    full = "2001:db8:1234:5678:9abc:def0:1234:5678"
    return np.concatenate(
        [
            make_row(
                1,
                ("192.168.1.10", 51234),
                ("172.217.16.142", 443),
                state="ESTABLISHED",
                duration_s=62.4,
                sent_bytes_per_s=12_345.0,
                received_bytes_per_s=1_534_000.0,
                sent_packets=420,
                received_packets=1_234,
                sent_bytes=52_000,
                received_bytes=1_800_000,
                sent_rtt_smoothed_us=12_345.6,
                sent_rtt_min_us=11_900.0,
                sent_window_bytes=64_240,
                received_window_bytes=131_072,
                received_retransmissions=3,
                received_out_of_order=2,
                sent_duplicate_acks=7,
            ),
            make_row(
                2,
                (full, 60_001),
                (full[:-4] + "9abc", 5432),
                state="SYN-RECEIVED",
                duration_s=0.35,
                sent_bytes_per_s=0.0,
                received_bytes_per_s=0.0,
                sent_packets=2,
                sent_bytes=148,
                handshake_rtt_us=85.25,
            ),
            make_row(
                3,
                ("255.255.255.255", 65_535),
                ("255.255.255.254", 65_534),
                state="ESTABLISHED",
                duration_s=9e8,
                sent_bytes_per_s=9.99e17,
                received_bytes_per_s=9.994e11,
                sent_packets=2**62,
                received_packets=123_456_789,
                sent_bytes=2**62,
                received_bytes=2**62,
                sent_rtt_smoothed_us=9e13,
                sent_rtt_min_us=999_499.0,
                sent_window_bytes=2**30,
                received_window_bytes=0,
                sent_retransmissions=2**61,
                received_retransmissions=999_999,
                sent_out_of_order=2**61,
                sent_duplicate_acks=2**61,
                received_zero_windows=123_456,
            ),
            make_row(4, ("::1", 40_000), ("::1", 22), state="TIME-WAIT", duration_s=3_725.0, sent_bytes_per_s=0.4),
            make_row(5, ("10.0.0.1", 40_001), ("10.0.0.2", 40_002), state=None),
            make_row(6, ("10.0.0.1", 80), ("10.0.0.2", 40_003), state="FIN-WAIT-2", initiator_known=0),
        ]
    )


@pytest.fixture
def sample_totals() -> Totals:
    return Totals(
        packets=1_234_567,
        bytes=1_800_000_000,
        payload_bytes=1_700_000_000,
        packets_per_s=1_534.0,
        bytes_per_s=1_546_345.0,
        connections=6,
        connections_total=1_240,
        connections_by_state={"ESTABLISHED": 2, "SYN-RECEIVED": 1, "FIN-WAIT-2": 1, "TIME-WAIT": 1},
        counters={"frames": 1_300_000, "records_lost": 0, "malformed_tcp": 0, "fragment": 0, "too_deep": 0},
    )
