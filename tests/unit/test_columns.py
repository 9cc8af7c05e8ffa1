"""Whole tables as text at several widths, and what holds at every width."""
# ruff: noqa: E501 - the tables are as wide as they are

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tcptrace.model import CLOSE_KINDS, CLOSED_BY, CONNECTION, HANDSHAKES, STATES, Rows, Totals, TraceInfo
from tcptrace.sinks import columns, screen
from tcptrace.sinks.plain_table import print_lines

TABLES = {
    60: """
tcptrace  eth0 · tc · fi… tcp port 443  CPU 2.5 %   00:01:23
1,234,567 packets   1.8 GB   1.5k packets/s   1.5 MB/s
6 connections   1,240 seen   SYN-RECEIVED 1   ESTABLISHED 2
lost 0   malformed 0   fragments 0   evicted 0
source             destination        state      → B/s ← B/s
192.168.1.10:51234 172.217.16.142:443 ESTAB      12.3k  1.5M
[2001:…5678]:60001 [2001:…:9abc]:5432 SYN-RECV       0     0
255.25…5.255:65535 255.25…5.254:65534 ESTAB       999P  999G
[::1]:40000        [::1]:ssh          TIME-WAIT    0.4     –
10.0.0.1:40001     10.0.0.2:40002     –              –     –
10.0.0.1:http      10.0.0.2:40003     FIN-WAIT-2     –     –
… 1,234 more
""",
    80: """
tcptrace  eth0 · tc · filter tcp port 443                   CPU 2.5 %   00:01:23
1,234,567 packets   1.8 GB   1.5k packets/s   1.5 MB/s
6 connections   1,240 seen   SYN-RECEIVED 1   ESTABLISHED 2   FIN-WAIT-2 1
lost 0   malformed 0   fragments 0   evicted 0
source                destination           state      → B/s ← B/s     RTT  retr
192.168.1.10:51234    172.217.16.142:https  ESTAB      12.3k  1.5M 12.3 ms     3
[2001:d…4:5678]:60001 [2001:db…4:9abc]:5432 SYN-RECV       0     0 85.2 µs     0
255.255.255.255:65535 255.255.255.254:65534 ESTAB       999P  999G   1041d  2.3E
[::1]:40000           [::1]:ssh             TIME-WAIT    0.4     –       –     0
10.0.0.1:40001        10.0.0.2:40002        –              –     –       –     0
10.0.0.1:http         10.0.0.2:40003        FIN-WAIT-2     –     –       –     0
… 1,234 more
""",
    120: """
tcptrace  eth0 · tc · filter tcp port 443                                                           CPU 2.5 %   00:01:23
1,234,567 packets   1.8 GB   1.5k packets/s   1.5 MB/s
6 connections   1,240 seen   SYN-RECEIVED 1   ESTABLISHED 2   FIN-WAIT-2 1   TIME-WAIT 1
lost 0   malformed 0   fragments 0   evicted 0
source                   destination             state          → B/s   ← B/s  → bytes  ← bytes      RTT  → retr  ← retr
192.168.1.10:51234       172.217.16.142:https    ESTABLISHED    12.3k    1.5M  52.0 kB   1.8 MB  12.3 ms       0       3
[2001:db…34:5678]:60001  [2001:db…34:9abc]:5432  SYN-RECEIVED       0       0    148 B      0 B  85.2 µs       0       0
255.255.255.255:65535    255.255.255.254:65534   ESTABLISHED     999P    999G   4.6 EB   4.6 EB    1041d    2.3E    1.0M
[::1]:40000              [::1]:ssh               TIME-WAIT        0.4       –      0 B      0 B        –       0       0
10.0.0.1:40001           10.0.0.2:40002          –                  –       –      0 B      0 B        –       0       0
10.0.0.1:http            10.0.0.2:40003          FIN-WAIT-2         –       –      0 B      0 B        –       0       0
… 1,234 more
""",
    200: """
tcptrace  eth0 · tc · filter tcp port 443                                                                                                                                           CPU 2.5 %   00:01:23
1,234,567 packets   1.8 GB   1.5k packets/s   1.5 MB/s
6 connections   1,240 seen   SYN-RECEIVED 1   ESTABLISHED 2   FIN-WAIT-2 1   TIME-WAIT 1
lost 0   malformed 0   fragments 0   evicted 0
source                   destination             state          → B/s   ← B/s  → bytes  ← bytes   → pkts   ← pkts      RTT  min RTT  → retr  ← retr  reorder  dup ack  0 win    → win    ← win  duration
192.168.1.10:51234       172.217.16.142:https    ESTABLISHED    12.3k    1.5M  52.0 kB   1.8 MB      420    1,234  12.3 ms  11.9 ms       0       3        2        7      0  64.2 kB   131 kB     1m02s
[2001:db…34:5678]:60001  [2001:db…34:9abc]:5432  SYN-RECEIVED       0       0    148 B      0 B        2        0  85.2 µs        –       0       0        0        0      0        –        –    350 ms
255.255.255.255:65535    255.255.255.254:65534   ESTABLISHED     999P    999G   4.6 EB   4.6 EB     4.6E     123M    1041d   999 ms    2.3E    1.0M     2.3E     2.3E   123k   1.1 GB      0 B    10416d
[::1]:40000              [::1]:ssh               TIME-WAIT        0.4       –      0 B      0 B        0        0        –        –       0       0        0        0      0        –        –     1h02m
10.0.0.1:40001           10.0.0.2:40002          –                  –       –      0 B      0 B        0        0        –        –       0       0        0        0      0        –        –       0 s
10.0.0.1:http            10.0.0.2:40003          FIN-WAIT-2         –       –      0 B      0 B        0        0        –        –       0       0        0        0      0        –        –       0 s
… 1,234 more
""",
}
"""By terminal width.  Hand-checked: columns by priority, endpoints cut in the middle, unknown is –."""


def render(rows: Rows, info: TraceInfo, totals: Totals, width: int) -> str:
    """Header and table as a file gets them."""
    lines = screen.header(info, screen.Figures(totals, 83.0, 2.5), width)
    lines += screen.table(rows, screen.Widths().layout(rows, width), 1_234, width)
    stream = io.StringIO()
    print_lines(Console(file=stream, width=width, highlight=False), lines)
    return stream.getvalue()


@pytest.mark.parametrize("width", TABLES)
def test_whole_table(width: int, sample_rows: Rows, sample_totals: Totals, info: TraceInfo) -> None:
    assert render(sample_rows, info, sample_totals, width) == TABLES[width].removeprefix("\n")


ALL_WIDE = 360
"""Room for every column and for both endpoints in full."""


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("width", [1, 2, 10, 37, *range(60, 251), *range(251, ALL_WIDE + 1, 7)])
def test_every_line_fits_and_the_columns_stand_under_their_headings(
    width: int, by_id: bool, sample_rows: Rows, sample_totals: Totals, info: TraceInfo
) -> None:
    layout = screen.Widths().layout(sample_rows, width, averages=by_id, by_id=by_id)
    lines = screen.table(sample_rows, layout, 10**9, width)
    assert len(lines) == len(sample_rows) + 2
    if width >= 60:
        assert {len(line) for line in lines[:-1]} == {layout.width}
        assert "…" not in layout.headings()
    for line in [*lines, *screen.header(info, screen.Figures(sample_totals, 1e6, 99.9), width)]:
        assert line.cell_len <= width


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("need", [(0, 0), (47, 47)])
def test_a_wider_terminal_has_every_column_of_a_narrower_one(by_id: bool, need: tuple[int, int]) -> None:
    for widths in (range(60, columns.WIDE_FROM), range(columns.WIDE_FROM, ALL_WIDE + 1)):
        before: set[str] = set()
        for width in widths:
            headings = {column.heading for column, _ in columns.layout(width, need, by_id=by_id).columns}
            assert headings >= before
            before = headings
        assert before == {column.heading for column in columns.columns_for(widths[-1], averages=False, by_id=by_id)}


def test_numbers_of_connections_are_shown_where_they_are_asked_for_or_there_is_room() -> None:
    def headings(width: int, by_id: bool) -> list[str]:
        return [column.heading for column, _ in columns.layout(width, by_id=by_id).columns]

    assert [width for width in range(60, 251) if "#" in headings(width, by_id=False)] == list(range(201, 251))
    assert all(headings(width, by_id=True)[0] == "#" for width in range(60, 251))


def test_the_number_of_a_connection_is_never_cut(make_row: Any) -> None:
    rows = np.concatenate([make_row(number, ("10.0.0.1", 1), ("10.0.0.2", 2)) for number in (7, 1_234_567)])
    layout = screen.Widths().layout(rows, 80, by_id=True)
    assert [screen.row_line(row, layout).plain[:9] for row in rows] == ["      7 1", "1234567 1"]
    assert layout.headings().startswith("      # source ")


def test_extras_do_not_cut_the_endpoints() -> None:
    for width in range(columns.WIDE_FROM, ALL_WIDE + 1):
        layout = columns.layout(width, (47, 47))
        extras = {column.heading for column, _ in layout.columns if column.priority >= 16}
        assert not extras or [size for column, size in layout.columns if column.most] == [47, 47]
    assert len(extras) == 10


def test_eighty_columns_show_what_matters() -> None:
    layout = columns.layout(80, (99, 99))
    assert [column.heading for column, _ in layout.columns] == [
        "source",
        "destination",
        "state",
        "→ B/s",
        "← B/s",
        "RTT",
        "retr",
    ]
    assert layout.width == 80


def test_endpoints_share_the_room_that_is_left() -> None:
    def ends(width: int, need: tuple[int, int]) -> list[int]:
        return [size for column, size in columns.layout(width, need).columns if column.most]

    assert ends(80, (47, 47)) == [21, 21]
    assert ends(80, (47, 10)) == [24, 18]
    assert ends(250, (47, 30)) == [47, 30]
    assert ends(250, (10, 10)) == [21, 21]
    assert ends(250, (99, 99)) == [47, 47]


def test_widths_do_not_shrink_again(make_row: Any) -> None:
    widths = screen.Widths()
    wide = widths.layout(make_row(1, ("2001:db8:1:2:3:4:5:6", 1_024), ("::1", 80)), 250)
    after = widths.layout(make_row(2, ("10.0.0.1", 1_024), ("10.0.0.2", 80)), 250)
    assert [size for _, size in after.columns] == [size for _, size in wide.columns]
    assert {column.heading: size for column, size in wide.columns}["source"] == len("[2001:db8:1:2:3:4:5:6]:1024")


def test_averages_are_over_the_whole_time(make_row: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), sent_bytes=3_000, duration_s=2, sent_bytes_per_s=7.0)[0]
    now, mean = (
        {column.heading: column.cell(row, size) for column, size in columns.layout(80, averages=averages).columns}
        for averages in (False, True)
    )
    assert (now["→ B/s"], now["← B/s"]) == ("    7", "    –")
    assert (mean["→ B/s"], mean["← B/s"]) == (" 1.5k", "    0")


def cell_texts(row: Any, *, averages: bool) -> dict[str, str]:
    chosen = columns.layout(ALL_WIDE, averages=averages, id_width=4).columns
    return {column.heading: column.cell(row, size).strip() for column, size in chosen}


def test_what_the_wide_table_says_of_a_connection(make_row: Any) -> None:
    row = make_row(
        4_711,
        ("10.0.0.1", 1),
        ("10.0.0.2", 2),
        duration_s=2.5,
        sent_payload_bytes=20_000,
        sent_retransmitted_bytes=5_000,
        received_payload_bytes=3_000_000,
        sent_rtt_p50_us=1_250.0,
        sent_rtt_p99_us=87_654.0,
        received_rtt_p50_us=9.0,
        sent_in_flight_bytes=2_896,
        sent_in_flight_max_bytes=43_440,
        received_in_flight_max_bytes=0,
        sent_gaps=3,
        received_gaps=14,
        handshake="half_open",
        closed_by="dst",
        close_kind="reset",
    )[0]
    now, whole = cell_texts(row, averages=False), cell_texts(row, averages=True)
    both = {
        "#": "4711",
        "→ goodput": "6.0k",
        "← goodput": "1.2M",
        "p50 RTT": "1.2 ms",
        "p99 RTT": "87.7 ms",
        "gaps": "17",
        "handshake": "half open",
        "closed by": "dst RST",
    }
    expected_now = both | {"→ flight": "2.9 kB", "← flight": "–"}
    expected_whole = both | {"→ flight": "43.4 kB", "← flight": "0 B"}
    assert {name: now[name] for name in expected_now} == expected_now
    assert {name: whole[name] for name in expected_whole} == expected_whole


def test_what_is_not_known_is_a_dash(make_row: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), state=None)[0]
    for averages in (False, True):
        dashes = {heading for heading, text in cell_texts(row, averages=averages).items() if text == "–"}
        assert dashes == {
            *("state", "→ B/s", "← B/s", "→ goodput", "← goodput", "RTT", "min RTT", "p50 RTT", "p99 RTT"),
            *("→ win", "← win", "→ flight", "← flight", "closed by", "handshake"),
        }


@pytest.mark.parametrize(
    ("closed_by", "close_kind", "text"),
    [("src", "fin", "src FIN"), ("both", "fin", "both FIN"), ("src", "reset", "src RST"), (None, None, "–")],
)
def test_who_closed_it(closed_by: str | None, close_kind: str | None, text: str, make_row: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), closed_by=closed_by, close_kind=close_kind)[0]
    assert cell_texts(row, averages=True)["closed by"] == text


LONG = "a-capture-of-the-uplink-between-the-two-halls-of-the-new-building-2026-11-24.pcapng"
ODD_FILES: dict[str, tuple[tuple[str, ...], str]] = {
    "one": (("/captures/trace.pcapng",), "trace.pcapng"),
    "several": (("a.pcap", "b.pcap", "c.pcap"), "3 files"),
    "many": (tuple(f"{n}.pcap" for n in range(1_234)), "1,234 files"),
    "standard input": (("-",), "standard input"),
    "controls": (("a\x1b[2J\nb\tc\udcff.pcap",), "a?[2J?b?c?.pcap"),
    "two cells a letter": (("抓包文件.pcap",), "抓包文件.pcap"),
    "marks without a cell": (("e\u0301te\u0301.pcap",), "e\u0301te\u0301.pcap"),
    "root": (("/",), "/"),
    "long": ((LONG,), LONG),
    "long and wide": (("抓包文件" * 20 + ".pcap",), "抓包文件" * 20 + ".pcap"),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_the_title_names_the_file_and_fits(name: str, file_info: TraceInfo) -> None:
    files, subject = ODD_FILES[name]
    info = dataclasses.replace(file_info, files=files, filter="port  80")
    whole = screen.title(info, 3_725.0, 2.5, 300)
    assert whole.plain.split("  ")[:2] == ["tcptrace", f"{subject} · filter port 80"]
    assert whole.plain.endswith("  1h02m")
    for width in range(1, 120):
        line = screen.title(info, 3_725.0, 2.5, width)
        assert line.cell_len == width if width >= len("tcptrace    1h02m") else line.cell_len <= width
        assert len(line.plain.splitlines()) == 1


def test_a_long_name_loses_its_middle(file_info: TraceInfo) -> None:
    info = dataclasses.replace(file_info, files=(LONG,))
    assert screen.title(info, 83.0, 2.5, 63).plain == "tcptrace  a-capture-of-the-uplink…ding-2026-11-24.pcapng  1m23s"


NUMBERS = st.floats(allow_nan=True) | st.sampled_from([0.0, 999.5, 99_950.0])
COUNTED = (
    *("packets", "bytes", "payload_bytes", "retransmissions", "retransmitted_bytes", "out_of_order", "gaps"),
    *("zero_windows", "window_bytes", "in_flight_bytes", "in_flight_max_bytes"),
)
COUNTS = st.integers(-1, 2**62)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([60, 99, 100, 250, ALL_WIDE]), st.booleans())
def test_no_cell_breaks_the_layout_whatever_the_row(data: st.DataObject, width: int, of_files: bool) -> None:
    row = np.zeros(1, CONNECTION)
    row["id"] = data.draw(st.integers(0, 2**64 - 1))
    for direction in ("sent", "received"):
        side = row[direction]
        for name in ("bytes_per_s", "rtt_smoothed_us", "rtt_min_us", "rtt_p50_us", "rtt_p99_us"):
            side[name] = data.draw(NUMBERS)
        for name in COUNTED:
            side[name] = data.draw(COUNTS)
    row["handshake_rtt_us"] = data.draw(NUMBERS)
    row["start_ns"], row["last_ns"] = data.draw(COUNTS), data.draw(COUNTS)
    row["ip_version"] = data.draw(st.sampled_from([4, 6]))
    for end in ("src", "dst"):
        row[f"{end}_addr"] = list(data.draw(st.binary(min_size=16, max_size=16)))
        row[f"{end}_port"] = data.draw(st.integers(0, 65535))
    for name, table in (
        ("state", STATES),
        ("handshake", HANDSHAKES),
        ("closed_by", CLOSED_BY),
        ("close_kind", CLOSE_KINDS),
    ):
        row[name] = data.draw(st.integers(0, len(table) - 1))
    layout = screen.Widths().layout(row, width, averages=of_files, by_id=of_files)
    line = screen.row_line(row[0], layout)
    assert line.cell_len == layout.width <= width
    assert line.plain == layout.gap.join(column.cell(row[0], size) for column, size in layout.columns)


def test_styles_mark_what_is_odd_and_neighbours_share_one(make_row: Any) -> None:
    row = make_row(
        1, ("10.0.0.1", 1), ("10.0.0.2", 2), state="TIME-WAIT", sent_retransmissions=3, received_zero_windows=1
    )
    line = screen.row_line(row[0], columns.layout(200))
    styled = [(line.plain[span.start : span.end].split(), span.style) for span in line.spans]
    assert styled == [
        (["TIME-WAIT", "–", "–"], "dim"),
        (["3"], "yellow"),
        (["0", "0", "0"], "dim"),
        (["1"], "red"),
    ]
