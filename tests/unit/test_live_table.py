"""The table on a terminal, as the bytes that the terminal gets, and without one."""

import dataclasses
import io
import os
import pickle
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tcptrace.model import PacketBatch, Rows, Totals, TraceInfo
from tcptrace.sinks import screen
from tcptrace.sinks.live_table import LiveTable, is_usable
from tcptrace.sinks.plain_table import PlainTable

TO_ALTERNATE, TO_NORMAL = "\x1b[?1049h", "\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
SECOND = 1_000_000_000


class Terminal:
    """A live table on a terminal of a given size; `take` is what it wrote since the last look."""

    def __init__(self, width: int = 80, height: int = 24, **options: Any) -> None:
        self.stream = io.StringIO()
        self.console = Console(
            file=self.stream, force_terminal=True, width=width, height=height, highlight=False, color_system="standard"
        )
        self.table = LiveTable(self.stream, console=self.console, **options)

    def take(self) -> str:
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    def screen(self) -> list[str]:
        """The lines drawn since the last look, without styles."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.take()).split("\n")


def many(make_row: Callable[..., Rows], amount: int) -> Rows:
    return np.concatenate(
        [
            make_row(n, ("10.0.0.1", n), ("10.0.0.2", 443), sent_bytes_per_s=float(n), sent_bytes=n)
            for n in range(1, amount + 1)
        ]
    )


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def test_it_waits_on_the_alternate_screen(info: TraceInfo) -> None:
    terminal = Terminal()
    terminal.table.open(info)
    text = terminal.take()
    assert text.index(TO_ALTERNATE) < text.index("waiting for TCP packets on eth0 …")
    assert text.count(HIDE_CURSOR) == 1
    terminal.table.restore()


def test_each_update_fills_the_screen_and_never_clears_it(
    info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    terminal = Terminal(80, 24)
    terminal.table.open(info)
    terminal.take()
    view = make_view(many(make_row, 1_253), Totals(connections=1_253, connections_total=1_253))
    for _ in range(3):
        terminal.table.update(view)
        text = terminal.take()
        assert "\x1b[2J" not in text
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split("\n")
        assert [len(line) for line in lines] == [80] * 24
        assert lines[5].split()[:3] == ["source", "destination", "state"]
        assert [line.split()[0] for line in lines[6:23]] == [f"10.0.0.1:{n}" for n in range(1_253, 1_236, -1)]
        assert lines[23].strip() == "… 1,236 more"
    terminal.table.restore()


def test_as_many_as_there_is_room_for_need_no_note(
    info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    terminal = Terminal(80, 24)
    terminal.table.open(info)
    terminal.take()
    terminal.table.update(make_view(many(make_row, 18), Totals(connections=18)))
    lines = terminal.screen()
    assert [line.split()[0] for line in lines[6:]] == [f"10.0.0.1:{n}" for n in range(18, 0, -1)]
    terminal.table.restore()


def test_it_follows_the_terminals_size(info: TraceInfo, sample_rows: Rows, make_view: Any) -> None:
    terminal = Terminal(200, 50)
    terminal.table.open(info)
    view = make_view(sample_rows, Totals(connections=6))
    for width, height in ((200, 50), (60, 10), (250, 70), (20, 5), (1, 1), (80, 24)):
        terminal.console.size = (width, height)
        terminal.take()
        terminal.table.update(view)
        assert [len(line) for line in terminal.screen()] == [width] * height
    terminal.table.restore()


def test_close_gives_the_terminal_back_and_prints_the_summary_there(
    info: TraceInfo, sample_rows: Rows, sample_totals: Totals, make_view: Any
) -> None:
    terminal = Terminal(80, 24)
    terminal.table.open(info)
    terminal.table.update(make_view(sample_rows, sample_totals))
    terminal.take()
    terminal.table.close(make_view(sample_rows, sample_totals, time_ns=1_700_000_083 * SECOND))
    text = terminal.take()
    before, after = text.split(TO_NORMAL)
    assert SHOW_CURSOR in text
    assert "tcptrace" not in before
    assert "00:01:23" in after
    assert after.count("192.168.1.10:51234") == 1
    assert "… 1,234 more" in after
    terminal.table.close(make_view(sample_rows, sample_totals))
    assert terminal.take() == ""


def test_an_error_while_drawing_gives_the_terminal_back(info: TraceInfo, make_view: Any) -> None:
    terminal = Terminal()
    terminal.table.open(info)

    class Broken(make_view):  # type: ignore[misc, valid-type]
        def table(self) -> Rows:
            raise ValueError("no table")

    with pytest.raises(ValueError, match="no table"):
        terminal.table.update(Broken())
    text = terminal.take()
    assert (text.count(TO_NORMAL), text.count(SHOW_CURSOR)) == (1, 1)
    terminal.table.restore()
    assert terminal.take() == ""


def test_the_summary_has_those_that_left_and_keeps_only_the_best(
    info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    stream = io.StringIO()
    table = PlainTable(stream, width=80, summary_rows=3)
    table.open(info)
    everything = many(make_row, 100)
    everything["in_use"] = 0  # as the engine may leave what it hands out
    for start in range(0, 100, 10):
        table.ended(everything[start : start + 10])
    assert len(table._summary._kept) == 6
    left = many(make_row, 99)[98:]
    left["sent"]["bytes"] = 5_000
    table.close(make_view(left, Totals(connections=1, connections_total=101)))
    lines = stream.getvalue().splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("source"))
    assert [line.split()[0] for line in lines[heading + 1 :]] == ["10.0.0.1:99", "10.0.0.1:100", "10.0.0.1:99", "…"]
    assert lines[-1] == "… 98 more"


FILE_TABLE = """
tcptrace  trace.pcapng                                                     2m05s

    # source             destination        state      → B/s ← B/s     RTT  retr
    3 10.0.0.1:40003     10.0.0.2:https     CLOSED      1.0M     0 12.3 ms    21
    1 10.0.0.1:40001     10.0.0.2:https     TIME-WAIT    400     0       –     0
20042 [2001:…8::1]:40002 [2001:db8::2]:http ESTAB          –     –       –     0
… 39 more

12,500 packets   2.5 MB   100 packets/s   20.0 kB/s
42 connections   1 at the end   ESTABLISHED 1
cut off 1   malformed 0   fragments 0   evicted 0   unsupported link 0
"""
"""Hand-checked: by bytes; averages over each connection's time and, in the totals, over the capture's."""


def test_of_a_file_there_is_one_table_and_then_the_totals(
    file_info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    ended = np.concatenate(
        [
            make_row(1, ("10.0.0.1", 40_001), ("10.0.0.2", 443), state="TIME-WAIT", duration_s=2.5, sent_bytes=1_000),
            make_row(
                3,
                ("10.0.0.1", 40_003),
                ("10.0.0.2", 443),
                state="CLOSED",
                duration_s=2,
                sent_bytes=2_000_000,
                sent_rtt_smoothed_us=12_345.0,
                sent_retransmissions=20,
                received_retransmissions=1,
            ),
        ]
    )
    left = make_row(20_042, ("2001:db8::1", 40_002), ("2001:db8::2", 80), state="ESTABLISHED", sent_bytes=90)
    totals = Totals(
        packets=12_500,
        bytes=2_500_000,
        packets_per_s=9e9,
        connections=1,
        connections_total=42,
        connections_by_state={"ESTABLISHED": 1},
        counters={"frames": 12_600, "snapped": 0, "unsupported_link": 0, "cut_off": 1},
    )
    stream = io.StringIO()
    table = PlainTable(stream, width=80)
    table.open(file_info)
    table.ended(ended)
    view = make_view(left, totals, time_ns=1_700_000_125 * SECOND)
    table.close(view)
    table.close(view)
    assert stream.getvalue() == FILE_TABLE.removeprefix("\n")


def test_of_a_file_there_are_tables_in_between_where_an_interval_was_asked_for(
    file_info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    stream = io.StringIO()
    table = PlainTable(stream, width=80)
    table.open(file_info)
    row = make_row(7, ("2001:db8::1", 40_002), ("2001:db8::2", 80), state="ESTABLISHED", sent_bytes=90)
    table.update(make_view(row, Totals(packets=23, connections=1, connections_total=1)))
    assert "trace.pcapng" in stream.getvalue()
    assert "[2001:db8::1]:40002" in stream.getvalue()


def test_an_empty_file_has_its_totals_only(file_info: TraceInfo, make_view: Any) -> None:
    stream = io.StringIO()
    table = PlainTable(stream, width=80)
    table.open(file_info)
    view = make_view(totals=Totals(counters={"unsupported_link": 12}))
    view.time_ns = view.start_ns
    table.close(view)
    title, *totals = stream.getvalue().splitlines()
    assert title.split() == ["tcptrace", "trace.pcapng", "0", "s"]
    assert totals == [
        "0 packets   0 B   – packets/s   –",
        "0 connections",
        "unsupported link 12   malformed 0   fragments 0   evicted 0",
    ]


def file_table(info: TraceInfo, rows: Rows, view: Any, step: int, **options: Any) -> list[str]:
    """The lines of the summary of a file whose connections ended in groups of `step`."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=50, highlight=False, **options)
    table = PlainTable(stream, console=console)
    table.open(info)
    for start in range(0, len(rows), step):
        table.ended(rows[start : start + step])
    table.close(view)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


@pytest.mark.parametrize("step", [1, 7, 3_017])
@pytest.mark.parametrize(("terminal", "shown"), [(False, 1_000), (True, 42)])
def test_of_a_file_a_pipe_gets_a_thousand_rows_and_a_terminal_one_screen(
    terminal: bool, shown: int, step: int, file_info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    rows = np.repeat(make_row(1, ("10.0.0.1", 1), ("10.0.0.2", 443)), 3_017)
    rows["id"] = np.arange(1, 3_018)
    rows["sent"]["bytes"] = np.arange(3_017) * 1_009 % 3_011  # no order of time
    rows["in_use"] = 0
    view = make_view(totals=Totals(connections_total=3_017))
    lines = file_table(file_info, rows, view, step, force_terminal=terminal)
    best = sorted(range(3_017), key=lambda n: (-(n * 1_009 % 3_011), n))[:shown]
    assert [int(line.split()[0]) for line in lines[3 : 3 + shown]] == [n + 1 for n in best]
    assert lines[3 + shown] == f"… {3_017 - shown:,} more"
    assert len(lines) == shown + 8


def test_a_small_terminal_gets_twenty_rows_of_a_file_all_the_same(
    file_info: TraceInfo, make_row: Callable[..., Rows], make_view: Any
) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=10, force_terminal=True, highlight=False, color_system=None)
    table = PlainTable(stream, console=console)
    table.open(file_info)
    table.close(make_view(many(make_row, 30), Totals(connections=30, connections_total=30)))
    assert "… 10 more" in stream.getvalue().splitlines()


def test_a_live_summary_keeps_to_twenty(info: TraceInfo, make_row: Callable[..., Rows], make_view: Any) -> None:
    lines = file_table(info, many(make_row, 30), make_view(totals=Totals(connections_total=30)), 1)
    assert lines[-1] == "… 10 more"
    assert lines[-22].split()[:3] == ["source", "destination", "state"]


def test_a_live_screen_on_a_file_says_what_it_reads(file_info: TraceInfo, sample_rows: Rows, make_view: Any) -> None:
    terminal = Terminal(80, 24)
    terminal.table.open(file_info)
    assert "reading trace.pcapng …" in terminal.take()
    terminal.table.update(make_view(sample_rows, Totals(connections=6, connections_total=6)))
    assert terminal.screen()[0].split() == ["tcptrace", "trace.pcapng", "1.0", "s"]
    terminal.table.restore()


def test_losses_of_a_file_come_first_and_red_and_what_it_cut_short_is_a_warning(file_info: TraceInfo) -> None:
    totals = Totals(
        counters={"malformed_tcp": 0, "snapped": 68, "unsupported_link": 0, "cut_off": 2, "records_lost": 0}
    )
    line = screen.header(file_info, screen.Figures(totals, 1.0, 0.0), 100)[3]
    assert [(line.plain[span.start : span.end], span.style) for span in line.spans] == [
        ("cut off 2", "bold red"),
        ("snapped 68", "yellow"),
        ("malformed 0", "dim"),
        ("fragments 0", "dim"),
        ("evicted 0", "dim"),
        ("unsupported link 0", "dim"),
    ]


def test_losses_come_first_and_red(info: TraceInfo) -> None:
    totals = Totals(evicted=3, counters={"records_lost": 0, "malformed_ipv4": 2, "malformed_tcp": 5, "too_deep": 1})
    line = screen.header(info, screen.Figures(totals, 1.0, 0.0), 80)[3]
    assert line.plain == "malformed 8   evicted 3   lost 0   fragments 0"
    assert [(line.plain[span.start : span.end], span.style) for span in line.spans] == [
        ("malformed 8", "bold red"),
        ("evicted 3", "bold red"),
        ("lost 0", "dim"),
        ("fragments 0", "dim"),
    ]


def test_losses_of_what_the_kernel_said_are_red_where_there_are_any(info: TraceInfo) -> None:
    def line(lost: int | None) -> Any:
        totals = Totals(counters={"records_lost": 0}, socket_records=9, socket_records_lost=lost)
        return screen.header(info, screen.Figures(totals, 1.0, 0.0), 80)[3]

    assert line(3).plain == "socket records lost 3   lost 0   malformed 0   fragments 0   evicted 0"
    assert (line(3).spans[0].start, line(3).spans[0].end, line(3).spans[0].style) == (0, 21, "bold red")
    assert line(0).plain == line(None).plain == "lost 0   malformed 0   fragments 0   evicted 0"


def test_thinning_is_red_while_it_lasts_and_then_a_warning(info: TraceInfo) -> None:
    def parts(is_thinning: bool) -> list[tuple[str, Any]]:
        totals = Totals(counters={"records_lost": 32, "thinned": 4_567}, is_thinning=is_thinning)
        line = screen.header(info, screen.Figures(totals, 1.0, 0.0), 120)[3]
        return [(line.plain[span.start : span.end], span.style) for span in line.spans]

    assert parts(True)[:2] == [("thinning, so far 4,567", "bold red"), ("lost 32", "bold red")]
    assert parts(False)[:2] == [("lost 32", "bold red"), ("thinned 4,567", "yellow")]


def test_the_title_names_the_probes(info: TraceInfo) -> None:
    probed = dataclasses.replace(info, hook="tc ingress+egress", probes="kprobes and raw tracepoints", filter=None)
    title = screen.title(probed, 1.0, 0.0, 100).plain
    assert title.startswith("tcptrace  eth0 · tc ingress+egress · kprobes and raw tracepoints  ")


@pytest.mark.parametrize(("color", "colors"), [(True, 1), (False, 0)])
def test_no_color(color: bool, colors: int, info: TraceInfo, make_view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Tty()
    table = PlainTable(stream, color=color, width=80)
    table.open(info)
    table.close(make_view(totals=Totals(evicted=1)))
    assert len(re.findall(r"\x1b\[[0-9;]*31m", stream.getvalue())) == colors
    assert "evicted 1" in stream.getvalue()


def test_a_plain_table_says_nothing_new_while_there_is_nothing(
    info: TraceInfo, sample_rows: Rows, sample_totals: Totals, make_view: Any
) -> None:
    stream = io.StringIO()
    table = PlainTable(stream, width=80)
    table.open(info)
    table.update(make_view())
    assert stream.getvalue() == "waiting for TCP packets on eth0 …\n"
    for _ in range(2):
        table.update(make_view(sample_rows, sample_totals))
    assert stream.getvalue().count("source   ") == 2
    assert "\x1b" not in stream.getvalue()


def test_an_encoding_without_arrows_is_no_error(
    info: TraceInfo, sample_rows: Rows, sample_totals: Totals, make_view: Any
) -> None:
    raw = io.BytesIO()
    table = PlainTable(io.TextIOWrapper(raw, encoding="latin-1"), width=80)
    table.open(info)
    table.update(make_view(sample_rows, sample_totals))
    assert b"? B/s" in raw.getvalue()
    assert b"85.2 \xb5s" in raw.getvalue()


IMPORTS_AFTER_OPEN = """
import io, pickle, sys
from importlib import import_module

module, name, tty = sys.argv[1:]
stream = io.StringIO()
stream.isatty = lambda: tty == "tty"
info, records, before, last = pickle.load(sys.stdin.buffer)


class View:
    def __init__(self, fields):
        self.__dict__.update(fields)

    def table(self):
        return self.rows

    def touched(self):
        return range(len(self.rows))


sink = getattr(import_module(f"tcptrace.sinks.{module}"), name)(stream)
sink.open(info)
known = set(sys.modules)
sink.packets(records)
sink.ended(before["rows"])
sink.update(View(before))
sink.close(View(last))
print(len(stream.getvalue().splitlines()) > 10, sorted(set(sys.modules) - known))
"""


@pytest.mark.parametrize("tty", ["tty", "pipe"])
@pytest.mark.parametrize(
    ("module", "name"), [("live_table", "LiveTable"), ("plain_table", "PlainTable"), ("packet_log", "PacketLog")]
)
def test_everything_is_imported_before_privileges_go(
    module: str,
    name: str,
    tty: str,
    info: TraceInfo,
    sample_rows: Rows,
    sample_totals: Totals,
    make_view: Any,
    make_packet: Callable[..., np.ndarray],
    make_batch: Callable[..., PacketBatch],
) -> None:
    records = np.repeat(make_packet(("10.0.0.1", 1), ("10.0.0.2", 2), flags=2, options=0xFF), 3)
    packets = make_batch(records, analysis=["retransmission", "", "duplicate_ack"])
    fields = vars(make_view(sample_rows, sample_totals))
    given = pickle.dumps((info, packets, fields, fields))
    command = [sys.executable, "-c", IMPORTS_AFTER_OPEN, module, name, tty]
    found = subprocess.run(command, input=given, capture_output=True, check=True)
    assert found.stdout.decode().strip() == "True []"


def test_a_live_table_needs_a_terminal_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as terminal:
        assert is_usable(terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert not is_usable(terminal)
    assert not is_usable(io.StringIO())
