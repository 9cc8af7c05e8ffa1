"""Files that --sequence and --graph draw: valid, with the texts they should have; errors come before any tracing."""

import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.errors import MissingFeatureError, TcptraceError, UsageError
from tcptrace.model import FINDING, Clock, PacketBatch, TraceInfo
from tcptrace.sinks.drawing import pictures, rehearsal
from tcptrace.sinks.drawing.collecting import DrawingSink
from tcptrace.sinks.drawing.graph import Graph
from tcptrace.sinks.drawing.sequence import Sequence

pytest.importorskip("matplotlib", reason="needs matplotlib")

START_NS = 1_700_000_000_000_000_000
FILES = TraceInfo(interface=None, hook=None, filter=None, clock=Clock(), version="1", files=("a.pcap",))
SINKS = pytest.mark.parametrize("sink", [Sequence, Graph])

Maker = Callable[..., np.ndarray]


def transfer(make_packet: Maker, number: int, packets: int = 20) -> PacketBatch:
    """SYNs, then 1000 bytes and an ACK by turns; one retransmission."""
    client, server = ("10.0.0.1", 40_000 + number), ("10.0.0.2", 443)
    scale = {"options": r.OPTION_WINDOW_SCALE, "window_scale": 2}
    made = [
        make_packet(client, server, flags=r.FLAG_SYN, seq=1, window=9_000, **scale),
        make_packet(server, client, flags=r.FLAG_SYN | r.FLAG_ACK, seq=8, ack=2, window=9_000, **scale),
    ]
    for i in range(packets):
        made.append(
            make_packet(
                server, client, flags=r.FLAG_ACK, seq=9 + i * 1_000, ack=2, payload_bytes=1_000, frame_bytes=1_054
            )
        )
        made.append(
            make_packet(client, server, flags=r.FLAG_ACK, seq=2, ack=1_009 + i * 1_000, window=5_000, frame_bytes=54)
        )
    records = np.concatenate(made)
    records["time_ns"] = START_NS + np.arange(len(records)) * 10_000_000
    findings = np.zeros(len(records), FINDING)
    findings["connection_id"], findings["received"] = number, records["src_port"] == 443
    findings["rtt_us"] = np.where(findings["received"], np.nan, 10_000)
    findings["in_flight_bytes"] = np.where(records["payload_bytes"] > 0, 1_000, -1)
    findings["analysis"][6:7] = 1
    return PacketBatch(records, findings, None)


def draw(sink: DrawingSink, view: object, *batches: PacketBatch, info: TraceInfo = FILES) -> None:
    sink.open(info)
    for batch in batches:
        sink.packets(batch)
    sink.close(view)  # type: ignore[arg-type]
    sink.restore()


def texts(path: Path) -> list[str]:
    """All text elements of an SVG."""
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height; every chunk's checksum holds."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, names = 8, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        chunk = data[place + 4 : place + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(data[place + 8 + length : place + 12 + length])
        names.append(chunk[:4])
        place += 12 + length
    assert (names[0], names[-1]) == (b"IHDR", b"IEND")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_svg_of_a_sequence_says_what_it_shows(tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    out = io.StringIO()
    draw(Sequence(out, str(tmp_path / "x.svg"), None, True), make_view(), transfer(make_packet, 1))
    found = texts(tmp_path / "x.svg")
    assert {
        "Connection 1: 10.0.0.1:40001 → 10.0.0.2:443",
        "Sent 10.0.0.1:40001 → 10.0.0.2:443", "sequence number", "20 kB", "42 packets",
        "Sent 10.0.0.2:443 → 10.0.0.1:40001", "ms since the connection began",
        "data", "acknowledged", "window edge", "retransmission", "SYN",
    } <= set(found)  # fmt: skip
    assert not {"FIN", "RST", "SACK block", "zero window", "spurious retransmission"} & set(found)
    assert out.getvalue() == f"{tmp_path}/x.svg: sequence numbers of connection 1, 10.0.0.1:40001 > 10.0.0.2:443\n"


def test_svg_of_a_graph_says_what_it_shows(tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    draw(Graph(io.StringIO(), str(tmp_path / "x.svg"), None, True), make_view(), transfer(make_packet, 1))
    found = texts(tmp_path / "x.svg")
    assert {
        "Throughput", "in bins of 5 ms", "Round-trip time of what is sent", "10 ms", "in flight", "42 packets",
        "window up to 20.0 kB, above the picture",  # only 1 kB is ever in flight
        "Bytes in flight, 10.0.0.2:443 → 10.0.0.1:40001", "dst to src, goodput",
    } <= set(found)  # fmt: skip
    assert "Bytes in flight, 10.0.0.1:40001 → 10.0.0.2:443" not in found


def handshake(make_packet: Maker, packets: int) -> PacketBatch:
    """The first so many packets of a handshake."""
    client, server = ("10.0.0.1", 40_001), ("10.0.0.2", 443)
    records = np.concatenate([
        make_packet(client, server, flags=r.FLAG_SYN, seq=1),
        make_packet(server, client, flags=r.FLAG_SYN | r.FLAG_ACK, seq=8, ack=2),
        make_packet(client, server, flags=r.FLAG_ACK, seq=2, ack=9),
    ][:packets])  # fmt: skip
    records["time_ns"] = START_NS + np.arange(packets) * 100_000_000
    findings = np.zeros(packets, FINDING)
    findings["connection_id"], findings["received"] = 1, records["src_port"] == 443
    findings["rtt_us"], findings["in_flight_bytes"] = np.nan, -1
    findings["rtt_us"][1:] = 100_000
    return PacketBatch(records, findings, None)


def test_a_handshake_has_whole_bytes_and_named_syns(tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    draw(Sequence(io.StringIO(), str(tmp_path / "x.svg"), None, True), make_view(), handshake(make_packet, 3))
    found = texts(tmp_path / "x.svg")
    assert found.count("SYN") == 3  # one of them in the legend
    assert (found.count("0 B"), found.count("1 B")) == (2, 2)
    assert not [text for text in found if re.fullmatch(r"0?\.\d+ B", text)]
    assert "3 packets" in found


def test_a_handshake_s_graph_has_only_its_round_trips(tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    draw(Graph(io.StringIO(), str(tmp_path / "x.svg"), None, True), make_view(), handshake(make_packet, 3))
    found = set(texts(tmp_path / "x.svg"))
    assert {"Round-trip time of what is sent", "src to dst, samples", "3 packets; no payload"} <= found
    assert not {"Throughput", "src to dst, median"} & found


@SINKS
def test_one_packet_takes_no_time(sink: type[DrawingSink], tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    draw(sink(io.StringIO(), str(tmp_path / "x.svg"), None, True), make_view(), handshake(make_packet, 1))
    found = texts(tmp_path / "x.svg")
    assert "s since the connection began" in found
    assert (found.count("0"), found.count("-0")) == (1, 0)
    assert [text for text in found if text.startswith("1 packet")]
    if sink is Sequence:
        assert found.count("nothing seen") == 1


@SINKS
def test_png(sink: type[DrawingSink], tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    draw(sink(io.StringIO(), str(tmp_path / "x.PNG"), 1, True), make_view(), transfer(make_packet, 1))
    width, height = png_size((tmp_path / "x.PNG").read_bytes())
    assert width == 1_320
    assert 700 <= height <= 1_400


@SINKS
def test_pdf_has_a_page_for_each(sink: type[DrawingSink], tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    out = io.StringIO()
    target = tmp_path / "x.pdf"
    target.write_bytes(b"an older picture" * 100_000)
    draw(sink(out, str(target), None, True), make_view(), *(transfer(make_packet, number) for number in (1, 2, 3)))
    data = target.read_bytes()
    assert data.startswith(b"%PDF-1.")
    assert data.rstrip().endswith(b"%%EOF")
    pages = {Sequence: 3, Graph: 4}[sink]
    assert len(re.findall(rb"/Type /Page\b", data)) == pages
    assert len(data) < 60_000
    assert len(out.getvalue().splitlines()) == pages


@SINKS
def test_other_formats_have_a_file_for_each(
    sink: type[DrawingSink], tmp_path: Path, make_packet: Maker, make_view: type
) -> None:
    draw(
        sink(io.StringIO(), str(tmp_path / "x.svg"), None, True),
        make_view(),
        transfer(make_packet, 1),
        transfer(make_packet, 2),
    )
    overview = {"x-overview.svg"} if sink is Graph else set()
    assert {path.name for path in tmp_path.iterdir()} == {"x-1.svg", "x-2.svg"} | overview
    assert "Connection 2: 10.0.0.1:40002 → 10.0.0.2:443" in texts(tmp_path / "x-2.svg")
    if overview:
        found = texts(tmp_path / "x-overview.svg")
        assert {"2 connections", "1: 10.0.0.1:40001 → 10.0.0.2:443", "2.2 kB"} - set(found) == {"2.2 kB"}
        assert {"22.2 kB"} <= set(found)


@SINKS
@pytest.mark.parametrize("name", ["x.jpg", "x", "png", ".svg/x"])
def test_other_extensions_are_refused(sink: type[DrawingSink], name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{name}: a picture's name ends in .png, .svg or .pdf")):
        sink(io.StringIO(), name, None, True)


@SINKS
def test_a_folder_that_is_not_there_is_told_at_once(sink: type[DrawingSink], tmp_path: Path) -> None:
    made = sink(io.StringIO(), str(tmp_path / "no/x.png"), None, True)
    with pytest.raises(TcptraceError, match=r"^cannot write \S+/no/x\.png: No such file or directory$"):
        made.open(FILES)


@SINKS
def test_a_connection_that_never_occurred_leaves_no_file(
    sink: type[DrawingSink], tmp_path: Path, make_packet: Maker, make_view: type
) -> None:
    made = sink(io.StringIO(), str(tmp_path / "x.png"), 17, True)
    with pytest.raises(TcptraceError, match="no connection 17: there were 1 to 5"):
        draw(made, make_view(), transfer(make_packet, 1), transfer(make_packet, 5))
    made.restore()
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_made_beside_it_any_more(
    tmp_path: Path, make_packet: Maker, make_view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Privileges are gone, the folder belongs to somebody else: what was opened in time takes the first picture."""
    out = io.StringIO()
    sink = Graph(out, str(tmp_path / "x.svg"), None, True)
    sink.open(FILES)

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tcptrace.sinks.drawing.pictures.open", refuse, raising=False)
    for number in (1, 2):
        sink.packets(transfer(make_packet, number))
    sink.close(make_view())
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert "2 connections" in texts(tmp_path / "x.svg")
    assert out.getvalue().splitlines() == [
        f"{tmp_path}/x.svg: traffic of 2 connections",
        "2 further pictures could not be written beside it: permission denied; a .pdf has a page for each",
    ]


def test_an_older_picture_stays_if_nothing_was_drawn(tmp_path: Path, make_view: type) -> None:
    (tmp_path / "x.png").write_bytes(b"older")
    made = Sequence(io.StringIO(), str(tmp_path / "x.png"), None, True)
    with pytest.raises(TcptraceError, match="nothing to draw: there was no connection"):
        draw(made, make_view())
    made.restore()
    assert (tmp_path / "x.png").read_bytes() == b"older"


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingFeatureError, match=r"^pictures need matplotlib: pip install matplotlib$"):
        Graph(io.StringIO(), str(tmp_path / "x.png"), None, True).open(FILES)


@pytest.mark.parametrize("extension", ["png", "svg", "pdf"])
@SINKS
def test_drawing_reads_no_file_after_open(
    sink: type[DrawingSink], extension: str, tmp_path: Path, make_packet: Maker, make_view: type, info: TraceInfo
) -> None:
    """Under a live trace privileges are dropped after open(): the interpreter's own folder may be out of reach."""
    made = sink(io.StringIO(), str(tmp_path / f"x.{extension}"), 1, True)
    made.open(info)
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and watching and arguments[0] is not None:
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)  # there is no taking it off again; it only looks while `watching` is not empty
    made.packets(transfer(make_packet, 1))
    made.close(make_view())
    watching.clear()
    assert opened == []
    assert (tmp_path / f"x.{extension}").stat().st_size > 3_000


def test_no_more_pictures_than_anybody_looks_at(
    tmp_path: Path, make_packet: Maker, make_view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcptrace.sinks.drawing.collecting.PICTURES_MAX", 2)
    out = io.StringIO()
    batches = [transfer(make_packet, number, packets=number) for number in (1, 2, 3)]
    draw(Sequence(out, str(tmp_path / "x.svg"), None, True), make_view(), *batches)
    assert {path.name for path in tmp_path.iterdir()} == {"x-2.svg", "x-3.svg"}  # those with most bytes
    assert (
        out.getvalue().splitlines()[-1] == "1 further connections have no picture of their own: those with fewer bytes"
    )


def test_the_rehearsal_has_every_kind() -> None:
    from tcptrace.sinks.drawing import kinds, marks

    shown = {kind.label for made in marks.diagrams(rehearsal.sample_history()) for kind in made.kinds()}
    assert shown == set(kinds.LEGEND)


def test_the_picture_is_the_same_each_time(tmp_path: Path, make_packet: Maker, make_view: type) -> None:
    for name in ("a.svg", "b.svg"):
        draw(Sequence(io.StringIO(), str(tmp_path / name), None, True), make_view(), transfer(make_packet, 1))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_matplotlib_is_loaded_only_for_pictures() -> None:
    code = "import sys, tcptrace.sinks.drawing.graph, tcptrace.sinks.drawing.ladder; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout == "False\n"


def test_the_format_goes_by_the_extension() -> None:
    assert [pictures.check_target(name) for name in ("a.b.png", "/x/Y.SVG", "p.pdf")] == [".png", ".svg", ".pdf"]
