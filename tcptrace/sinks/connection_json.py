"""Connection rows as flat JSON objects: the `connection` event of schema.json."""

from typing import Final

import numpy as np

from tcptrace.model import (
    ANALYSIS,
    CLOSE_KINDS,
    CLOSED_BY,
    END_REASONS,
    HANDSHAKES,
    NEAR_ENDS,
    SCHEMA_VERSION,
    STATES,
    Indices,
    Rows,
    TraceInfo,
)
from tcptrace.records import FLAG_NAMES
from tcptrace.sinks import human
from tcptrace.sinks.community_ids import CommunityIds, encoded_ids
from tcptrace.sinks.json_text import lines
from tcptrace.sinks.json_text.lines import Column
from tcptrace.sinks.selected import selected
from tcptrace.sinks.services import Services
from tcptrace.sinks.socket_json import kernel_columns

_DIRECTION_INTEGERS: Final = (
    "packets",
    "bytes",
    "payload_bytes",
    "seq",
    "ack",
    "window",
    "window_bytes",
    "window_min_bytes",
    "window_max_bytes",
    "window_scale",
    "mss_bytes",
    "retransmissions",
    "retransmitted_bytes",
    "fast_retransmissions",
    "spurious_retransmissions",
    "local_drops",
    "out_of_order",
    "gaps",
    "duplicate_acks",
    "acked_unseen_segments",
    "sacks",
    "duplicate_sacks",
    "window_updates",
    "windows_full",
    "zero_windows",
    "zero_window_probes",
    "zero_window_probe_acks",
    "keep_alives",
    "keep_alive_acks",
    "ecn_ce",
    "ecn_ece",
    "ecn_cwr",
    "in_flight_bytes",
    "in_flight_max_bytes",
    "rtt_count",
    "ttl",
)
"""Names, the same in the output and in model.DIRECTION."""

_DIRECTION_FLOATS: Final = {
    "bytes_per_s": "bytes_per_s",
    "packets_per_s": "packets_per_s",
    "rtt_us": "rtt_last_us",
    "rtt_smoothed_us": "rtt_smoothed_us",
    "rtt_min_us": "rtt_min_us",
    "rtt_max_us": "rtt_max_us",
    "rtt_mean_us": "rtt_mean_us",
    "rtt_stddev_us": "rtt_stddev_us",
    "rtt_p50_us": "rtt_p50_us",
    "rtt_p90_us": "rtt_p90_us",
    "rtt_p99_us": "rtt_p99_us",
    "rtt_jitter_us": "rtt_jitter_us",
    "timestamp_hz": "timestamp_hz",
}
"""Name in the output: name in model.DIRECTION."""


class ConnectionLines:
    """Makes the lines of connections, all with the same names in the same order."""

    def __init__(self, info: TraceInfo) -> None:
        self._info = info
        self._lines = lines.Lines()
        self._services = Services()
        self._community_ids = CommunityIds()
        self._interface = lines.constant("interface", info.interface)
        self._last_packets = lines.briefs("last_packets", human.FLAG_LETTERS, ANALYSIS)

    def of_table(
        self, table: Rows, indices: Indices, time: str, *, final: bool, end_reason: str | None = None
    ) -> bytes:
        """A line for each of these rows of the engine's table.

        `time` is RFC 3339; `final` says that the connections have ended; `end_reason` replaces the rows' own.
        """
        community_ids = self._community_ids.of(table, indices)
        return self._encode(table, indices, [*_event(time, final), _ending(end_reason)], community_ids)

    def of_ended(self, rows: Rows, indices: Indices, time: str) -> bytes:
        """The last line of each of these rows, which have left the table."""
        community_ids = encoded_ids(selected(rows, indices))
        return self._encode(rows, indices, [*_event(time, True), _ending(None)], community_ids)

    def _encode(self, table: Rows, indices: Indices, event: list[Column], community_ids: list[bytes]) -> bytes:
        rows = selected(table, indices)
        columns = [
            *event,
            self._interface,
            *_IDENTITY[:1],
            lines.texts("community_id", community_ids),
            *_IDENTITY[1:],
            *self._who(rows),
            *_life(rows, self._info.clock.wall_ns(0)),
            *_direction(rows, "sent"),
            *_direction(rows, "received"),
            *kernel_columns(rows, self._info),
            self._last_packets,
        ]
        return self._lines.encode(columns, table, indices)

    def _who(self, rows: Rows) -> list[Column]:
        services = self._services.of_connections(rows["src_port"], rows["dst_port"], rows["initiator_known"])
        return [lines.choices("service", services, self._services.encoded), *_WHO]


def _event(time: str, final: bool) -> list[Column]:
    return [
        lines.constant("event", "connection"),
        lines.constant("schema_version", SCHEMA_VERSION),
        lines.constant("time", time),
        lines.constant("final", final),
    ]


def _ending(reason: str | None) -> Column:
    return lines.constant("end_reason", reason) if reason else _END_REASON


def _flag(name: str) -> Column:
    return lines.choices(name, (name,), lines.encoded((False, True)))


_END_REASON: Final = lines.choices("end_reason", ("end_reason",), lines.encoded(END_REASONS))
_IDENTITY: Final = [
    lines.integers("connection_id", ("id",)),
    lines.addresses("src_ip", ("src_addr",)),
    lines.integers("src_port", ("src_port",)),
    lines.addresses("dst_ip", ("dst_addr",)),
    lines.integers("dst_port", ("dst_port",)),
    lines.integers("ip_version", ("ip_version",)),
    lines.integers("vlan_id", ("vlan_id",)),
]
_WHO: Final = [
    _flag("initiator_known"),
    lines.choices("near_end", ("near_end",), lines.encoded(NEAR_ENDS)),
    *(lines.choices(name, (name,), lines.encoded(STATES)) for name in ("state", "src_state", "dst_state")),
]
_COURSE: Final = [
    lines.choices("handshake", ("handshake",), lines.encoded(HANDSHAKES)),
    lines.thousandths("handshake_rtt_us", ("handshake_rtt_us",)),
    lines.thousandths("initial_rtt_us", ("initial_rtt_us",)),
    lines.choices("closed_by", ("closed_by",), lines.encoded(CLOSED_BY)),
    lines.choices("close_kind", ("close_kind",), lines.encoded(CLOSE_KINDS)),
    lines.thousandths("half_closed_us", ("half_closed_us",)),
    _flag("port_reuse"),
    lines.integers("records_lost", ("records_lost",)),
]


def _life(rows: Rows, offset_ns: int) -> list[Column]:
    """`offset_ns` makes the trace's clock UTC."""
    return [
        lines.times("start_time", ("start_ns",), offset_ns),
        lines.times("last_time", ("last_ns",), offset_ns),
        lines.seconds("duration_s", rows["last_ns"] - rows["start_ns"]),
        *_COURSE,
    ]


def _direction_fields(name: str) -> list[Column]:
    return [
        *(lines.integers(f"{name}_{key}", (name, key)) for key in _DIRECTION_INTEGERS),
        *(lines.thousandths(f"{name}_{key}", (name, source)) for key, source in _DIRECTION_FLOATS.items()),
    ]


_DIRECTION_FIELDS: Final = {name: _direction_fields(name) for name in ("sent", "received")}
_FLAG_WORDS: Final = lines.encoded([human.flags_words(flags) for flags in range(1 << len(FLAG_NAMES))])


def _direction(rows: Rows, name: str) -> list[Column]:
    side = rows[name]
    traffic_class = side["traffic_class"]
    return [
        *_DIRECTION_FIELDS[name],
        *_averages(rows, side, name),
        lines.choices(f"{name}_flags_seen", side["flags_seen"] & len(_FLAG_WORDS) - 1, _FLAG_WORDS),
        lines.integers(f"{name}_dscp", traffic_class >> 2),
        lines.integers(f"{name}_ecn", np.where(traffic_class < 0, -1, traffic_class & 3)),
        lines.macs(f"{name}_mac", (name, "mac")),
    ]


def _averages(rows: Rows, side: Rows, name: str) -> list[Column]:
    """Bytes a second over the connection's duration; not known while that is 0."""
    elapsed_ns = rows["last_ns"] - rows["start_ns"]
    elapsed_s = np.where(elapsed_ns > 0, elapsed_ns / 1e9, np.nan)
    payload_bytes = side["payload_bytes"]
    goodput_bytes = payload_bytes - side["retransmitted_bytes"]
    return [
        lines.thousandths(f"{name}_average_bytes_per_s", side["bytes"] / elapsed_s),
        lines.thousandths(f"{name}_average_payload_bytes_per_s", payload_bytes / elapsed_s),
        lines.thousandths(f"{name}_goodput_bytes_per_s", goodput_bytes / elapsed_s),
    ]
