"""What one direction of a connection said at its start, which later segments are read by."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from tcptrace import records as r
from tcptrace.sinks.layers.parts import NO_STREAM, Stream

MOST_CONNECTIONS: Final = 65_536
"""Remembered at most, some 30 MB; the one that was quiet for longest is forgotten."""

_MOST_SHIFT: Final = 14
"""RFC 7323 section 2.3: a larger scale counts as this."""
_ECN_FLAGS: Final = r.FLAG_AE | r.FLAG_CWR | r.FLAG_ECE
_ACCURATE_ANSWERS: Final = (
    r.FLAG_CWR,
    r.FLAG_CWR | r.FLAG_ECE,
    r.FLAG_AE,
    r.FLAG_AE | r.FLAG_CWR,
)
"""Of AE, CWR and ECE on a SYN-ACK: that Accurate ECN is agreed, RFC 9768 section 3.1.1."""


@dataclass(slots=True)
class _Side:
    """One direction.  `scale` counts once `syn_seen`: None is a SYN without the option."""

    first_seq: int | None = None
    syn_seen: bool = False
    scale: int | None = None


@dataclass(slots=True)
class _Connection:
    sides: tuple[_Side, _Side] = field(default_factory=lambda: (_Side(), _Side()))
    opener: int | None = None  # which side sent a SYN without ACK
    offers_accurate_ecn: bool = False
    accurate_ecn: bool = False


class Memory:
    """The starts of the connections, by their ids."""

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self._most = most
        self._connections: OrderedDict[int, _Connection] = OrderedDict()

    def stream(self, record: Any, finding: Any) -> Stream:
        """What is known for reading this record, itself included."""
        connection_id = int(finding["connection_id"])
        connection = self._connections.get(connection_id)
        flags = int(record["flags"])
        if connection is None:
            if not flags & r.FLAG_SYN:
                return NO_STREAM
            connection = self._connections[connection_id] = _Connection()
            if len(self._connections) > self._most:
                self._connections.popitem(last=False)
        else:
            self._connections.move_to_end(connection_id)
        received = int(finding["received"]) & 1
        mine, other = connection.sides[received], connection.sides[1 - received]
        if flags & r.FLAG_SYN and not flags & r.FLAG_RST:
            _learn(record, flags, connection, mine)
            if not flags & r.FLAG_ACK:
                connection.opener = received
        ends_handshake = received == connection.opener and _is_first_ack(record, mine, other)
        return Stream(mine.first_seq, other.first_seq, _shift(mine, other), connection.accurate_ecn, ends_handshake)


def _learn(record: Any, flags: int, connection: _Connection, mine: _Side) -> None:
    """From a SYN or SYN-ACK.  A SYN not seen stays unknown: it may have had data, and its ACK does not tell."""
    if not mine.syn_seen:
        mine.first_seq = int(record["seq"])
        mine.syn_seen = True
        if int(record["options"]) & r.OPTION_WINDOW_SCALE:
            mine.scale = min(int(record["window_scale"]), _MOST_SHIFT)
    if not flags & r.FLAG_ACK:
        connection.offers_accurate_ecn = flags & _ECN_FLAGS == _ECN_FLAGS
        return
    connection.accurate_ecn = connection.offers_accurate_ecn and flags & _ECN_FLAGS in _ACCURATE_ANSWERS


def _is_first_ack(record: Any, mine: _Side, other: _Side) -> bool:
    """Whether this is what an opening side sends on receiving the SYN-ACK, or a copy of it."""
    if mine.first_seq is None or other.first_seq is None or int(record["payload_bytes"]):
        return False
    expected = ((mine.first_seq + 1) & 0xFFFFFFFF, (other.first_seq + 1) & 0xFFFFFFFF)
    return (int(record["seq"]), int(record["ack"])) == expected


def _shift(mine: _Side, other: _Side) -> int | None:
    """How far this direction's windows are shifted, RFC 7323 section 2.2."""
    if (mine.syn_seen and mine.scale is None) or (other.syn_seen and other.scale is None):
        return 0
    return mine.scale if mine.syn_seen and other.syn_seen else None
