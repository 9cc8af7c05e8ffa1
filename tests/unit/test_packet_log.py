"""The packet log's lines."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.model import Clock, Rows, Totals, TraceInfo
from tcptrace.sinks import packet_log
from tcptrace.sinks.packet_log import PacketLog, packet_lines

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


def test_lines(handshake: np.ndarray, info: TraceInfo) -> None:
    handshake["time_ns"] += np.arange(5, dtype=np.uint64) * 1_500
    assert packet_lines(handshake, info) == [
        "22:13:20.000000 → 10.0.0.1:40000 > 10.0.0.2:443 [S] seq 100 win 64240 len 0"
        " <mss 1460,sackOK,TS val 1 ecr 0,wscale 7>",
        "22:13:20.000001 ← [2001:db8::2]:443 > [2001:db8::1]:40000 [S.E] seq 500 ack 101 win 65160 len 0 <mss 1440>",
        "22:13:20.000003 → 10.0.0.1:40000 > 10.0.0.2:443 [P.] seq 4294966296:1896 ack 501 win 502 len 2896 ×2"
        " <TS val 10 ecr 20>",
        "22:13:20.000004 · 10.0.0.2:443 > 10.0.0.1:40000 [.] seq 501 ack 101 win 501 len 0 <sack 2 {1:20}{30:40}>",
        "22:13:20.000006 ← 10.0.0.2:443 > 10.0.0.1:40000 [R] seq 501 win 0 len 0",
    ]


def test_the_clock_makes_the_time_of_day(handshake: np.ndarray, info: TraceInfo) -> None:
    late = TraceInfo(info.interface, info.hook, None, info.link, Clock(3_000_000_000), info.version)
    assert packet_lines(handshake[:1], late)[0].startswith("22:13:23.000000 ")


def test_all_lines_come_out_plain_and_the_summary_after_them(
    handshake: np.ndarray, info: TraceInfo, make_view: Any, sample_rows: Rows, sample_totals: Totals
) -> None:
    stream = io.StringIO()
    log = PacketLog(stream)
    assert log.wants_packets
    log.open(info)
    assert stream.getvalue() == ""
    many = np.tile(handshake, 300)
    log.packets(many)
    assert stream.getvalue().splitlines() == packet_lines(many, info)
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
    log.packets(handshake)
    plain = packet_lines(handshake, info)
    expected = [f"\x1b[32m{plain[0]}\x1b[0m", f"\x1b[32m{plain[1]}\x1b[0m", plain[2], plain[3]]
    expected.append(f"\x1b[31m{plain[4]}\x1b[0m")
    assert stream.getvalue().splitlines() == (expected if colored else plain)


def test_odd_options(make_packet: Callable[..., np.ndarray]) -> None:
    packet = make_packet(CLIENT, SERVER, options=r.OPTION_FAST_OPEN | r.OPTION_MALFORMED | r.OPTION_OTHER)
    assert packet_log.options_text(packet[0]) == "<tfo,malformed>"
    assert packet_log.options_text(make_packet(CLIENT, SERVER)[0]) == ""
