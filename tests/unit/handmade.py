"""Values as the kernel or the wire has them, made by hand."""

import socket
from typing import Any

import numpy as np

from tcptrace.model import KERNEL_STATES
from tcptrace.records import NAME_BYTES, SOCKET_VIEW

START_NS = 1_700_000_000_000_000_000
"""2023-11-14T22:13:20Z."""


def raw_address(text: str) -> np.ndarray:
    """16 bytes in network order, IPv4 mapped."""
    packed = socket.inet_pton(socket.AF_INET6, text if ":" in text else f"::ffff:{text}")
    return np.frombuffer(packed, dtype=np.uint8)


def raw_name(text: str | bytes) -> np.ndarray:
    """As a field of fixed size has it."""
    raw = text if isinstance(text, bytes) else text.encode()
    return np.frombuffer(raw[:NAME_BYTES].ljust(NAME_BYTES, b"\0"), np.uint8)


def socket_view(**fields: Any) -> np.ndarray:
    """A socket of which the kernel told the fields given; state by its name."""
    view = np.zeros(1, SOCKET_VIEW)
    for name in SOCKET_VIEW.names or ():
        if SOCKET_VIEW[name].base.kind == "i":
            view[name] = -1
    view["time_ns"] = START_NS
    for name, value in fields.items():
        if name in ("comm", "congestion_control"):
            view[name] = raw_name(value)
        else:
            view[name] = KERNEL_STATES.index(value) if name == "state" and isinstance(value, str) else value
    return view
