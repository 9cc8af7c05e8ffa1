"""What the columns of the connection table say of one connection, as plain text, and in which style.

Functions of a row and the width there is; those that take a direction or a field's name return such a function.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from tcptrace.model import CLOSE_KINDS, CLOSED_BY, HANDSHAKES, STATES
from tcptrace.sinks import human, sockets

Row = Any
"""One row of model.CONNECTION."""

Text = Callable[[Row, int], str]
Style = Callable[[Row], str]

_SHORT_STATES: Final = {"ESTABLISHED": "ESTAB", "SYN-RECEIVED": "SYN-RECV"}


def service_name(row: Row) -> str | None:
    """Of the destination's port; of the source's only where it is not known who began."""
    name = human.service(int(row["dst_port"]))
    if name is None and not row["initiator_known"]:
        name = human.service(int(row["src_port"]))
    return name


def endpoint(end: str) -> Text:
    """Of src or dst: address and port or service, as much of it as fits."""

    def text(row: Row, width: int) -> str:
        host = human.address(row[f"{end}_addr"].tobytes(), int(row["ip_version"]))
        return human.endpoint_fit(host, int(row[f"{end}_port"]), _end_name(row, end), width)

    return text


def _end_name(row: Row, end: str) -> str | None:
    if end == "dst":
        return human.service(int(row["dst_port"]))
    return service_name(row) if human.service(int(row["dst_port"])) is None else None


def state(row: Row, width: int) -> str:
    name = STATES[sockets.state(row)] or human.UNKNOWN
    return name if len(name) <= width else _SHORT_STATES.get(name, name)


def short_state(row: Row, width: int) -> str:
    name = STATES[sockets.state(row)] or human.UNKNOWN
    return _SHORT_STATES.get(name, name)


def state_style(row: Row) -> str:
    name = STATES[sockets.state(row)]
    if name in ("SYN-SENT", "SYN-RECEIVED"):
        return "green"
    return "" if name == "ESTABLISHED" else "dim"


def rtt(row: Row, width: int) -> str:
    """Of the data sent, else of the handshake."""
    smoothed = float(row["sent"]["rtt_smoothed_us"])
    return human.duration_us(smoothed if smoothed == smoothed else float(row["handshake_rtt_us"]))


def socket(name: str, form: Callable[[int, int], str]) -> Text:
    """A number of the near end's socket."""

    def text(row: Row, width: int) -> str:
        near, _ = sockets.near_and_peer(row)
        return human.UNKNOWN if near is None else form(int(near[name]), width)

    return text


def process(row: Row, width: int) -> str:
    """Who the near end's socket belongs to; where both ends are known and there is room, src's → dst's."""
    near, peer = sockets.near_and_peer(row)
    if near is None:
        return human.UNKNOWN
    if peer is not None:
        both_ends = " → ".join(human.process(*_owner(row[f"{end}_socket"])) for end in ("src", "dst"))
        if len(both_ends) <= width:
            return both_ends
    return human.process_fit(*_owner(near), width)


def _owner(socket: Any) -> tuple[str, int]:
    return human.kernel_name(socket["comm"].tobytes()), int(socket["pid"])


def kernel_retransmissions_style(row: Row) -> str:
    """As that of the wire's."""
    near, _ = sockets.near_and_peer(row)
    return "yellow" if near is not None and near["retransmissions"] > 0 else "dim"


def duration(row: Row, width: int) -> str:
    return human.duration_s(int(row["last_ns"] - row["start_ns"]) / 1e9)


def _a_second(row: Row, amount: int) -> str:
    """Over the connection's duration."""
    elapsed_ns = int(row["last_ns"] - row["start_ns"])
    return human.quantity(amount / elapsed_ns * 1e9) if elapsed_ns > 0 else human.UNKNOWN


def average(direction: str) -> Text:
    """Frame bytes a second over the connection's duration."""
    return lambda row, width: _a_second(row, int(row[direction]["bytes"]))


def goodput(direction: str) -> Text:
    """Payload bytes a second over the connection's duration, retransmitted ones left out."""
    return lambda row, width: _a_second(
        row, int(row[direction]["payload_bytes"]) - int(row[direction]["retransmitted_bytes"])
    )


def handshake(row: Row, width: int) -> str:
    return (HANDSHAKES[row["handshake"]] or human.UNKNOWN).replace("_", " ")


def closed_by(row: Row, width: int) -> str:
    """Who closed it and how: src FIN, dst RST."""
    who, kind = CLOSED_BY[row["closed_by"]], CLOSE_KINDS[row["close_kind"]]
    return f"{who} {'RST' if kind == 'reset' else 'FIN'}" if who and kind else human.UNKNOWN


def field(direction: str, name: str, form: Callable[[float], str]) -> Text:
    return lambda row, width: form(row[direction][name].item())


def count(direction: str, name: str) -> Text:
    return lambda row, width: human.count(int(row[direction][name]), width)


def _sum_of(row: Row, name: str) -> int:
    return int(row["sent"][name]) + int(row["received"][name])


def both(name: str) -> Text:
    """The count of both directions together."""
    return lambda row, width: human.count(_sum_of(row, name), width)


def marked(style: str, name: str, directions: Sequence[str] = ("sent", "received")) -> Style:
    """`style` where something was counted, else dim."""
    return lambda row: style if any(row[direction][name] > 0 for direction in directions) else "dim"


def rate_style(direction: str) -> Style:
    return lambda row: "bold" if row[direction]["bytes_per_s"] > 0 else "dim"


def incomplete(row: Row, width: int) -> str:
    """How many of its records were lost; nothing where none was."""
    lost = int(row["records_lost"])
    return f"{human.count(lost, width - len(' lost'))} lost" if lost else ""
