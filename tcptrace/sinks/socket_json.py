"""The kernel's view of connections' sockets as JSON fields: those of the `connection` event that only a socket has."""

import json
from collections.abc import Callable
from typing import Final

import numpy as np

from tcptrace.model import CONGESTION_STATES, KERNEL_STATES, Rows, TraceInfo
from tcptrace.records import CAUSES, SOCKET_VIEW
from tcptrace.sinks import bulk, human, sockets
from tcptrace.sinks.json_text import lines
from tcptrace.sinks.json_text.lines import Column
from tcptrace.sinks.sockets import Views

ContainerOf = Callable[[int], str | None]

_BEFORE_CAUSES: Final = {
    name: name for name in ("srtt_us", "rttvar_us", "rtt_min_us", "rto_us", "cwnd_packets", "ssthresh_packets")
}
_AFTER_CAUSES: Final = {
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
_KERNEL_STATES: Final = lines.encoded(KERNEL_STATES)
_CONGESTION_STATES: Final = lines.encoded(CONGESTION_STATES)


def states(column: sockets.Column) -> list[str | None]:
    """Names of the kernel's states; None for one that is not known, or not to us."""
    return list(map(dict(enumerate(KERNEL_STATES)).get, column.tolist()))


def congestion_states(column: sockets.Column) -> list[str | None]:
    """Names of enum tcp_ca_state."""
    return list(map(dict(enumerate(CONGESTION_STATES)).get, column.tolist()))


def names(column: sockets.Column) -> list[str | None]:
    """Names in fields of fixed size; empty is not known."""
    return [human.kernel_name(raw) or None for raw in bulk.packed(column)]


def kernel_columns(rows: Rows, info: TraceInfo) -> list[Column]:
    """All fields of all rows; where no row has a socket, hardly any work."""
    if not sockets.any_known(rows).any():
        return _NONE_KNOWN
    near, peer = sockets.near_views(rows)
    columns = _near(near, info.container_of, info.netns)
    return [*columns, *(_peer(peer, info.container_of) if (peer["time_ns"] > 0).any() else _NO_PEER)]


def _near(views: Views, container_of: ContainerOf, netns: int | None) -> list[Column]:
    return [
        lines.choices("kernel_state", views["state"], _KERNEL_STATES),
        *(lines.integers(key, views[name]) for key, name in _BEFORE_CAUSES.items()),
        _names("congestion_control", views["congestion_control"]),
        lines.choices("congestion_state", views["congestion_state"], _CONGESTION_STATES),
        *_retransmissions(views),
        *(lines.integers(key, views[name]) for key, name in _AFTER_CAUSES.items()),
        *_owner("", views, container_of),
        lines.choices("netns", views["time_ns"] > 0, lines.encoded((None, netns))),
    ]


def _names(key: str, column: sockets.Column) -> Column:
    """`names`, encoded; there are few different ones."""
    raw = bulk.packed(column)
    encoded = {name: json.dumps(human.kernel_name(name) or None).encode("ascii") for name in set(raw)}
    return lines.texts(key, [encoded[name] for name in raw])


def _retransmissions(views: Views) -> list[Column]:
    """The causes and those of which none is known add up to the kernel's own total."""
    total, causes = views["retransmissions"], views["retransmissions_by"]
    followed = (causes >= 0).all(axis=1) & (total >= 0)
    unseen = np.where(followed, total.astype(np.int64) - causes.sum(axis=1, dtype=np.int64), -1)
    return [
        lines.integers("kernel_retransmissions", total),
        *(lines.integers(f"retransmissions_{cause}", causes[:, i]) for i, cause in enumerate(CAUSES)),
        lines.integers("retransmissions_unseen", unseen),
    ]


def _owner(prefix: str, views: Views, container_of: ContainerOf) -> list[Column]:
    cgroups = views["cgroup_id"].tolist()
    containers = {cgroup: None if cgroup < 0 else container_of(cgroup) for cgroup in set(cgroups)}
    encoded = {cgroup: json.dumps(container).encode("ascii") for cgroup, container in containers.items()}
    return [
        lines.integers(f"{prefix}pid", views["pid"]),
        _names(f"{prefix}process", views["comm"]),
        lines.integers(f"{prefix}uid", views["uid"]),
        lines.integers(f"{prefix}cgroup_id", views["cgroup_id"]),
        lines.texts(f"{prefix}container_id", [encoded[cgroup] for cgroup in cgroups]),
    ]


def _peer(views: Views, container_of: ContainerOf) -> list[Column]:
    return [
        lines.choices("peer_kernel_state", views["state"], _KERNEL_STATES),
        lines.integers("peer_srtt_us", views["srtt_us"]),
        lines.integers("peer_cwnd_packets", views["cwnd_packets"]),
        lines.integers("peer_kernel_retransmissions", views["retransmissions"]),
        *_owner("peer_", views, container_of),
    ]


_NO_VIEWS: Final = np.zeros(0, SOCKET_VIEW)
_NO_PEER: Final = [lines.constant(column.key, None) for column in _peer(_NO_VIEWS, lambda cgroup_id: None)]
_NO_NEAR: Final = [lines.constant(column.key, None) for column in _near(_NO_VIEWS, lambda cgroup_id: None, None)]
_NONE_KNOWN: Final = [*_NO_NEAR, *_NO_PEER]
