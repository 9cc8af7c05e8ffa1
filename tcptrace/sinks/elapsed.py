"""How long the trace has run, by the trace's own clock."""

from tcptrace.model import View


class Elapsed:
    """Counts from the start of the first interval that was seen."""

    def __init__(self) -> None:
        self._start_ns: int | None = None

    def seconds(self, view: View) -> float:
        """Seconds from the start of the first interval to this view."""
        if self._start_ns is None:
            self._start_ns = view.time_ns - round(view.interval_s * 1e9)
        return (view.time_ns - self._start_ns) / 1e9
