"""The packet log: one line a packet, as text."""

from typing import IO, Any, Final

import numpy.typing as npt
from rich.text import Text

from tcptrace import records as r
from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.sinks import bulk, human
from tcptrace.sinks.elapsed import elapsed_s
from tcptrace.sinks.paint import painter
from tcptrace.sinks.plain_table import console_for, print_lines
from tcptrace.sinks.summary import Summary

_ARROWS: Final = {r.DIRECTION_INGRESS: "←", r.DIRECTION_EGRESS: "→"}
_NO_ARROW: Final = "·"
_BATCH_LINES: Final = 512
_FIELDS: Final = ("seq", "ack", "window", "payload_bytes", "segments", "flags", "direction", "src_port", "dst_port")

_STYLES: Final = ((r.FLAG_RST, "red"), (r.FLAG_SYN, "green"), (r.FLAG_FIN, "yellow"))
"""The first flag that a packet has gives its line the colour."""


def options_text(packet: Any) -> str:
    """The TCP options of one record, as tcpdump writes them: <mss 1460,sackOK,TS val 1 ecr 0,wscale 7>."""
    options = int(packet["options"])
    parts = []
    if options & r.OPTION_MSS:
        parts.append(f"mss {packet['mss']}")
    if options & r.OPTION_SACK_PERMITTED:
        parts.append("sackOK")
    if options & r.OPTION_TIMESTAMPS:
        parts.append(f"TS val {packet['ts_value']} ecr {packet['ts_echo']}")
    if options & r.OPTION_WINDOW_SCALE:
        parts.append(f"wscale {packet['window_scale']}")
    if options & r.OPTION_SACK:
        parts.append(_sack_text(packet))
    if options & r.OPTION_FAST_OPEN:
        parts.append("tfo")
    if options & r.OPTION_MALFORMED:
        parts.append("malformed")
    return f"<{','.join(parts)}>" if parts else ""


def _sack_text(packet: Any) -> str:
    count = int(packet["sack_count"])
    blocks = zip(packet["sack_left"][:count], packet["sack_right"][:count], strict=True)
    return f"sack {count} " + "".join(f"{{{left}:{right}}}" for left, right in blocks)


def packet_lines(packets: npt.NDArray[Any], findings: npt.NDArray[Any], info: TraceInfo) -> list[str]:
    """One line a record: time of day, direction, endpoints, flags, numbers, options, findings."""
    versions = packets["ip_version"].tolist()
    times = [human.local_time(info.clock.wall_ns(ns)) for ns in packets["time_ns"].tolist()]
    sources = bulk.addresses(bulk.packed(packets["src_addr"]), versions)
    destinations = bulk.addresses(bulk.packed(packets["dst_addr"]), versions)
    numbers = zip(*(packets[name].tolist() for name in _FIELDS), strict=True)
    has_options = packets["options"].tolist()
    found = list(map(human.findings, findings["analysis"].tolist(), findings["duplicate_ack_number"].tolist()))
    lines = []
    for i, (seq, ack, window, payload, segments, flags, direction, src_port, dst_port) in enumerate(numbers):
        text = (
            f"{times[i]} {_ARROWS.get(direction, _NO_ARROW)} {human.endpoint(sources[i], src_port)} >"
            f" {human.endpoint(destinations[i], dst_port)} {human.flags_short(flags)}"
            f" {_sequence(seq, payload)}{f' ack {ack}' if flags & r.FLAG_ACK else ''} win {window} len {payload}"
        )
        if segments > 1:
            text += f" ×{segments}"
        if has_options[i] and (options := options_text(packets[i])):
            text += f" {options}"
        if found[i]:
            text += f" [{found[i]}]"
        lines.append(text)
    return lines


def _sequence(seq: int, payload_bytes: int) -> str:
    """The segment's first number, and with payload the one after its last (modulo 2**32)."""
    return f"seq {seq}:{(seq + payload_bytes) & 0xFFFFFFFF}" if payload_bytes else f"seq {seq}"


def _style(flags: int) -> str:
    return next((style for flag, style in _STYLES if flags & flag), "")


class PacketLog:
    """The --packets output: every packet's line, and the summary at the end."""

    wants_packets = True
    wants_frames = False

    def __init__(
        self, stream: IO[str], *, sort: str = "rate", color: bool = True, summary_rows: int | None = None
    ) -> None:
        self._stream = stream
        self._console = console_for(stream, color=color)
        self._paint = painter(self._console)
        self._summary = Summary(sort, summary_rows)
        self._info: TraceInfo | None = None
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Nothing is printed before the first packet."""
        self._info = info
        self._summary.open(info, self._console)

    def packets(self, batch: PacketBatch) -> None:
        """One line each, flushed a batch at a time."""
        if self._info is None:
            return
        for start in range(0, len(batch.records), _BATCH_LINES):
            part = slice(start, start + _BATCH_LINES)
            lines = packet_lines(batch.records[part], batch.findings[part], self._info)
            painted = map(self._paint, lines, map(_style, batch.records["flags"][part].tolist()))
            self._stream.write("".join([f"{line}\n" for line in painted]))
            self._stream.flush()

    def ended(self, rows: Rows) -> None:
        """Remembers them for the summary."""
        self._summary.ended(rows)

    def update(self, view: View) -> None:
        """Keeps the time; the log has no table."""

    def close(self, view: View) -> None:
        """The summary."""
        if self._closed or self._info is None:
            return
        self._closed = True
        lines = self._summary.lines(self._info, view, elapsed_s(view), self._console.width)
        print_lines(self._console, [Text(), *lines])

    def restore(self) -> None:
        """Nothing to undo."""
