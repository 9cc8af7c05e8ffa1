"""The one place where numbers, addresses, flags and times become text.

Text has a greatest width, given with each function, so that a table column can rely on it.
Unknown (NaN, infinite, negative) is `UNKNOWN`, never 0.
"""

import base64
import hashlib
import math
import socket
import struct
import time
import unicodedata
from functools import lru_cache
from typing import Final

from tcptrace.model import ANALYSIS
from tcptrace.records import FLAG_NAMES

UNKNOWN: Final = "–"
ELLIPSIS: Final = "…"

IP_PROTOCOL_TCP: Final = 6

_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
FLAG_LETTERS: Final = "FSRP.UEWe"
"""Index is the bit; tcpdump's letters."""
_COMMUNITY_SEED: Final = b"\0\0"

_GENERAL_FINDING: Final = "retransmission"
_KINDS_OF_IT: Final = frozenset({"fast_retransmission", "spurious_retransmission"})
_FINDING_PHRASES: Final = {
    "duplicate_ack": "dup ack",
    "duplicate_sack": "duplicate SACK",
    "acked_unseen_segment": "ACKed unseen segment",
    "zero_window_probe_ack": "zero window probe ACK",
    "keep_alive": "keep-alive",
    "keep_alive_ack": "keep-alive ACK",
    "port_reuse": "port numbers reused",
}
"""Where Wireshark's words are not the name with spaces."""


def _known(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _digits(value: float) -> str:
    """At most four characters for 0 <= value < 999.5: one decimal below 99.95, none above."""
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}"


def _scaled(value: float) -> tuple[str, str]:
    """Digits and decimal prefix: 1536 is ("1.5", "k")."""
    if value < 999.5:
        if value == int(value) or value >= 9.95:
            return f"{value:.0f}", ""
        return (f"{value:.1f}", "") if value >= 0.05 else ("<0.1", "")
    for prefix in _PREFIXES[1:]:
        value /= 1000
        if value < 999.5:
            return _digits(value), prefix
    return ">999", _PREFIXES[-1]


def quantity(value: float) -> str:
    """A number with a decimal prefix, at most 5 wide: 850, 1.5k, 15.3M."""
    if not _known(value):
        return UNKNOWN
    return "".join(_scaled(value))


def count(value: int, width: int) -> str:
    """A whole number with thousands separators where that fits into `width` >= 5, else as `quantity`."""
    if value < 0:
        return UNKNOWN
    text = f"{value:,}"
    return text if len(text) <= width else quantity(value)


def byte_count(value: float) -> str:
    """Bytes, decimal units, at most 7 wide: 850 B, 1.5 MB."""
    if not _known(value):
        return UNKNOWN
    digits, prefix = _scaled(value)
    return f"{digits} {prefix}B"


def byte_rate(value: float) -> str:
    """Bytes a second, at most 9 wide: 15.3 MB/s."""
    return f"{byte_count(value)}/s" if _known(value) else UNKNOWN


def duration_us(value: float) -> str:
    """Microseconds as µs, ms, s or longer, at most 7 wide: 85.0 µs, 12.3 ms, 1.5 s."""
    if not _known(value):
        return UNKNOWN
    if value == 0:
        return "0 s"
    if value < 999.5:
        return f"{_digits(value)} µs"
    if value < 999_500:
        return f"{_digits(value / 1000)} ms"
    return duration_s(value / 1e6)


def duration_s(value: float) -> str:
    """Seconds, at most 7 wide: 85.0 µs, 1.5 s, 2m05s, 3h04m, 5d06h."""
    if not _known(value):
        return UNKNOWN
    if value < 0.9995:
        return duration_us(value * 1e6)
    if value < 59.95:
        return f"{value:.1f} s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    days, rest = divmod(seconds, 86400)
    return f"{days}d{rest // 3600:02d}h" if days < 1000 else f"{min(days, 999_999)}d"


def stopwatch(seconds: float) -> str:
    """Elapsed time as 00:01:23."""
    whole = int(max(0.0, seconds))
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def ellipsise(text: str, width: int) -> str:
    """`text` no wider than `width`, its middle left out."""
    if len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + ELLIPSIS + text[len(text) - tail :]


def printable(text: str) -> str:
    """What strangers have named, so that the terminal does not obey it: ? for what does not print."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


@lru_cache(maxsize=4096)
def kernel_name(raw: bytes) -> str:
    """A name in a field of fixed size, up to its NUL.  As it is: of a process it may contain anything."""
    return raw.split(b"\0", 1)[0].decode("utf-8", errors="replace")


@lru_cache(maxsize=4096)
def process(name: str, pid: int) -> str:
    """curl/12345, at most `PROCESS_WIDTH` wide: a letter that is not exactly one of the terminal's cells is a ?."""
    shown = "".join(letter if _is_one_cell(letter) else "?" for letter in name)
    if pid < 0:
        return shown or UNKNOWN
    return f"{shown or '?'}/{pid}"


PROCESS_WIDTH: Final = 15 + 1 + 7
"""Of a comm (TASK_COMM_LEN of linux/sched.h, less its NUL) and the largest pid (PID_MAX_LIMIT)."""


def _is_one_cell(letter: str) -> bool:
    """Of what comes after Georgian, terminals differ in how wide they draw it."""
    return letter.isprintable() and letter < "\u1100" and unicodedata.category(letter)[0] != "M"


def process_fit(name: str, pid: int, width: int) -> str:
    """The same no wider than `width`: the name's middle goes, the pid stays whole as long as there is room for it."""
    text = process(name, pid)
    if len(text) <= width or pid < 0:
        return ellipsise(text, width)
    shown, _, number = text.rpartition("/")
    room = width - len(number) - 1
    return f"{ellipsise(shown, room)}/{number}" if room >= 3 else ellipsise(text, width)


def address(raw: bytes, ip_version: int) -> str:
    """16 bytes in network order as text: dotted for IPv4 (mapped ::ffff:a.b.c.d), compressed for IPv6."""
    if ip_version == 4:
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def endpoint(host: str, port: str) -> str:
    """Address and port (a number or a service's name); IPv6 in brackets, RFC 5952 section 6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def endpoint_fit(host: str, port: int, name: str | None, width: int) -> str:
    """An endpoint no wider than `width`: the service's name where it fits, then the address's middle goes.

    The port stays whole as long as there is room for it.
    """
    for label in (name, str(port)):
        if label and len(text := endpoint(host, label)) <= width:
            return text
    room = width - len(text) + len(host)
    if room < 3:
        return ellipsise(text, width)
    shortened = ellipsise(host, room)
    return f"[{shortened}]:{port}" if ":" in host else f"{shortened}:{port}"


def mac(raw: bytes) -> str:
    """Six bytes as aa:bb:cc:dd:ee:ff."""
    return raw.hex(":")


@lru_cache(maxsize=65536)
def service(port: int) -> str | None:
    """The TCP service's name in the system's services database."""
    try:
        return socket.getservbyport(port, "tcp")
    except OSError:
        return None


@lru_cache(maxsize=512)
def flags_short(flags: int) -> str:
    """TCP flags as tcpdump writes them: [S.], [P.], [none]."""
    letters = "".join(letter for bit, letter in enumerate(FLAG_LETTERS) if flags >> bit & 1)
    return f"[{letters or 'none'}]"


def plural(amount: int, noun: str) -> str:
    """1 packet, 2,000 packets."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


@lru_cache(maxsize=512)
def flags_words(flags: int) -> str:
    """TCP flags by name: SYN|ACK; empty if there is none."""
    return "|".join(name for bit, name in enumerate(FLAG_NAMES) if flags >> bit & 1)


@lru_cache(maxsize=512)
def analysis_words(analysis: int) -> list[str]:
    """The engine's findings about one segment by name (model.ANALYSIS)."""
    return [name for bit, name in enumerate(ANALYSIS) if analysis >> bit & 1]


@lru_cache(maxsize=4096)
def findings(analysis: int, duplicate_ack_number: int) -> str:
    """The findings in Wireshark's words, as a person reads them: fast retransmission, dup ack 3.

    Of a retransmission only its kind, where it has one.  Empty if there is nothing to say.
    """
    names = analysis_words(analysis)
    if not _KINDS_OF_IT.isdisjoint(names):
        names = [name for name in names if name != _GENERAL_FINDING]
    phrases = [_FINDING_PHRASES.get(name, name.replace("_", " ")) for name in names]
    if duplicate_ack_number and (dup_ack := _FINDING_PHRASES["duplicate_ack"]) in phrases:
        phrases[phrases.index(dup_ack)] += f" {duplicate_ack_number}"
    return ", ".join(phrases)


@lru_cache(maxsize=256)
def _utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=256)
def _local_second(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def rfc3339(wall_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 UTC with nine decimals."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    return f"{_utc_second(seconds)}.{nanoseconds:09d}Z"


def local_time(wall_ns: int) -> str:
    """Nanoseconds since 1970 as the local time of day, cut to microseconds: 13:37:00.123456."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    return f"{_local_second(seconds)}.{nanoseconds // 1000:06d}"


def community_id(source: bytes, source_port: int, destination: bytes, destination_port: int, ip_version: int) -> str:
    """Community ID version 1, seed 0, of a TCP connection: the same in both directions.  Addresses are 16 bytes."""
    if ip_version == 4:
        source, destination = source[12:], destination[12:]
    if (source, source_port) > (destination, destination_port):
        source, source_port, destination, destination_port = destination, destination_port, source, source_port
    tail = struct.pack("!BBHH", IP_PROTOCOL_TCP, 0, source_port, destination_port)
    digest = hashlib.sha1(_COMMUNITY_SEED + source + destination + tail, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode("ascii")
