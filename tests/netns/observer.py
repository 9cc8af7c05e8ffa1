"""tcpdump as the independent judge: what it saw, decoded here byte by byte and by none of the code under test.

with Observer(far, "veth0") as observer:
    …traffic…
    segments = observer.finish(near, "10.1.1.2")
"""

import ipaddress
import re
import secrets
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from netns_tools import TIMEOUT_S, Namespace

BUFFER_KIB = 65536
SNAP_BYTES = 256
POLL_S = 0.005
MARKER_PORT = 9

SEND_MARKER = """
import socket, sys
address, port, token = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(token.encode(), (address, int(port)))
"""

ETHERNET, RAW_IP = 1, 101
VLAN_TYPES = (0x8100, 0x88A8)
TCP, FRAGMENT, AUTHENTICATION = 6, 44, 51
EXTENSIONS = (0, 43, FRAGMENT, AUTHENTICATION, 60, 135)

Ports = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """One TCP segment as it was on the wire."""

    frame_bytes: int
    src_mac: str | None
    dst_mac: str | None
    vlans: tuple[int, ...]
    ip_version: int
    src_ip: str
    dst_ip: str
    ttl: int
    traffic_class: int
    ip_id: int | None
    src_port: int
    dst_port: int
    seq: int
    ack: int
    flags: int
    window: int
    payload_bytes: int
    ip_header_bytes: int
    options: dict[int, list[bytes]] = field(hash=False)

    @property
    def ports(self) -> Ports:
        return self.src_port, self.dst_port


@dataclass
class Tally:
    packets: int = 0
    bytes: int = 0
    payload_bytes: int = 0


def tallies(segments: Iterable[Segment]) -> dict[Ports, Tally]:
    """Counts of each direction, by its source and destination port."""
    counts: dict[Ports, Tally] = defaultdict(Tally)
    for segment in segments:
        tally = counts[segment.ports]
        tally.packets += 1
        tally.bytes += segment.frame_bytes
        tally.payload_bytes += segment.payload_bytes
    return dict(counts)


class Observer:
    """Capturing once entered; ended at the latest on leaving, whatever happens."""

    def __init__(self, namespace: Namespace, interface: str, *arguments: str) -> None:
        self.namespace = namespace
        self.interface = interface
        self.arguments = arguments
        """More of tcpdump's own."""
        self._stack = ExitStack()

    def __enter__(self) -> "Observer":
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tcptrace-"))
        self.file = Path(folder, "observed.pcap")
        command = ["tcpdump", "-i", self.interface, "-Z", "root", "-nn", "-U", "-w", str(self.file)]
        command += ["--immediate-mode", "-B", str(BUFFER_KIB), "-s", str(SNAP_BYTES), *self.arguments]
        self.process = self.namespace.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._stack.callback(self._kill)
        try:
            self._await_ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def finish(self, sender: Namespace, address: str) -> list[Segment]:
        """What it has seen up to a datagram that `sender` sends now to `address`; none may have been dropped."""
        token = secrets.token_hex(16)
        sender.python(SEND_MARKER, address, str(MARKER_PORT), token)
        self._await_in_file(token.encode())
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        dropped = re.search(r"(\d+) packets dropped by kernel", errors)
        assert dropped, errors
        assert dropped[1] == "0", errors
        return list(read_segments(self.file))

    def _await_ready(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        said = ""
        while "listening on" not in said:
            line = stream.readline()
            assert line, f"tcpdump has ended: {said}"
            said += line

    def _await_in_file(self, token: bytes) -> None:
        end = time.monotonic() + TIMEOUT_S
        with self.file.open("rb") as file:
            seen = b""
            while token not in seen:
                more = file.read()
                seen = seen[-len(token) :] + more
                if not more:
                    assert time.monotonic() < end, "the marker has not been seen"
                    # Any word of tcpdump now means that it has ended.
                    assert not select.select([self.process.stderr], [], [], POLL_S)[0], "tcpdump has ended"

    def _kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process.wait(TIMEOUT_S)


# --- Reading the file


def read_frames(file: Path) -> Iterator[tuple[int, bytes, int]]:
    """Link type, captured bytes and length on the wire of each frame of a pcap file."""
    data = file.read_bytes()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHIIII", data)
    assert magic in (0xA1B2C3D4, 0xA1B23C4D)
    offset = 24
    while offset < len(data):
        _, _, captured, length = struct.unpack_from("<IIII", data, offset)
        offset += 16
        yield link & 0xFFFF, data[offset : offset + captured], length
        offset += captured


def read_segments(file: Path) -> Iterator[Segment]:
    """The TCP segments of a pcap file."""
    for link, frame, length in read_frames(file):
        segment = decode(frame, length, link)
        if segment is not None:
            yield segment


def decode(frame: bytes, length: int, link: int = ETHERNET) -> Segment | None:
    """A well-formed frame; None if it is not TCP or not the first fragment."""
    macs: tuple[str | None, str | None] = (None, None)
    vlans = []
    at = 0
    if link == ETHERNET:
        macs = frame[6:12].hex(":"), frame[:6].hex(":")
        at = 12
        while (kind := int.from_bytes(frame[at : at + 2], "big")) in VLAN_TYPES:
            vlans.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
            at += 4
        at += 2
        if kind not in (0x0800, 0x86DD):
            return None
    else:
        assert link == RAW_IP, link
    start = at
    if frame[at] >> 4 == 4:
        version, traffic_class, total, ip_id, fragment, ttl, protocol = struct.unpack_from(">BBHHHBB", frame, at)
        src, dst = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
        if fragment & 0x1FFF:
            return None
        at += (version & 15) * 4
    else:
        first, total, protocol, ttl = struct.unpack_from(">IHBB", frame, at)
        traffic_class, ip_id = first >> 20 & 0xFF, None
        src, dst = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
        total += 40
        at += 40
        while protocol in EXTENSIONS:
            following, size = frame[at], frame[at + 1]
            if protocol == FRAGMENT:
                if int.from_bytes(frame[at + 2 : at + 4], "big") >> 3:
                    return None
                at += 8
            else:
                at += (size + 2) * 4 if protocol == AUTHENTICATION else (size + 1) * 8
            protocol = following
    if protocol != TCP:
        return None
    src_port, dst_port, seq, ack, flags, window = struct.unpack_from(">HHIIHH", frame, at)
    header_bytes = (flags >> 12) * 4
    return Segment(
        frame_bytes=length,
        src_mac=macs[0],
        dst_mac=macs[1],
        vlans=tuple(vlans),
        ip_version=frame[start] >> 4,
        src_ip=str(ipaddress.ip_address(src)),
        dst_ip=str(ipaddress.ip_address(dst)),
        ttl=ttl,
        traffic_class=traffic_class,
        ip_id=ip_id,
        src_port=src_port,
        dst_port=dst_port,
        seq=seq,
        ack=ack,
        flags=flags & 0x1FF,
        window=window,
        payload_bytes=total - (at - start) - header_bytes,
        ip_header_bytes=at - start,
        options=_options(frame[at + 20 : at + header_bytes]),
    )


def _options(data: bytes) -> dict[int, list[bytes]]:
    """The values of each kind of TCP option."""
    options: dict[int, list[bytes]] = defaultdict(list)
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        options[data[0]].append(data[2 : data[1]])
        data = data[data[1] :]
    return dict(options)


# --- The kernel's own statistics


def dropped_packets(namespace: Namespace, interface: str) -> int:
    """By the interface, both ways, as `ip -s link` has it."""
    statistics: dict[str, Any] = namespace.json("ip", "-json", "-s", "link", "show", "dev", interface)[0]["stats64"]
    return int(statistics["rx"]["dropped"]) + int(statistics["tx"]["dropped"])
