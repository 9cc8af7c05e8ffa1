from collections.abc import Callable

from tcptrace.sources.capture_file.chunk import Chunk
from tcptrace.sources.capture_file.frame_parser import FrameParser
from tcptrace.sources.capture_file.pcapng_options import InterfaceOptions

class PcapngReader:
    offset: int
    packets: int
    error: str | None
    def __init__(
        self,
        fd: int,
        parser: FrameParser,
        add_interface: Callable[[int, int, int, InterfaceOptions], tuple[int, bytes | None]],
    ) -> None: ...
    def fill(self, into: Chunk) -> bool: ...
