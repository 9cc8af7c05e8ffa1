from tcptrace.sources.capture_file.filter_programs import FilterPrograms

class FrameFilter:
    on_raw_frames: bool
    def __init__(self, programs: FilterPrograms) -> None: ...
