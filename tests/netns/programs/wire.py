"""A wire between two namespaces that a test can make slow or cut: frames pass through this process.

Each frame is looked at, lost if `loses` says so, and held for `delay_s`.  Super-packets and checksums that are left to
the hardware pass as they are (PACKET_VNET_HDR), so the ends need no settings of their own.
"""

import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from netns_tools import TIMEOUT_S, Namespace, veth
from programs.inside import inside

ETH_P_ALL: Final = 3
# Not in Python's socket module: linux/if_packet.h and linux/socket.h.
SOL_PACKET: Final = 263
PACKET_VNET_HDR: Final = 15
PACKET_OUTGOING: Final = 4
VNET_HEADER_BYTES: Final = 10
FRAME_MAX_BYTES: Final = 70_000

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class Segment:
    """What a test may want to know of a TCP segment over IPv4."""

    outbound: bool
    """From near to far."""
    source_port: int
    destination_port: int
    flags: int
    payload_bytes: int

    @property
    def is_pure_ack(self) -> bool:
        return self.flags == ACK and not self.payload_bytes


def segment_of(frame: bytes, outbound: bool) -> Segment | None:
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return None
    at = 14 + 4 * (frame[14] & 15)
    source_port, destination_port = struct.unpack_from("!HH", frame, at)
    (packet_bytes,) = struct.unpack_from("!H", frame, 16)
    payload_bytes = packet_bytes - (at - 14) - 4 * (frame[at + 12] >> 4)
    return Segment(outbound, source_port, destination_port, frame[at + 13], payload_bytes)


def lose_nothing(_segment: Segment) -> bool:
    return False


class Wire(ExitStack):
    """Joins near's veth0 to far's veth0; entered, it carries frames until it is left."""

    def __init__(self, near: Namespace, far: Namespace, near_address: str, far_address: str) -> None:
        super().__init__()
        self.near, self.far, self.addresses = near, far, (near_address, far_address)
        self.delay_s = 0.0
        self.loses: Callable[[Segment], bool] = lose_nothing
        self._wake, self._woken = socket.socketpair()

    def __enter__(self) -> "Wire":
        try:
            self._lay()
        except BaseException:
            self.close()
            raise
        return self

    def _lay(self) -> None:
        middle = self.enter_context(Namespace())
        self._ends: list[socket.socket] = []
        for number, (namespace, address) in enumerate(zip((self.near, self.far), self.addresses, strict=True)):
            name = f"end{number}"
            veth(namespace, middle, address, [], name_b=name)
            with inside(middle):
                end = self.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            end.bind((name, ETH_P_ALL))
            self._ends.append(end)
        thread = threading.Thread(target=self._carry, daemon=True)
        thread.start()
        self.callback(thread.join, TIMEOUT_S)
        self.callback(self._wake.close)

    def _carry(self) -> None:
        held: deque[tuple[float, socket.socket, bytes]] = deque()
        with selectors.DefaultSelector() as selector, self._woken:
            for number, end in enumerate(self._ends):
                selector.register(end, selectors.EVENT_READ, number)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                timeout_s = max(0.0, held[0][0] - time.monotonic()) if held else None
                for key, _ in selector.select(timeout_s):
                    if key.data is None:
                        return
                    arrived = self._receive(key.data)
                    if arrived is not None:
                        held.append((time.monotonic() + self.delay_s, self._ends[1 - key.data], arrived))
                while held and held[0][0] <= time.monotonic():
                    _, end, frame = held.popleft()
                    with suppress(OSError):  # the interface went down
                        end.send(frame)

    def _receive(self, number: int) -> bytes | None:
        try:
            frame, address = self._ends[number].recvfrom(FRAME_MAX_BYTES)
        except OSError:
            return None
        if address[2] == PACKET_OUTGOING:
            return None
        segment = segment_of(frame[VNET_HEADER_BYTES:], outbound=number == 0)
        return None if segment is not None and self.loses(segment) else frame
