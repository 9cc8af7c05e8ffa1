"""The kernel's view in JSON: the fields of connections, and the events of --events."""

import dataclasses
import io
import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from tcptrace.model import CONGESTION_STATES, KERNEL_STATES, PROBES, Rows, SocketBatch, TraceInfo
from tcptrace.records import (
    CAUSES,
    SOCKET_FOUND,
    SOCKET_RECORD,
    SOCKET_RETRANSMISSION,
    SOCKET_SAMPLE,
    SOCKET_STATE,
    SOCKET_VIEW,
)
from tcptrace.sinks.json_text.lines import Lines
from tcptrace.sinks.ndjson import BATCH_LINES, Ndjson, schema
from tcptrace.sinks.socket_json import kernel_columns

from .handmade import START_NS, raw_address, socket_view

CONTAINER = "c0ffee" + 58 * "0"
NETNS = 4_026_531_840
RENAMED = {
    "bytes_sent": "kernel_bytes_sent",
    "bytes_retransmitted": "kernel_bytes_retransmitted",
    "bytes_acked": "kernel_bytes_acked",
    "bytes_received": "kernel_bytes_received",
    "retransmissions": "kernel_retransmissions",
}
"""Of the view: in the output."""


@pytest.fixture
def info(info: TraceInfo) -> TraceInfo:
    return dataclasses.replace(info, netns=NETNS, container_of={77: CONTAINER}.get)


@pytest.fixture
def validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def fields_of(rows: Rows, info: TraceInfo) -> list[dict[str, Any]]:
    text = Lines().encode(kernel_columns(rows, info), rows, np.arange(len(rows)))
    return [json.loads(line) for line in text.splitlines()]


def test_every_number_comes_out_under_its_name(make_row: Any, put_socket: Any, info: TraceInfo) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), near_end=1)
    apart = {"time_ns", "retransmissions_by", "comm", "congestion_control", "congestion_state", "state", "role"}
    numbers = {name: 1000 + i for i, name in enumerate(SOCKET_VIEW.names or ()) if name not in {*apart, "owner_source"}}
    put_socket(row, "src", **numbers)
    (fields,) = fields_of(row, info)
    assert len(numbers) == 27
    for name, number in numbers.items():
        assert fields[RENAMED.get(name, name)] == number, name


def test_a_socket_of_which_all_is_known(make_row: Any, put_socket: Any, info: TraceInfo) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), near_end=2)
    put_socket(
        row,
        "dst",
        state="CLOSE-WAIT",
        congestion_state=3,
        congestion_control="bbr",
        comm="nginx",
        pid=900,
        uid=0,
        cgroup_id=77,
        retransmissions=30,
        retransmissions_by=[1, 2, 3, 4, 5, 6],
    )
    (fields,) = fields_of(row, info)
    expected = {
        "kernel_state": "CLOSE-WAIT",
        "congestion_state": "Recovery",
        "congestion_control": "bbr",
        "process": "nginx",
        "pid": 900,
        "uid": 0,
        "cgroup_id": 77,
        "container_id": CONTAINER,
        "netns": NETNS,
        "kernel_retransmissions": 30,
        "retransmissions_rto": 1,
        "retransmissions_fast": 2,
        "retransmissions_tlp": 3,
        "retransmissions_syn": 4,
        "retransmissions_syn_ack": 5,
        "retransmissions_other": 6,
        "retransmissions_unseen": 9,
    }
    assert {name: fields[name] for name in expected} == expected
    assert {name for name, value in fields.items() if value is not None} == set(expected)


@pytest.mark.parametrize(
    ("total", "causes", "unseen"),
    [(7, [1, 2, 0, 0, 0, 1], 3), (4, [1, 2, 0, 0, 0, 1], 0), (0, [0] * 6, 0), (7, [-1] * 6, None), (-1, [0] * 6, None)],
)
def test_causes_and_what_was_before_add_up(
    total: int, causes: list[int], unseen: int | None, make_row: Any, put_socket: Any, info: TraceInfo
) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2))
    put_socket(row, "src", retransmissions=total, retransmissions_by=causes)
    (fields,) = fields_of(row, info)
    assert fields["retransmissions_unseen"] == unseen
    if unseen is not None:
        assert sum(fields[f"retransmissions_{cause}"] for cause in (*CAUSES, "unseen")) == total


def test_the_peers_are_told_where_both_ends_are_this_hosts(make_row: Any, put_socket: Any, info: TraceInfo) -> None:
    rows = np.repeat(make_row(1, ("127.0.0.1", 1), ("127.0.0.1", 2), near_end=3), 3)
    for row in np.split(rows, 3)[:2]:
        put_socket(row, "src", state="ESTABLISHED", pid=1, comm="client", srtt_us=5)
    put_socket(
        rows[1:2], "dst", state="CLOSE-WAIT", pid=2, comm="server", srtt_us=6, uid=8, cgroup_id=77, cwnd_packets=9
    )
    alone, paired, without = fields_of(rows, info)
    assert [fields["process"] for fields in (alone, paired, without)] == ["client", "client", None]
    assert {name: value for name, value in paired.items() if name.startswith("peer_")} == {
        "peer_kernel_state": "CLOSE-WAIT",
        "peer_srtt_us": 6,
        "peer_cwnd_packets": 9,
        "peer_kernel_retransmissions": None,
        "peer_pid": 2,
        "peer_process": "server",
        "peer_uid": 8,
        "peer_cgroup_id": 77,
        "peer_container_id": CONTAINER,
    }
    assert {value for name, value in alone.items() if name.startswith("peer_")} == {None}
    assert set(without.values()) == {None}
    assert list(alone) == list(paired) == list(without) == list(fields_of(rows[2:], info)[0])


def test_a_hostile_name_is_only_text(make_row: Any, put_socket: Any, info: TraceInfo, make_view: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2))
    put_socket(row, "src", comm=b'\x1b[2J"\n\xff', state=200, congestion_state=9)
    stream = io.StringIO()
    sink = Ndjson(stream)
    sink.open(info)
    sink.update(make_view(row))
    line = stream.getvalue().splitlines()[1]
    assert line.isprintable()
    event = json.loads(line)
    assert (event["process"], event["kernel_state"], event["congestion_state"]) == ('\x1b[2J"\n\ufffd', None, None)


def test_the_schema_knows_every_name() -> None:
    described = schema()["$defs"]
    connection, retransmission = described["connection"]["properties"], described["retransmission"]["properties"]
    assert set(connection["kernel_state"]["enum"]) == set(KERNEL_STATES)
    assert set(connection["congestion_state"]["enum"]) == {None, *CONGESTION_STATES}
    assert retransmission["cause"]["enum"] == list(CAUSES)
    assert described["start"]["properties"]["probes"]["enum"] == [None, *PROBES]


def records_of(*records: tuple[int, dict[str, Any], dict[str, Any]]) -> np.ndarray:
    """Records of an event each, of the connection 10.0.0.1:40000 to 10.0.0.2:443: their fields, and the view's."""
    made = np.zeros(len(records), SOCKET_RECORD)
    made["time_ns"] = START_NS + np.arange(len(records))
    key = made["key"]
    key["local_addr"], key["remote_addr"] = raw_address("10.0.0.1"), raw_address("10.0.0.2")
    key["local_port"], key["remote_port"], key["ip_version"], key["netns"] = 40_000, 443, 4, NETNS
    for place, (event, fields, view) in enumerate(records):
        made["event"][place] = event
        made["view"][place : place + 1] = socket_view(**view)
        for name, value in fields.items():
            made[name][place] = value
    return made


VIEW: dict[str, Any] = {
    "state": "ESTABLISHED",
    "congestion_state": 4,
    "srtt_us": 5_000,
    "rto_us": 204_000,
    "cwnd_packets": 1,
    "ssthresh_packets": 7,
    "in_flight_packets": 1,
    "lost_packets": 9,
    "retransmissions": 12,
    "pid": 900,
    "comm": "nginx",
    "uid": 33,
}


def written(batch: SocketBatch, info: TraceInfo) -> list[dict[str, Any]]:
    stream = io.StringIO()
    sink = Ndjson(stream)
    sink.open(info)
    sink.socket_events(batch)
    return [json.loads(line) for line in stream.getvalue().splitlines()[1:]]


def test_events_come_in_their_order(info: TraceInfo, validator: Any) -> None:
    records = records_of(
        (SOCKET_STATE, {"old_state": KERNEL_STATES.index("SYN-SENT")}, VIEW),
        (SOCKET_SAMPLE, {}, VIEW),
        (SOCKET_RETRANSMISSION, {"cause": CAUSES.index("rto"), "segments": 2}, VIEW),
        (SOCKET_FOUND, {}, VIEW),
        (SOCKET_STATE, {"old_state": KERNEL_STATES.index("FIN-WAIT-1")}, {"state": "FIN-WAIT-1"}),  # was that before
        (SOCKET_STATE, {}, {"state": "SYN-SENT"}),
        (SOCKET_RETRANSMISSION, {"cause": CAUSES.index("tlp")}, {}),
    )
    events = written(SocketBatch(records, np.array([7, 7, 7, 7, 7, 0, 0], "u8")), info)
    assert [event["event"] for event in events] == ["state", "retransmission", "state", "retransmission"]
    of_socket = {
        "schema_version": 1,
        "interface": "eth0",
        "netns": NETNS,
        "connection_id": 7,
        "local_ip": "10.0.0.1",
        "local_port": 40_000,
        "remote_ip": "10.0.0.2",
        "remote_port": 443,
        "ip_version": 4,
        "pid": 900,
        "process": "nginx",
        "srtt_us": 5_000,
        "cwnd_packets": 1,
        "kernel_retransmissions": 12,
    }
    assert events[0] == of_socket | {
        "event": "state",
        "time": "2023-11-14T22:13:20.000000000Z",
        "old_state": "SYN-SENT",
        "new_state": "ESTABLISHED",
        "uid": 33,
    }
    assert events[1] == of_socket | {
        "event": "retransmission",
        "time": "2023-11-14T22:13:20.000000002Z",
        "cause": "rto",
        "segments": 2,
        "kernel_state": "ESTABLISHED",
        "congestion_state": "Loss",
        "rto_us": 204_000,
        "ssthresh_packets": 7,
        "in_flight_packets": 1,
        "lost_packets": 9,
    }
    assert (events[2]["connection_id"], events[2]["old_state"], events[2]["process"]) == (None, None, None)
    for event in events:
        validator.validate(event)
        assert list(event) == list(schema()["$defs"][event["event"]]["properties"])


def test_many_events_are_written_in_batches(info: TraceInfo) -> None:
    records = records_of(*[(SOCKET_STATE, {}, {"state": "CLOSED"})] * (BATCH_LINES + 3))
    events = written(SocketBatch(records, np.arange(len(records), dtype="u8")), info)
    assert [event["connection_id"] for event in events] == [None, *range(1, len(records))]


def test_sinks_take_the_events_only_where_they_are_asked_for() -> None:
    from tcptrace.cli.outputs import socket_event_sinks
    from tcptrace.sinks.plain_table import PlainTable

    class Asked:
        def __init__(self, events: bool) -> None:
            self.events = events

    json_sink, table = Ndjson(io.StringIO()), PlainTable(io.StringIO())
    assert socket_event_sinks(Asked(True), [json_sink, table]) == [json_sink]  # type: ignore[arg-type]
    assert socket_event_sinks(Asked(False), [json_sink, table]) == []  # type: ignore[arg-type]
