"""Newline-delimited JSON: one flat object a line, described by schema.json beside this file."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from typing import IO, Any, Final

import numpy as np

from tcptrace.model import SCHEMA_VERSION, STATES, Indices, PacketBatch, Rows, SocketBatch, TraceInfo, View
from tcptrace.records import COUNTERS
from tcptrace.sinks import human
from tcptrace.sinks.connection_json import ConnectionLines
from tcptrace.sinks.elapsed import elapsed_s
from tcptrace.sinks.packet_json import packet_events
from tcptrace.sinks.selected import selected
from tcptrace.sinks.socket_event_json import socket_events

BATCH_LINES: Final = 512
"""Lines made, written and flushed at a time: bounds the memory that a large table takes."""

_COUNTER_NAMES: Final = {name: "fragments" if name == "fragment" else name for name in COUNTERS}
_FILE_COUNTERS: Final = ("snapped", "unsupported_link", "time_out_of_range", "without_time", "cut_off")
"""What only the reader of capture files counts."""
_TRACE_END: Final = "trace_end"


def schema() -> dict[str, Any]:
    """The JSON Schema of every line."""
    text = resources.files("tcptrace.sinks").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


class Ndjson:
    """The --json output.  `packets` adds an event for every packet; `now_ns` is UTC, for a live trace's first line."""

    def __init__(
        self, stream: IO[str] | IO[bytes], *, packets: bool = False, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.wants_packets = packets
        self.wants_frames = False
        self._given = stream  # which closes the other when it is gone
        self._stream: IO[Any] = getattr(stream, "buffer", stream)  # past a text's encoder: all is ASCII
        self._as_text = hasattr(self._stream, "encoding")
        self._now_ns = now_ns
        self._encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
        self._last_ns = 0
        self._info: TraceInfo | None = None
        self._lines: ConnectionLines | None = None
        self._closed = False

    def open(self, info: TraceInfo) -> None:
        """Writes the `start` event: whoever reads it knows that tracing has begun."""
        self._info = info
        started = {
            "event": "start",
            "schema_version": SCHEMA_VERSION,
            "time": None if info.interface is None else human.rfc3339(self._now_ns()),
            "version": info.version,
            "interface": info.interface,
            "netns": info.netns,
            "hook": info.hook,
            "probes": info.probes,
            "filter": info.filter,
            "files": list(info.files) or None,
        }
        self._write([started])

    def packets(self, batch: PacketBatch) -> None:
        """One `packet` event a record."""
        for start in range(0, len(batch.records), BATCH_LINES):
            part = slice(start, start + BATCH_LINES)
            self._write(packet_events(batch.records[part], batch.findings[part], self._opened()))

    def socket_events(self, batch: SocketBatch) -> None:
        """One `retransmission` or `state` event a record; called only where the user asks for them (--events)."""
        for start in range(0, len(batch.records), BATCH_LINES):
            part = slice(start, start + BATCH_LINES)
            self._write(socket_events(batch.records[part], batch.connection_ids[part], self._opened()))

    def ended(self, rows: Rows) -> None:
        """The final line of connections that left the table."""
        if len(rows):
            self._last_ns = max(self._last_ns, int(rows["last_ns"].max()))
        lines, time = self._opened_lines(), self._time()
        for part in _batches(np.arange(len(rows))):
            self._put(lines.of_ended(rows, part, time))

    def update(self, view: View) -> None:
        """A line for each connection that had a packet since the last interval."""
        self._last_ns = max(self._last_ns, view.time_ns)
        table, touched = view.table(), view.touched()
        rows = selected(table, touched)
        self._connections(table, touched[(rows["in_use"] != 0) & (rows["changed"] != 0)], final=False)

    def close(self, view: View) -> None:
        """The final line of every connection still in the table, then the summary."""
        if self._closed:
            return
        self._closed = True
        self._last_ns = max(self._last_ns, view.time_ns)
        table = view.table()
        self._connections(table, np.flatnonzero(table["in_use"]), final=True, end_reason=_TRACE_END)
        self._write([self._summary(view)])

    def restore(self) -> None:
        """Nothing to undo."""

    def _opened(self) -> TraceInfo:
        if self._info is None:
            raise RuntimeError("open() comes first")
        return self._info

    def _opened_lines(self) -> ConnectionLines:
        if self._lines is None:
            self._lines = ConnectionLines(self._opened())
        return self._lines

    def _time(self) -> str:
        """Now, as far as the trace has got."""
        return human.rfc3339(self._opened().clock.wall_ns(self._last_ns))

    def _connections(self, table: Rows, indices: Indices, *, final: bool, end_reason: str | None = None) -> None:
        lines, time = self._opened_lines(), self._time()
        for part in _batches(indices):
            self._put(lines.of_table(table, part, time, final=final, end_reason=end_reason))

    def _summary(self, view: View) -> dict[str, Any]:
        info, totals = self._opened(), view.totals
        event: dict[str, Any] = {
            "event": "summary",
            "schema_version": SCHEMA_VERSION,
            "time": self._time(),
            "interface": info.interface,
            "files": list(info.files) or None,
            "duration_s": elapsed_s(view),
            "packets": totals.packets,
            "bytes": totals.bytes,
            "payload_bytes": totals.payload_bytes,
            "connections": totals.connections,
            "connections_total": totals.connections_total,
            "evicted": totals.evicted,
            "rtt_samples_dropped": totals.rtt_samples_dropped,
            "rtt_percentiles_dropped": totals.rtt_percentiles_dropped,
            "perf_lost_samples": totals.perf_lost_samples,
            "unordered": totals.unordered,
            "socket_records": totals.socket_records,
            "socket_records_lost": totals.socket_records_lost,
            "sockets_forgotten": totals.sockets_forgotten,
            "sockets_without_room": None if totals.socket_records is None else totals.sockets_without_room,
        }
        event |= {name: totals.counters.get(counter) for counter, name in _COUNTER_NAMES.items()}
        event |= {name: totals.counters.get(name) for name in _FILE_COUNTERS}
        for state in STATES:
            if state:
                name = state.lower().replace("-", "_")
                event[f"connections_{name}"] = totals.connections_by_state.get(state, 0)
        return event

    def _write(self, events: Iterable[dict[str, Any]]) -> None:
        self._put("".join([f"{self._encode(event)}\n" for event in events]).encode("ascii"))

    def _put(self, text: bytes) -> None:
        self._stream.write(text.decode("ascii") if self._as_text else text)
        self._stream.flush()


def _batches(indices: Indices) -> Iterator[Indices]:
    return (indices[start : start + BATCH_LINES] for start in range(0, len(indices), BATCH_LINES))
