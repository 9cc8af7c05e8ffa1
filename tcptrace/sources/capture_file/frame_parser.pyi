from tcptrace.sources.capture_file.frame_filter import FrameFilter

class FrameParser:
    filter: FrameFilter | None
    unsupported_link_type: int
    unsupported_frames: int
    def __init__(self, filter: FrameFilter | None) -> None: ...
    def stop(self) -> None: ...
