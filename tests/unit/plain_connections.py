"""What a connection's line says, as plain dicts of Python values, a row at a time where that is simpler.

The output writes its lines without any of this; the tests hold both against each other.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tcptrace.model import (
    CLOSE_KINDS,
    CLOSED_BY,
    END_REASONS,
    HANDSHAKES,
    NEAR_ENDS,
    RECENT_PACKETS,
    SCHEMA_VERSION,
    STATES,
    Rows,
    TraceInfo,
)
from tcptrace.records import CAUSES, FLAG_ACK, SOCKET_VIEW
from tcptrace.sinks import bulk, human, sockets
from tcptrace.sinks.socket_json import congestion_states, names, states
from tcptrace.sinks.sockets import Views

Columns = dict[str, list[Any]]
ContainerOf = Callable[[int], str | None]

BEFORE_CAUSES = {
    name: name for name in ("srtt_us", "rttvar_us", "rtt_min_us", "rto_us", "cwnd_packets", "ssthresh_packets")
}
AFTER_CAUSES = {
    name: name
    for name in (
        "in_flight_packets",
        "lost_packets",
        "sacked_packets",
        "reordering_packets",
        "delivered_packets",
        "dsack_duplicates",
        "delivery_rate_bytes_per_s",
        "pacing_rate_bytes_per_s",
        "snd_wnd_bytes",
        "rcv_wnd_bytes",
    )
} | {
    "kernel_bytes_sent": "bytes_sent",
    "kernel_bytes_retransmitted": "bytes_retransmitted",
    "kernel_bytes_acked": "bytes_acked",
    "kernel_bytes_received": "bytes_received",
    "busy_us": "busy_us",
    "rwnd_limited_us": "rwnd_limited_us",
    "sndbuf_limited_us": "sndbuf_limited_us",
}
"""Name in the output: name in records.SOCKET_VIEW."""

DIRECTION_INTEGERS = (
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

DIRECTION_FLOATS = {
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


def connection_events(
    rows: Rows, time: str, info: TraceInfo, *, final: bool, end_reason: str | None = None
) -> Iterator[dict[str, Any]]:
    """One object a row, all with the same names in the same order.

    `time` is RFC 3339; `final` says that the rows' connections have ended; `end_reason` replaces the rows' own.
    """
    size = len(rows)
    reasons = [end_reason] * size if end_reason else bulk.names(rows["end_reason"], END_REASONS)
    columns: Columns = {
        "event": ["connection"] * size,
        "schema_version": [SCHEMA_VERSION] * size,
        "time": [time] * size,
        "final": [final] * size,
        "end_reason": reasons,
        "interface": [info.interface] * size,
    }
    columns |= _identity(rows)
    columns |= _life(rows, info)
    for name in ("sent", "received"):
        columns |= _direction(rows, name)
    columns |= kernel_fields(rows, info)
    columns["last_packets"] = _last_packets(rows)
    keys = tuple(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(keys, values, strict=True))


def _identity(rows: Rows) -> Columns:
    versions = rows["ip_version"].tolist()
    src, dst = bulk.packed(rows["src_addr"]), bulk.packed(rows["dst_addr"])
    src_ports, dst_ports = rows["src_port"].tolist(), rows["dst_port"].tolist()
    initiator_known = rows["initiator_known"].astype(bool).tolist()
    return {
        "connection_id": rows["id"].tolist(),
        "community_id": list(map(human.community_id, src, src_ports, dst, dst_ports, versions)),
        "src_ip": bulk.addresses(src, versions),
        "src_port": src_ports,
        "dst_ip": bulk.addresses(dst, versions),
        "dst_port": dst_ports,
        "ip_version": versions,
        "vlan_id": bulk.integers(rows["vlan_id"]),
        "service": list(map(_service, src_ports, dst_ports, initiator_known)),
        "initiator_known": initiator_known,
        "near_end": bulk.names(rows["near_end"], NEAR_ENDS),
    }


def _service(src_port: int, dst_port: int, initiator_known: bool) -> str | None:
    name = human.service(dst_port)
    return human.service(src_port) if name is None and not initiator_known else name


def _life(rows: Rows, info: TraceInfo) -> Columns:
    return {
        "state": bulk.names(rows["state"], STATES),
        "src_state": bulk.names(rows["src_state"], STATES),
        "dst_state": bulk.names(rows["dst_state"], STATES),
        "start_time": [human.rfc3339(info.clock.wall_ns(ns)) for ns in rows["start_ns"].tolist()],
        "last_time": [human.rfc3339(info.clock.wall_ns(ns)) for ns in rows["last_ns"].tolist()],
        "duration_s": ((rows["last_ns"] - rows["start_ns"]) / 1e9).tolist(),
        "handshake": bulk.names(rows["handshake"], HANDSHAKES),
        "handshake_rtt_us": bulk.floats(rows["handshake_rtt_us"]),
        "initial_rtt_us": bulk.floats(rows["initial_rtt_us"]),
        "closed_by": bulk.names(rows["closed_by"], CLOSED_BY),
        "close_kind": bulk.names(rows["close_kind"], CLOSE_KINDS),
        "half_closed_us": bulk.floats(rows["half_closed_us"]),
        "port_reuse": rows["port_reuse"].astype(bool).tolist(),
        "records_lost": rows["records_lost"].tolist(),
    }


def _direction(rows: Rows, name: str) -> Columns:
    side = rows[name]
    columns: Columns = {key: bulk.integers(side[key]) for key in DIRECTION_INTEGERS}
    columns |= {key: bulk.floats(side[source]) for key, source in DIRECTION_FLOATS.items()}
    columns |= _averages(rows, side)
    columns["flags_seen"] = list(map(human.flags_words, side["flags_seen"].tolist()))
    traffic_class = side["traffic_class"]
    columns["dscp"] = bulk.integers(traffic_class >> 2)
    columns["ecn"] = bulk.integers(np.where(traffic_class < 0, -1, traffic_class & 3))
    columns["mac"] = bulk.where(side["mac_known"], list(map(human.mac, bulk.packed(side["mac"]))))
    return {f"{name}_{key}": values for key, values in columns.items()}


def _averages(rows: Rows, side: Rows) -> Columns:
    """Bytes a second over the connection's duration; not known while that is 0."""
    elapsed_ns = rows["last_ns"] - rows["start_ns"]
    elapsed_s = np.where(elapsed_ns > 0, elapsed_ns / 1e9, np.nan)
    payload_bytes = side["payload_bytes"]
    return {
        "average_bytes_per_s": bulk.floats(side["bytes"] / elapsed_s),
        "average_payload_bytes_per_s": bulk.floats(payload_bytes / elapsed_s),
        "goodput_bytes_per_s": bulk.floats((payload_bytes - side["retransmitted_bytes"]) / elapsed_s),
    }


def _last_packets(rows: Rows) -> list[list[str]]:
    starts, totals = rows["start_ns"].tolist(), rows["recent_total"].tolist()
    return list(map(_ring, rows["recent"].tolist(), totals, starts))


def _ring(recent: list[tuple[int, ...]], total: int, start_ns: int) -> list[str]:
    """The ring's packets, oldest first."""
    first = max(0, total - RECENT_PACKETS)
    return [_brief(recent[index % RECENT_PACKETS], start_ns) for index in range(first, total)]


def _brief(packet: tuple[int, ...], start_ns: int) -> str:
    """One of model.PACKET_BRIEF: +0.000123 sent [P.] seq 1 ack 1 win 502 len 10 retransmission."""
    time_ns, seq, ack, payload_bytes, window, flags, segments, received, analysis = packet
    text = (
        f"{(time_ns - start_ns) / 1e9:+.6f} {'received' if received else 'sent'} {human.flags_short(flags)}"
        f" seq {seq}{f' ack {ack}' if flags & FLAG_ACK else ''} win {window} len {payload_bytes}"
    )
    if segments > 1:
        text += f" ×{segments}"
    if analysis:
        text += "".join(f" {name}" for name in human.analysis_words(analysis))
    return text


def kernel_fields(rows: Rows, info: TraceInfo) -> Columns:
    """All fields of all rows; where no row has a socket, hardly any work."""
    if not sockets.any_known(rows).any():
        unknown: list[None] = [None] * len(rows)
        return dict.fromkeys(KEYS, unknown)
    near, peer = sockets.near_views(rows)
    columns = _near(near, info.container_of, info.netns)
    if (peer["time_ns"] > 0).any():
        columns |= _peer(peer, info.container_of)
    else:
        columns |= dict.fromkeys(PEER_KEYS, [None] * len(rows))
    return columns


def _near(views: Views, container_of: ContainerOf, netns: int | None) -> Columns:
    columns: Columns = {"kernel_state": states(views["state"])}
    columns |= {key: bulk.integers(views[name]) for key, name in BEFORE_CAUSES.items()}
    columns["congestion_control"] = names(views["congestion_control"])
    columns["congestion_state"] = congestion_states(views["congestion_state"])
    columns |= _retransmissions(views)
    columns |= {key: bulk.integers(views[name]) for key, name in AFTER_CAUSES.items()}
    columns |= _owner(views, container_of)
    columns["netns"] = bulk.where(views["time_ns"] > 0, [netns] * len(views))
    return columns


def _retransmissions(views: Views) -> Columns:
    """The causes and those of which none is known add up to the kernel's own total."""
    total, causes = views["retransmissions"], views["retransmissions_by"]
    followed = (causes >= 0).all(axis=1) & (total >= 0)
    unseen = np.where(followed, total.astype(np.int64) - causes.sum(axis=1, dtype=np.int64), -1)
    columns: Columns = {"kernel_retransmissions": bulk.integers(total)}
    columns |= {f"retransmissions_{cause}": bulk.integers(causes[:, i]) for i, cause in enumerate(CAUSES)}
    columns["retransmissions_unseen"] = bulk.integers(unseen)
    return columns


def _owner(views: Views, container_of: ContainerOf) -> Columns:
    cgroups = bulk.integers(views["cgroup_id"])
    containers = {cgroup: None if cgroup is None else container_of(cgroup) for cgroup in set(cgroups)}
    return {
        "pid": bulk.integers(views["pid"]),
        "process": names(views["comm"]),
        "uid": bulk.integers(views["uid"]),
        "cgroup_id": cgroups,
        "container_id": list(map(containers.get, cgroups)),
    }


def _peer(views: Views, container_of: ContainerOf) -> Columns:
    columns: Columns = {
        "kernel_state": states(views["state"]),
        "srtt_us": bulk.integers(views["srtt_us"]),
        "cwnd_packets": bulk.integers(views["cwnd_packets"]),
        "kernel_retransmissions": bulk.integers(views["retransmissions"]),
    }
    columns |= _owner(views, container_of)
    return {f"peer_{key}": values for key, values in columns.items()}


NO_VIEWS = np.zeros(0, SOCKET_VIEW)
PEER_KEYS = tuple(_peer(NO_VIEWS, lambda cgroup_id: None))
KEYS = (*_near(NO_VIEWS, lambda cgroup_id: None, None), *PEER_KEYS)
