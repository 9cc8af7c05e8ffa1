"""`ss -tinp`, and its numbers beside those of a `connection` line of tcptrace."""

import re
from dataclasses import dataclass, field
from typing import Any

from netns_tools import Namespace

STATE_OF_SS = {
    "ESTAB": "ESTABLISHED",
    "SYN-SENT": "SYN-SENT",
    "SYN-RECV": "SYN-RECEIVED",
    "FIN-WAIT-1": "FIN-WAIT-1",
    "FIN-WAIT-2": "FIN-WAIT-2",
    "TIME-WAIT": "TIME-WAIT",
    "CLOSE-WAIT": "CLOSE-WAIT",
    "LAST-ACK": "LAST-ACK",
    "CLOSING": "CLOSING",
}
"""Names of ss for those of RFC 9293."""

Numbers = dict[str, int | str | None]
"""By the names of the JSON fields; times that ss gives in milliseconds are in milliseconds (`busy_ms`)."""

COUNTERS = (
    "kernel_retransmissions",
    "kernel_bytes_sent",
    "kernel_bytes_retransmitted",
    "kernel_bytes_acked",
    "kernel_bytes_received",
    "delivered_packets",
    "dsack_duplicates",
    "busy_ms",
    "rwnd_limited_ms",
    "sndbuf_limited_ms",
)
"""Numbers that only grow."""
SETTINGS = ("kernel_state", "congestion_control")
_LEVELS = (
    "srtt_us",
    "rttvar_us",
    "rto_us",
    "rtt_min_us",
    "cwnd_packets",
    "ssthresh_packets",
    "in_flight_packets",
    "lost_packets",
    "sacked_packets",
    "reordering_packets",
    "delivery_rate_bytes_per_s",
    "pacing_rate_bytes_per_s",
    "snd_wnd_bytes",
)


@dataclass(frozen=True)
class Socket:
    """A line of `ss -tinpHO`."""

    state: str
    local_port: int
    peer_port: int
    pids: frozenset[int]
    words: dict[str, str] = field(repr=False)
    """What stands behind a name and a colon or, for rates, a blank."""
    congestion_control: str | None

    def numbers(self) -> Numbers:
        """What ss leaves out is zero, or, where that cannot be, not known (misc/ss.c of iproute2)."""
        rtt, rttvar = _pair(self.words.get("rtt", "/"))
        lost_and_found, retransmissions = _pair(self.words.get("retrans", "0/0"))
        unacked, lost, sacked = (int(self.words.get(name, 0)) for name in ("unacked", "lost", "sacked"))
        return {
            "kernel_state": self.state,
            "congestion_control": self.congestion_control,
            "srtt_us": _us(rtt),
            "rttvar_us": _us(rttvar),
            "rto_us": _us(self.words.get("rto")),
            "rtt_min_us": _us(self.words.get("minrtt")),
            "cwnd_packets": _known(self.words.get("cwnd")),
            "ssthresh_packets": _known(self.words.get("ssthresh")),
            "in_flight_packets": unacked - lost - sacked + int(lost_and_found),
            "lost_packets": lost,
            "sacked_packets": sacked,
            "reordering_packets": int(self.words.get("reordering", 3)),
            "delivery_rate_bytes_per_s": _bytes_per_s(self.words.get("delivery_rate")),
            "pacing_rate_bytes_per_s": _bytes_per_s(self.words.get("pacing_rate")),
            "snd_wnd_bytes": _known(self.words.get("snd_wnd")),
            "kernel_retransmissions": int(retransmissions),
            "kernel_bytes_sent": int(self.words.get("bytes_sent", 0)),
            "kernel_bytes_retransmitted": int(self.words.get("bytes_retrans", 0)),
            "kernel_bytes_acked": int(self.words.get("bytes_acked", 0)),
            "kernel_bytes_received": int(self.words.get("bytes_received", 0)),
            "delivered_packets": int(self.words.get("delivered", 0)),
            "dsack_duplicates": int(self.words.get("dsack_dups", 0)),
            "busy_ms": _ms(self.words.get("busy")),
            "rwnd_limited_ms": _ms(self.words.get("rwnd_limited")),
            "sndbuf_limited_ms": _ms(self.words.get("sndbuf_limited")),
        }


def sockets_of(namespace: Namespace, *expression: str) -> list[Socket]:
    """All of the namespace but listening ones, or those that ss's filter lets through."""
    return [
        _socket(line) for line in namespace.output("ss", "-tanipHO", "exclude", "listening", *expression).splitlines()
    ]


def socket_of(namespace: Namespace, local_port: int, peer_port: int) -> Socket | None:
    """The one between these ports; None when the kernel has forgotten it."""
    found = sockets_of(namespace, f"sport = :{local_port} and dport = :{peer_port}")
    assert len(found) <= 1, found
    return found[0] if found else None


def numbers_of(line: dict[str, Any]) -> Numbers:
    """Those of a `connection` line that ss has."""
    numbers: Numbers = {name: line[name] for name in (*SETTINGS, *_LEVELS)}
    for name in COUNTERS:
        of_us = name.replace("_ms", "_us")
        numbers[name] = line[of_us] if of_us == name or line[of_us] is None else line[of_us] // 1000
    return numbers


def _socket(line: str) -> Socket:
    state, _, _, local, peer, rest = [*line.split(maxsplit=5), ""][:6]
    users = re.match(r"users:\((.*?)\)(?:\s|$)", rest)
    pids = frozenset(map(int, re.findall(r"pid=(\d+)", users[1]))) if users else frozenset()
    told = rest[users.end() :] if users else rest
    words = dict(re.findall(r"(?:^|\s)([a-z_]+):([^\s(]+)", told)) | dict(re.findall(r"(\w+_rate) (\d+)bps", told))
    # The name of the congestion control stands by itself before the first number of tcp_info.
    name = re.search(r"(?:^|\s)([a-z_]+) wscale:|(?:^|\s)([a-z_]+) rto:", told)
    return Socket(
        state=STATE_OF_SS[state],
        local_port=int(local.rsplit(":", 1)[1]),
        peer_port=int(peer.rsplit(":", 1)[1]),
        pids=pids,
        words=words,
        congestion_control=(name[1] or name[2]) if name else None,
    )


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition("/")
    return first, second


def _us(text: str | None) -> int | None:
    """Of milliseconds with decimals."""
    return round(1000 * float(text)) if text else None


def _ms(text: str | None) -> int:
    return int(text.removesuffix("ms")) if text else 0


def _known(text: str | None) -> int | None:
    return None if text is None else int(text)


def _bytes_per_s(text: str | None) -> int | None:
    """Of bits a second."""
    return None if text is None else int(text) // 8
