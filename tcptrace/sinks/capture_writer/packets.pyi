from typing import Any

import numpy.typing as npt

from tcptrace.records import Frames

class PacketEncoder:
    def __init__(
        self, records: npt.NDArray[Any], frames: Frames, offset_ns: int, snaplen: int, comments: list[Any] | None = None
    ) -> None: ...
    def pcapng(self, out: bytearray, used: int, limit: int, start: int, stop: int) -> tuple[int, int]: ...
    def pcap(self, out: bytearray, used: int, limit: int, start: int, stop: int) -> tuple[int, int]: ...
