"""The command line: chooses and wires, computes nothing."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from tcptrace import __version__
from tcptrace.errors import TcptraceError, UsageError
from tcptrace.sinks.sort_keys import SORT_KEYS

if TYPE_CHECKING:
    from tcptrace.model import Sink
    from tcptrace.sources.live.interface import Interface

# A connection that ended stays visible as long as Linux keeps TIME-WAIT (TCP_TIMEWAIT_LEN).
CLOSED_TIMEOUT_S: Final = 60.0
IDLE_TIMEOUT_S: Final = 600.0
# About 60 MB when full.
MAX_CONNECTIONS: Final = 65_536
MIB: Final = 1 << 20
# A signal this long after the first means that somebody waits for us, while we wait for who reads our output.
PATIENCE_S: Final = 2.0


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    interface: str | None
    filter_words: tuple[str, ...]
    ports: tuple[int, ...]
    hosts: tuple[str, ...]
    duration: float | None
    count: int | None
    packets: bool
    json: bool
    sort: str
    interval: float
    hook: str
    ring_size: str | None
    max_connections: int
    idle_timeout: float
    closed_timeout: float
    color: bool
    verbose: bool


class ReaderGone(Exception):
    """Whoever reads our output has seen enough."""


class OutputStalled(Exception):
    """Whoever reads our output has stopped, and somebody wants us to end."""


class StopRequest:
    """Set by SIGINT, SIGTERM and SIGHUP from before anything is set up, so that none ends it half way."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.requested = False
        self._first = 0.0
        for number in self.SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.requested and now > self._first + PATIENCE_S:
            raise OutputStalled
        if not self.requested:
            self.requested, self._first = True, now

    def __call__(self) -> bool:
        return self.requested

    def no_more(self) -> None:
        """All is done: a further signal shall not spoil the exit code while the interpreter shuts down."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def standard_output() -> TextIO:
    """stdout, buffered whatever PYTHONUNBUFFERED says: unbuffered, a write that a signal interrupts loses its rest."""
    return open(1, "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False)


# What a perf ring can be: a power of two pages.
RING_SIZES_MIB: Final = [str(1 << power) for power in range(11)]
# Thirty years: in nanoseconds it still fits 64 bits.
SECONDS_MAX: Final = 1e9


def seconds(*names: str, text: str, least: float = 0.0, default: float | None = None) -> Callable[[Any], Any]:
    """An option that takes a time of at least `least` seconds, and more than none."""

    def check(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
        if value is not None and not (0 < value <= SECONDS_MAX and value >= least):  # nan is neither
            raise click.BadParameter(f"{value:g} is not a time from {least:g} to {SECONDS_MAX:g} seconds", ctx, param)
        return value

    return click.option(
        *names, metavar="SECONDS", type=float, default=default, show_default=True, callback=check, help=text
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("interface", required=False)
@click.argument("filter_words", metavar="[FILTER]...", nargs=-1)
@click.option(
    "-p",
    "--port",
    "ports",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    multiple=True,
    help="Only this port; repeatable.",
)
@click.option("-i", "--ip", "hosts", metavar="ADDRESS", multiple=True, help="Only this address or network; repeatable.")
@seconds("-d", "--duration", text="End after this long.")
@click.option("-c", "--count", metavar="PACKETS", type=click.IntRange(min=1), help="End after this many wire packets.")
@click.option("--packets", is_flag=True, help="A line for every packet; with --json an event for every packet.")
@click.option("--json", is_flag=True, help="One JSON object a line instead of a table.")
@click.option("--sort", type=click.Choice(SORT_KEYS), default="rate", show_default=True, help="Order of the table.")
@seconds("--interval", text="Time between refreshes.", least=0.1, default=1.0)
@click.option("--hook", type=click.Choice(["tc", "xdp"]), default="tc", show_default=True,
              help="Where to see incoming packets.")  # fmt: skip
@click.option("--ring-size", metavar="MIB", type=click.Choice(RING_SIZES_MIB),
              help="Perf ring of each CPU: 1, 2, 4 … 1024.  [default: 16, less on many CPUs]")  # fmt: skip
@click.option("--max-connections", type=click.IntRange(1, 10_000_000), default=MAX_CONNECTIONS, show_default=True,
              help="Connections in the table; then the least recently active one leaves.")  # fmt: skip
@seconds("--idle-timeout", text="A silent connection leaves after this long.", default=IDLE_TIMEOUT_S)
@seconds("--closed-timeout", text="A closed connection leaves after this long.", default=CLOSED_TIMEOUT_S)
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR in the environment does the same.")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is set up; tracebacks for errors.")
@click.option("-D", "--list-interfaces", is_flag=True, help="List the interfaces and exit.")
@click.version_option(__version__, prog_name="tcptrace", message="%(prog)s %(version)s")
def command(list_interfaces: bool, no_color: bool, **options: Any) -> None:
    """Show every TCP connection on INTERFACE, as it happens.

    INTERFACE is the default route's if not given.  FILTER is an expression as tcpdump takes it
    (pcap-filter(7)), evaluated in the kernel.

    \b
    Examples:
      sudo tcptrace eth0
      sudo tcptrace eth0 'port 443 and host 10.0.0.5'
      sudo tcptrace --json eth0 | jq 'select(.event == "connection")'
    """
    try:
        if list_interfaces:
            print_interfaces()
        else:
            run_live(Options(color=not no_color, **options))
    except BrokenPipeError as error:
        raise ReaderGone from error  # click has an answer of its own to a broken pipe


def print_interfaces() -> None:
    """One line an interface, as `-D` shows them."""
    from tcptrace.sources.live.interface import list_interfaces

    for entry in list_interfaces():
        state = "up" if entry.is_up else "down"
        kind = entry.link or entry.type_name
        click.echo(f"{entry.index:3}  {entry.name:15}  {state:4}  {kind:8}  {' '.join(entry.addresses)}")


def run_live(options: Options) -> None:
    """Trace an interface until it is over.  Raises TcptraceError and its kinds."""
    from tcptrace.sources.live import interface as interfaces
    from tcptrace.sources.live import pcap_filter, privileges

    if options.interface and " " in options.interface:
        raise UsageError(f"{options.interface!r} is no interface: a FILTER comes after INTERFACE")
    expression = pcap_filter.combine(options.filter_words, options.ports, options.hosts)
    interface = interfaces.find_interface(options.interface)
    filter_source = pcap_filter.filter_source(expression, ethernet=interface.link == "ethernet")
    privileges.require_root()
    interfaces.require_up(interface)

    from tcptrace.sources.live.opening import Opening

    stop = StopRequest()  # until here there is nothing to clean up, and Ctrl-C just ends the program
    opening = Opening(interface, filter_source, xdp=options.hook == "xdp")
    try:
        trace(options, opening, interface, expression, stop)
    finally:
        opening.close()


def trace(options: Options, opening: Any, interface: "Interface", expression: str | None, stop: StopRequest) -> None:
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
        info = TraceInfo(interface.name, source.attached, expression, source.clock, __version__)
        for sink in sinks:
            sink.open(info)
        user = privileges.drop()
        if options.verbose:
            say(f"{interface.name}: {source.attached}; filter: {expression or 'none'}; running as uid {user.uid}")
        table = Table(
            options.max_connections,
            int(options.idle_timeout * 1e9),
            int(options.closed_timeout * 1e9),
            source.start_ns,
            secrets.randbits(64),
        )
        limits = Limits(options.duration, options.count)
        Pipeline(source, table, sinks, options.interval, limits, stop, warn).run()
    finally:
        for sink in sinks:
            sink.restore()
        source.close()
        stop.no_more()


def make_sinks(options: Options) -> "list[Sink]":
    """The outputs that the options ask for."""
    out = standard_output()
    if options.json:
        from tcptrace.sinks.ndjson import Ndjson

        return [Ndjson(out, packets=options.packets)]
    if options.packets:
        from tcptrace.sinks.packet_log import PacketLog

        return [PacketLog(out, sort=options.sort, color=options.color)]
    from tcptrace.sinks.live_table import LiveTable, is_usable

    if is_usable(out):
        return [LiveTable(out, sort=options.sort, color=options.color)]
    from tcptrace.sinks.plain_table import PlainTable

    return [PlainTable(out, sort=options.sort, color=options.color)]


def say(line: str) -> None:
    """A line for the user that is not output."""
    click.echo(f"tcptrace: {line}", err=True)


def warn(line: str) -> None:
    """Something the user should know; the trace goes on."""
    say(f"warning: {line}")


def main() -> None:
    """Every way to end has its exit code, and errors are one line."""
    verbose = "-v" in sys.argv[1:] or "--verbose" in sys.argv[1:]
    try:
        command.main(standalone_mode=False)
    except ReaderGone:
        discard_output()
        sys.exit(0)
    except OutputStalled:
        discard_output()
        fail(TcptraceError("ended before all output was read"), verbose=False)
    except click.ClickException as error:
        fail(UsageError(error.format_message()), verbose=False)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except TcptraceError as error:
        fail(error, verbose)
    except OSError as error:
        fail(TcptraceError(f"{error.filename or 'output'}: {error.strerror or error}"), verbose)
    except Exception as error:
        fail(TcptraceError(f"{type(error).__name__}: {error}"), verbose)


def discard_output() -> None:
    """What is still buffered has no reader: the interpreter shall not wait for one, nor complain, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(error: TcptraceError, verbose: bool) -> None:
    """One line on stderr, a traceback before it with -v, and the exit code of the error's kind."""
    if verbose:
        traceback.print_exc()
    say(str(error))
    sys.exit(error.exit_code)
