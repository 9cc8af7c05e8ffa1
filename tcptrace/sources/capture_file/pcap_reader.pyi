from tcptrace.sources.capture_file.chunk import Chunk
from tcptrace.sources.capture_file.frame_parser import FrameParser

class PcapReader:
    offset: int
    packets: int
    error: str | None
    def __init__(
        self, fd: int, parser: FrameParser, link_type: int, interface: int, record_header_bytes: int, micros: bool
    ) -> None: ...
    def set_filter(self, program: bytes) -> None: ...
    def fill(self, into: Chunk) -> bool: ...
