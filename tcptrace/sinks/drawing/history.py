"""The packets of connections, kept compactly until the trace ends and they are drawn."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace import records as r
from tcptrace.errors import TcptraceError
from tcptrace.model import PacketBatch
from tcptrace.sinks import human

Array = npt.NDArray[Any]

PACKET: Final = np.dtype(
    [
        ("time_ns", "i8"),
        ("seq", "u4"),
        ("ack", "u4"),
        ("payload_bytes", "u4"),
        ("frame_bytes", "u4"),
        ("analysis", "u4"),  # bits of model.ANALYSIS
        ("duplicate_ack_number", "u4"),
        ("rtt_us", "f4"),  # of the sample that this segment's ACK completed; NaN: none
        ("in_flight_bytes", "i4"),  # after this segment; -1 not known
        ("window", "u2"),  # as sent, not scaled
        ("flags", "u2"),
        ("segments", "u2"),
        ("received", "u1"),  # 0: src to dst, 1: dst to src
        ("sack_count", "u1"),
    ]
)
"""What a picture needs of a packet: 48 bytes."""

SACK: Final = np.dtype([("packet", "u4"), ("left", "u4"), ("right", "u4")])
"""One SACK block and the index of the packet that carried it."""

# 4 M packets are 192 MB, as much as the ring and the table of a busy trace together.
MAX_PACKETS: Final = 4_000_000
# A connection's arrays take about a kilobyte even with one packet; nobody looks at more pictures than this.
MAX_CONNECTIONS: Final = 10_000
# When three quarters are full, a connection with more than a sixteenth of all keeps no more: the rest is for others.
_RESERVED_FROM: Final = 3 / 4
_LARGE: Final = 1 / 16
_FIRST_CAPACITY: Final = 16

SCALE_NOT_SEEN: Final = -2
SCALE_NOT_OFFERED: Final = -1
# RFC 7323 section 2.3: a greater shift is taken as 14.
SCALE_MAX: Final = 14

_COPIED: Final = ("time_ns", "seq", "ack", "payload_bytes", "frame_bytes", "window", "flags", "segments", "sack_count")
_FOUND: Final = ("analysis", "duplicate_ack_number", "rtt_us", "received")


class Growing:
    """An array that more is appended to."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._array = np.empty(_FIRST_CAPACITY, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, part: Array) -> None:
        """At the end; the capacity doubles where it is too small."""
        size = self._size + len(part)
        if size > len(self._array):
            larger = np.empty(max(size, 2 * len(self._array)), self._array.dtype)
            larger[: self._size] = self._array[: self._size]
            self._array = larger
        self._array[self._size : size] = part
        self._size = size

    def view(self) -> Array:
        """All of it, without a copy."""
        return self._array[: self._size]


@dataclass
class Endpoints:
    """Who talks to whom: (address, port) as text and number."""

    src: tuple[str, int]
    dst: tuple[str, int]

    def names(self) -> tuple[str, str]:
        """Both as address:port."""
        return human.endpoint(self.src[0], str(self.src[1])), human.endpoint(self.dst[0], str(self.dst[1]))

    def between(self, arrow: str) -> str:
        """src, an arrow, dst."""
        return f" {arrow} ".join(self.names())


@dataclass
class History:
    """One connection's packets in the order of the trace, and what must be right even where they are not kept."""

    id: int
    ends: Endpoints
    packets_kept: Growing = field(default_factory=lambda: Growing(PACKET))
    sacks_kept: Growing = field(default_factory=lambda: Growing(SACK))
    not_kept: int = 0  # packets on the wire that came after the memory was full
    frame_bytes: list[int] = field(default_factory=lambda: [0, 0])  # by direction, kept or not
    scales: list[int] = field(default_factory=lambda: [SCALE_NOT_SEEN, SCALE_NOT_SEEN])  # that each end's SYN announced

    def packets(self) -> Array:
        """PACKET records."""
        return self.packets_kept.view()

    def packet_count(self) -> int:
        """How many packets on the wire those kept are: a super-packet counts its segments."""
        return wire_packets(self.packets())

    def sacks(self) -> Array:
        """SACK records."""
        return self.sacks_kept.view()

    def window_shift(self, direction: int) -> int | None:
        """By how much the windows that `direction`'s sender announces are shifted; None: not both SYNs were seen.

        RFC 7323 section 2.2: scaled only if both SYNs had the option.
        """
        if SCALE_NOT_SEEN in self.scales:
            return None
        return 0 if SCALE_NOT_OFFERED in self.scales else self.scales[direction]

    def notice_scales(self, records: Array, received: Array) -> None:
        """Window scale options on the SYNs among these packets."""
        for i in np.flatnonzero(records["flags"] & r.FLAG_SYN):
            offered = records["options"][i] & r.OPTION_WINDOW_SCALE
            scale = min(int(records["window_scale"][i]), SCALE_MAX) if offered else SCALE_NOT_OFFERED
            self.scales[int(received[i])] = scale


def endpoints_of(record: Any, received: int) -> Endpoints:
    """src and dst of the connection that one record belongs to."""
    version = int(record["ip_version"])
    sender = human.address(record["src_addr"].tobytes(), version), int(record["src_port"])
    receiver = human.address(record["dst_addr"].tobytes(), version), int(record["dst_port"])
    return Endpoints(receiver, sender) if received else Endpoints(sender, receiver)


def wire_packets(records: Array) -> int:
    """How many packets on the wire these records are."""
    return int(records["segments"].sum(dtype=np.int64))


def compact(records: Array, findings: Array) -> Array:
    """Records and findings as PACKET records."""
    packets = np.empty(len(records), PACKET)
    for name in _COPIED:
        packets[name] = records[name]
    for name in _FOUND:
        packets[name] = findings[name]
    packets["in_flight_bytes"] = np.clip(findings["in_flight_bytes"], -1, np.iinfo(np.int32).max)
    packets["sack_count"] = np.minimum(packets["sack_count"], r.SACK_BLOCKS)
    return packets


def sack_blocks(records: Array, first_index: int) -> Array:
    """All SACK blocks of these packets; `first_index` is the index of the first of them in its history."""
    counts = np.minimum(records["sack_count"], r.SACK_BLOCKS)
    carriers, blocks = np.nonzero(np.arange(r.SACK_BLOCKS) < counts[:, None])
    found = np.empty(len(carriers), SACK)
    found["packet"] = carriers + first_index
    found["left"] = records["sack_left"][carriers, blocks]
    found["right"] = records["sack_right"][carriers, blocks]
    return found


class Collector:
    """Keeps the packets of one connection (`connection_id`), or of all within `max_packets` and `max_connections`."""

    def __init__(
        self,
        connection_id: int | None,
        max_packets: int = MAX_PACKETS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.connection_id = connection_id
        self._max_packets = max_packets
        self._max_connections = max_connections
        self._histories: dict[int, History] = {}
        self._kept = 0
        self._last_id = 0

    def add(self, batch: PacketBatch) -> None:
        """The next packets, in time order."""
        ids = batch.findings["connection_id"]
        if not len(ids):
            return
        self._last_id = max(self._last_id, int(ids.max()))
        wanted = ids != 0 if self.connection_id is None else ids == self.connection_id
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            return
        chosen = chosen[np.argsort(ids[chosen], kind="stable")]
        borders = np.flatnonzero(np.diff(ids[chosen])) + 1
        for indexes in np.split(chosen, borders):
            self._add_to(int(ids[indexes[0]]), batch.records[indexes], batch.findings[indexes])

    def _add_to(self, number: int, records: Array, findings: Array) -> None:
        history = self._histories.get(number)
        if history is None:
            if len(self._histories) >= self._max_connections:
                return
            history = History(number, endpoints_of(records[0], int(findings["received"][0])))
            self._histories[number] = history
        for direction in (0, 1):
            of_direction = findings["received"] == direction
            history.frame_bytes[direction] += int(records["frame_bytes"][of_direction].sum(dtype=np.int64))
        history.notice_scales(records, findings["received"])
        room = self._room(history)
        history.not_kept += wire_packets(records[max(room, 0) :])
        records, findings = records[:room], findings[:room]
        self._kept += len(records)
        history.sacks_kept.append(sack_blocks(records, len(history.packets_kept)))
        history.packets_kept.append(compact(records, findings))

    def _room(self, history: History) -> int:
        """How many more packets of this connection may be kept."""
        free = self._max_packets - self._kept
        if self.connection_id is not None:
            return free
        shared = int(self._max_packets * _RESERVED_FROM) - self._kept
        own = int(self._max_packets * _LARGE) - len(history.packets_kept)
        return min(free, max(shared, own, 0))

    @property
    def connections_not_kept(self) -> int:
        """How many connections came after there were too many: ids count up from 1 in order of appearance."""
        return 0 if self.connection_id is not None else self._last_id - len(self._histories)

    def histories(self) -> list[History]:
        """What was kept, in order of id.  TcptraceError if one connection was asked for and never occurred."""
        if self.connection_id is not None and self.connection_id not in self._histories:
            raise TcptraceError(no_such_connection(self.connection_id, self._last_id))
        return [self._histories[number] for number in sorted(self._histories)]


def no_such_connection(asked: int, last_id: int) -> str:
    """What to tell who asked for a connection that never occurred; ids count up from 1."""
    there_were = {0: "there was none", 1: "there was only 1"}.get(last_id, f"there were 1 to {last_id}")
    return f"no connection {asked}: {there_were}"


def by_bytes(histories: list[History]) -> list[History]:
    """Those with most bytes first; of equal ones the earlier."""
    return sorted(histories, key=lambda history: (-sum(history.frame_bytes), history.id))
