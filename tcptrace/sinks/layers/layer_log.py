"""The --packets -v output: every packet layer by layer, field by field, with a word on each."""

from typing import IO, Any, Final

from rich.text import Text

from tcptrace import records as r
from tcptrace.model import PacketBatch, Rows, TraceInfo, View
from tcptrace.records import Frames
from tcptrace.sinks import human
from tcptrace.sinks.elapsed import elapsed_s
from tcptrace.sinks.layers.dissect import dissect
from tcptrace.sinks.layers.glossary import findings_layer
from tcptrace.sinks.layers.link import tag_control
from tcptrace.sinks.layers.memory import Memory
from tcptrace.sinks.layers.parts import Layer, Scene
from tcptrace.sinks.layers.render import heading_lines, layer_lines
from tcptrace.sinks.paint import painter
from tcptrace.sinks.plain_table import console_for, print_lines
from tcptrace.sinks.summary import Summary

_ARROWS: Final = {r.DIRECTION_INGRESS: "← in", r.DIRECTION_EGRESS: "→ out"}
_STYLES: Final = ((r.FLAG_RST, "bold red"), (r.FLAG_SYN, "bold green"), (r.FLAG_FIN, "bold yellow"))
"""The first flag that a packet has gives its heading the colour."""
_INTERFACE_WIDTH: Final = 30


class LayerLog:
    """Every packet in full, and the summary at the end.  `width` in characters: the terminal's, or 80, unless given."""

    wants_packets = True
    wants_frames = True

    def __init__(
        self,
        stream: IO[str],
        *,
        sort: str = "rate",
        color: bool = True,
        summary_rows: int | None = None,
        width: int | None = None,
    ) -> None:
        self._stream = stream
        self._console = console_for(stream, color=color, width=width)
        self._paint = painter(self._console)
        self._summary = Summary(sort, summary_rows)
        self._memory = Memory()
        self._number = 0
        self._info: TraceInfo | None = None
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Nothing is printed before the first packet."""
        self._info = info
        self._summary.open(info, self._console)

    def packets(self, batch: PacketBatch) -> None:
        """A block of lines each, with an empty line after it."""
        if self._info is None:
            return
        width = self._console.width
        for i in range(len(batch.records)):
            self._number += 1
            lines = self._block(batch, i, self._info, width)
            self._stream.write("\n".join([*lines, "", ""]))
        self._stream.flush()

    def _block(self, batch: PacketBatch, i: int, info: TraceInfo, width: int) -> list[str]:
        """One packet: heading, layers, findings."""
        record, finding, frames = batch.records[i], batch.findings[i], batch.frames
        flags = int(record["flags"])
        style = next((style for flag, style in _STYLES if flags & flag), "bold")
        interface = _interface(frames, i, info)
        lines = heading_lines(_heading(self._number, record, finding, interface, info), width, style, self._paint)
        layers = (
            [] if frames is None else _frame_layers(frames, i, record, info, self._scene(frames, i, record, finding))
        )
        if not any(layer.name == "TCP" for layer in layers):
            layers.append(_record_layer(record))
        found = findings_layer(finding)
        for layer in [*layers, found] if found else layers:
            lines += layer_lines(layer, width, self._paint)
        return lines

    def _scene(self, frames: Frames, i: int, record: Any, finding: Any) -> Scene:
        return Scene(
            original_bytes=max(int(frames.original_bytes[i]), int(frames.captured_bytes[i])),
            direction=int(record["direction"]),
            segments=int(record["segments"]),
            stream=self._memory.stream(record, finding),
            belongs=(int(record["src_port"]), int(record["dst_port"]), int(record["seq"])),
        )

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
        print_lines(self._console, [Text(), *lines] if not self._number else lines)

    def restore(self) -> None:
        """Nothing to undo."""


def _heading(number: int, record: Any, finding: Any, interface: str | None, info: TraceInfo) -> list[str]:
    version = int(record["ip_version"])
    ends = [
        human.endpoint(human.address(record[f"{end}_addr"].tobytes(), version), str(record[f"{end}_port"]))
        for end in ("src", "dst")
    ]
    parts = [f"packet {number}", human.local_time(info.clock.wall_ns(int(record["time_ns"])))]
    if arrow := _ARROWS.get(int(record["direction"])):
        parts.append(arrow)
    parts += [f"{ends[0]} > {ends[1]}", f"connection {finding['connection_id']}"]
    if interface:
        parts.append(interface)
    parts.append(f"{record['frame_bytes']:,} bytes")
    if record["segments"] > 1:
        parts.append(f"a super-packet of {record['segments']} segments")
    return parts


def _interface(frames: Frames | None, i: int, info: TraceInfo) -> str | None:
    """The name of the interface that a frame was seen on; a file may hold anything in its place."""
    name = info.interface
    if frames is not None and (index := int(frames.interfaces[i])) < len(info.interfaces):
        seen_on = info.interfaces[index]
        name = seen_on.name or seen_on.description or name
    if not name:
        return None
    return human.ellipsise("".join(c if c.isprintable() else "?" for c in name), _INTERFACE_WIDTH)


def _frame_layers(frames: Frames, i: int, record: Any, info: TraceInfo, scene: Scene) -> list[Layer]:
    start = int(frames.starts[i])
    data = frames.data[start : start + int(frames.captured_bytes[i])].tobytes()
    index = int(frames.interfaces[i])
    if index >= len(info.interfaces):
        return []
    layers = dissect(data, info.interfaces[index].link_type, scene)
    if int(record["note"]) & r.NOTE_TAG_ASIDE:
        layers.insert(min(1, len(layers)), _tag_aside(record))
    return layers


def _tag_aside(record: Any) -> Layer:
    """The tag that the kernel keeps beside the frame's bytes."""
    layer = Layer("VLAN tag", "kept beside the frame by the network card or the kernel", 0)
    kind = "0x88a8" if int(record["note"]) & r.NOTE_TAG_8021AD else "0x8100"
    layer.add("ethertype", kind, "not among the frame's bytes here")
    tag_control(int(record["vlan_outer"]), layer, (0, 0))
    return layer


def _record_layer(record: Any) -> Layer:
    """Of a segment whose frame is not here, or in a tunnel that is not decoded: what the analysis has read of it."""
    layer = Layer("TCP, as read for the analysis", "", 0)
    layer.add("sequence number", str(record["seq"]))
    layer.add("acknowledgment", str(record["ack"]))
    layer.add("flags", human.flags_words(int(record["flags"])) or "none")
    layer.add("window", str(record["window"]))
    layer.add("payload", f"{record['payload_bytes']:,} bytes")
    return layer
