"""What the kernel says of the sockets of a Conversation, and what the table makes of it."""

from typing import Any

import numpy as np

from tcptrace.engine.table import Table
from tcptrace.records import (
    OWNER_UNKNOWN,
    ROLE_UNKNOWN,
    SOCKET_FOUND,
    SOCKET_RECORD,
    SOCKET_SAMPLE,
    SOCKET_STATE,
    SOCKET_VIEW,
)

from .conversation import Address, raw_address

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN = range(1, 11)
NEW_SYN_RECV = 12
"""include/net/tcp_states.h."""

CLIENT: Address = ("10.0.0.1", 40_000)
SERVER: Address = ("10.0.0.2", 80)


def socket_record(
    time_ns: int,
    local: Address = CLIENT,
    remote: Address = SERVER,
    /,
    *,
    event: int = SOCKET_SAMPLE,
    state: int = ESTABLISHED,
    old_state: int = 0,
    **view: Any,
) -> np.ndarray:
    """One record of that time; the fields of its view that are not given are not known."""
    records = np.zeros(1, SOCKET_RECORD)
    record = records[0]
    record["time_ns"] = time_ns
    record["event"], record["old_state"] = event, old_state
    key = record["key"]
    key["local_addr"], key["remote_addr"] = raw_address(local[0]), raw_address(remote[0])
    key["local_port"], key["remote_port"] = local[1], remote[1]
    key["ip_version"] = 6 if ":" in local[0] else 4
    key["netns"] = 4_026_531_840
    for name in SOCKET_VIEW.names or ():
        if SOCKET_VIEW.fields is not None and SOCKET_VIEW.fields[name][0].base.kind == "i":
            record["view"][name] = -1
    known = {"time_ns": time_ns, "state": state, "role": ROLE_UNKNOWN, "owner_source": OWNER_UNKNOWN} | view
    for name, value in known.items():
        if isinstance(value, bytes):
            value = np.frombuffer(value.ljust(16, b"\0"), "u1")
        record["view"][name] = value
    return records


def found(time_ns: int, /, *ends: Address, **fields: Any) -> np.ndarray:
    return socket_record(time_ns, *ends, event=SOCKET_FOUND, **fields)


def changed(time_ns: int, old_state: int, state: int, /, *ends: Address, **fields: Any) -> np.ndarray:
    return socket_record(time_ns, *ends, event=SOCKET_STATE, old_state=old_state, state=state, **fields)


def tell(table: Table, *records: np.ndarray) -> list[int]:
    """The ids of the records' connections."""
    together = np.concatenate(records)
    ids = np.full(len(together), 99, "u8")
    assert table.process_sockets(together, ids) == len(together)
    return ids.tolist()


def asked(table: Table, limit: int = 100) -> list[tuple[int, int]]:
    """Local and remote port of the sockets that are to be asked for."""
    keys = table.stale_sockets(limit)
    return list(zip(keys["local_port"].tolist(), keys["remote_port"].tolist(), strict=True))
