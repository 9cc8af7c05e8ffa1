"""How long the trace has run, by the trace's own clock."""

from tcptrace.model import View


def elapsed_s(view: View) -> float:
    """Seconds from the start of the trace to this view."""
    return (view.time_ns - view.start_ns) / 1e9
