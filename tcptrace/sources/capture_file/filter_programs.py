"""A filter expression as programs for libpcap's machine, one a link type."""

import struct
import threading
from typing import Final

from tcptrace.sources.libpcap import dlt_of
from tcptrace.sources.live.pcap_filter import DLT_EN10MB, compile_classic, has_link_keyword

_INSTRUCTION: Final = struct.Struct("=HBBI")


class FilterPrograms:
    """What libpcap makes of `expression`; all files of a trace share it, so that host names are looked up once.

    `on_raw_frames`: the expression speaks of tags or encapsulation (`vlan`, `mpls`, `pppoes`), so that it
    is for the frames as they are, by their own link type.  Otherwise it is for Ethernet frames without
    any.  Raises UsageError with libpcap's message for a bad expression, MissingFeatureError without libpcap.
    """

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self.on_raw_frames = has_link_keyword(expression)
        self._programs: dict[int, bytes] = {}
        self._lock = threading.Lock()
        if not self.on_raw_frames:
            self.plain()

    def plain(self) -> bytes:
        """The program for Ethernet frames: an array of struct bpf_insn."""
        return self._for(DLT_EN10MB)

    def raw(self, link_type: int) -> bytes:
        """The program for frames of a file's link type.  Raises UsageError where libpcap has none."""
        return self._for(dlt_of(link_type))

    def _for(self, dlt: int) -> bytes:
        with self._lock:
            if dlt not in self._programs:
                program = compile_classic(self._expression, dlt)
                self._programs[dlt] = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
            return self._programs[dlt]


def programs_for(expression: str | None) -> FilterPrograms | None:
    """None where nothing is asked for.  Raises as FilterPrograms does."""
    if expression is None or not expression.strip():
        return None
    return FilterPrograms(expression)
