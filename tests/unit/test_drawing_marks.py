"""Where sequence diagrams put things, by hand-computed numbers and by tshark's relative ones."""

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.errors import TcptraceError
from tcptrace.model import ANALYSIS, FINDING, PacketBatch
from tcptrace.sinks.drawing import axes_text, goodput, kinds, series
from tcptrace.sinks.drawing.decimation import Grid, distinct_points, merge_bars, thin_line
from tcptrace.sinks.drawing.history import PACKET, Collector, History, by_bytes
from tcptrace.sinks.drawing.marks import Points, cut_off_bytes, decimated, diagrams, limits
from tcptrace.sinks.drawing.sequence_numbers import Space, relative_numbers

CLIENT, SERVER = ("10.0.0.1", 40_000), ("10.0.0.2", 443)
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
CAPTURES = Path(os.environ.get("TCPTRACE_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
TSHARK = shutil.which("tshark")

Story = Callable[..., PacketBatch]


def bit(*names: str) -> int:
    return sum(1 << ANALYSIS.index(name) for name in names)


@pytest.fixture
def story(make_packet: Callable[..., np.ndarray]) -> Story:
    """A batch from lines of (milliseconds, received, flags, {record or finding field: value})."""

    def make(*lines: tuple[float, int, int, dict[str, Any]], number: int = 1) -> PacketBatch:
        found = np.zeros(len(lines), FINDING)
        found["connection_id"], found["rtt_us"], found["in_flight_bytes"] = number, np.nan, -1
        packets = []
        for i, (ms, received, flags, fields) in enumerate(lines):
            found["received"][i] = received
            for name in found.dtype.names or ():
                if name in fields:
                    found[name][i] = fields.pop(name)
            if "seq" in fields:
                fields["seq"] %= 2**32
            if "ack" in fields:
                fields["ack"] %= 2**32
            fields.setdefault("frame_bytes", 54 + fields.get("payload_bytes", 0))
            ends = (SERVER, CLIENT) if received else (CLIENT, SERVER)
            packets.append(make_packet(*ends, time_ns=START_NS + round(ms * MS), flags=flags, **fields))
        return PacketBatch(np.concatenate(packets), found, None)

    return make


def history_of(batch: PacketBatch, **options: Any) -> History:
    collector = Collector(None, **options)
    collector.add(batch)
    (history,) = collector.histories()
    return history


SCALED = {"options": r.OPTION_WINDOW_SCALE, "window_scale": 7}
SYN, FIN, RST, ACK = r.FLAG_SYN, r.FLAG_FIN, r.FLAG_RST, r.FLAG_ACK


def handshake(isn: int, other: int, **options: Any) -> list[tuple[float, int, int, dict[str, Any]]]:
    scale = {**SCALED, **options}
    return [
        (0, 0, SYN, {"seq": isn, "window": 64_000, **scale}),
        (10, 1, SYN | ACK, {"seq": other, "ack": isn + 1, "window": 65_000, **SCALED}),
        (11, 0, ACK, {"seq": isn + 1, "ack": other + 1, "window": 500}),
    ]


# --- Sequence numbers


def test_numbers_go_on_over_the_wrap_and_back() -> None:
    numbers = np.array([2**32 - 100, 2**32 - 99, 50, 2**32 - 50, 2_000_000_000, 4_000_000_000, 0], np.uint32)
    relative = Space().relative(numbers, np.ones(7, bool), True)
    assert relative.tolist() == [0, 1, 150, 50, 2_000_000_100, 4_000_000_100, 2**32 + 100]


def test_a_reset_s_number_leads_nowhere() -> None:
    numbers = np.array([1_000, 3_000_000_000, 1_500, 2_500_000_000], np.uint32)
    relative = Space().relative(numbers, np.array([True, False, True, False]), False)
    # 3e9 - 1000 is nearer from below: -(2**32 - 2_999_999_000) + 1.
    assert relative.tolist() == [1, 3_000_000_000 - 2**32 - 999, 501, 2_500_000_000 - 2**32 - 999]


def test_numbers_are_the_same_in_one_batch_and_in_many() -> None:
    random = np.random.default_rng(5)
    packets = np.zeros(500, PACKET)
    packets["received"] = random.integers(0, 2, 500)
    packets["flags"] = np.where(random.random(500) < 0.05, RST, ACK)
    walk = np.cumsum(random.integers(-(10**6), 10**8, 500))
    packets["seq"], packets["ack"] = walk % 2**32, (walk * 3 + 77) % 2**32
    whole = relative_numbers(packets, (Space(), Space()))
    spaces = (Space(), Space())
    parts = [relative_numbers(packets[i : i + 7], spaces) for i in range(0, 500, 7)]
    for i in (0, 1):
        assert np.array_equal(whole[i], np.concatenate([part[i] for part in parts]))
    assert whole[0].max() > 2 * 2**32  # it went round


@pytest.mark.skipif(TSHARK is None, reason="needs tshark")
@pytest.mark.parametrize(
    ("name", "least"), [("bro/206_example_b.pcap", 1_000), ("nDPI/fix2.pcap", 2_000), ("nDPI/iphone.pcap", 300)]
)
def test_relative_numbers_are_tshark_s(name: str, least: int) -> None:
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"needs the capture {name}")
    fields = ["tcp.stream", "ip.src", "tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.seq", "tcp.ack"]
    command = [str(TSHARK), "-r", str(path), "-d", "tcp.port==0-65535,data", "-Y", "tcp && ip && !icmp", "-T", "fields"]
    done = subprocess.run(
        [*command, *(word for field in fields for word in ("-e", field))], capture_output=True, text=True, timeout=120
    )
    streams: dict[str, list[list[str]]] = defaultdict(list)
    for line in done.stdout.splitlines():
        streams[line.split("\t")[0]].append(line.split("\t"))
    compared = 0
    for rows in streams.values():
        packets = np.zeros(len(rows), PACKET)
        packets["received"] = [row[1:3] != rows[0][1:3] for row in rows]
        packets["seq"], packets["ack"] = [int(row[3]) for row in rows], [int(row[4]) for row in rows]
        packets["flags"] = [int(row[5], 16) & 0x1FF for row in rows]
        seq, ack = relative_numbers(packets, (Space(), Space()))
        plain = packets["flags"] & RST == 0
        acks = plain & (packets["flags"] & ACK != 0)
        assert (seq % 2**32)[plain].tolist() == [
            int(row[6]) for row, is_plain in zip(rows, plain, strict=True) if is_plain
        ]
        assert (ack % 2**32)[acks].tolist() == [int(row[7]) for row, is_ack in zip(rows, acks, strict=True) if is_ack]
        compared += int(plain.sum())
    assert compared >= least


# --- What is drawn where


def test_data_acks_and_window_edge(story: Story) -> None:
    isn = 2**32 - 50
    batch = story(
        *handshake(isn, 900),
        (20, 0, ACK, {"seq": isn + 1, "ack": 901, "payload_bytes": 100, "window": 500}),
        (30, 1, ACK, {"seq": 901, "ack": isn + 101, "window": 3}),
        (35, 1, ACK, {"seq": 901, "ack": isn + 51, "window": 900}),  # old: moves nothing
        (40, 0, FIN | ACK, {"seq": isn + 101, "ack": 901, "window": 500}),
    )
    sent, received = diagrams(history_of(batch))
    data = sent.bars["data"]
    assert (data.x.tolist(), data.low.tolist(), data.high.tolist()) == ([0.02], [1], [101])
    acked = sent.stairs["acknowledged"]
    assert (acked.x.tolist(), acked.y.tolist()) == ([0.01, 0.03], [1, 101])
    # The SYN-ACK's window is not scaled (RFC 7323 section 2.2), the next one is shifted by 7.
    assert sent.stairs["window edge"].y.tolist() == [1 + 65_000, 101 + 3 * 128]
    assert (sent.events["SYN"].y.tolist(), sent.events["FIN"].y.tolist()) == ([0], [101])
    assert (sent.payload_bytes, received.payload_bytes, sent.duration_s) == (100, 0, 0.04)
    assert "data" not in received.bars
    assert received.stairs["window edge"].y.tolist() == [1 + 500 * 128] * 3
    assert [kind.label for kind in sent.kinds()] == ["data", "acknowledged", "window edge", "FIN", "SYN"]


@pytest.mark.parametrize(
    ("syns", "edge"),
    [
        ({}, 1 + 500 * 128),
        ({"options": 0}, 1 + 500),  # one end did not offer it: as it is
        (None, None),  # not both SYNs seen: not known
    ],
)
def test_the_window_edge_needs_both_syns(story: Story, syns: dict[str, Any] | None, edge: int | None) -> None:
    lines = handshake(100, 900, **(syns or {}))
    sent, received = diagrams(history_of(story(*(lines if syns is not None else lines[1:]))))
    assert received.window_known == sent.window_known == (edge is not None)
    if edge is None:
        assert "window edge" not in received.stairs
        assert axes_text.window_notes(False, 0) == ["window edge not drawn: its scale is unknown (not both SYNs seen)"]
    else:
        assert received.stairs["window edge"].y.max() == edge


def test_findings_are_drawn_at_their_bytes(story: Story) -> None:
    batch = story(
        *handshake(100, 900),
        (20, 1, ACK, {"seq": 901, "ack": 101, "payload_bytes": 100}),
        (21, 1, ACK, {"seq": 1_101, "ack": 101, "payload_bytes": 100,
                      "analysis": bit("previous_segment_not_captured")}),
        (22, 0, ACK, {"seq": 101, "ack": 1_001, "window": 9, "analysis": bit("duplicate_ack"), "sack_count": 2,
                      "sack_left": [1_101, 901, 0], "sack_right": [1_201, 951, 0]}),
        (30, 1, ACK, {"seq": 1_001, "ack": 101, "payload_bytes": 100,
                      "analysis": bit("retransmission", "fast_retransmission")}),
        (31, 0, ACK, {"seq": 101, "ack": 1_201, "window": 0, "analysis": bit("zero_window")}),
        (50, 1, ACK, {"seq": 1_201, "ack": 101, "payload_bytes": 1, "analysis": bit("zero_window_probe")}),
        (60, 1, RST, {"seq": 5, "ack": 0}),
    )  # fmt: skip
    sent, received = diagrams(history_of(batch))
    assert {label: points.y.tolist() for label, points in received.events.items()} == {
        "previous segment not captured": [251],
        "fast retransmission": [151],  # and not as a plain one again
        "zero-window probe": [301.5],
        "duplicate ACK": [101],
        "zero window": [301],
        "SYN": [0],
        "RST": [-895],
    }
    assert received.bars["fast retransmission"].low.tolist() == [101]
    assert received.bars["data"].low.tolist() == [1, 201, 301]
    sack = received.bars["SACK block"]
    assert (sack.x.tolist(), sack.low.tolist(), sack.high.tolist()) == ([0.022] * 2, [201, 1], [301, 51])
    assert set(sent.events) == {"SYN"}
    low, high = limits(received, margin=0)
    assert (low, high) == (0, 301 + 1)  # neither the reset nor the far window edge stretches the picture
    grid = Grid(0, 0.06, low, high, 100, 100)
    assert cut_off_bytes(received, grid) == 1 + 500 * 128 - 302


def test_syn_with_data_begins_behind_the_syn(story: Story) -> None:
    sent, _ = diagrams(history_of(story((0, 0, SYN, {"seq": 7, "payload_bytes": 10}))))
    assert (sent.bars["data"].low.tolist(), sent.bars["data"].high.tolist()) == ([1], [11])


# --- Decimation


def test_a_line_keeps_first_lowest_highest_and_last_of_each_column() -> None:
    x = np.arange(10.0)
    y = np.array([5, 9, 1, 6, 5, 0, 0, 0, 0, 0.0])
    assert thin_line(x, y, Grid(0, 10, 0, 10, 2, 10)).tolist() == [0, 1, 2, 4, 5, 9]


def test_bars_of_a_column_join_where_they_touch() -> None:
    x = np.array([0.1, 0.2, 0.3, 0.4, 5.0])
    low, high = np.array([0, 10, 50, 52, 0]), np.array([10, 20, 60, 55, 10])
    grid = Grid(0, 10, 0, 100, 10, 100)
    merged = merge_bars(x, low, high, grid)
    assert [part.tolist() for part in merged] == [[0.1, 0.3, 5.0], [0, 50, 0], [20, 60, 10]]


def test_a_million_segments_cover_the_same_cells_and_no_event_is_lost() -> None:
    count = 1_000_000
    packets = np.zeros(count, PACKET)
    packets["time_ns"] = START_NS + np.arange(count) * 10_000
    packets["seq"] = (np.arange(count, dtype=np.int64) * 1_448 + 2**32 - 5_000) % 2**32
    packets["payload_bytes"] = 1_448
    random = np.random.default_rng(3)
    again, late = np.sort(random.choice(count, 1_500, replace=False)).reshape(3, 500)[:2]
    packets["analysis"][again] |= bit("retransmission")
    packets["analysis"][late] |= bit("out_of_order")
    history = History(1, None)  # type: ignore[arg-type]
    history.packets_kept.append(packets)
    sent, _ = diagrams(history)
    low, high = limits(sent)
    assert high > 1_448 * count > low
    grid = Grid(0, 10, low, high, 1_000, 400)
    thin = decimated(sent, grid, 4)
    assert thin.marks() < 6_000
    coarse = grid.coarser(4)
    for label, indexes in (("retransmission", again), ("out of order", late)):
        points, kept = sent.events[label], thin.events[label]
        assert len(points.x) == len(indexes) == 500
        cells = set(zip(coarse.column(points.x), coarse.row(points.y), strict=True))
        drawn = list(zip(coarse.column(kept.x), coarse.row(kept.y), strict=True))
        assert set(drawn) == cells
        assert len(drawn) == len(cells)
    assert set(grid.column(thin.bars["data"].x)) == set(range(1_000))
    assert thin.bars["data"].high.max() == sent.bars["data"].high.max()


def test_points_of_one_cell_become_its_first() -> None:
    grid = Grid(0, 10, 0, 10, 5, 5)
    x, y = np.array([0.5, 1.5, 1.9, 9.9, 99.0]), np.array([0.5, 1.5, 9.0, 9.9, 99.0])
    assert distinct_points(x, y, grid).tolist() == [0, 2, 3]


# --- What is kept


def test_packets_are_48_bytes() -> None:
    assert PACKET.itemsize == 48


def test_memory_is_bounded_and_small_connections_go_on(story: Story) -> None:
    collector = Collector(None, max_packets=64)
    lines = [(i, 0, ACK, {"seq": i}) for i in range(100)]
    collector.add(story(*(line for line in [(*line[:3], dict(line[3])) for line in lines]), number=1))
    collector.add(story(*[(200 + i, 1, ACK, {"seq": i}) for i in range(30)], number=2))
    large, small = collector.histories()
    # Three quarters for whoever comes; then a sixteenth of all for each.
    assert (len(large.packets_kept), large.not_kept) == (48, 52)
    assert (len(small.packets_kept), small.not_kept) == (4, 26)
    assert large.frame_bytes == [100 * 54, 0]
    assert small.frame_bytes == [0, 30 * 54]
    assert small.ends.src == CLIENT
    assert [history.id for history in by_bytes([small, large])] == [1, 2]
    assert axes_text.packets_note(48, 52) == "48 packets; 52 later ones not drawn: memory for packets was full"


def test_connections_are_bounded_too(story: Story) -> None:
    collector = Collector(None, max_connections=2)
    for number in (1, 2, 3, 4, 2):
        collector.add(story((0, 0, ACK, {}), number=number))
    assert [len(history.packets_kept) for history in collector.histories()] == [1, 2]
    assert collector.connections_not_kept == 2


@pytest.mark.parametrize(
    ("numbers", "told"), [((), "there was none"), ((1,), "there was only 1"), ((1, 5), "there were 1 to 5")]
)
def test_a_connection_that_never_occurred(story: Story, numbers: tuple[int, ...], told: str) -> None:
    collector = Collector(17)
    for number in numbers:
        collector.add(story((0, 0, ACK, {}), number=number))
    with pytest.raises(TcptraceError, match=f"^no connection 17: {told}$"):
        collector.histories()


# --- Figures over time


def test_throughput_goodput_rtt_and_flight(story: Story) -> None:
    batch = story(
        *handshake(100, 900),
        (100, 1, ACK, {"seq": 901, "ack": 101, "payload_bytes": 1_000, "in_flight_bytes": 1_000}),
        (150, 0, ACK, {"seq": 101, "ack": 1_901, "window": 10, "rtt_us": 50_000}),
        (160, 0, ACK, {"seq": 101, "ack": 1_901, "window": 20, "rtt_us": 70_000}),
        # sent again, with 200 new bytes behind
        (1_000, 1, ACK, {"seq": 901, "ack": 101, "payload_bytes": 1_200, "analysis": bit("retransmission"),
                         "in_flight_bytes": 200}),
        (1_200, 0, ACK, {"seq": 101, "ack": 2_101, "window": 20, "rtt_us": 90_000}),
    )  # fmt: skip
    made = series.connection_series(history_of(batch))
    assert (made.bins.width_s, made.bins.count) == (0.01, 121)
    sent, received = made.directions
    assert (sent.payload_bytes, received.payload_bytes) == (0, 2_200)
    assert received.payload_per_s[[10, 100]].tolist() == [100_000, 120_000]
    assert received.goodput_per_s[[10, 100]].tolist() == [100_000, 20_000]
    assert received.goodput_per_s.sum() * made.bins.width_s == pytest.approx(1_200)
    assert received.rtt.y.tolist() == [50_000, 70_000, 90_000]
    assert not len(sent.rtt.y)
    # After each segment what the engine found, after each ACK less by what it acknowledges.
    assert (received.in_flight.x * 1e3).round().tolist() == [100, 150, 160, 1_000, 1_200]
    assert received.in_flight.y.tolist() == [1_000, 0, 0, 200, 0]
    assert received.window is not None
    assert received.window.y.tolist() == [64_000, 500 * 128, 1_280, 2_560, 2_560]  # the SYN's is not scaled


def test_sack_takes_from_what_is_in_flight(story: Story) -> None:
    def block(*edges: tuple[int, int]) -> dict[str, Any]:
        padded = [*edges, *[(0, 0)] * (3 - len(edges))]
        return {"options": r.OPTION_SACK, "sack_count": len(edges),
                "sack_left": [left for left, _ in padded], "sack_right": [right for _, right in padded]}  # fmt: skip

    sack = story(
        (0, 1, ACK, {"seq": 1, "ack": 1_001}),
        (0, 0, ACK, {"seq": 1_001, "ack": 1, "payload_bytes": 400, "in_flight_bytes": 400}),
        (1, 1, ACK, {"seq": 1, "ack": 1_001, **block((1_201, 1_301))}),
        (2, 1, ACK, {"seq": 1, "ack": 1_101, **block((1_001, 1_101), (1_201, 1_401))}),  # the first: got twice
        (3, 1, ACK, {"seq": 1, "ack": 1_101, **block((1_201, 1_251), (1_201, 1_401))}),  # again, within the second
        (4, 1, ACK, {"seq": 1, "ack": 1_051}),  # old, and without any
        (5, 1, ACK, {"seq": 1, "ack": 1_501}),  # of a segment that was not seen
    )
    sent, received = series.connection_series(history_of(sack)).directions
    assert sent.in_flight.y.tolist() == [400, 300, 100, 100, 300, 0]
    assert not len(received.in_flight.y)


def test_each_byte_is_good_once(story: Story) -> None:
    lines = [(0, 100, 50), (0, 200, 50), (0, 150, 100), (0, 60, 20), (0, 0, 90), (1, 150, 9), (0, 230, 30), (0, 249, 1)]
    batch = story(*((i, received, ACK, {"seq": seq, "payload_bytes": size})
                    for i, (received, seq, size) in enumerate(lines)))  # fmt: skip
    packets = history_of(batch).packets()
    fresh = goodput.new_bytes(packets, packets["seq"].astype(np.int64), 0)
    assert fresh.tolist() == [50, 50, 50, 20, 70, 0, 10, 0]


def test_goodput_is_the_union_of_what_was_sent() -> None:
    random = np.random.default_rng(11)
    packets = np.zeros(3_000, PACKET)
    packets["seq"] = np.clip(np.arange(3_000) * 20 + random.integers(-400, 400, 3_000), 0, None) + 100
    packets["payload_bytes"] = random.integers(0, 90, 3_000)
    seq = packets["seq"].astype(np.int64)
    seen: set[int] = set()
    expected = []
    for start, size in zip(seq.tolist(), packets["payload_bytes"].tolist(), strict=True):
        carried = set(range(start, start + size))
        expected.append(len(carried - seen))
        seen |= carried
    assert goodput.new_bytes(packets, seq, 0).tolist() == expected
    assert 40_000 < sum(expected) < packets["payload_bytes"].sum() / 2


def test_super_packets_count_their_segments(story: Story) -> None:
    batch = story(*((i, 0, ACK, {"seq": i, "segments": 3}) for i in range(5)))
    collector = Collector(1, max_packets=4)
    collector.add(batch)
    (history,) = collector.histories()
    assert (history.packet_count(), history.not_kept) == (12, 3)


def test_a_note_tells_of_marks_where_packets_are_many() -> None:
    assert axes_text.packets_note(1, 0, 1) == "1 packet"
    assert axes_text.packets_note(999, 0, 9) == "999 packets"
    assert axes_text.packets_note(1_000_000, 0, 8_000) == "1,000,000 packets, shown as 8,000 marks"


def test_medians_are_those_of_each_bin() -> None:
    samples = Points(np.array([0.1, 0.2, 0.3, 1.5, 3.1, 3.2]), np.array([3.0, 9.0, 1.0, 7.0, 2.0, 4.0]))
    found = series.medians(samples, series.Bins(1.0, 4))
    assert (found.x.tolist(), found.y.tolist()) == ([0.5, 1.5, 3.5], [3.0, 7.0, 3.0])


def test_overview_adds_up_and_gathers_the_small_ones(story: Story) -> None:
    collector = Collector(None)
    for number, amount in ((1, 100), (2, 5_000), (3, 300)):
        collector.add(
            story((number * 10, 0, ACK, {"frame_bytes": amount}), (1_000, 1, ACK, {"frame_bytes": 10}), number=number)
        )
    made = series.overview(by_bytes(collector.histories()), 1)
    assert [history.id for history in made.histories] == [2]
    assert (made.others, made.others_bytes) == (2, 420)
    assert (made.bytes_per_s.sum(axis=1) * made.bins.width_s).tolist() == pytest.approx([5_010, 420])


@pytest.mark.parametrize(
    ("duration_s", "unit"), [(0, "s"), (1e-7, "ns"), (5e-6, "µs"), (0.9, "ms"), (1.9, "ms"), (2, "s"), (9e5, "s")]
)
def test_time_units(duration_s: float, unit: str) -> None:
    assert axes_text.time_unit(duration_s)[1] == unit


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (2_500_000, "2.5 MB"), (-1_500, "-1.5 kB"), (1e9, "1 GB")],
)
def test_byte_labels(value: float, text: str) -> None:
    assert axes_text.bytes_label(value) == text


def test_every_kind_has_a_mark_and_a_letter_of_its_own() -> None:
    events = list(kinds.EVENTS.values())
    assert len({(kind.marker, kind.color) for kind in events}) == len(events)
    assert len({kind.letter for kind in events}) == len(events)
