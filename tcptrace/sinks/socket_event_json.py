"""What the kernel told of sockets as flat JSON objects: the `retransmission` and `state` events of schema.json."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.model import SCHEMA_VERSION, TraceInfo
from tcptrace.records import CAUSES, SOCKET_RETRANSMISSION, SOCKET_STATE
from tcptrace.sinks import bulk, human, socket_json

Columns = dict[str, list[Any]]
Records = npt.NDArray[Any]
"""A structured array of SOCKET_RECORD."""

_RETRANSMISSION_NUMBERS: Final = (
    "srtt_us",
    "rto_us",
    "cwnd_packets",
    "ssthresh_packets",
    "in_flight_packets",
    "lost_packets",
)
"""Names, the same in the output and in records.SOCKET_VIEW."""


def socket_events(records: Records, connection_ids: npt.NDArray[Any], info: TraceInfo) -> Iterator[dict[str, Any]]:
    """One object a record, in their order, but for other kinds and for states set anew to what they were.

    (The kernel does that in close() after shutdown().)
    """
    is_retransmission = records["event"] == SOCKET_RETRANSMISSION
    is_change = (records["event"] == SOCKET_STATE) & (records["old_state"] != records["view"]["state"])
    events: list[dict[str, Any] | None] = [None] * len(records)
    for wanted, name, fields in (
        (is_retransmission, "retransmission", _retransmissions),
        (is_change, "state", _states),
    ):
        places = np.flatnonzero(wanted)
        if not len(places):
            continue
        chosen = records[places]
        columns = _common(name, chosen, connection_ids[places], info) | fields(chosen)
        keys = tuple(columns)
        for place, values in zip(places.tolist(), zip(*columns.values(), strict=True), strict=True):
            events[place] = dict(zip(keys, values, strict=True))
    return (event for event in events if event is not None)


def _common(name: str, records: Records, connection_ids: npt.NDArray[Any], info: TraceInfo) -> Columns:
    """What both have: when, and of which connection."""
    size = len(records)
    key = records["key"]
    versions = key["ip_version"].tolist()
    return {
        "event": [name] * size,
        "schema_version": [SCHEMA_VERSION] * size,
        "time": [human.rfc3339(info.clock.wall_ns(ns)) for ns in records["time_ns"].tolist()],
        "interface": [info.interface] * size,
        "netns": key["netns"].tolist(),
        "connection_id": bulk.where(connection_ids > 0, connection_ids.tolist()),
        "local_ip": bulk.addresses(bulk.packed(key["local_addr"]), versions),
        "local_port": key["local_port"].tolist(),
        "remote_ip": bulk.addresses(bulk.packed(key["remote_addr"]), versions),
        "remote_port": key["remote_port"].tolist(),
        "ip_version": versions,
    }


def _retransmissions(records: Records) -> Columns:
    view = records["view"]
    columns: Columns = {
        "cause": bulk.names(records["cause"], CAUSES),
        "segments": records["segments"].tolist(),
        "kernel_state": socket_json.states(view["state"]),
        "congestion_state": socket_json.congestion_states(view["congestion_state"]),
    }
    columns |= {name: bulk.integers(view[name]) for name in _RETRANSMISSION_NUMBERS}
    columns["kernel_retransmissions"] = bulk.integers(view["retransmissions"])
    columns["pid"] = bulk.integers(view["pid"])
    columns["process"] = socket_json.names(view["comm"])
    return columns


def _states(records: Records) -> Columns:
    view = records["view"]
    return {
        "old_state": socket_json.states(records["old_state"]),
        "new_state": socket_json.states(view["state"]),
        "srtt_us": bulk.integers(view["srtt_us"]),
        "cwnd_packets": bulk.integers(view["cwnd_packets"]),
        "kernel_retransmissions": bulk.integers(view["retransmissions"]),
        "pid": bulk.integers(view["pid"]),
        "process": socket_json.names(view["comm"]),
        "uid": bulk.integers(view["uid"]),
    }
