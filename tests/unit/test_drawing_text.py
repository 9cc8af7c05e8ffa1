"""What --ladder, --sequence and --graph write onto a terminal or into a pipe, compared as text."""

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from rich.cells import cell_len

from tcptrace import records as r
from tcptrace.errors import TcptraceError
from tcptrace.model import ANALYSIS, FINDING, Clock, PacketBatch, TraceInfo
from tcptrace.sinks.drawing.graph import Graph
from tcptrace.sinks.drawing.ladder import Ladder
from tcptrace.sinks.drawing.ladder_lines import findings_words, time_text, window_text, wrapped
from tcptrace.sinks.drawing.marks import Points
from tcptrace.sinks.drawing.sequence import Sequence
from tcptrace.sinks.drawing.terminal import Panel

START_NS = 1_700_000_000_000_000_000
INFO = TraceInfo(interface=None, hook=None, filter=None, clock=Clock(), version="1", files=("a.pcap",))
SYN, FIN, RST, ACK, PSH = r.FLAG_SYN, r.FLAG_FIN, r.FLAG_RST, r.FLAG_ACK, r.FLAG_PSH

Maker = Callable[..., np.ndarray]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, whatever the tests run in."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def bit(*names: str) -> int:
    return sum(1 << ANALYSIS.index(name) for name in names)


def talk(make_packet: Maker, number: int = 1, port: int = 40_000) -> PacketBatch:
    """A handshake, a request, an answer of which the first half comes again, a reset."""
    client, server = ("10.0.0.1", port), ("10.0.0.2", 443)
    scale = {"options": r.OPTION_WINDOW_SCALE, "window_scale": 7}
    isn, other = 2**32 - 3, 70_000
    made = [
        make_packet(client, server, flags=SYN, seq=isn, window=64_240, **scale),
        make_packet(server, client, flags=SYN | ACK, seq=other, ack=isn + 1, window=65_160, **scale),
        make_packet(client, server, flags=ACK, seq=isn + 1, ack=other + 1, window=502),
        make_packet(client, server, flags=PSH | ACK, seq=isn + 1, ack=other + 1, window=502, payload_bytes=100),
        make_packet(server, client, flags=ACK, seq=other + 1, ack=98, window=509, payload_bytes=2_896, segments=2),
        make_packet(server, client, flags=PSH | ACK, seq=other + 1, ack=98, window=509, payload_bytes=1_448),
        make_packet(client, server, flags=ACK, seq=98, ack=other + 2_897, window=0),
        make_packet(client, server, flags=RST, seq=98, window=0),
    ]
    records = np.concatenate(made)
    records["time_ns"] = START_NS + np.arange(len(made)) * 20_000_500
    records["frame_bytes"] = records["payload_bytes"] + 54
    findings = np.zeros(len(made), FINDING)
    findings["connection_id"], findings["received"] = number, records["src_port"] == 443
    findings["analysis"][5] = bit("retransmission", "spurious_retransmission")
    findings["analysis"][6] = bit("duplicate_ack", "zero_window")
    findings["duplicate_ack_number"][6] = 3
    findings["in_flight_bytes"] = np.where(records["payload_bytes"] > 0, records["payload_bytes"], -1)
    findings["rtt_us"] = np.nan
    findings["rtt_us"][[1, 2, 4]] = 20_000, 500, 20_000
    return PacketBatch(records, findings, None)


LADDER = """\
connection 1
     seconds 10.0.0.1:40000                                         10.0.0.2:443
    0.000000 │── SYN seq 0 win 64240 ─────────────────────────────────────────▶│
    0.020000 │◀─────────────────────────────── SYN,ACK seq 0 ack 1 win 65160 ──│
    0.040001 │── ACK seq 1 ack 1 win 64256 ───────────────────────────────────▶│
    0.060001 │── PSH,ACK seq 1 ack 1 len 100 win 64256 ───────────────────────▶│
    0.080002 │◀───────────────────── ACK seq 1 ack 101 len 2896 win 65152 ×2 ──│
    0.100002 │◀──────────────────── PSH,ACK seq 1 ack 101 len 1448 win 65152 ──│
             │                                     [spurious retransmission]   │
    0.120003 │── ACK seq 101 ack 2897 win 0 [duplicate ack #3] [zero window] ─▶│
    0.140003 │── RST seq 101 win 0 ───────────────────────────────────────────▶│
"""


def run(sink: Ladder | Sequence | Graph, view: object, *batches: PacketBatch) -> None:
    sink.open(INFO)
    for batch in batches:
        sink.packets(batch)
    sink.close(view)  # type: ignore[arg-type]
    sink.restore()


def halves(batch: PacketBatch) -> list[PacketBatch]:
    return [PacketBatch(batch.records[part], batch.findings[part], None) for part in (slice(0, 5), slice(5, None))]


@pytest.mark.parametrize("chosen", [1, None])
def test_ladder(chosen: int | None, make_packet: Maker, make_view: type) -> None:
    """The same whether the packets stream through in two batches or are kept until the end."""
    out = io.StringIO()
    run(Ladder(out, chosen, True), make_view(), *halves(talk(make_packet)))
    assert out.getvalue() == LADDER


def test_ladder_streams_the_chosen_one(make_packet: Maker) -> None:
    out = io.StringIO()
    sink = Ladder(out, 1, True)
    sink.open(INFO)
    sink.packets(talk(make_packet, 2, 40_002))
    assert out.getvalue() == ""
    sink.packets(halves(talk(make_packet))[0])
    assert out.getvalue() == "".join(LADDER.splitlines(keepends=True)[:7])


def test_ladder_of_several_comes_one_after_another(make_packet: Maker, make_view: type) -> None:
    out = io.StringIO()
    first, second = halves(talk(make_packet))
    run(Ladder(out, None, False), make_view(), first, talk(make_packet, 2, 40_002), second)
    assert out.getvalue() == f"{LADDER}\n{LADDER.replace('connection 1', 'connection 2').replace('40000', '40002')}"


def test_ladder_in_ascii(make_packet: Maker, make_view: type) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    run(Ladder(out, 1, True), make_view(), talk(make_packet))
    drawn = str.maketrans("─▶◀│×", "-><|x")
    assert raw.getvalue().decode("ascii") == LADDER.translate(drawn)


@pytest.mark.parametrize(("columns", "width"), [(20, 60), (60, 60), (61, 61), (100, 100), (400, 120)])
def test_ladder_fits_the_terminal(
    columns: int, width: int, make_packet: Maker, make_view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    run(Ladder(out, 1, True), make_view(), talk(make_packet))
    lines = out.getvalue().splitlines()
    assert {cell_len(line) for line in lines[1:]} == {width}
    words = " ".join(" ".join(line.strip("│─▶◀ ") for line in lines).split())
    for expected in ("[spurious retransmission]", "[duplicate ack #3]", "ack 2897", "len 2896", "×2"):
        assert expected in words


def test_ladder_colours_only_the_arrow(make_packet: Maker, make_view: type) -> None:
    colored, bare = Terminal(), Terminal()
    run(Ladder(colored, 1, True), make_view(), talk(make_packet))
    run(Ladder(bare, 1, False), make_view(), talk(make_packet))
    lines = colored.getvalue().splitlines()
    assert bare.getvalue() == LADDER
    assert lines[2].startswith("    0.000000 │\x1b[32m── SYN")
    assert lines[7].startswith("    0.100002 │\x1b[1;31m◀──")
    assert lines[4] == LADDER.splitlines()[4]


def test_ladder_of_a_connection_that_never_occurred(make_packet: Maker, make_view: type) -> None:
    with pytest.raises(TcptraceError, match=r"^no connection 17: there were 1 to 5$"):
        run(Ladder(io.StringIO(), 17, True), make_view(), talk(make_packet), talk(make_packet, 5, 40_005))


def test_words_of_a_packet() -> None:
    assert window_text(500, ACK, None) == "win 500×?"
    assert window_text(500, ACK, 3) == "win 4000"
    assert window_text(500, SYN, 3) == "win 500"
    assert window_text(0, ACK, None) == "win 0"
    assert findings_words(bit("retransmission"), 0) == ["retransmission"]
    assert findings_words(bit("retransmission", "fast_retransmission"), 0) == ["fast retransmission"]
    assert time_text(1_234_567_890) == "1.234567"
    assert time_text(10**7 * 10**9) == "10000000.000"
    assert wrapped(["aa", "bb", "cccccccccc", "d"], 5) == ["aa bb", "cc…cc", "d"]


# --- Diagrams

SENT_PANEL = """\
connection 1: 10.0.0.1:40000 > 10.0.0.2:443
sent 10.0.0.1:40000 > 10.0.0.2:443
    101 B┤                              ⡇         ⡏⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉X
         │                              ⡇         ⡇
         │                              ⡇         ⡇
         │                              ⡇         ⡇
         │                              ⡇         ⡇
         │                              ⡇         ⡇
      0 B┤Y         ⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣇⣀⣀⣀⣀⣀⣀⣀⣀⣀⡇
         └──────────────────────────────────────────────────────────────────────
          0 ms                                                            140 ms
          ┃ data  ╌ acknowledged  X RST  Y SYN
window edge up to 65.2 kB above the picture
"""


def test_sequence_diagram(make_packet: Maker, make_view: type) -> None:
    out = io.StringIO()
    run(Sequence(out, None, 1, True), make_view(), talk(make_packet))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[:13] == SENT_PANEL.splitlines()
    assert lines[13:15] == [
        "sent 10.0.0.2:443 > 10.0.0.1:40000",
        # No window edge along the top before the zero window: it was far above.
        " 2.897 kB┤" + " " * 40 + "⡇" + " " * 18 + "d0⠉⠉⠉⠉⠉⠉⠉⠉⠉",
    ]
    assert [line for line in lines[16:30] if "S" in line] == [" " * 9 + "│" + " " * 40 + "⡇        S          ⡇"]
    assert lines[-6:] == [
        "          0 ms                                                            140 ms",
        "          ┃ data  ╌ acknowledged  ╌ window edge  Y SYN",
        "          S spurious retransmission  0 zero window  d duplicate ACK",
        "window edge up to 61.4 kB above the picture",
        "9 packets",  # one of them a super-packet of two
        "",
    ]


def test_graph_on_a_terminal(make_packet: Maker, make_view: type) -> None:
    out = io.StringIO()
    run(Graph(out, None, None, True), make_view(), talk(make_packet))
    text = out.getvalue()
    assert max(map(cell_len, text.splitlines())) == 80
    for expected in (
        "throughput 10.0.0.1:40000 > 10.0.0.2:443, in bins of 2 ms",
        "round-trip time 10.0.0.1:40000 > 10.0.0.2:443: 2 samples, median 20.0 ms",
        "round-trip time 10.0.0.2:443 > 10.0.0.1:40000: 1 sample, median 500 µs",
        "bytes in flight 10.0.0.2:443 > 10.0.0.1:40000",
        "the receiver's window was 0 B to 64.3 kB",
        "╌ payload  ╌ goodput",
    ):
        assert expected in text


@pytest.mark.parametrize("sink", [Sequence, Graph])
@pytest.mark.parametrize("columns", [40, 81, 200])
def test_diagrams_fit_the_terminal(
    sink: type[Sequence | Graph], columns: int, make_packet: Maker, make_view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    run(sink(out, None, None, True), make_view(), talk(make_packet))
    assert max(map(cell_len, out.getvalue().splitlines())) == columns


@pytest.mark.parametrize("sink", [Sequence, Graph])
def test_colours_are_styles_and_nothing_else(sink: type[Sequence | Graph], make_packet: Maker, make_view: type) -> None:
    piped, bare, colored = io.StringIO(), Terminal(), Terminal()
    for out, color in ((piped, True), (bare, False), (colored, True)):
        run(sink(out, None, None, color), make_view(), talk(make_packet))
    assert "\x1b[" not in piped.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", bare.getvalue())
    assert re.search(r"\x1b\[[0-9;]*3[0-7]", colored.getvalue())
    stripped = [re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()) for out in (piped, bare, colored)]
    assert stripped[0] == stripped[1] == stripped[2]


@pytest.mark.parametrize("sink", [Sequence, Graph])
def test_diagrams_in_ascii(sink: type[Sequence | Graph], make_packet: Maker, make_view: type) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    run(sink(out, None, None, True), make_view(), talk(make_packet))
    text = raw.getvalue().decode("ascii")
    assert "?" not in text
    assert "+" + "-" * 70 in text


def test_the_four_largest_are_drawn_and_the_others_named(make_packet: Maker, make_view: type) -> None:
    batches = []
    for number in range(1, 8):
        batch = talk(make_packet, number, 40_000 + number)
        batch.records["frame_bytes"] *= number
        batches.append(batch)
    out = io.StringIO()
    run(Sequence(out, None, None, False), make_view(), *batches)
    headings = [line.split(":")[0] for line in out.getvalue().splitlines() if line.startswith("connection ")]
    assert headings == [f"connection {number}" for number in (7, 6, 5, 4)]
    assert out.getvalue().endswith(
        "not drawn: 3 other connections, with fewer bytes\n"
        "  3: 10.0.0.1:40003 > 10.0.0.2:443\n  2: 10.0.0.1:40002 > 10.0.0.2:443\n  1: 10.0.0.1:40001 > 10.0.0.2:443\n"
    )


def test_letters_that_meet_stand_side_by_side() -> None:
    panel = Panel(20, 3, (0.0, 1.0), (0.0, 1.0))
    for letter in "ABCA":
        panel.letters(Points(np.array([0.5]), np.array([0.5])), letter, "red")
    text = "\n".join(line.plain for line in panel.lines(False, "", "", "", ""))
    assert [text.count(letter) for letter in "ABC"] == [1, 1, 1]
