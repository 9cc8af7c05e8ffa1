"""The output contract: what a sink may read of a connection, and in which units.

A connection runs from `src` (who sent the SYN) to `dst`; `sent` is src to dst, `received` is
dst to src.  Unknown is NaN in float fields and -1 in signed integer fields, never 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tcptrace.records import SOCKET_VIEW, CaptureInterface, Frames

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

KERNEL_STATES: Final = (
    None,
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECEIVED",
)
"""The same names by the kernel's numbers (include/net/tcp_states.h); the last one, NEW_SYN_RECV, has no socket yet."""

CONGESTION_STATES: Final = ("Open", "Disorder", "CWR", "Recovery", "Loss")
"""enum tcp_ca_state of linux/tcp.h."""

END_REASONS: Final = (None, "closed", "reset", "idle", "evicted", "reused", "trace_end")
"""Why a connection left the table; the first is "it has not"."""

NEAR_ENDS: Final = (None, "src", "dst", "both")
"""Which end is on this side of the interface: this host, or one it forwards for."""

PROBES: Final = ("kprobes", "raw tracepoints", "kprobes and raw tracepoints")
"""How programs are run where the kernel works on a socket."""

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
        ("received", "u2"),  # 0: src to dst, 1: dst to src
        ("analysis", "u4"),  # bits of ANALYSIS
    ],
    align=True,
)

ANALYSIS: Final = (
    "retransmission",  # also of the next two, which are kinds of it
    "fast_retransmission",
    "spurious_retransmission",
    "out_of_order",
    "previous_segment_not_captured",
    "duplicate_ack",
    "acked_unseen_segment",
    "window_update",
    "window_full",
    "zero_window",
    "zero_window_probe",
    "zero_window_probe_ack",
    "keep_alive",
    "keep_alive_ack",
    "port_reuse",
    "duplicate_sack",  # RFC 2883: the receiver reports bytes that it got twice
    "local_drop",  # bytes that this host's own queue had refused, sent once more
)
"""Index is the bit: what the engine found about one segment, Wireshark's terms."""

HANDSHAKES: Final = (None, "complete", "half_open", "refused", "unanswered")
"""How the connection was opened; the first is "no SYN was seen".  half_open: SYN and SYN-ACK, but not the ACK."""

CLOSED_BY: Final = (None, "src", "dst", "both")
"""Who sent the first FIN, or the RST; "both" is a simultaneous close.  The first is "nobody yet"."""

CLOSE_KINDS: Final = (None, "fin", "reset")
"""What closed the connection or began to; a reset after both FINs does not count."""

DIRECTION: Final = np.dtype(
    [
        # What every packet changes comes first, then what every ACK does: they share lines of the CPU's cache.
        ("packets", "i8"),  # wire packets: a super-packet counts its segments
        ("bytes", "i8"),  # frame bytes, link header included
        ("payload_bytes", "i8"),
        ("seq", "i8"),  # of the last segment; -1 before the first
        ("ack", "i8"),
        ("window", "i8"),  # as in the header, not scaled
        ("window_bytes", "i8"),  # scaled; -1 where the scale is not known
        ("window_min_bytes", "i8"),
        ("window_max_bytes", "i8"),
        ("in_flight_bytes", "i8"),  # sent and not acknowledged, as of the last segment
        ("in_flight_max_bytes", "i8"),
        ("mss_bytes", "i4"),  # announced on the SYN
        ("window_scale", "i4"),  # announced on the SYN: shift; -1 not announced or not seen
        ("flags_seen", "u2"),
        ("ttl", "i2"),
        ("traffic_class", "i2"),
        ("mac", "u1", 6),  # of who sends in this direction
        ("mac_known", "u1"),
        ("rtt_count", "i8"),
        ("rtt_last_us", "f8"),
        ("rtt_smoothed_us", "f8"),  # RFC 6298 section 2
        ("rtt_min_us", "f8"),
        ("rtt_max_us", "f8"),
        ("rtt_mean_us", "f8"),
        ("rtt_jitter_us", "f8"),  # RFC 3550 section 6.4.1, on RTT samples
        ("packets_per_s", "f8"),  # over the last interval
        ("bytes_per_s", "f8"),
        ("retransmissions", "i8"),  # all kinds
        ("retransmitted_bytes", "i8"),
        ("fast_retransmissions", "i8"),
        ("spurious_retransmissions", "i8"),
        ("local_drops", "i8"),  # sent once more because this host's own queue had refused them
        ("out_of_order", "i8"),
        ("duplicate_acks", "i8"),
        ("acked_unseen_segments", "i8"),
        ("window_updates", "i8"),
        ("windows_full", "i8"),
        ("zero_windows", "i8"),
        ("zero_window_probes", "i8"),
        ("zero_window_probe_acks", "i8"),
        ("keep_alives", "i8"),
        ("keep_alive_acks", "i8"),
        ("gaps", "i8"),  # "previous segment not captured"
        ("sacks", "i8"),  # segments with SACK blocks
        ("duplicate_sacks", "i8"),  # of them, those that report bytes received twice
        ("ecn_ce", "i8"),  # packets whose IP header says "congestion experienced"
        ("ecn_ece", "i8"),  # packets with ECE, the SYN's not counted
        ("ecn_cwr", "i8"),  # packets with CWR, the SYN's not counted
        ("rtt_stddev_us", "f8"),  # of the samples, divisor n - 1
        ("rtt_p50_us", "f8"),
        ("rtt_p90_us", "f8"),
        ("rtt_p99_us", "f8"),
        ("timestamp_hz", "f8"),  # how fast the sender's timestamp clock (RFC 7323) ticks
    ],
    align=True,
)
"""One direction of a connection."""

CONNECTION: Final = np.dtype(
    [
        # What every packet needs comes first: it shares lines of the CPU's cache.
        ("id", "u8"),  # counts up from 1 in order of appearance
        ("last_ns", "i8"),
        ("recent_total", "u8"),
        ("initial_rtt_us", "f8"),  # the last SYN to the first segment with ACK and without SYN: Wireshark's initial_rtt
        ("src_addr", "u1", 16),  # network order, IPv4 as ::ffff:a.b.c.d
        ("dst_addr", "u1", 16),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("vlan_id", "i4"),  # outer tag; -1 untagged
        ("ip_version", "u1"),
        ("state", "u1"),  # the near end's, else the initiator's: index into STATES
        ("src_state", "u1"),
        ("dst_state", "u1"),
        ("initiator_known", "u1"),  # 1: a SYN or the socket said who is src; 0: told from the ports
        ("near_end", "u1"),  # index into NEAR_ENDS
        ("handshake", "u1"),  # index into HANDSHAKES
        ("closed_by", "u1"),  # index into CLOSED_BY
        ("close_kind", "u1"),  # index into CLOSE_KINDS
        ("port_reuse", "u1"),  # 1: an earlier connection of the trace had the same addresses and ports
        ("end_reason", "u1"),  # index into END_REASONS
        ("in_use", "u1"),  # 0: an empty row of the table
        ("changed", "u1"),  # 1: a packet since the last interval, or word of a socket that is new or in another state
        ("start_ns", "i8"),  # the trace's clock; Clock.wall_ns makes it UTC
        ("handshake_rtt_us", "f8"),  # SYN to the ACK of the SYN-ACK, neither sent twice
        ("half_closed_us", "f8"),  # from the first FIN to the other end's, or to now
        ("records_lost", "i8"),  # counted in packets and bytes, but not analysed: the ring was full
        ("sent", DIRECTION),
        ("received", DIRECTION),
        ("recent", PACKET_BRIEF, RECENT_PACKETS),  # a ring; recent_total % 5 is the oldest once full
        # What the kernel holds of the sockets at either end, where they are this host's; time_ns 0: none known.
        ("src_socket", SOCKET_VIEW),
        ("dst_socket", SOCKET_VIEW),
    ],
    align=True,
)
"""One connection; rows of the engine's table start with it."""

FINDING: Final = np.dtype(
    [
        ("connection_id", "u8"),
        ("rtt_us", "f8"),  # of the sample that this segment's ACK completed
        ("in_flight_bytes", "i8"),  # after this segment; -1 without payload
        ("duplicate_ack_number", "u4"),  # of a duplicate ACK: which one in a row, from 1
        ("analysis", "u4"),  # bits of ANALYSIS
        ("received", "u4"),  # 0: src to dst, 1: dst to src
    ],
    align=True,
)
"""What the engine made of one record."""

Rows = npt.NDArray[Any]
"""A structured array of CONNECTION rows."""

Indices = npt.NDArray[np.integer[Any]]
"""Of rows."""


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
    sockets_without_room: int = 0  # open sockets without packets that the full table did not take in
    rtt_samples_dropped: int = 0  # segments not followed for RTT because the pool was full
    rtt_percentiles_dropped: int = 0  # RTT samples not in the percentiles because their memory was full
    counters: Mapping[str, int] = field(default_factory=dict)  # the source's, names of records.COUNTERS
    is_thinning: bool = False  # since the last interval packets were counted only, because the ring had been full
    perf_lost_samples: int = 0  # PERF_RECORD_LOST, a check on counters["records_lost"]
    unordered: int = 0  # records that came after a later one had been handed on
    socket_records: int | None = None  # what the kernel said of sockets; None: not asked
    socket_records_lost: int | None = None  # their ring was full, or programs interrupted each other too often
    sockets_forgotten: int | None = None  # at least so often one made room for another in the kernel's memory


def _no_container(cgroup_id: int) -> str | None:
    return None


@dataclass(frozen=True)
class TraceInfo:
    """What is traced and how, known once the source has opened."""

    interface: str | None  # None: capture files
    hook: str | None
    filter: str | None
    clock: Clock
    version: str
    files: tuple[str, ...] = ()
    interfaces: Sequence[CaptureInterface] = ()  # of the frames; a capture file may add some while it is read
    probes: str | None = None  # how the kernel's sockets are followed: PROBES; None: they are not
    netns: int | None = None  # inode of the interface's network namespace, which its sockets are in
    container_of: Callable[[int], str | None] = _no_container  # of a cgroup's id: the container's


@dataclass(frozen=True)
class PacketBatch:
    """Records in time order (records.PACKET_RECORD), what the engine found (FINDING), and the frames themselves."""

    records: npt.NDArray[Any]
    findings: npt.NDArray[Any]
    frames: Frames | None  # only for sinks that want frames


@dataclass(frozen=True)
class SocketBatch:
    """Retransmissions and changes of state that the kernel told of (records.SOCKET_RECORD), in time order."""

    records: npt.NDArray[Any]
    connection_ids: npt.NDArray[Any]  # u8: of each record; 0 where it is of no connection in the table


class View(Protocol):
    """What a sink sees at each interval.  Arrays are views: read them before returning."""

    time_ns: int  # the trace's clock
    start_ns: int  # the trace's clock when it began
    interval_s: float  # the time the rates are over
    cpu_percent: float  # the tracer's own CPU since the last interval, 100 = one core
    totals: Totals

    def table(self) -> Rows:
        """All rows, those with in_use == 0 included: select before copying."""
        ...

    def touched(self) -> Indices:
        """Which rows may not be as they were at the last update, ascending: all others are the same in every field."""
        ...


class Sink(Protocol):
    """An output.  Called in this order: open, then packets/update as they come, then close."""

    wants_packets: bool
    wants_frames: bool  # implies wants_packets

    def open(self, info: TraceInfo) -> None: ...

    def packets(self, batch: PacketBatch) -> None:
        """The next packets, valid during the call; only if `wants_packets`."""
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


class SocketEventSink(Protocol):
    """What else an output may take, where the user asks for it."""

    def socket_events(self, batch: SocketBatch) -> None:
        """What happened to sockets, as it comes; valid during the call."""
        ...
