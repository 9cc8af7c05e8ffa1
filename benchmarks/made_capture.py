"""Capture files of any length, always the same: connections that come and go beside each other, as at a server.

A file of more packets has longer connections, not more of them: what grows with it grows with the packets.

Each exchange is a request, its acknowledgment, three full segments and a short one, acknowledged in pairs; now and then
two segments come in the wrong order, or one comes twice.  Frames are cut to 96 bytes, as `tcpdump -s 96` would.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent.parent / "build" / "bench"
SNAPLEN_BYTES = 96
SEED = 1
PART_PACKETS = 250_000
"""Made at once: what fits into some tens of megabytes."""

AT_ONCE, AT_ONCE_PACKETS = 1_000, 50
"""Lines of connections beside each other, fewer where a file has less than so many packets for each."""
BURST = 8
"""Packets in a row of one connection, at most."""
ONE_AFTER_ANOTHER = 5
"""Connections on one of these lines, at most, but for one that has only begun when the file ends."""
SERVERS, CLIENT_PORT, SERVER_PORT = 250, 10_000, 443
"""tshark knows the last: of others it would guess at each packet what it carries, which takes twice as long."""
GAP_US = 10
"""Between packets: 100,000 a second."""

# Packets of an exchange: who sends, how much, and what of the exchange's bytes both have sent before.
REQUEST, SEGMENT, SHORT = 200, 1448, 300
BY_SERVER = np.array([0, 1, 1, 1, 0, 1, 1, 0], bool)
PAYLOAD = np.array([REQUEST, 0, SEGMENT, SEGMENT, 0, SEGMENT, SHORT, 0])
SENT_BEFORE = np.array([0, 0, 0, SEGMENT, 2 * SEGMENT, 2 * SEGMENT, 3 * SEGMENT, 3 * SEGMENT + SHORT])
PUSHED = np.array([1, 0, 0, 0, 0, 0, 1, 0], bool)
EXCHANGE, RESPONSE = len(PAYLOAD), 3 * SEGMENT + SHORT
OPENING, CLOSING = 3, 4
SELDOM = 64
"""One exchange in so many has a segment twice, another one two in the wrong order."""

FIN, SYN, PSH, ACK = 1, 2, 8, 16
MILLISECOND_US = 1000

RECORD = np.dtype(
    [
        *(("seconds", "<u4"), ("micros", "<u4"), ("captured", "<u4"), ("original", "<u4")),
        *(("macs", "u1", 12), ("type", ">u2")),
        *(("version", "u1"), ("tos", "u1"), ("ip_bytes", ">u2"), ("ip_id", ">u2"), ("fragment", ">u2")),
        *(("ttl", "u1"), ("protocol", "u1"), ("ip_checksum", ">u2"), ("src", ">u4"), ("dst", ">u4")),
        *(("src_port", ">u2"), ("dst_port", ">u2"), ("seq", ">u4"), ("ack", ">u4")),
        *(("words", "u1"), ("flags", "u1"), ("window", ">u2"), ("checksum", ">u2"), ("urgent", ">u2")),
        ("rest", "u1", SNAPLEN_BYTES - 54),
    ]
)
"""A packet of a pcap file, at its longest."""
HEAD_BYTES, HEADERS_BYTES = 16, 54
# NOP, NOP, timestamps; MSS, SACK permitted, timestamps, NOP, window scale.  The timestamps' values are to be set.
OPTIONS = bytes([1, 1, 8, 10, *bytes(8)])
SYN_OPTIONS = bytes([2, 4, 1460 >> 8, 1460 & 255, 4, 2, 8, 10, *bytes(8), 1, 3, 3, 7])
STAMP_AT, SYN_STAMP_AT = 4, 8

PCAP_HEAD = np.array([(0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN_BYTES, 1)], "<u4,<u2,<u2,<u4,<u4,<u4,<u4")


def made(packets: int) -> Path:
    """A file with so many packets, made unless it is there."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    path = FOLDER / f"{packets}-{version}.pcap"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        write(unfinished, packets)
        os.replace(unfinished, path)
    return path


def write(path: Path, packets: int) -> None:
    lines = max(1, min(AT_ONCE, packets // AT_ONCE_PACKETS))
    chance = np.random.default_rng(SEED)
    lengths = packets // lines // chance.integers(1, ONE_AFTER_ANOTHER, lines, endpoint=True)
    exchanges = np.maximum((lengths - OPENING - CLOSING) // EXCHANGE, 1)
    passed = np.zeros(lines, np.int64)
    with path.open("wb") as file:
        file.write(PCAP_HEAD.tobytes())
        for start in range(0, packets, PART_PACKETS):
            count = min(PART_PACKETS, packets - start)
            line, place = next_packets(chance, passed, count)
            places = Places.of(line, place, exchanges[line])
            file.write(cut(filled(places, start + np.arange(count))))


def next_packets(
    chance: np.random.Generator, passed: npt.NDArray[Any], count: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Whose turn it is, in bursts, and the how manyth packet of that line of connections it is."""
    bursts = chance.integers(1, BURST, count, endpoint=True)
    line = np.repeat(chance.integers(0, len(passed), count), bursts)[:count]
    order = np.argsort(line, kind="stable")
    per_line = np.bincount(line, minlength=len(passed))
    first = np.cumsum(per_line) - per_line
    place = np.empty(count, np.int64)
    place[order] = np.arange(count) - first[line[order]] + passed[line[order]]
    passed += per_line
    return line, place


@dataclass(frozen=True)
class Places:
    """Where in its connection each packet is."""

    line: npt.NDArray[Any]
    connection: npt.NDArray[Any]
    """The how manyth of its line."""
    exchanges: npt.NDArray[Any]
    """Of the connection."""
    at: npt.NDArray[Any]
    """Packets before it."""
    exchange: npt.NDArray[Any]
    phase: npt.NDArray[Any]

    @classmethod
    def of(cls, line: npt.NDArray[Any], place: npt.NDArray[Any], exchanges: npt.NDArray[Any]) -> "Places":
        connection, at = np.divmod(place, OPENING + exchanges * EXCHANGE + CLOSING)
        exchange, phase = np.divmod(at - OPENING, EXCHANGE)
        places = cls(line, connection, exchanges, at, exchange, phase)
        # The short segment once more, in place of its acknowledgment.
        twice = places.is_data & ((exchange + line) % SELDOM == 1) & (phase == EXCHANGE - 1)
        phase[twice] -= 1
        return places

    @property
    def is_opening(self) -> npt.NDArray[Any]:
        return self.at < OPENING

    @property
    def closing(self) -> npt.NDArray[Any]:
        """Of FIN, ACK, FIN, ACK the how manyth; negative before."""
        return self.at - OPENING - self.exchanges * EXCHANGE

    @property
    def is_data(self) -> npt.NDArray[Any]:
        return ~self.is_opening & (self.closing < 0)

    def of_three(self, opening: Any, data: Any, closing: Any) -> npt.NDArray[Any]:
        """What holds of each."""
        return np.select([self.is_opening, self.is_data], [opening, data], closing)

    def by_server(self) -> npt.NDArray[Any]:
        return self.of_three(self.at == 1, BY_SERVER[self.phase], (self.closing == 1) | (self.closing == 2))

    def flags(self) -> npt.NDArray[Any]:
        opening = np.where(self.at < 2, SYN, 0) | np.where(self.at > 0, ACK, 0)
        closing = ACK | np.where(self.closing % 2 == 0, FIN, 0)
        return self.of_three(opening, ACK | np.where(PUSHED[self.phase], PSH, 0), closing)

    def sent_by_client(self) -> npt.NDArray[Any]:
        """Before this packet, SYN and FIN among it; so below."""
        data = 1 + self.exchange * REQUEST + np.where(self.phase > 0, REQUEST, 0)
        return self.of_three(self.at > 0, data, 1 + self.exchanges * REQUEST + (self.closing > 0))

    def sent_by_server(self) -> npt.NDArray[Any]:
        swapped = ((self.exchange + self.line) % SELDOM == 2) & ((self.phase == 2) | (self.phase == 3))
        data = 1 + self.exchange * RESPONSE + SENT_BEFORE[np.where(swapped, 5 - self.phase, self.phase)]
        return self.of_three(self.at > 1, data, 1 + self.exchanges * RESPONSE + (self.closing > 2))


def filled(places: Places, number: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The packets."""
    line, by_server = places.line, places.by_server()
    records = framed(places.flags(), np.where(places.is_data, PAYLOAD[places.phase], 0))

    def set_ends(sender: str, receiver: str, client: Any, server: Any) -> None:
        records[sender] = np.where(by_server, server, client)
        records[receiver] = np.where(by_server, client, server)

    set_ends("src", "dst", 0x0A000000 + line + 1, 0xC6120000 + line % SERVERS + 1)
    set_ends("src_port", "dst_port", CLIENT_PORT + places.connection, SERVER_PORT)
    first = line * 2_654_435_761 + places.connection * 40_503
    set_ends("seq", "ack", (first + places.sent_by_client()) % 2**32, (first + places.sent_by_server()) % 2**32)
    records["ack"][places.at == 0] = 0
    records["ip_id"] = number % 2**16
    stamp(records, number * GAP_US + line % GAP_US, places.is_opening & (places.at < 2))
    return records


def framed(flags: npt.NDArray[Any], payload: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ethernet, IPv4 and TCP with their lengths."""
    records = np.zeros(len(flags), RECORD)
    records["macs"] = np.frombuffer(b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02", "u1")
    records["type"], records["version"], records["ttl"], records["protocol"] = 0x0800, 0x45, 64, 6
    options = np.where(flags & SYN, len(SYN_OPTIONS), len(OPTIONS))
    records["words"] = (20 + options) // 4 << 4
    records["flags"], records["window"] = flags, 502
    records["ip_bytes"] = 40 + options + payload
    records["original"] = HEADERS_BYTES + options + payload
    records["captured"] = np.minimum(records["original"], SNAPLEN_BYTES)
    return records


def stamp(records: npt.NDArray[Any], time_us: npt.NDArray[Any], is_syn: npt.NDArray[Any]) -> None:
    """When it was captured, also as TCP says it."""
    time_us = np.maximum.accumulate(time_us)
    records["seconds"], records["micros"] = np.divmod(time_us, 1_000_000)
    values = np.empty((len(records), 2), ">u4")
    values[:, 0] = time_us // MILLISECOND_US + 1_000_000
    values[:, 1] = np.where(records["ack"] == 0, 0, values[:, 0] - 1)
    for options, at, which in ((OPTIONS, STAMP_AT, ~is_syn), (SYN_OPTIONS, SYN_STAMP_AT, is_syn)):
        rest = np.zeros((int(which.sum()), len(options)), "u1")
        rest[:] = np.frombuffer(options, "u1")
        rest[:, at : at + 8] = values[which].view("u1")
        records["rest"][which, : len(options)] = rest


def cut(records: npt.NDArray[Any]) -> bytes:
    """As they are in the file: each as long as it was captured."""
    rows = records.view("u1").reshape(len(records), RECORD.itemsize)
    return rows[np.arange(RECORD.itemsize) < HEAD_BYTES + records["captured"][:, None]].tobytes()
