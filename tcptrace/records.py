"""The input contract: numpy dtypes that mirror bpf/records.h.

The C header is the definition; `tests/unit/test_records.py` holds these against what a
compiler makes of it, and the compiled ring reader refuses to load when the sizes differ.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SACK_BLOCKS: Final = 3

PACKET_RECORD: Final = np.dtype(
    [
        ("time_ns", "u8"),
        ("src_addr", "u1", 16),
        ("dst_addr", "u1", 16),
        ("seq", "u4"),
        ("ack", "u4"),
        ("payload_bytes", "u4"),
        ("frame_bytes", "u4"),
        ("ts_value", "u4"),
        ("ts_echo", "u4"),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("window", "u2"),
        ("flags", "u2"),
        ("segments", "u2"),
        ("ip_id", "u2"),
        ("direction", "u1"),
        ("ip_version", "u1"),
        ("ttl", "u1"),
        ("traffic_class", "u1"),
        ("options", "u1"),
        ("vlan_count", "u1"),
        ("tcp_header_bytes", "u1"),
        ("note", "u1"),
        ("src_mac", "u1", 6),
        ("dst_mac", "u1", 6),
        ("flow_count", "u8"),
        ("flow_bytes", "u8"),
        ("flow_payload_bytes", "u8"),
        ("reverse_records", "u4"),
        ("flow_since", "u4"),
        ("sack_left", "u4", SACK_BLOCKS),
        ("sack_right", "u4", SACK_BLOCKS),
        ("mss", "u2"),
        ("vlan_outer", "u2"),
        ("vlan_inner", "u2"),
        ("window_scale", "u1"),
        ("sack_count", "u1"),
    ]
)
"""struct packet_record: one TCP segment, or one super-packet of `segments` segments."""

FLOW_KEY: Final = np.dtype(
    [
        ("lower_addr", "u1", 16),
        ("higher_addr", "u1", 16),
        ("lower_port", "u2"),
        ("higher_port", "u2"),
        ("ip_version", "u2"),
        ("bout", "u2"),
    ]
)
"""struct flow_key: a connection some of whose records do not reach the reader."""

FLOW_DIRECTION: Final = np.dtype(
    [
        ("count", "u8"),
        ("bytes", "u8"),
        ("payload_bytes", "u8"),
        ("next_seq", "u4"),
        ("base_seq", "u4"),
        ("passed", "u4"),
        ("has_syn", "u4"),
    ]
)
"""struct flow_direction: what one end has sent and the reader does not get; `count` is records << 32 | wire packets."""

FLOW_COUNT: Final = np.dtype([("from_lower", FLOW_DIRECTION), ("from_higher", FLOW_DIRECTION), ("since_ns", "u8")])
"""struct flow_count: what the kernel has counted of a connection without recording it."""

CAUSES: Final = ("rto", "fast", "tlp", "syn", "syn_ack", "other")
"""Names of enum cause, in its order: why the kernel sent something again."""

NAME_BYTES: Final = 16

SOCKET_KEY: Final = np.dtype(
    [
        ("local_addr", "u1", 16),
        ("remote_addr", "u1", 16),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("netns", "u4"),
        ("ip_version", "u1"),
        ("unused", "u1", 7),
    ]
)
"""struct socket_key: a connection as a socket sees it."""

SOCKET_VIEW: Final = np.dtype(
    [
        ("time_ns", "i8"),
        ("bytes_sent", "i8"),
        ("bytes_retransmitted", "i8"),
        ("bytes_acked", "i8"),
        ("bytes_received", "i8"),
        ("delivery_rate_bytes_per_s", "i8"),
        ("pacing_rate_bytes_per_s", "i8"),
        ("busy_us", "i8"),
        ("rwnd_limited_us", "i8"),
        ("sndbuf_limited_us", "i8"),
        ("cgroup_id", "i8"),
        ("srtt_us", "i4"),
        ("rttvar_us", "i4"),
        ("rtt_min_us", "i4"),
        ("rto_us", "i4"),
        ("cwnd_packets", "i4"),
        ("ssthresh_packets", "i4"),
        ("in_flight_packets", "i4"),
        ("lost_packets", "i4"),
        ("sacked_packets", "i4"),
        ("reordering_packets", "i4"),
        ("delivered_packets", "i4"),
        ("dsack_duplicates", "i4"),
        ("snd_wnd_bytes", "i4"),
        ("rcv_wnd_bytes", "i4"),
        ("retransmissions", "i4"),
        ("retransmissions_by", "i4", len(CAUSES)),
        ("pid", "i4"),
        ("uid", "i4"),
        ("comm", "u1", NAME_BYTES),
        ("congestion_control", "u1", NAME_BYTES),
        ("congestion_state", "i1"),
        ("state", "u1"),
        ("role", "u1"),
        ("owner_source", "u1"),
    ]
)
"""struct socket_view: the kernel's numbers of a socket; -1 is "not known", time_ns 0 "there is no socket"."""

SOCKET_RECORD: Final = np.dtype(
    [
        ("time_ns", "u8"),
        ("key", SOCKET_KEY),
        ("view", SOCKET_VIEW),
        ("segments", "u4"),
        ("event", "u1"),
        ("cause", "u1"),
        ("old_state", "u1"),
        ("unused", "u1"),
    ]
)
"""struct socket_record: what the kernel said of a socket at one moment."""

SOCKET_COUNTS: Final = np.dtype([("counters", "u8", 8)])
"""struct socket_counts: running totals of one CPU, by enum socket_counter."""

SOCKET_RECORDS_LOST: Final = 0
SOCKETS_FOLLOWED: Final = 1
SOCKETS_GONE: Final = 2

SOCKET_SAMPLE: Final = 0
SOCKET_RETRANSMISSION: Final = 1
SOCKET_STATE: Final = 2
SOCKET_FOUND: Final = 3

ROLE_UNKNOWN: Final = 0
ROLE_ACTIVE: Final = 1
ROLE_PASSIVE: Final = 2

OWNER_UNKNOWN: Final = 0
OWNER_USED: Final = 1
OWNER_HELD: Final = 2
OWNER_OPENED: Final = 3

DIRECTION_INGRESS: Final = 0
DIRECTION_EGRESS: Final = 1
DIRECTION_UNKNOWN: Final = 2

FLAG_FIN: Final = 0x001
FLAG_SYN: Final = 0x002
FLAG_RST: Final = 0x004
FLAG_PSH: Final = 0x008
FLAG_ACK: Final = 0x010
FLAG_URG: Final = 0x020
FLAG_ECE: Final = 0x040
FLAG_CWR: Final = 0x080
FLAG_AE: Final = 0x100

FLAG_NAMES: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
"""Index is the bit (RFC 9293 section 3.1; AE is RFC 9768's)."""

OPTION_MSS: Final = 0x01
OPTION_WINDOW_SCALE: Final = 0x02
OPTION_SACK_PERMITTED: Final = 0x04
OPTION_SACK: Final = 0x08
OPTION_TIMESTAMPS: Final = 0x10
OPTION_FAST_OPEN: Final = 0x20
OPTION_OTHER: Final = 0x40
OPTION_MALFORMED: Final = 0x80

NOTE_FIRST_FRAGMENT: Final = 0x01
NOTE_ETHERNET: Final = 0x02
NOTE_FIRST_SEND: Final = 0x04
NOTE_TAG_ASIDE: Final = 0x08
NOTE_TAG_8021AD: Final = 0x10
NOTE_SENT_BEFORE: Final = 0x20
NOTE_BEHIND: Final = 0x40
NOTE_COUNTED: Final = 0x80

FRAME_MAX_BYTES: Final = 65_328
"""Bytes of one frame that a live trace can hand over: what fits into a perf sample."""

COUNTERS: Final = (
    "tcp",
    "not_tcp",
    "fragment",
    "malformed_link",
    "malformed_ipv4",
    "malformed_ipv6",
    "malformed_ipv6_extension",
    "malformed_tcp",
    "too_deep",
    "frames",
    "filtered",
    "filter_out_of_reach",
    "merged",
    "records",
    "records_lost",
    "nested",
    "thinned",
    "uncounted",
)
"""Names of enum counter, in its order."""


@dataclass(frozen=True)
class CaptureInterface:
    """An interface that frames were seen on."""

    name: str | None
    description: str | None
    link_type: int  # LINKTYPE_… of https://www.tcpdump.org/linktypes.html
    snaplen: int  # bytes kept of each frame; 0: all


@dataclass(frozen=True)
class Frames:
    """The bytes of the frames that a batch of records was read from; index i belongs to record i.

    A frame that passed as one super-packet (GSO) is one frame here too.
    """

    data: npt.NDArray[Any]  # u1, the frames' bytes
    starts: npt.NDArray[Any]  # i8: where in `data` the frame begins
    captured_bytes: npt.NDArray[Any]  # u4: how many bytes of it are there
    original_bytes: npt.NDArray[Any]  # u4: how many it had
    interfaces: npt.NDArray[Any]  # u2: index into model.TraceInfo.interfaces

    def part(self, start: int, stop: int) -> "Frames":
        """Those of the records start to stop."""
        return Frames(
            self.data,
            self.starts[start:stop],
            self.captured_bytes[start:stop],
            self.original_bytes[start:stop],
            self.interfaces[start:stop],
        )
