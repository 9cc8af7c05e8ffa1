"""TCP conversations written down segment by segment, and what the engine makes of them.

    talk = Conversation()
    talk.handshake()
    talk.client.data(100)
    talk.server.ack()
    assert talk.row()["sent"]["packets"] == 3

Both ends take for granted that the other got everything, unless told otherwise: seq and ack have the values
of a conversation without trouble.  Each segment comes `step_us` after the one before.
"""

import socket
from typing import Any

import numpy as np

from tcptrace.engine.table import Table
from tcptrace.model import ANALYSIS, FINDING, STATES, Rows
from tcptrace.records import (
    DIRECTION_UNKNOWN,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_PSH,
    FLAG_RST,
    FLAG_SYN,
    OPTION_MSS,
    OPTION_WINDOW_SCALE,
    PACKET_RECORD,
)

SECOND = 1_000_000_000
START_NS = 1_000 * SECOND
HEADER_BYTES = 54
"""Ethernet, IPv4 and TCP without options."""

Address = tuple[str, int]


def raw_address(text: str) -> np.ndarray:
    """16 bytes in network order, IPv4 mapped."""
    packed = socket.inet_pton(socket.AF_INET6, text if ":" in text else f"::ffff:{text}")
    return np.frombuffer(packed, dtype=np.uint8)


class End:
    """One end.  Every method sends one segment; `seq`, `ack` and any record field can be given by name."""

    def __init__(self, talk: "Conversation", address: Address, seq: int) -> None:
        self.talk = talk
        self.address = address
        self.next_seq = seq
        self.window = 1_000
        self.peer: End

    def send(self, flags: int, payload: int = 0, *, ack: int | None = None, **fields: Any) -> None:
        """A segment, next in order; with ACK it acknowledges all that the peer has sent."""
        seq = fields.pop("seq", self.next_seq) % 2**32
        if ack is None:
            ack = self.peer.next_seq if flags & FLAG_ACK else 0
        stop = (seq + payload + bool(flags & FLAG_SYN) + bool(flags & FLAG_FIN)) % 2**32
        if (stop - self.next_seq) % 2**32 < 2**31:
            self.next_seq = stop
        self.talk.add(
            self,
            {
                "seq": seq,
                "ack": ack % 2**32,
                "flags": flags,
                "payload_bytes": payload,
                "window": self.window,
                "frame_bytes": HEADER_BYTES + payload,
                "segments": 1,
                **fields,
            },
        )

    def syn(self, *, scale: int | None = None, mss: int | None = None, ack: bool = False, **fields: Any) -> None:
        if scale is not None:
            fields |= {"options": fields.get("options", 0) | OPTION_WINDOW_SCALE, "window_scale": scale}
        if mss is not None:
            fields |= {"options": fields.get("options", 0) | OPTION_MSS, "mss": mss}
        self.send(FLAG_SYN | (FLAG_ACK if ack else 0), **fields)

    def syn_ack(self, **fields: Any) -> None:
        self.syn(ack=True, **fields)

    def ack(self, ack: int | None = None, **fields: Any) -> None:
        self.send(FLAG_ACK, ack=ack, **fields)

    def data(self, payload: int, **fields: Any) -> None:
        self.send(FLAG_ACK | FLAG_PSH, payload, **fields)

    def again(self, payload: int, back: int | None = None, **fields: Any) -> None:
        """Bytes that were sent before, beginning `back` bytes before the next new one."""
        self.data(payload, seq=self.next_seq - (payload if back is None else back), **fields)

    def fin(self, **fields: Any) -> None:
        self.send(FLAG_FIN | FLAG_ACK, **fields)

    def rst(self, **fields: Any) -> None:
        self.send(FLAG_RST, **fields)

    def unseen(self, payload: int) -> None:
        """Data that the capture misses."""
        self.next_seq = (self.next_seq + payload) % 2**32


class Conversation:
    """Two ends and the segments between them."""

    def __init__(
        self,
        client: Address = ("10.0.0.1", 40_000),
        server: Address = ("10.0.0.2", 80),
        *,
        client_seq: int = 1_000,
        server_seq: int = 5_000,
        start_ns: int = START_NS,
        step_us: float = 1_000,
    ) -> None:
        self.client = End(self, client, client_seq)
        self.server = End(self, server, server_seq)
        self.client.peer, self.server.peer = self.server, self.client
        self.now_ns = start_ns
        self.step_us = step_us
        self.packets: list[dict[str, Any]] = []

    def add(self, end: End, fields: dict[str, Any]) -> None:
        self.wait(self.step_us)
        packet = {
            "time_ns": self.now_ns,
            "src_addr": raw_address(end.address[0]),
            "dst_addr": raw_address(end.peer.address[0]),
            "src_port": end.address[1],
            "dst_port": end.peer.address[1],
            "ip_version": 6 if ":" in end.address[0] else 4,
            "direction": DIRECTION_UNKNOWN,
            "ttl": 64,
        }
        self.packets.append(packet | fields)

    def wait(self, us: float) -> None:
        self.now_ns += round(us * 1_000)

    def handshake(self, *, client_scale: int | None = None, server_scale: int | None = None) -> None:
        self.client.syn(scale=client_scale)
        self.server.syn_ack(scale=server_scale)
        self.client.ack()

    def close(self) -> None:
        """The client first, then the server."""
        self.client.fin()
        self.server.ack()
        self.server.fin()
        self.client.ack()

    @property
    def records(self) -> np.ndarray:
        array = np.zeros(len(self.packets), PACKET_RECORD)
        for record, packet in zip(array, self.packets, strict=True):
            for name, value in packet.items():
                record[name] = value
        return array

    def row(self) -> np.void:
        """The one connection that the engine makes of it."""
        return only_row(table_of(self))

    def row_told(self) -> np.void:
        """The same at the end of an interval, when what no packet needs is worked out."""
        table = table_of(self)
        table.refresh(self.now_ns)
        return only_row(table)

    def findings(self) -> list[set[str]]:
        """What the engine finds about each segment (model.ANALYSIS)."""
        table = new_table()
        found = []
        for record in self.records:
            feed(table, record.reshape(1))
            found.append(last_finding(table))
        return found

    def all_findings(self) -> np.ndarray:
        """model.FINDING of each segment."""
        found = np.zeros(len(self.packets), FINDING)
        assert new_table().process(self.records, found) == len(found)
        return found

    def duplicate_ack_numbers(self) -> list[int]:
        return self.all_findings()["duplicate_ack_number"].tolist()

    def states(self) -> list[tuple[str | None, str | None]]:
        """The states of src and dst after each segment."""
        table = new_table()
        found = []
        for record in self.records:
            feed(table, record.reshape(1))
            found.append(states_of(only_row(table)))
        return found


def new_table(max_connections: int = 1_000, idle_s: float = 300, closed_s: float = 60, seed: int = 1) -> Table:
    return Table(max_connections, round(idle_s * SECOND), round(closed_s * SECOND), START_NS, seed)


def table_of(*talks: Conversation, table: Table | None = None) -> Table:
    """A table that has seen the conversations, merged by time."""
    table = table or new_table()
    feed(table, merged(*talks))
    return table


def merged(*talks: Conversation) -> np.ndarray:
    records = np.concatenate([talk.records for talk in talks])
    return records[np.argsort(records["time_ns"], kind="stable")]


def feed(table: Table, records: np.ndarray) -> Rows:
    """All of the records, taking out the connections that end meanwhile: those."""
    ended = []
    while True:
        taken = table.process(records)
        ended.append(table.take_ended())
        if taken == len(records):
            return np.concatenate(ended)
        records = records[taken:]


def live_rows(table: Table) -> Rows:
    """Rows in use, a copy, in order of appearance."""
    rows = table.rows_view()
    rows = rows[rows["in_use"] == 1].copy()
    return rows[np.argsort(rows["id"])]


def only_row(table: Table) -> np.void:
    rows = live_rows(table)
    assert len(rows) == 1
    return rows[0]


def plain(rows: Rows | np.void) -> str:
    """All fields as text: equal for equal rows, NaN included."""
    return repr(rows.tolist())


def last_finding(table: Table) -> set[str]:
    """What was found about the newest segment of the table's newest connection."""
    row = live_rows(table)[-1]
    brief = row["recent"][(int(row["recent_total"]) - 1) % 5]
    return {name for bit, name in enumerate(ANALYSIS) if brief["analysis"] >> bit & 1}


def states_of(row: np.void) -> tuple[str | None, str | None]:
    return STATES[row["src_state"]], STATES[row["dst_state"]]


def counts(row: np.void, direction: str, *names: str) -> tuple[Any, ...]:
    return tuple(row[direction][name].item() for name in names)
