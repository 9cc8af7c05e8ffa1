"""The TCP header, RFC 9293 section 3.1."""

from typing import Final, NamedTuple

from tcptrace import records as r
from tcptrace.sinks import human
from tcptrace.sinks.layers import checksum, tcp_flags, tcp_options
from tcptrace.sinks.layers.parts import NO_STREAM, Layer, Malformed, Next, Reader, Scene, Stream, Tone, telling

LEAST_HEADER_BYTES: Final = 20
_CHECKSUM_AT: Final = 16
_SEQUENCE: Final = 1 << 32
_FIRST_PICKED_PORT: Final = 32768
"""Systems pick the ports of clients from here on (Linux; others from 49152, RFC 6335)."""


class _Segment(NamedTuple):
    """What several fields have to know of the whole segment."""

    seq: int
    flags: int
    payload_bytes: int
    stream: Stream


def tcp(reader: Reader, layer: Layer, scene: Scene) -> Next | None:
    """The header with flags, checksum and options."""
    start = reader.position
    ports = [_port(which, reader, layer) for which in ("source", "destination")]
    seq = reader.number(4, "sequence number")
    seq_span = reader.span
    # Flags and data offset are read ahead: what the numbers before them mean depends on them.
    ahead = int.from_bytes(reader.rest()[4:6], "big")
    header_bytes, flags = (ahead >> 12) * 4, ahead & 0x1FF
    stream = scene.stream if scene.belongs == (ports[0], ports[1], seq) else NO_STREAM
    segment = _Segment(seq, flags, max(0, reader.end - start - header_bytes), stream)
    _sequence(segment, layer, seq_span)
    _acknowledgment(reader.number(4, "acknowledgment number"), segment, layer, reader.span)
    reader.take(2, "data offset and flags")
    _data_offset(header_bytes, ahead >> 9 & 7, layer, reader.span)
    tcp_flags.add(flags, stream, layer, reader.span)
    _window(reader.number(2, "window"), segment, layer, reader.span)
    _checksum(reader, layer, start, scene)
    urgent = reader.number(2, "urgent pointer")
    layer.add("urgent pointer", str(urgent), _urgent(urgent, flags), reader.span)
    if header_bytes < LEAST_HEADER_BYTES:
        raise Malformed(f"data offset says {header_bytes} bytes, at least {LEAST_HEADER_BYTES} are needed")
    if header_bytes - LEAST_HEADER_BYTES > reader.left:
        raise Malformed(f"data offset says {header_bytes} bytes, {reader.end - start} are there")
    part = reader.part(header_bytes - LEAST_HEADER_BYTES)
    with telling(layer, part):
        tcp_options.add(part, layer, flags, stream)
    return Next("payload", "payload", part.end, part.end + segment.payload_bytes)


def _port(which: str, reader: Reader, layer: Layer) -> int:
    port = reader.number(2, f"{which} port")
    service = human.service(port)
    if service:
        meaning = f"by convention {service}"
    else:
        meaning = "probably picked for this connection" if port >= _FIRST_PICKED_PORT else ""
    layer.add(f"{which} port", str(port), meaning, reader.span)
    return port


def _sequence(segment: _Segment, layer: Layer, at: tuple[int, int]) -> None:
    syn, fin, payload = segment.flags & r.FLAG_SYN, segment.flags & r.FLAG_FIN, segment.payload_bytes
    if syn:
        meaning = "the SYN's own; data begins one later"
    elif payload:
        meaning = "of the payload's first byte"
    elif fin:
        meaning = "of the FIN, which takes one number"
    else:
        meaning = "of the byte that it will send next"
    layer.add("sequence number", str(segment.seq), meaning, at)
    first = segment.stream.first_seq
    if first is None:
        return
    relative = (segment.seq - first) % _SEQUENCE
    if syn:
        meaning = "counting starts here"
    elif payload:
        meaning = f"counted from the SYN; ends with byte {(relative + payload - 1) % _SEQUENCE}"
    else:
        meaning = "counted from the SYN"
    layer.add("  relative", str(relative), meaning, at)


def _acknowledgment(value: int, segment: _Segment, layer: Layer, at: tuple[int, int]) -> None:
    if not segment.flags & r.FLAG_ACK:
        layer.add("acknowledgment", str(value), "means nothing without the ACK flag", at, "quiet")
        return
    layer.add("acknowledgment", str(value), "waits for this byte; has all before it", at)
    first = segment.stream.first_ack
    if first is not None:
        layer.add("  relative", str((value - first) % _SEQUENCE), "counted from the other side's SYN", at)


def _data_offset(header_bytes: int, reserved: int, layer: Layer, at: tuple[int, int]) -> None:
    options = header_bytes - LEAST_HEADER_BYTES
    meaning = f"this header, {options} bytes of it options" if options > 0 else "this header, without options"
    tone: Tone = "bad" if options < 0 else "plain"
    layer.add("data offset", f"{header_bytes} bytes", "" if options < 0 else meaning, (at[0], 1), tone)
    if reserved:
        layer.add("reserved", f"0x{reserved:x}", "not zero: of a future use of TCP, or damage", (at[0], 1), "warning")


def _window(value: int, segment: _Segment, layer: Layer, at: tuple[int, int]) -> None:
    flags, shift = segment.flags, segment.stream.window_shift
    if flags & r.FLAG_RST:
        layer.add("window", str(value), "means nothing in a reset", at, "quiet")
        return
    if value == 0 and not flags & r.FLAG_SYN:
        layer.add("window", "0", "no room left: the other side has to wait", at, "warning")
        return
    if flags & r.FLAG_SYN:
        layer.add("window", str(value), "bytes it can take; not scaled on a SYN", at)
    elif shift is None:
        layer.add("window", str(value), "bytes it can take, if there is no scale; the SYNs were not seen", at)
    elif shift == 0:
        layer.add("window", str(value), "bytes it can take: there is no scale", at)
    else:
        layer.add("window", str(value), f"times {1 << shift}, as its SYN said", at)
        layer.add("  scaled", f"{value << shift:,} bytes", "it can take beyond its acknowledgment", at)


def _checksum(reader: Reader, layer: Layer, start: int, scene: Scene) -> None:
    reader.take(2, "checksum")
    at = reader.span
    captured = reader.data[start : reader.end]
    verdict = checksum.segment_verdict(captured, _CHECKSUM_AT, reader.end - start, human.IP_PROTOCOL_TCP, scene)
    layer.add("checksum", verdict.text, verdict.meaning, at, verdict.tone)


def _urgent(value: int, flags: int) -> str:
    if flags & r.FLAG_URG:
        return f"the urgent data ends {value} bytes after the sequence number"
    return "means nothing without the URG flag" if value else "not used"
