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
from tcptrace.sinks.columns import Need
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


ALL_WIDE = 440
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
@pytest.mark.parametrize("need", [Need(), Need(47, 47), Need(0, 0, 0), Need(47, 47, 49)])
def test_a_wider_terminal_has_every_column_of_a_narrower_one(by_id: bool, need: Need) -> None:
    with_sockets = need.process is not None
    wide_from = columns.WIDE_FROM_WITH_SOCKETS if with_sockets else columns.WIDE_FROM
    for widths in (range(60, wide_from), range(wide_from, ALL_WIDE + 1)):
        before: set[str] = set()
        for width in widths:
            headings = {column.heading for column, _ in columns.layout(width, need, by_id=by_id).columns}
            assert headings >= before
            before = headings
        there_are = columns.columns_for(widths[-1], averages=False, by_id=by_id, with_sockets=with_sockets)
        no_room = {"cwnd", "k retr"} if widths[-1] < ALL_WIDE and need == Need(47, 47, 49) else set()
        assert before == {column.heading for column in there_are} - no_room


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
        layout = columns.layout(width, Need(47, 47))
        extras = {column.heading for column, _ in layout.columns if column.priority >= columns.EXTRAS_FROM}
        assert not extras or [size for column, size in layout.columns if column.most] == [47, 47]
    assert len(extras) == 10


def test_eighty_columns_show_what_matters() -> None:
    layout = columns.layout(80, Need(99, 99))
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
    def ends(width: int, *need: int) -> list[int]:
        return [size for column, size in columns.layout(width, Need(*need)).columns if column.most]

    assert ends(80, 47, 47) == [21, 21]
    assert ends(80, 47, 10) == [24, 18]
    assert ends(250, 47, 30) == [47, 30]
    assert ends(250, 10, 10) == [21, 21]
    assert ends(250, 99, 99) == [47, 47]


def test_widths_do_not_shrink_again(make_row: Any) -> None:
    widths = screen.Widths()
    wide = widths.layout(make_row(1, ("2001:db8:1:2:3:4:5:6", 1_024), ("::1", 80)), 250)
    after = widths.layout(make_row(2, ("10.0.0.1", 1_024), ("10.0.0.2", 80)), 250)
    assert [size for _, size in after.columns] == [size for _, size in wide.columns]
    assert {column.heading: size for column, size in wide.columns}["source"] == len("[2001:db8:1:2:3:4:5:6]:1024")


@pytest.mark.parametrize("width", [80, 250])
def test_incomplete_is_there_from_the_first_gap_on(width: int, make_row: Any) -> None:
    widths = screen.Widths()
    whole = make_row(1, ("10.0.0.1", 1_024), ("10.0.0.2", 80))
    incomplete = make_row(2, ("10.0.0.1", 1_025), ("10.0.0.2", 80))
    incomplete["records_lost"] = 12_345
    before = [column.heading for column, _ in widths.layout(whole, width).columns]
    assert "incomplete" not in before
    for rows in (incomplete, whole):
        layout = widths.layout(rows, width)
        assert [column.heading for column, _ in layout.columns if column.heading == "incomplete"] == ["incomplete"]
    (cell,) = [(column, size) for column, size in layout.columns if column.heading == "incomplete"]
    column, size = cell
    assert [column.cell(rows[0], size).strip() for rows in (incomplete, whole)] == ["12.3k lost", ""]
    assert column.style is not None
    assert [column.style(rows[0]) for rows in (incomplete, whole)] == ["bold red", ""]


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


SOCKET_TABLES = {
    80: """
source               destination           state      → B/s ← B/s     RTT  retr
192.0.2.2:34106      192.0.2.80:https      ESTAB      46.9k  1.9M  5.1 ms 1,559
192.0.2.2:48174      192.0.2.80:postgresql ESTAB       5.2k 12.2k  3.8 ms     3
198.51.100.123:60123 192.0.2.2:https       LAST-ACK       –     –       –     0
[2001:db8::2]:40176  [2001:db8::80]:ssh    ESTAB          –     –       –     0
127.0.0.1:50000      127.0.0.1:postgresql  TIME-WAIT      –     –       –     0
""",
    100: """
source              destination         state      → B/s ← B/s     RTT    srtt  retr process
192.0.2.2:34106     192.0.2.80:https    ESTAB      46.9k  1.9M  5.1 ms  5.0 ms 1,559 curl/12345
192.0.2.2:48174     192.0.2.80:5432     ESTAB       5.2k 12.2k  3.8 ms  3.9 ms     3 pg_…p?[/2345678
198.51…00.123:60123 192.0.2.2:https     LAST-ACK       –     –       – 25.4 ms     0 nginx/900
[2001:db8::2]:40176 [2001:db8::80]:ssh  ESTAB          –     –       –       –     0 –
127.0.0.1:50000     127.0.0.1:5432      TIME-WAIT      –     –       – 60.0 µs     0 psql/777
""",
    120: """
source               destination           state      → B/s ← B/s → bytes ← bytes     RTT    srtt  retr process
192.0.2.2:34106      192.0.2.80:https      ESTAB      46.9k  1.9M  276 kB 10.0 MB  5.1 ms  5.0 ms 1,559 curl/12345
192.0.2.2:48174      192.0.2.80:postgresql ESTAB       5.2k 12.2k 26.6 kB 59.7 kB  3.8 ms  3.9 ms     3 pg_b…p?[/2345678
198.51.100.123:60123 192.0.2.2:https       LAST-ACK       –     –     0 B     0 B       – 25.4 ms     0 nginx/900
[2001:db8::2]:40176  [2001:db8::80]:ssh    ESTAB          –     –     0 B     0 B       –       –     0 –
127.0.0.1:50000      127.0.0.1:postgresql  TIME-WAIT      –     –     0 B     0 B       – 60.0 µs     0 psql/777
""",
    159: """
source               destination           state      → B/s ← B/s → bytes ← bytes     RTT    srtt  cwnd  retr k retr process
192.0.2.2:34106      192.0.2.80:https      ESTAB      46.9k  1.9M  276 kB 10.0 MB  5.1 ms  5.0 ms    10 1,559      0 curl/12345
192.0.2.2:48174      192.0.2.80:postgresql ESTAB       5.2k 12.2k 26.6 kB 59.7 kB  3.8 ms  3.9 ms 1,234     3      5 pg_basebackup?[/2345678
198.51.100.123:60123 192.0.2.2:https       LAST-ACK       –     –     0 B     0 B       – 25.4 ms     7     0      2 nginx/900
[2001:db8::2]:40176  [2001:db8::80]:ssh    ESTAB          –     –     0 B     0 B       –       –     –     0      – –
127.0.0.1:50000      127.0.0.1:postgresql  TIME-WAIT      –     –     0 B     0 B       – 60.0 µs    10     0      0 psql/777 → postgres/778
""",
    160: """
source                 destination            state          → B/s   ← B/s  → bytes  ← bytes      RTT     srtt   cwnd  → retr  ← retr  k retr  process
192.0.2.2:34106        192.0.2.80:https       ESTABLISHED    46.9k    1.9M   276 kB  10.0 MB   5.1 ms   5.0 ms     10       0   1,559       0  curl/12345
192.0.2.2:48174        192.0.2.80:postgresql  ESTABLISHED     5.2k   12.2k  26.6 kB  59.7 kB   3.8 ms   3.9 ms  1,234       3       0       5  pg_b…up?[/2345678
198.51.100.123:60123   192.0.2.2:https        LAST-ACK           –       –      0 B      0 B        –  25.4 ms      7       0       0       2  nginx/900
[2001:db8::2]:40176    [2001:db8::80]:ssh     ESTABLISHED        –       –      0 B      0 B        –        –      –       0       0       –  –
127.0.0.1:50000        127.0.0.1:postgresql   TIME-WAIT          –       –      0 B      0 B        –  60.0 µs     10       0       0       0  psql/777
""",
}
"""By terminal width.  The kernel's state where there is a socket, but TIME-WAIT, which has none left; hostile names."""


@pytest.fixture
def socket_rows(make_row: Any, put_socket: Any) -> Rows:
    """Connections of this host: of both kinds, one without a socket, one with both its ends here."""
    rows = [
        make_row(
            1,
            ("192.0.2.2", 34_106),
            ("192.0.2.80", 443),
            state="SYN-SENT",
            near_end=1,
            sent_bytes_per_s=46_900.0,
            received_bytes_per_s=1.9e6,
            sent_bytes=276_000,
            received_bytes=10_000_000,
            sent_rtt_smoothed_us=5_100.0,
            received_retransmissions=1_559,
        ),
        make_row(
            2,
            ("192.0.2.2", 48_174),
            ("192.0.2.80", 5432),
            state="ESTABLISHED",
            near_end=1,
            sent_bytes_per_s=5_200.0,
            received_bytes_per_s=12_200.0,
            sent_bytes=26_600,
            received_bytes=59_700,
            sent_rtt_smoothed_us=3_800.0,
            sent_retransmissions=3,
        ),
        make_row(3, ("198.51.100.123", 60_123), ("192.0.2.2", 443), state="FIN-WAIT-1", near_end=2),
        make_row(4, ("2001:db8::2", 40_176), ("2001:db8::80", 22), state="ESTABLISHED", near_end=1),
        make_row(5, ("127.0.0.1", 50_000), ("127.0.0.1", 5432), state="TIME-WAIT", near_end=3),
    ]
    named: dict[str, Any] = {"state": "ESTABLISHED", "retransmissions": 0, "cwnd_packets": 10}
    put_socket(rows[0], "src", **named, srtt_us=5_021, pid=12_345, comm="curl")
    put_socket(
        rows[1],
        "src",
        **named | {"cwnd_packets": 1_234, "retransmissions": 5},
        srtt_us=3_944,
        pid=2_345_678,
        comm="pg_basebackup\x1b[",
    )
    put_socket(
        rows[2], "dst", srtt_us=25_400, cwnd_packets=7, retransmissions=2, pid=900, comm="nginx", state="LAST-ACK"
    )
    put_socket(rows[4], "src", **named | {"state": "CLOSED"}, srtt_us=60, pid=777, comm="psql")
    put_socket(rows[4], "dst", **named, srtt_us=70, pid=778, comm="postgres")
    return np.concatenate(rows)


@pytest.mark.parametrize("width", SOCKET_TABLES)
def test_whole_table_with_the_kernels_view(width: int, socket_rows: Rows) -> None:
    lines = screen.table(socket_rows, screen.Widths().layout(socket_rows, width), 0, width)
    text = "".join(f"{line.plain.rstrip()}\n" for line in lines)
    assert text == SOCKET_TABLES[width].removeprefix("\n")


@pytest.mark.parametrize("width", [*range(60, 251), ALL_WIDE])
def test_with_the_kernels_view_every_line_fits(width: int, socket_rows: Rows) -> None:
    layout = screen.Widths().layout(socket_rows, width)
    lines = screen.table(socket_rows, layout, 0, width)
    assert {line.cell_len for line in lines} == {layout.width}
    assert layout.width <= width
    assert "…" not in layout.headings()


def test_the_kernels_columns_stay_once_they_are_there(socket_rows: Rows, make_row: Any) -> None:
    def headings(rows: Rows) -> set[str]:
        return {column.heading for column, _ in widths.layout(rows, 200).columns}

    kernels = {"srtt", "cwnd", "k retr", "process"}
    without = make_row(9, ("10.0.0.1", 1), ("10.0.0.2", 2))
    widths = screen.Widths()
    assert not headings(without) & kernels
    assert headings(socket_rows) >= kernels
    assert headings(without) >= kernels
    assert headings(without[:0]) >= kernels


def test_every_column_of_the_kernel_is_there_from_160_on(socket_rows: Rows) -> None:
    for width in (160, 200, 250, ALL_WIDE):
        layout = screen.Widths().layout(socket_rows, width)
        assert {c.heading for c, _ in layout.columns} >= {"srtt", "cwnd", "k retr", "process"}


def test_what_a_socket_does_not_tell_is_a_dash(make_row: Any, put_socket: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), state="ESTABLISHED", near_end=1)
    put_socket(row, "src")
    layout = columns.layout(200, Need(0, 0, 0))
    texts = {column.heading: column.cell(row[0], size).strip() for column, size in layout.columns}
    assert [texts[name] for name in ("srtt", "cwnd", "k retr", "process")] == ["–"] * 4
    assert texts["state"] == "ESTABLISHED"
