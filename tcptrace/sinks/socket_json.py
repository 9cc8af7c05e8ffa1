"""The kernel's view of connections' sockets as JSON fields: those of the `connection` event that only a socket has."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tcptrace.model import CONGESTION_STATES, KERNEL_STATES, Rows, TraceInfo
from tcptrace.records import CAUSES, SOCKET_VIEW
from tcptrace.sinks import bulk, human, sockets
from tcptrace.sinks.sockets import Views

Columns = dict[str, list[Any]]
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


def states(column: sockets.Column) -> list[str | None]:
    """Names of the kernel's states; None for one that is not known, or not to us."""
    return list(map(dict(enumerate(KERNEL_STATES)).get, column.tolist()))


def congestion_states(column: sockets.Column) -> list[str | None]:
    """Names of enum tcp_ca_state."""
    return list(map(dict(enumerate(CONGESTION_STATES)).get, column.tolist()))


def names(column: sockets.Column) -> list[str | None]:
    """Names in fields of fixed size; empty is not known."""
    return [human.kernel_name(raw) or None for raw in bulk.packed(column)]


def kernel_fields(rows: Rows, info: TraceInfo) -> Columns:
    """All fields of all rows; where no row has a socket, hardly any work."""
    if not sockets.any_known(rows).any():
        unknown: list[None] = [None] * len(rows)
        return dict.fromkeys(_KEYS, unknown)
    near, peer = sockets.near_views(rows)
    columns = _near(near, info.container_of, info.netns)
    if (peer["time_ns"] > 0).any():
        columns |= _peer(peer, info.container_of)
    else:
        columns |= dict.fromkeys(_PEER_KEYS, [None] * len(rows))
    return columns


def _near(views: Views, container_of: ContainerOf, netns: int | None) -> Columns:
    columns: Columns = {"kernel_state": states(views["state"])}
    columns |= {key: bulk.integers(views[name]) for key, name in _BEFORE_CAUSES.items()}
    columns["congestion_control"] = names(views["congestion_control"])
    columns["congestion_state"] = congestion_states(views["congestion_state"])
    columns |= _retransmissions(views)
    columns |= {key: bulk.integers(views[name]) for key, name in _AFTER_CAUSES.items()}
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


_NO_VIEWS: Final = np.zeros(0, SOCKET_VIEW)
_PEER_KEYS: Final = tuple(_peer(_NO_VIEWS, lambda cgroup_id: None))
_KEYS: Final = (*_near(_NO_VIEWS, lambda cgroup_id: None, None), *_PEER_KEYS)
