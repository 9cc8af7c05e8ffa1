"""The --json output against its own schema, and line by line."""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.model import ANALYSIS, PacketBatch, Rows, Totals, TraceInfo
from tcptrace.sinks.ndjson import BATCH_LINES, Ndjson, schema

START = "2023-11-14T22:13:20.000000000Z"
START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


@pytest.fixture
def check() -> Callable[[dict[str, Any]], None]:
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    return jsonschema.Draft202012Validator(described).validate


@pytest.fixture
def info(info: TraceInfo) -> TraceInfo:
    """Of a trace that also follows sockets."""
    return dataclasses.replace(
        info, probes="kprobes", netns=4_026_531_840, container_of=lambda cgroup_id: f"{cgroup_id:064x}"
    )


@pytest.fixture
def full_row(make_row: Callable[..., Rows]) -> Rows:
    """A connection of which everything is known, from the wire and from the sockets at both ends."""
    row = make_row(
        7,
        ("10.0.0.1", 40_000),
        ("10.0.0.2", 443),
        state="ESTABLISHED",
        src_state="ESTABLISHED",
        dst_state="CLOSE-WAIT",
        duration_s=2.0,
        handshake_rtt_us=123.4567,
        initial_rtt_us=124.5678,
        vlan_id=100,
        near_end=1,
        end_reason="closed",
        handshake="complete",
        closed_by="dst",
        close_kind="fin",
        half_closed_us=654.3216,
        port_reuse=1,
    )
    for number, direction in enumerate(("sent", "received"), start=1):
        side = row[direction]
        for position, name in enumerate(side.dtype.names):
            if name not in ("mac", "mac_known"):
                side[name] = number * 100 + position
        side["mac"] = [2, 0, 0, 0, 0, number]
        side["mac_known"] = 1
        side["flags_seen"] = r.FLAG_SYN | r.FLAG_ACK
        side["traffic_class"] = (46 << 2) | number
        side["window_scale"] = 7
        side["ttl"] = 64
        side["bytes"] = 1_000 * number
        side["payload_bytes"] = 700 * number
        side["retransmitted_bytes"] = 101 * number
    briefs = row["recent"][0]
    for index in range(7):
        briefs[index % 5]["time_ns"] = START_NS + index * 1_000
        briefs[index % 5]["seq"] = 1_000 + index
        briefs[index % 5]["flags"] = r.FLAG_ACK
        briefs[index % 5]["segments"] = 1
    briefs[6 % 5]["analysis"] = 1 << ANALYSIS.index("retransmission") | 1 << ANALYSIS.index("duplicate_ack")
    briefs[6 % 5]["segments"] = 3
    briefs[6 % 5]["received"] = 1
    row["recent_total"] = 7
    for number, end in enumerate(("src_socket", "dst_socket"), start=3):
        view = row[end]
        for position, name in enumerate(view.dtype.names):
            view[name] = number * 1000 + position if view.dtype[name].base.itemsize > 1 else 1
        view["retransmissions_by"] = range(6)
        view["comm"][:, :5] = list(b"curl\0")
        view["congestion_control"][:, :6] = list(b"cubic\0")
    return row


@pytest.fixture
def full_packet(make_packet: Callable[..., np.ndarray]) -> np.ndarray:
    """A packet that carries everything."""
    return make_packet(
        ("10.0.0.1", 40_000),
        ("10.0.0.2", 443),
        seq=1,
        ack=2,
        flags=r.FLAG_SYN | r.FLAG_ACK,
        window=512,
        payload_bytes=3_000,
        frame_bytes=3_200,
        segments=3,
        ttl=64,
        traffic_class=(46 << 2) | 3,
        ip_id=99,
        vlan_count=2,
        vlan_outer=0xE064,
        vlan_inner=0x20C8,
        direction=r.DIRECTION_EGRESS,
        options=0x1F,
        mss=1460,
        window_scale=7,
        sack_count=2,
        sack_left=[10, 30, 0],
        sack_right=[20, 40, 0],
        ts_value=5,
        ts_echo=6,
        src_mac=[2, 0, 0, 0, 0, 1],
        dst_mac=[2, 0, 0, 0, 0, 2],
        note=r.NOTE_ETHERNET,
    )


@pytest.fixture
def full_batch(full_packet: np.ndarray, make_batch: Callable[..., PacketBatch]) -> PacketBatch:
    """The packet, and everything that can be found about one."""
    return make_batch(
        full_packet,
        connection_id=7,
        analysis=["retransmission fast_retransmission duplicate_ack"],
        duplicate_ack_number=3,
        rtt_us=123.4567,
        in_flight_bytes=4_344,
        received=1,
    )


class Run:
    """A sink that writes to memory, and the events it has written since the last look."""

    def __init__(self, info: TraceInfo, *, packets: bool = True) -> None:
        self.stream = io.BytesIO()
        self.sink = Ndjson(self.stream, packets=packets, now_ns=lambda: START_NS)
        self.sink.open(info)
        self.start = self.take()

    def take(self) -> list[dict[str, Any]]:
        text = self.stream.getvalue().decode()
        self.stream.seek(0)
        self.stream.truncate()
        assert not text or text.endswith("\n")
        return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@pytest.fixture
def run(info: TraceInfo) -> Iterator[Run]:
    return Run(info)


def test_the_first_line_says_what_is_traced(run: Run) -> None:
    assert run.start == [
        {
            "event": "start",
            "schema_version": 1,
            "time": START,
            "version": "1.2.3",
            "interface": "eth0",
            "netns": 4_026_531_840,
            "hook": "tc",
            "probes": "kprobes",
            "filter": "tcp port 443",
            "files": None,
        }
    ]


def test_the_first_line_of_files_names_them_and_reads_no_clock(
    file_info: TraceInfo, check: Callable[[dict[str, Any]], None], make_view: Any
) -> None:
    odd = ("-", "../b.pcap", "no\udcfe unicode\n")
    run = Run(dataclasses.replace(file_info, files=odd, filter="port 80"))
    assert run.start == [
        {
            "event": "start",
            "schema_version": 1,
            "time": None,
            "version": "1.2.3",
            "interface": None,
            "netns": None,
            "hook": None,
            "probes": None,
            "filter": "port 80",
            "files": list(odd),
        }
    ]
    run.sink.close(make_view())
    (summary,) = run.take()
    assert (summary["interface"], summary["files"]) == (None, list(odd))
    check(run.start[0])
    check(summary)


def test_only_changed_rows_in_use_get_a_line(run: Run, make_row: Callable[..., Rows], make_view: Any) -> None:
    rows = np.concatenate([make_row(n, ("10.0.0.1", n), ("10.0.0.2", 80)) for n in (1, 2, 3, 4)])
    rows["changed"] = [1, 0, 1, 1]
    rows["in_use"] = [1, 1, 0, 1]
    run.sink.update(make_view(rows))
    events = run.take()
    assert [event["connection_id"] for event in events] == [1, 4]
    assert {(event["final"], event["end_reason"]) for event in events} == {(False, None)}
    assert events[0]["time"] == "2023-11-14T22:13:21.000000000Z"


def test_ended_and_left_over_rows_get_their_final_line(run: Run, make_row: Callable[..., Rows], make_view: Any) -> None:
    gone = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 80), end_reason="reset", duration_s=5)
    left = make_row(2, ("10.0.0.1", 2), ("10.0.0.2", 80), changed=0)
    run.sink.ended(gone)
    run.sink.close(make_view(left, time_ns=START_NS + 9 * SECOND))
    run.sink.close(make_view(left))
    first, second, summary = run.take()
    assert (first["connection_id"], first["final"], first["end_reason"]) == (1, True, "reset")
    assert first["time"] == "2023-11-14T22:13:25.000000000Z"
    assert (second["connection_id"], second["final"], second["end_reason"]) == (2, True, "trace_end")
    assert summary["event"] == "summary"
    assert summary["time"] == "2023-11-14T22:13:29.000000000Z"


def test_a_connection_of_which_all_is_known(run: Run, full_row: Rows, make_view: Any) -> None:
    run.sink.update(make_view(full_row))
    (event,) = run.take()
    assert [name for name, value in event.items() if value is None] == []
    assert event["service"] == "https"
    assert (event["state"], event["src_state"], event["dst_state"]) == ("ESTABLISHED", "ESTABLISHED", "CLOSE-WAIT")
    assert (event["vlan_id"], event["near_end"], event["duration_s"]) == (100, "src", 2.0)
    assert (event["handshake_rtt_us"], event["initial_rtt_us"], event["half_closed_us"]) == (123.457, 124.568, 654.322)
    assert (event["handshake"], event["closed_by"], event["close_kind"]) == ("complete", "dst", "fin")
    assert event["port_reuse"] is True
    assert (event["sent_average_bytes_per_s"], event["received_average_bytes_per_s"]) == (500.0, 1000.0)
    assert (event["sent_average_payload_bytes_per_s"], event["received_average_payload_bytes_per_s"]) == (350.0, 700.0)
    assert (event["sent_goodput_bytes_per_s"], event["received_goodput_bytes_per_s"]) == (299.5, 599.0)
    assert (event["sent_dscp"], event["sent_ecn"], event["received_ecn"]) == (46, 1, 2)
    assert (event["sent_mac"], event["received_mac"]) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    assert event["sent_flags_seen"] == "SYN|ACK"


KERNEL_FIELDS = {
    "kernel_state srtt_us rttvar_us rtt_min_us rto_us cwnd_packets ssthresh_packets congestion_control "
    "congestion_state kernel_retransmissions retransmissions_rto retransmissions_fast retransmissions_tlp "
    "retransmissions_syn retransmissions_syn_ack retransmissions_other retransmissions_unseen in_flight_packets "
    "lost_packets sacked_packets reordering_packets delivered_packets dsack_duplicates delivery_rate_bytes_per_s "
    "pacing_rate_bytes_per_s snd_wnd_bytes rcv_wnd_bytes kernel_bytes_sent kernel_bytes_retransmitted "
    "kernel_bytes_acked kernel_bytes_received busy_us rwnd_limited_us sndbuf_limited_us pid process uid cgroup_id "
    "container_id netns peer_kernel_state peer_srtt_us peer_cwnd_packets peer_kernel_retransmissions peer_pid "
    "peer_process peer_uid peer_cgroup_id peer_container_id"
}.pop()

SET_APART = {
    *("bytes", "payload_bytes", "retransmitted_bytes", "flags_seen", "traffic_class", "window_scale", "ttl"),
    *("mac", "mac_known"),
}
"""What `full_row` does not number through."""


def test_each_field_of_a_direction_comes_out_under_its_name(run: Run, full_row: Rows, make_view: Any) -> None:
    run.sink.update(make_view(full_row))
    (event,) = run.take()
    names = full_row["sent"].dtype.names
    numbered = [name for name in names if name not in SET_APART]
    assert len(numbered) == 44
    for name in numbered:
        shown = "rtt_us" if name == "rtt_last_us" else name
        assert event[f"sent_{shown}"] == 100 + names.index(name), name
        assert event[f"received_{shown}"] == 200 + names.index(name), name
    assert (event["sent_bytes"], event["received_payload_bytes"]) == (1_000, 1_400)
    assert (event["sent_retransmitted_bytes"], event["received_retransmitted_bytes"]) == (101, 202)
    assert (event["sent_window_scale"], event["received_ttl"]) == (7, 64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("handshake", ["complete", "half_open", "refused", "unanswered", None]),
        ("closed_by", ["src", "dst", "both", None]),
        ("close_kind", ["fin", "reset", None]),
    ],
)
def test_how_it_began_and_ended_is_told_by_name(
    name: str,
    values: list[str | None],
    run: Run,
    check: Callable[[dict[str, Any]], None],
    make_row: Callable[..., Rows],
    make_view: Any,
) -> None:
    rows = [make_row(n, ("10.0.0.1", n), ("10.0.0.2", 80), **{name: v}) for n, v in enumerate(values, start=1)]
    run.sink.update(make_view(np.concatenate(rows)))
    events = run.take()
    assert [event[name] for event in events] == values
    for event in events:
        check(event)
    assert set(schema()["$defs"]["connection"]["properties"][name]["enum"]) == set(values)


def test_the_schema_knows_every_finding() -> None:
    assert schema()["$defs"]["packet"]["properties"]["analysis"]["items"]["enum"] == list(ANALYSIS)


def test_the_last_packets_are_told_oldest_first(run: Run, full_row: Rows, make_view: Any) -> None:
    early = full_row.copy()
    early["recent_total"] = 2
    run.sink.update(make_view(np.concatenate([full_row, early])))
    ring, start = (event["last_packets"] for event in run.take())
    assert ring == [
        "+0.000002 sent [.] seq 1002 ack 0 win 0 len 0",
        "+0.000003 sent [.] seq 1003 ack 0 win 0 len 0",
        "+0.000004 sent [.] seq 1004 ack 0 win 0 len 0",
        "+0.000005 sent [.] seq 1005 ack 0 win 0 len 0",
        "+0.000006 received [.] seq 1006 ack 0 win 0 len 0 ×3 retransmission duplicate_ack",
    ]
    assert [text.split(" ack")[0] for text in start] == [
        "+0.000005 sent [.] seq 1005",
        "+0.000006 received [.] seq 1006",
    ]


def test_what_is_not_known_is_null(run: Run, make_row: Callable[..., Rows], make_view: Any) -> None:
    run.sink.update(make_view(make_row(1, ("2001:db8::1", 40_000), ("2001:db8::2", 40_001), state=None)))
    (event,) = run.take()
    unknown = {name for name, value in event.items() if value is None}
    sides = {
        "seq ack window window_bytes window_min_bytes window_max_bytes window_scale mss_bytes ttl dscp ecn mac "
        "bytes_per_s packets_per_s average_bytes_per_s average_payload_bytes_per_s goodput_bytes_per_s "
        "in_flight_bytes in_flight_max_bytes rtt_us rtt_smoothed_us rtt_min_us rtt_max_us rtt_mean_us rtt_stddev_us "
        "rtt_p50_us rtt_p90_us rtt_p99_us rtt_jitter_us timestamp_hz"
    }.pop()
    expected = {f"{direction}_{name}" for direction in ("sent", "received") for name in sides.split()}
    expected |= {"end_reason", "vlan_id", "service", "near_end", "state", "src_state", "dst_state"}
    expected |= {"handshake", "handshake_rtt_us", "initial_rtt_us", "closed_by", "close_kind", "half_closed_us"}
    expected |= set(KERNEL_FIELDS.split())
    assert unknown == expected
    assert event["src_ip"] == "2001:db8::1"
    assert (event["sent_packets"], event["port_reuse"]) == (0, False)


def test_the_service_is_the_sources_only_where_it_is_not_known_who_began(
    run: Run, make_row: Callable[..., Rows], make_view: Any
) -> None:
    rows = np.concatenate([make_row(1, ("10.0.0.1", 443), ("10.0.0.2", 9_999), initiator_known=n) for n in (1, 0)])
    run.sink.update(make_view(rows))
    assert [(event["initiator_known"], event["service"]) for event in run.take()] == [(True, None), (False, "https")]


def test_a_packet_that_carries_everything(run: Run, full_batch: PacketBatch) -> None:
    run.sink.packets(full_batch)
    (event,) = run.take()
    assert event == {
        "event": "packet",
        "schema_version": 1,
        "time": START,
        "interface": "eth0",
        "direction": "out",
        "connection_id": 7,
        "from": "dst",
        "analysis": ["retransmission", "fast_retransmission", "duplicate_ack"],
        "duplicate_ack_number": 3,
        "rtt_us": 123.457,
        "in_flight_bytes": 4_344,
        "src_ip": "10.0.0.1",
        "src_port": 40_000,
        "dst_ip": "10.0.0.2",
        "dst_port": 443,
        "ip_version": 4,
        "flags": "SYN|ACK",
        "dscp": 46,
        "ecn": 3,
        "ip_id": 99,
        "vlan_id": 100,
        "vlan_inner_id": 200,
        "seq": 1,
        "ack": 2,
        "window": 512,
        "payload_bytes": 3_000,
        "frame_bytes": 3_200,
        "segments": 3,
        "ttl": 64,
        "mss_bytes": 1460,
        "window_scale": 7,
        "sack_permitted": True,
        "sack_blocks": [[10, 20], [30, 40]],
        "ts_value": 5,
        "ts_echo": 6,
        "src_mac": "02:00:00:00:00:01",
        "dst_mac": "02:00:00:00:00:02",
    }


def test_a_packet_that_carries_nothing(
    run: Run, make_packet: Callable[..., np.ndarray], make_batch: Callable[..., PacketBatch]
) -> None:
    run.sink.packets(make_batch(make_packet(("::1", 1), ("::1", 2), direction=r.DIRECTION_UNKNOWN)))
    (event,) = run.take()
    nothing = "direction ack ip_id vlan_id vlan_inner_id mss_bytes window_scale ts_value ts_echo src_mac dst_mac"
    nothing += " duplicate_ack_number rtt_us in_flight_bytes"
    assert {name for name, value in event.items() if value is None} == set(nothing.split())
    assert (event["connection_id"], event["from"], event["analysis"]) == (1, "src", [])
    assert (event["sack_permitted"], event["sack_blocks"], event["flags"]) == (False, [], "")


def test_the_summary_counts_by_name(run: Run, make_view: Any) -> None:
    totals = Totals(
        packets=10,
        connections=2,
        connections_total=3,
        evicted=1,
        connections_by_state={"FIN-WAIT-1": 2},
        rtt_samples_dropped=12,
        rtt_percentiles_dropped=13,
        socket_records=14,
        socket_records_lost=0,
        sockets_forgotten=15,
        counters={"records_lost": 4, "malformed_ipv4": 5, "fragment": 6},
    )
    run.sink.update(make_view())
    run.sink.close(make_view(totals=totals, time_ns=START_NS + 5 * SECOND))
    (event,) = run.take()
    expected = {
        "packets": 10,
        "connections": 2,
        "connections_total": 3,
        "evicted": 1,
        "connections_fin_wait_1": 2,
        "connections_established": 0,
        "records_lost": 4,
        "malformed_ipv4": 5,
        "fragments": 6,
        "rtt_samples_dropped": 12,
        "rtt_percentiles_dropped": 13,
        "socket_records": 14,
        "socket_records_lost": 0,
        "sockets_forgotten": 15,
        "sockets_without_room": 0,
        "malformed_tcp": None,
        "snapped": None,
        "unsupported_link": None,
        "time_out_of_range": None,
        "without_time": None,
        "cut_off": None,
        "files": None,
        "duration_s": 5.0,
    }
    assert {name: event[name] for name in expected} == expected


def test_the_summary_of_files_counts_what_only_files_have(file_info: TraceInfo, make_view: Any) -> None:
    run = Run(file_info)
    counters = {"snapped": 17, "unsupported_link": 23, "time_out_of_range": 5, "without_time": 7, "cut_off": 2}
    run.sink.close(make_view(totals=Totals(counters=counters)))
    (event,) = run.take()
    assert {name: event[name] for name in counters} == counters
    assert (event["records_lost"], event["interface"], event["files"]) == (None, None, ["/captures/trace.pcapng"])
    assert (event["socket_records"], event["socket_records_lost"]) == (None, None)


def test_real_output_is_as_the_schema_says_and_has_every_field_of_it(
    run: Run,
    check: Callable[[dict[str, Any]], None],
    full_row: Rows,
    full_batch: PacketBatch,
    sample_rows: Rows,
    sample_totals: Totals,
    make_view: Any,
) -> None:
    run.sink.packets(full_batch)
    run.sink.update(make_view(np.concatenate([sample_rows, full_row])))
    run.sink.ended(full_row)
    run.sink.close(make_view(sample_rows, sample_totals))
    events = run.start + run.take()
    assert [event["event"] for event in events] == ["start", "packet", *["connection"] * 14, "summary"]
    for event in events:
        check(event)
        described = schema()["$defs"][event["event"]]
        assert set(event) == set(described["properties"]) == set(described["required"])


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"state": "OPEN"},
        {"handshake": "open"},
        {"sent_rtt_us": "NaN"},
        {"sent_packets": None},
        {"time": "2023-11-14T22:13:20Z"},
    ],
)
def test_the_schema_refuses_what_is_not_so(
    run: Run, check: Callable[[dict[str, Any]], None], full_row: Rows, make_view: Any, change: dict[str, Any]
) -> None:
    run.sink.update(make_view(full_row))
    (event,) = run.take()
    check(event)
    with pytest.raises(jsonschema.ValidationError):
        check(event | change)


def test_every_field_is_described_with_its_unit() -> None:
    words = {"_us": "microseconds", "_s": "second", "_bytes": "bytes"}
    seen = set()
    for event in schema()["$defs"].values():
        assert event["additionalProperties"] is False
        for name, field in event["properties"].items():
            assert field["description"].endswith("."), name
            for suffix, unit in words.items():
                if name.endswith(suffix):
                    assert unit in field["description"].lower(), name
                    seen.add(suffix)
    assert seen == set(words)


class Flushes(io.StringIO):
    """Remembers how much had been written at each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []

    def flush(self) -> None:
        self.lines.append(self.getvalue().count("\n"))


def test_text_streams_are_flushed_once_a_batch(
    info: TraceInfo,
    make_packet: Callable[..., np.ndarray],
    make_batch: Callable[..., PacketBatch],
    make_view: Any,
) -> None:
    stream = Flushes()
    sink = Ndjson(stream, packets=True)
    sink.open(info)
    assert stream.lines == [1]
    packet = make_packet(("10.0.0.1", 1), ("10.0.0.2", 2))
    sink.packets(make_batch(np.repeat(packet, BATCH_LINES + 3)))
    assert stream.lines == [1, 1 + BATCH_LINES, 4 + BATCH_LINES]
    sink.update(make_view())
    assert len(stream.lines) == 3


def test_a_closed_pipe_is_the_callers_matter(info: TraceInfo) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Ndjson(Closed()).open(info)


def test_json_does_not_wait_for_rich() -> None:
    code = "import sys, tcptrace.sinks.ndjson; print(sorted(m for m in sys.modules if m.split('.')[0] == 'rich'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
