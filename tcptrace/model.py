"""The output contract: what a sink may read of a connection, and in which units.

A connection runs from `src` (who sent the SYN) to `dst`; `sent` is src to dst, `received` is
dst to src.  Unknown is NaN in float fields and -1 in signed integer fields, never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

SCHEMA_VERSION: Final = 1

STATES: Final = (
    None,
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
    "CLOSED",
)
"""Names of the state fields' values, RFC 9293 section 3.3.2; the first is "not known"."""

END_REASONS: Final = (None, "closed", "reset", "idle", "evicted", "reused", "trace_end")
"""Why a connection left the table; the first is "it has not"."""

NEAR_ENDS: Final = (None, "src", "dst", "both")
"""Which end is on this side of the interface: this host, or one it forwards for."""

RECENT_PACKETS: Final = 5

PACKET_BRIEF: Final = np.dtype(
    [
        ("time_ns", "i8"),
        ("seq", "u4"),
        ("ack", "u4"),
        ("payload_bytes", "u4"),
        ("window", "u2"),
        ("flags", "u2"),
        ("segments", "u2"),
        ("received", "u1"),  # 0: src to dst, 1: dst to src
        ("analysis", "u1"),  # bits of ANALYSIS
    ],
    align=True,
)

ANALYSIS: Final = (
    "retransmission",
    "out_of_order",
    "duplicate_ack",
    "zero_window",
    "keep_alive",
    "previous_segment_not_captured",
)
"""Index is the bit: what the engine found about one segment, Wireshark's terms."""

DIRECTION: Final = np.dtype(
    [
        ("packets", "i8"),  # wire packets: a super-packet counts its segments
        ("bytes", "i8"),  # frame bytes, link header included
        ("payload_bytes", "i8"),
        ("packets_per_s", "f8"),  # over the last interval
        ("bytes_per_s", "f8"),
        ("seq", "i8"),  # of the last segment; -1 before the first
        ("ack", "i8"),
        ("window", "i8"),  # as in the header, not scaled
        ("window_bytes", "i8"),  # scaled; -1 where the scale is not known
        ("window_min_bytes", "i8"),
        ("window_max_bytes", "i8"),
        ("retransmissions", "i8"),
        ("retransmitted_bytes", "i8"),
        ("local_drops", "i8"),  # sent once more because this host's own queue had refused them
        ("out_of_order", "i8"),
        ("duplicate_acks", "i8"),
        ("zero_windows", "i8"),
        ("keep_alives", "i8"),
        ("gaps", "i8"),  # "previous segment not captured"
        ("rtt_count", "i8"),
        ("rtt_last_us", "f8"),
        ("rtt_smoothed_us", "f8"),  # RFC 6298 section 2
        ("rtt_min_us", "f8"),
        ("rtt_max_us", "f8"),
        ("rtt_mean_us", "f8"),
        ("rtt_jitter_us", "f8"),  # RFC 3550 section 6.4.1, on RTT samples
        ("mss_bytes", "i4"),  # announced on the SYN
        ("window_scale", "i4"),  # announced on the SYN: shift; -1 not announced or not seen
        ("flags_seen", "u2"),
        ("ttl", "i2"),
        ("traffic_class", "i2"),
        ("mac", "u1", 6),  # of who sends in this direction
    ],
    align=True,
)
"""One direction of a connection."""

CONNECTION: Final = np.dtype(
    [
        ("id", "u8"),  # counts up from 1 in order of appearance
        ("start_ns", "i8"),  # the trace's clock; Clock.wall_ns makes it UTC
        ("last_ns", "i8"),
        ("handshake_rtt_us", "f8"),  # SYN to the ACK of the SYN-ACK
        ("sent", DIRECTION),
        ("received", DIRECTION),
        ("recent", PACKET_BRIEF, RECENT_PACKETS),  # a ring; recent_total % 5 is the oldest once full
        ("recent_total", "u8"),
        ("src_addr", "u1", 16),  # network order, IPv4 as ::ffff:a.b.c.d
        ("dst_addr", "u1", 16),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("vlan_id", "i4"),  # outer tag; -1 untagged
        ("ip_version", "u1"),
        ("state", "u1"),  # the near end's, else the initiator's: index into STATES
        ("src_state", "u1"),
        ("dst_state", "u1"),
        ("initiator_known", "u1"),  # 1: a SYN said who is src; 0: told from the ports
        ("near_end", "u1"),  # index into NEAR_ENDS
        ("end_reason", "u1"),  # index into END_REASONS
        ("in_use", "u1"),  # 0: an empty row of the table
        ("changed", "u1"),  # 1: a packet since the last interval
    ],
    align=True,
)
"""One connection; rows of the engine's table start with it."""

Rows = npt.NDArray[Any]
"""A structured array of CONNECTION rows."""


@dataclass
class Clock:
    """Turns the trace's clock into UTC.  `offset_ns` is what to add: 0 for capture files."""

    offset_ns: int = 0

    def wall_ns(self, time_ns: int) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time_ns + self.offset_ns


@dataclass
class Totals:
    """The whole trace so far.  Names as in the `summary` event."""

    packets: int = 0
    bytes: int = 0
    payload_bytes: int = 0
    packets_per_s: float = 0.0
    bytes_per_s: float = 0.0
    connections: int = 0  # in the table now
    connections_total: int = 0  # ever seen
    connections_by_state: Mapping[str, int] = field(default_factory=dict)  # by STATES name
    evicted: int = 0  # left the table because it was full
    rtt_samples_dropped: int = 0  # segments not followed for RTT because the pool was full
    counters: Mapping[str, int] = field(default_factory=dict)  # the source's, names of records.COUNTERS
    perf_lost_samples: int = 0  # PERF_RECORD_LOST, a check on counters["records_lost"]
    unordered: int = 0  # records that came after a later one had been handed on


@dataclass(frozen=True)
class TraceInfo:
    """What is traced and how, known once the source has opened."""

    interface: str | None
    hook: str | None
    filter: str | None
    link: str  # "ethernet" or "raw"
    clock: Clock
    version: str


class View(Protocol):
    """What a sink sees at each interval.  Arrays are views: read them before returning."""

    time_ns: int  # the trace's clock
    interval_s: float  # the time the rates are over
    cpu_percent: float  # the tracer's own CPU since the last interval, 100 = one core
    totals: Totals

    def table(self) -> Rows:
        """All rows, those with in_use == 0 included: select before copying."""
        ...


class Sink(Protocol):
    """An output.  Called in this order: open, then packets/update as they come, then close."""

    wants_packets: bool

    def open(self, info: TraceInfo) -> None: ...

    def packets(self, records: npt.NDArray[Any]) -> None:
        """Records in time order (records.PACKET_RECORD); only if `wants_packets`."""
        ...

    def ended(self, rows: Rows) -> None:
        """Connections that left the table, as soon as they do."""
        ...

    def update(self, view: View) -> None:
        """Once an interval."""
        ...

    def close(self, view: View) -> None:
        """The end: final output.  Everything still in the table ends here."""
        ...

    def restore(self) -> None:
        """Undo what open() did to the terminal; may be called at any time, also twice."""
        ...
