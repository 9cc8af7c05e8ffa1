"""What was asked for of the kernel's sockets: the probes, the processes, the network namespace."""

from typing import TYPE_CHECKING

from tcptrace.cli.options import Options
from tcptrace.errors import UsageError

if TYPE_CHECKING:
    from tcptrace.sources.live.process_selection import ProcessSelection
    from tcptrace.sources.live.socket_probes import ProbeOptions


def refuse_probeless(options: Options) -> None:
    """UsageError for what needs the probes, where they are not wanted."""
    if options.probes != "off":
        return
    for name in ("pid", "comm", "cgroup", "container", "events", "samples"):
        if getattr(options, name):
            raise UsageError(f"--{name} needs the probes: not with --probes off")


def enter_namespace(options: Options) -> None:
    """Go where the interface is; before anything else is asked or started.  Raises TcptraceError."""
    if options.netns is not None:
        from tcptrace.sources.live.network_namespace import enter

        enter(options.netns)


def probe_options(options: Options) -> "ProbeOptions | None":
    """How the kernel's sockets are to be followed; None: not at all.  Raises TcptraceError for what is not there."""
    if options.probes == "off":
        return None
    from tcptrace.sources.live.network_namespace import inode
    from tcptrace.sources.live.socket_probes import SAMPLES_PER_S, ProbeOptions

    return ProbeOptions(
        way=options.probes,
        netns=inode(),
        samples_per_s=options.samples or SAMPLES_PER_S,
        all_events=options.events,
        selection=_selection(options),
    )


def _selection(options: Options) -> "ProcessSelection":
    from tcptrace.sources.live.containers import Cgroups
    from tcptrace.sources.live.process_selection import ProcessSelection

    if "" in options.comm:
        raise UsageError("--comm needs a name")
    cgroups = Cgroups()
    asked = [cgroups.cgroup_of_path(path) for path in options.cgroup]
    asked += [cgroups.find_cgroup(container) for container in options.container]
    selection = ProcessSelection(options.pid, options.comm, tuple(asked))
    selection.require_processes()
    return selection
