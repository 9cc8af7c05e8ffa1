"""An interface, traced live."""

import os
from typing import Any

from tcptrace import __version__
from tcptrace.cli.endings import StopRequest, say, warn
from tcptrace.cli.options import CLOSED_TIMEOUT_S, IDLE_TIMEOUT_S, INTERVAL_S, MIB, SNAPLEN_BYTES, Options
from tcptrace.cli.outputs import make_sinks
from tcptrace.errors import UsageError


def run_live(options: Options) -> None:
    """Trace an interface until it is over.  Raises TcptraceError and its kinds."""
    from tcptrace.sources.live import pcap_filter
    from tcptrace.sources.live import interface as interfaces
    from tcptrace.sources.live import privileges

    if options.interface and " " in options.interface:
        raise UsageError(f"{options.interface!r} is no interface: a FILTER comes after INTERFACE")
    expression = pcap_filter.combine(options.filter_words, options.ports, options.hosts)
    interface = interfaces.find_interface(options.interface)
    filter_source = pcap_filter.filter_source(expression, ethernet=interface.link == "ethernet")
    privileges.require_root()
    interfaces.require_up(interface)

    from tcptrace.sources.live.opening import Opening

    stop = StopRequest()  # until here there is nothing to clean up, and Ctrl-C just ends the program
    snaplen = (options.snaplen or SNAPLEN_BYTES) if options.wants_frames else 0
    opening = Opening(interface, filter_source, xdp=options.hook == "xdp", snaplen=snaplen)
    try:
        trace(options, opening, expression, stop)
    finally:
        opening.close()


def trace(options: Options, opening: Any, expression: str | None, stop: StopRequest) -> None:
    """Engine, sinks and source put together; the imports here run while bcc compiles."""
    # Threads that numpy's linear algebra would start are of no use here, and would keep capabilities.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import secrets

    from tcptrace.engine.table import Table
    from tcptrace.model import TraceInfo
    from tcptrace.pipeline import Limits, Pipeline
    from tcptrace.sources.live import privileges

    sinks = make_sinks(options)
    source = opening.source(int(options.ring_size) * MIB if options.ring_size else None)
    try:
        # What a sink imports may not be readable any more once privileges are dropped.
        name = source.interface.name
        info = TraceInfo(name, source.attached, expression, source.clock, __version__, interfaces=source.interfaces)
        for sink in sinks:
            sink.open(info)
        user = privileges.drop()
        if options.verbose:
            say(f"{name}: {source.attached}; filter: {expression or 'none'}; running as uid {user.uid}")
        table = Table(
            options.max_connections,
            round((options.idle_timeout or IDLE_TIMEOUT_S) * 1e9),
            round((options.closed_timeout or CLOSED_TIMEOUT_S) * 1e9),
            source.start_ns,
            secrets.randbits(64),
        )
        limits = Limits(options.duration, options.count)
        Pipeline(source, table, sinks, options.interval or INTERVAL_S, limits, stop, warn).run()
    finally:
        for sink in sinks:
            sink.restore()
        source.close()
        stop.no_more()
