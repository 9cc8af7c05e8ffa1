"""Whole tables as text at several widths, and what holds at every width."""
# ruff: noqa: E501 - the tables are as wide as they are

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tcptrace.model import CONNECTION, STATES, Rows, Totals, TraceInfo
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


@pytest.mark.parametrize("width", [1, 2, 10, 37, *range(60, 251)])
def test_every_line_fits_and_the_columns_stand_under_their_headings(
    width: int, sample_rows: Rows, sample_totals: Totals, info: TraceInfo
) -> None:
    layout = screen.Widths().layout(sample_rows, width)
    lines = screen.table(sample_rows, layout, 10**9, width)
    assert len(lines) == len(sample_rows) + 2
    if width >= 60:
        assert {len(line) for line in lines[:-1]} == {layout.width}
        assert "…" not in layout.headings()
    for line in [*lines, *screen.header(info, screen.Figures(sample_totals, 1e6, 99.9), width)]:
        assert line.cell_len <= width


def test_a_wider_terminal_has_every_column_of_a_narrower_one() -> None:
    for widths in (range(60, columns.WIDE_FROM), range(columns.WIDE_FROM, 251)):
        before: set[str] = set()
        for width in widths:
            headings = {column.heading for column, _ in columns.layout(width).columns}
            assert headings >= before
            before = headings
        assert before == {column.heading for column in columns.columns_for(widths[-1], averages=False)}


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
    assert wide.columns[0][1] == len("[2001:db8:1:2:3:4:5:6]:1024")


def test_averages_are_over_the_whole_time(make_row: Any) -> None:
    row = make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 2), sent_bytes=3_000, duration_s=2, sent_bytes_per_s=7.0)[0]
    now, mean = (
        {column.heading: column.cell(row, size) for column, size in columns.layout(80, averages=averages).columns}
        for averages in (False, True)
    )
    assert (now["→ B/s"], now["← B/s"]) == ("    7", "    –")
    assert (mean["→ B/s"], mean["← B/s"]) == (" 1.5k", "    0")


NUMBERS = st.floats(allow_nan=True) | st.sampled_from([0.0, 999.5, 99_950.0])
COUNTS = st.integers(-1, 2**62)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([60, 99, 100, 250]))
def test_no_cell_breaks_the_layout_whatever_the_row(data: st.DataObject, width: int) -> None:
    row = np.zeros(1, CONNECTION)
    for direction in ("sent", "received"):
        side = row[direction]
        for name in ("bytes_per_s", "rtt_smoothed_us", "rtt_min_us"):
            side[name] = data.draw(NUMBERS)
        for name in ("packets", "bytes", "retransmissions", "out_of_order", "zero_windows", "window_bytes"):
            side[name] = data.draw(COUNTS)
    row["handshake_rtt_us"] = data.draw(NUMBERS)
    row["start_ns"], row["last_ns"] = data.draw(COUNTS), data.draw(COUNTS)
    row["ip_version"] = data.draw(st.sampled_from([4, 6]))
    for end in ("src", "dst"):
        row[f"{end}_addr"] = list(data.draw(st.binary(min_size=16, max_size=16)))
        row[f"{end}_port"] = data.draw(st.integers(0, 65535))
    row["state"] = data.draw(st.integers(0, len(STATES) - 1))
    layout = screen.Widths().layout(row, width)
    line = screen.row_line(row[0], layout)
    assert line.cell_len == layout.width <= width
    assert line.plain == layout.gap.join(column.cell(row[0], size) for column, size in layout.columns)


def test_styles_mark_what_is_odd_and_neighbours_share_one(make_row: Any) -> None:
    row = make_row(
        1, ("10.0.0.1", 1), ("10.0.0.2", 2), state="TIME-WAIT", sent_retransmissions=3, received_zero_windows=1
    )
    line = screen.row_line(row[0], columns.layout(250))
    styled = [(line.plain[span.start : span.end].split(), span.style) for span in line.spans]
    assert styled == [
        (["TIME-WAIT", "–", "–"], "dim"),
        (["3"], "yellow"),
        (["0", "0", "0"], "dim"),
        (["1"], "red"),
    ]
