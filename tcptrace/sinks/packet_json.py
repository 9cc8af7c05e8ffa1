"""Packet records as flat JSON objects: the `packet` event of schema.json."""

from collections.abc import Iterator
from typing import Any, Final

import numpy.typing as npt

from tcptrace import records as r
from tcptrace.model import SCHEMA_VERSION, TraceInfo
from tcptrace.sinks import bulk, human

_DIRECTIONS: Final = ("in", "out", None)
_VLAN_ID: Final = 0x0FFF
"""The part of a VLAN tag's control information that is the identifier, IEEE 802.1Q."""


def packet_events(packets: npt.NDArray[Any], findings: npt.NDArray[Any], info: TraceInfo) -> Iterator[dict[str, Any]]:
    """One object a record, all with the same names in the same order."""
    size = len(packets)
    columns: dict[str, list[Any]] = {
        "event": ["packet"] * size,
        "schema_version": [SCHEMA_VERSION] * size,
        "time": [human.rfc3339(info.clock.wall_ns(ns)) for ns in packets["time_ns"].tolist()],
        "interface": [info.interface] * size,
        "direction": bulk.names(packets["direction"], _DIRECTIONS),
    }
    columns |= _findings(findings)
    columns |= _headers(packets)
    columns |= _options(packets)
    ethernet = packets["note"] & r.NOTE_ETHERNET
    for name in ("src_mac", "dst_mac"):
        columns[name] = bulk.where(ethernet, list(map(human.mac, bulk.packed(packets[name]))))
    keys = tuple(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(keys, values, strict=True))


def _findings(findings: npt.NDArray[Any]) -> dict[str, list[Any]]:
    return {
        "connection_id": findings["connection_id"].tolist(),
        "from": bulk.names(findings["received"], ("src", "dst")),
        "analysis": list(map(human.analysis_words, findings["analysis"].tolist())),
        "duplicate_ack_number": bulk.where(
            findings["duplicate_ack_number"] > 0, findings["duplicate_ack_number"].tolist()
        ),
        "rtt_us": bulk.floats(findings["rtt_us"]),
        "in_flight_bytes": bulk.integers(findings["in_flight_bytes"]),
    }


def _headers(packets: npt.NDArray[Any]) -> dict[str, list[Any]]:
    versions = packets["ip_version"].tolist()
    vlans = packets["vlan_count"]
    columns: dict[str, list[Any]] = {
        "src_ip": bulk.addresses(bulk.packed(packets["src_addr"]), versions),
        "src_port": packets["src_port"].tolist(),
        "dst_ip": bulk.addresses(bulk.packed(packets["dst_addr"]), versions),
        "dst_port": packets["dst_port"].tolist(),
        "ip_version": versions,
        "flags": list(map(human.flags_words, packets["flags"].tolist())),
        "dscp": (packets["traffic_class"] >> 2).tolist(),
        "ecn": (packets["traffic_class"] & 3).tolist(),
        "ip_id": bulk.where(packets["ip_version"] == 4, packets["ip_id"].tolist()),
        "vlan_id": bulk.where(vlans > 0, (packets["vlan_outer"] & _VLAN_ID).tolist()),
        "vlan_inner_id": bulk.where(vlans > 1, (packets["vlan_inner"] & _VLAN_ID).tolist()),
    }
    columns["ack"] = bulk.where(packets["flags"] & r.FLAG_ACK, packets["ack"].tolist())
    for name in ("seq", "window", "payload_bytes", "frame_bytes", "segments", "ttl"):
        columns[name] = packets[name].tolist()
    return columns


def _options(packets: npt.NDArray[Any]) -> dict[str, list[Any]]:
    options = packets["options"]
    return {
        "mss_bytes": bulk.where(options & r.OPTION_MSS, packets["mss"].tolist()),
        "window_scale": bulk.where(options & r.OPTION_WINDOW_SCALE, packets["window_scale"].tolist()),
        "sack_permitted": (options & r.OPTION_SACK_PERMITTED).astype(bool).tolist(),
        "sack_blocks": [
            list(map(list, zip(left[:count], right[:count], strict=True)))
            for left, right, count in zip(
                packets["sack_left"].tolist(),
                packets["sack_right"].tolist(),
                packets["sack_count"].tolist(),
                strict=True,
            )
        ],
        "ts_value": bulk.where(options & r.OPTION_TIMESTAMPS, packets["ts_value"].tolist()),
        "ts_echo": bulk.where(options & r.OPTION_TIMESTAMPS, packets["ts_echo"].tolist()),
    }
