"""Captures made byte by byte: TCP segments in frames, pcap records, pcapng blocks."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

START_NS = 1_700_000_000_000_000_000  # 2023-11-14T22:13:20Z
MS = 1_000_000
CLIENT, SERVER = "192.0.2.1", "198.51.100.2"
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::2"
ETHERNET, RAW_IP, WIFI, RADIOTAP, SLL2 = 1, 101, 105, 127, 276
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MSS_1460 = bytes.fromhex("020405b4")


def ones_sum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def raw(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def tcp(source: str, destination: str, ports: tuple[int, int], seq: int, ack: int, flags: int, payload: bytes = b"",
        *, options: bytes = b"", window: int = 65535) -> bytes:  # fmt: skip
    """A segment with its checksum; options are whole words."""
    head = struct.pack("!HHIIBBHHH", *ports, seq, ack, (5 + len(options) // 4) << 4, flags, window, 0, 0)
    segment = head + options + payload
    if ":" in source:
        pseudo = raw(source) + raw(destination) + struct.pack("!II", len(segment), 6)
    else:
        pseudo = raw(source) + raw(destination) + struct.pack("!BBH", 0, 6, len(segment))
    return segment[:16] + struct.pack("!H", ones_sum(pseudo + segment)) + segment[18:]


def ip(source: str, destination: str, payload: bytes, *, total_bytes: int | None = None) -> bytes:
    """`total_bytes`: what an IPv4 header says instead of the truth."""
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), 6, 64) + raw(source) + raw(destination) + payload
    length = 20 + len(payload) if total_bytes is None else total_bytes
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, 6, 0) + raw(source) + raw(destination)
    return head[:10] + struct.pack("!H", ones_sum(head)) + head[12:] + payload


def ethernet(packet: bytes, *, vlan: int | None = None, source: int = 1) -> bytes:
    """From the host numbered `source` to the other of two."""
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    addresses = bytes([2, 0, 0, 0, 0, 3 - source, 2, 0, 0, 0, 0, source])
    return addresses + tag + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def sll2(packet: bytes, *, outgoing: bool, interface: int = 2) -> bytes:
    """Linux's cooked header, version 2."""
    protocol = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return struct.pack("!HHIHBB8s", protocol, 0, interface, 1, 4 if outgoing else 0, 6, b"\x02") + packet


@dataclass(frozen=True)
class Frame:
    """A frame as captured.  length: what it had on the wire, None for all of it."""

    time_ns: int
    data: bytes
    length: int | None = None
    interface: int = 0

    @property
    def original(self) -> int:
        return len(self.data) if self.length is None else self.length

    def snapped(self, snaplen: int) -> "Frame":
        return Frame(self.time_ns, self.data[:snaplen], self.original, self.interface)


@dataclass(frozen=True)
class Talk:
    """Two ends that talk over some link.  `say` makes the next frame."""

    client: str = CLIENT
    server: str = SERVER
    ports: tuple[int, int] = (40000, 30080)
    start_ns: int = START_NS
    link_type: int = ETHERNET
    vlan: int | None = None
    interface: int = 0

    def say(self, ms: float, by_client: bool, seq: int, ack: int, flags: int, payload: bytes = b"",
            *, options: bytes = b"", window: int = 65535) -> Frame:  # fmt: skip
        """A frame `ms` after the start; sequence numbers are relative to 1000 of the client and 9000 of the server."""
        ends = (self.client, self.server) if by_client else (self.server, self.client)
        ports = self.ports if by_client else self.ports[::-1]
        bases = (1000, 9000) if by_client else (9000, 1000)
        ack_number = bases[1] + ack if flags & ACK else 0
        segment = tcp(*ends, ports, bases[0] + seq, ack_number, flags, payload, options=options, window=window)
        data = self._linked(ip(*ends, segment), by_client)
        return Frame(self.start_ns + round(ms * MS), data, interface=self.interface)

    def _linked(self, packet: bytes, by_client: bool) -> bytes:
        if self.link_type == SLL2:
            return sll2(packet, outgoing=by_client)
        if self.link_type == RAW_IP:
            return packet
        return ethernet(packet, vlan=self.vlan, source=1 if by_client else 2)

    def whole(self) -> list[Frame]:
        """Ten packets in 90 ms: handshake, 100 bytes asked, 1000 bytes answered, closed by both, the server first."""
        return [
            self.say(0, True, 0, 0, SYN, options=MSS_1460),
            self.say(10, False, 0, 1, SYN | ACK, options=MSS_1460),
            self.say(20, True, 1, 1, ACK),
            self.say(30, True, 1, 1, ACK | PSH, b"q" * 100),
            self.say(40, False, 1, 101, ACK),
            self.say(50, False, 1, 101, ACK | PSH, b"a" * 1000),
            self.say(60, True, 101, 1001, ACK),
            self.say(70, False, 1001, 101, ACK | FIN),
            self.say(80, True, 101, 1002, ACK | FIN),
            self.say(90, False, 1002, 102, ACK),
        ]

    def with_loss(self) -> list[Frame]:
        """Thirteen packets in 241 ms: of three segments of the server the first gets lost behind the capture's place.

        The client answers the other two with duplicate ACKs; the server sends it again after 200 ms.
        """
        return [
            self.say(0, True, 0, 0, SYN, options=MSS_1460),
            self.say(10, False, 0, 1, SYN | ACK, options=MSS_1460),
            self.say(10.1, True, 1, 1, ACK),
            self.say(20, False, 1, 1, ACK, b"1" * 500),
            self.say(20.1, False, 501, 1, ACK, b"2" * 500),
            self.say(20.2, False, 1001, 1, ACK | PSH, b"3" * 500),
            self.say(25, True, 1, 1, ACK),
            self.say(25.1, True, 1, 1, ACK),
            self.say(220, False, 1, 1, ACK, b"1" * 500),
            self.say(221, True, 1, 1501, ACK),
            self.say(230, False, 1501, 1, ACK | FIN),
            self.say(231, True, 1, 1502, ACK | FIN),
            self.say(241, False, 1502, 2, ACK),
        ]


def pcap(
    frames: Sequence[Frame], link_type: int = ETHERNET, *, magic: int = 0xA1B23C4D, snaplen: int = 262144
) -> bytes:
    """Nanoseconds, little-endian."""
    return pcap_head(link_type, magic=magic, snaplen=snaplen) + b"".join(pcap_record(frame) for frame in frames)


def pcap_head(link_type: int = ETHERNET, *, magic: int = 0xA1B23C4D, snaplen: int = 262144) -> bytes:
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)


def pcap_record(frame: Frame, *, captured: int | None = None) -> bytes:
    """`captured`: what the header says instead of the truth."""
    seconds, nanoseconds = divmod(frame.time_ns, 10**9)
    length = len(frame.data) if captured is None else captured
    return struct.pack("<IIII", seconds, nanoseconds, length, frame.original) + frame.data


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(kind: int, body: bytes, *, length: int | None = None, trailer: int | None = None) -> bytes:
    """`length` and `trailer`: what the block says of its length instead of the truth."""
    size = 12 + len(body) if length is None else length
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size if trailer is None else trailer)


def section(major: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, major, 0, -1))


def interface(link_type: int = ETHERNET, *, name: str = "", resolution: int = 9, offset_s: int = 0) -> bytes:
    """`resolution`: n is 10^-n s, 128 + n is 2^-n s."""
    options = option(2, name.encode()) if name else b""
    options += option(9, bytes([resolution]))
    if offset_s:
        options += option(14, struct.pack("<q", offset_s))
    return block(1, struct.pack("<HHI", link_type, 0, 262144) + options + option(0, b""))


def packet(frame: Frame, *, units: int | None = None, captured: int | None = None) -> bytes:
    """An enhanced packet block.  `units`: the time as the interface counts it, if not in nanoseconds."""
    time = frame.time_ns if units is None else units
    length = len(frame.data) if captured is None else captured
    head = struct.pack("<IIIII", frame.interface, time >> 32, time & 0xFFFFFFFF, length, frame.original)
    return block(6, head + frame.data + bytes(-len(frame.data) % 4))


def pcapng(frames: Sequence[Frame], interfaces: Sequence[bytes] = (interface(),)) -> bytes:
    return section() + b"".join(interfaces) + b"".join(packet(frame) for frame in frames)
