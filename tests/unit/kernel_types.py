"""A kernel's types made up for a test."""

import zlib
from collections.abc import Collection

from tcptrace.sources.live.btf import Field
from tcptrace.sources.live.socket_layout import KEY_FIELDS, POINTED, TASK_FILES, VIEW_FIELDS
from tcptrace.sources.live.socket_probes import PLACES

EVERY_FIELD = {**KEY_FIELDS, **VIEW_FIELDS, **POINTED, **TASK_FILES}
FUNCTIONS = {place.kprobe for place in PLACES if place.kprobe}
TRACEPOINTS = {place.tracepoint for place in PLACES if place.tracepoint}


class FakeKernelTypes:
    """Has all functions, tracepoints and fields that are asked for but those in `without`; offsets are anything."""

    def __init__(self, without: Collection[str] = ()) -> None:
        self._without = set(without)

    def has_function(self, name: str) -> bool:
        return name in FUNCTIONS and name not in self._without

    def has_typedef(self, name: str) -> bool:
        tracepoint = name.removeprefix("btf_trace_")
        return tracepoint in TRACEPOINTS and tracepoint not in self._without

    def field(self, struct: str, path: str) -> Field | None:
        if path in self._without:
            return None
        size = 24 if path == "chrono_stat" else 16 if "v6" in path else 8 if path in ("sk_pacing_rate", "kn") else 4
        return Field(zlib.crc32(f"{struct}.{path}".encode()) % 200 * 16, size)
