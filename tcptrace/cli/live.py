"""An interface, traced live."""

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tcptrace import __version__
from tcptrace.cli.endings import StopRequest, say, warn
from tcptrace.cli.options import CLOSED_TIMEOUT_S, IDLE_TIMEOUT_S, INTERVAL_S, MIB, SNAPLEN_BYTES, Options
from tcptrace.cli.outputs import FileAccess, make_sinks, refuse_contradictions, socket_event_sinks
from tcptrace.cli.sockets import enter_namespace, probe_options, refuse_probeless
from tcptrace.errors import UsageError

if TYPE_CHECKING:
    from tcptrace.sources.live.file_opener import FileOpener

# Entries of the kernel's flow counter that its CPUs keep at hand without using them.
FLOWS_SPARE: Final = 16_384


def run_live(options: Options) -> None:
    """Trace an interface until it is over.  Raises TcptraceError and its kinds."""
    # Threads that numpy's linear algebra would start are of no use here, and would keep capabilities.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from tcptrace.sources.live import interface as interfaces
    from tcptrace.sources.live import pcap_filter, privileges

    refuse_contradictions(options)
    refuse_probeless(options)
    enter_namespace(options)
    if options.interface and " " in options.interface:
        raise UsageError(f"{options.interface!r} is no interface: a FILTER comes after INTERFACE")
    expression = pcap_filter.combine(options.filter_words, options.ports, options.hosts)
    interface = interfaces.find_interface(options.interface)
    filter_source = pcap_filter.filter_source(expression, ethernet=interface.link == "ethernet")
    privileges.require_root()
    interfaces.require_up(interface)
    probes = probe_options(options)

    from tcptrace.sources.live.opening import Opening

    stop = StopRequest()  # until here there is nothing to clean up, and Ctrl-C just ends the program
    opener = start_opener(options)
    snaplen = (options.snaplen or SNAPLEN_BYTES) if options.wants_frames else 0
    opening = Opening(
        interface,
        filter_source,
        xdp=options.hook == "xdp",
        snaplen=snaplen,
        # The kernel makes room before it has to: a few more than the table has.
        flows=options.max_connections + options.max_connections // 4 + FLOWS_SPARE,
        probes=probes,
    )
    try:
        trace(options, opening, expression, stop, file_access(options, opener))
    finally:
        opening.close()
        if opener is not None:
            opener.close()


def start_opener(options: Options) -> "FileOpener | None":
    """The process that opens further output files once this one has given up root."""
    if options.output is None:
        return None
    from tcptrace.sinks.capture_writer.target import numbered_path, parse_target
    from tcptrace.sources.live.file_opener import FileOpener

    parse_target(options.output)
    if options.rotate_size is None and options.rotate_seconds is None:
        return None
    return FileOpener.start(partial(numbered_path, options.output))


def file_access(options: Options, opener: "FileOpener | None") -> FileAccess:
    """What belongs to who called sudo, not to root: the output."""
    if options.output in (None, "-"):
        return FileAccess()
    if opener is not None:
        return FileAccess(opener.open, opener.remove)
    from tcptrace.sources.live.file_opener import open_for_sudo_user

    path = options.output
    return FileAccess(lambda number: open_for_sudo_user(path))


def trace(options: Options, opening: Any, expression: str | None, stop: StopRequest, files: FileAccess) -> None:
    """Engine, sinks and source put together; the imports here run while bcc compiles."""
    import secrets
    import time

    from tcptrace.engine.table import Table
    from tcptrace.model import TraceInfo
    from tcptrace.pipeline import Limits, Pipeline
    from tcptrace.sources.live import privileges
    from tcptrace.sources.live.containers import Cgroups
    from tcptrace.sources.live.network_namespace import inode

    sinks = make_sinks(options, files)
    source = opening.source(int(options.ring_size) * MIB if options.ring_size else None, expression)
    try:
        # What a sink imports may not be readable any more once privileges are dropped.
        name = source.interface.name
        sockets, cgroups = source.sockets, Cgroups()
        info = TraceInfo(
            name,
            source.attached,
            expression,
            source.clock,
            __version__,
            interfaces=source.interfaces,
            probes=sockets.kind if sockets else None,
            netns=inode(),
            container_of=lambda cgroup_id: cgroups.container(cgroup_id, time.monotonic()),
        )
        for sink in reversed(sinks):  # the text last: where a file cannot be written, it has not said a word yet
            sink.open(info)
        user = privileges.drop()
        if options.verbose:
            say(f"{name}: sockets: {', '.join(sockets.attached) if sockets else 'not followed'}")
            say(f"{name}: {source.attached}; filter: {expression or 'none'}; running as uid {user.uid}")
        if opening.problem is not None:
            warn(f"the kernel's view is not complete: {opening.problem}")
        table = Table(
            options.max_connections,
            round((options.idle_timeout or IDLE_TIMEOUT_S) * 1e9),
            round((options.closed_timeout or CLOSED_TIMEOUT_S) * 1e9),
            source.start_ns,
            secrets.randbits(64),
        )
        limits = Limits(options.duration, options.count)
        interval_s = options.interval or INTERVAL_S
        events = socket_event_sinks(options, sinks)
        Pipeline(source, table, sinks, interval_s, limits, stop, warn, events).run()
    finally:
        for sink in sinks:
            sink.restore()
        source.close()
        stop.no_more()
