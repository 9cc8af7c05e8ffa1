"""The packet log's lines."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.model import Clock, PacketBatch, Rows, Totals, TraceInfo
from tcptrace.sinks import packet_log
from tcptrace.sinks.packet_log import PacketLog, packet_lines

BatchMaker = Callable[..., PacketBatch]
CLIENT, SERVER = ("10.0.0.1", 40_000), ("10.0.0.2", 443)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day as it is in UTC."""
    monkeypatch.setattr(
        "tcptrace.sinks.human.local_time", lambda ns: f"22:13:{ns // 10**9 % 60:02d}.{ns % 10**9 // 1000:06d}"
    )


@pytest.fixture
def handshake(make_packet: Callable[..., np.ndarray]) -> np.ndarray:
    """A SYN, a SYN-ACK over IPv6, data as a super-packet, SACK, and a reset without options."""
    return np.concatenate(
        [
            make_packet(
                CLIENT,
                SERVER,
                seq=100,
                flags=r.FLAG_SYN,
                window=64_240,
                direction=r.DIRECTION_EGRESS,
                options=r.OPTION_MSS | r.OPTION_WINDOW_SCALE | r.OPTION_SACK_PERMITTED | r.OPTION_TIMESTAMPS,
                mss=1460,
                window_scale=7,
                ts_value=1,
            ),
            make_packet(
                ("2001:db8::2", 443),
                ("2001:db8::1", 40_000),
                seq=500,
                ack=101,
                flags=r.FLAG_SYN | r.FLAG_ACK | r.FLAG_ECE,
                window=65_160,
                direction=r.DIRECTION_INGRESS,
                options=r.OPTION_MSS,
                mss=1440,
            ),
            make_packet(
                CLIENT,
                SERVER,
                seq=2**32 - 1_000,
                ack=501,
                flags=r.FLAG_PSH | r.FLAG_ACK,
                payload_bytes=2_896,
                segments=2,
                window=502,
                direction=r.DIRECTION_EGRESS,
                options=r.OPTION_TIMESTAMPS,
                ts_value=10,
                ts_echo=20,
            ),
            make_packet(
                SERVER,
                CLIENT,
                seq=501,
                ack=101,
                flags=r.FLAG_ACK,
                window=501,
                direction=r.DIRECTION_UNKNOWN,
                options=r.OPTION_SACK,
                sack_count=2,
                sack_left=[1, 30, 0],
                sack_right=[20, 40, 0],
            ),
            make_packet(SERVER, CLIENT, seq=501, ack=7, flags=r.FLAG_RST),
        ]
    )


def lines(batch: PacketBatch, info: TraceInfo) -> list[str]:
    return packet_lines(batch.records, batch.findings, info)


def test_lines(handshake: np.ndarray, make_batch: BatchMaker, info: TraceInfo) -> None:
    handshake["time_ns"] += np.arange(5, dtype=np.uint64) * 1_500
    assert lines(make_batch(handshake), info) == [
        "22:13:20.000000 → 10.0.0.1:40000 > 10.0.0.2:443 [S] seq 100 win 64240 len 0"
        " <mss 1460,sackOK,TS val 1 ecr 0,wscale 7>",
        "22:13:20.000001 ← [2001:db8::2]:443 > [2001:db8::1]:40000 [S.E] seq 500 ack 101 win 65160 len 0 <mss 1440>",
        "22:13:20.000003 → 10.0.0.1:40000 > 10.0.0.2:443 [P.] seq 4294966296:1896 ack 501 win 502 len 2896 ×2"
        " <TS val 10 ecr 20>",
        "22:13:20.000004 · 10.0.0.2:443 > 10.0.0.1:40000 [.] seq 501 ack 101 win 501 len 0 <sack 2 {1:20}{30:40}>",
        "22:13:20.000006 ← 10.0.0.2:443 > 10.0.0.1:40000 [R] seq 501 win 0 len 0",
    ]


def test_findings_stand_behind_the_line_in_wiresharks_words(
    make_packet: Callable[..., np.ndarray], make_batch: BatchMaker, info: TraceInfo
) -> None:
    words = {
        "": "",
        "retransmission": " [retransmission]",
        "retransmission fast_retransmission": " [fast retransmission]",
        "retransmission spurious_retransmission": " [spurious retransmission]",
        "local_drop": " [local drop]",
        "out_of_order": " [out of order]",
        "previous_segment_not_captured window_full": " [previous segment not captured, window full]",
        "duplicate_ack": " [dup ack 3]",
        "duplicate_ack zero_window": " [dup ack 3, zero window]",
        "acked_unseen_segment": " [ACKed unseen segment]",
        "window_update": " [window update]",
        "zero_window_probe": " [zero window probe]",
        "zero_window_probe_ack": " [zero window probe ACK]",
        "keep_alive": " [keep-alive]",
        "keep_alive_ack": " [keep-alive ACK]",
        "port_reuse": " [port numbers reused]",
        "duplicate_sack": " [duplicate SACK]",
    }
    packets = np.repeat(make_packet(CLIENT, SERVER, flags=r.FLAG_ACK, ack=9), len(words))
    numbers = [3 if "duplicate_ack" in names else 0 for names in words]
    # What a packet's ACK measured is no finding: half of all lines would have one.
    batch = make_batch(packets, analysis=list(words), duplicate_ack_number=numbers, rtt_us=12.5, in_flight_bytes=1_448)
    found = [line.removeprefix(lines(make_batch(packets[:1]), info)[0]) for line in lines(batch, info)]
    assert found == list(words.values())


def test_the_clock_makes_the_time_of_day(handshake: np.ndarray, make_batch: BatchMaker, info: TraceInfo) -> None:
    late = dataclasses.replace(info, clock=Clock(3_000_000_000))
    assert lines(make_batch(handshake[:1]), late)[0].startswith("22:13:23.000000 ")


def test_all_lines_come_out_plain_and_the_summary_after_them(
    handshake: np.ndarray,
    make_batch: BatchMaker,
    info: TraceInfo,
    make_view: Any,
    sample_rows: Rows,
    sample_totals: Totals,
) -> None:
    stream = io.StringIO()
    log = PacketLog(stream)
    assert log.wants_packets
    log.open(info)
    assert stream.getvalue() == ""
    analysis = ["", "", "out_of_order", "duplicate_ack", ""] * 300
    many = make_batch(np.tile(handshake, 300), analysis=analysis, duplicate_ack_number=np.arange(1_500))
    log.packets(many)
    written = stream.getvalue().splitlines()
    assert written == lines(many, info)
    assert [line for line in written if line.endswith("]")][-1].endswith(" [dup ack 1498]")
    log.update(make_view(sample_rows, sample_totals))
    log.close(make_view(sample_rows, sample_totals))
    after = stream.getvalue().splitlines()[1500:]
    assert after[0] == ""
    assert after[1].startswith("tcptrace  eth0 · tc")
    assert after[6].split()[:3] == ["source", "destination", "state"]
    assert "\x1b" not in stream.getvalue()
    log.close(make_view(sample_rows, sample_totals))
    assert stream.getvalue().splitlines()[1500:] == after


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "no_color", "colored"), [(True, None, True), (False, None, False), (True, "1", False)]
)
def test_colour_only_where_it_is_wanted(
    color: bool,
    no_color: str | None,
    colored: bool,
    handshake: np.ndarray,
    make_batch: BatchMaker,
    info: TraceInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    log = PacketLog(stream, color=color)
    log.open(info)
    log.packets(make_batch(handshake))
    plain = lines(make_batch(handshake), info)
    expected = [f"\x1b[32m{plain[0]}\x1b[0m", f"\x1b[32m{plain[1]}\x1b[0m", plain[2], plain[3]]
    expected.append(f"\x1b[31m{plain[4]}\x1b[0m")
    assert stream.getvalue().splitlines() == (expected if colored else plain)


def test_of_a_file_the_log_ends_with_all_connections_by_number(
    handshake: np.ndarray,
    make_batch: BatchMaker,
    file_info: TraceInfo,
    make_view: Any,
    sample_rows: Rows,
    sample_totals: Totals,
) -> None:
    stream = io.StringIO()
    log = PacketLog(stream)
    log.open(file_info)
    log.packets(make_batch(handshake))
    log.close(make_view(sample_rows, sample_totals))
    after = stream.getvalue().splitlines()[5:]
    assert after[1].split() == ["tcptrace", "trace.pcapng", "1.0", "s"]
    assert after[3].split()[:3] == ["#", "source", "destination"]
    assert sorted(int(line.split()[0]) for line in after[4:10]) == [1, 2, 3, 4, 5, 6]
    assert after[10] == "… 1,234 more"


def test_odd_options(make_packet: Callable[..., np.ndarray]) -> None:
    packet = make_packet(CLIENT, SERVER, options=r.OPTION_FAST_OPEN | r.OPTION_MALFORMED | r.OPTION_OTHER)
    assert packet_log.options_text(packet[0]) == "<tfo,malformed>"
    assert packet_log.options_text(make_packet(CLIENT, SERVER)[0]) == ""
