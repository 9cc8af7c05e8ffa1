"""The options and arguments, and what they lead to."""

import math
from collections.abc import Callable
from typing import Any, Final

import click

from tcptrace import __version__
from tcptrace.cli.endings import ReaderGone
from tcptrace.cli.options import CLOSED_TIMEOUT_S, IDLE_TIMEOUT_S, INTERVAL_S, MAX_CONNECTIONS, Options
from tcptrace.sinks.sort_keys import SORT_KEYS

# What a perf ring can be: a power of two pages.
RING_SIZES_MIB: Final = [str(1 << power) for power in range(11)]
# One letter after a number of bytes.
SIZE_UNITS: Final = {"k": 10**3, "m": 10**6, "g": 10**9}
# An exabyte: more than any disk, and an int64 holds it.
SIZE_MAX: Final = 10**18
# Thirty years: in nanoseconds it still fits 64 bits.
SECONDS_MAX: Final = 1e9


def size(*names: str, text: str) -> Callable[[Any], Any]:
    """An option that takes a number of bytes, with k, M or G for powers of 1000."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        number = value.strip().lower().removesuffix("b")
        unit = SIZE_UNITS.get(number[-1:], 1)
        try:
            size_bytes = float(number[:-1] if unit > 1 else number) * unit
        except ValueError:
            size_bytes = math.nan
        if not 1 <= size_bytes <= SIZE_MAX:  # nan is neither
            raise click.BadParameter(f"{value!r} is not a size such as 500k, 100M or 2G", ctx, param)
        return round(size_bytes)

    return click.option(*names, metavar="BYTES", callback=check, help=text)


def seconds(*names: str, text: str, least: float = 0.0) -> Callable[[Any], Any]:
    """An option that takes a time of at least `least` seconds, and more than none."""

    def check(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
        if value is not None and not (0 < value <= SECONDS_MAX and value >= least):  # nan is neither
            bound = f"of at least {least:g}" if least else "of more than 0"
            raise click.BadParameter(f"{value:g} is not a time {bound} and at most {SECONDS_MAX:g} seconds", ctx, param)
        return value

    return click.option(*names, metavar="SECONDS", type=float, callback=check, help=text)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("interface", required=False)
@click.argument("filter_words", metavar="[FILTER]...", nargs=-1)
@click.option("-f", "-r", "--file", "files", metavar="FILE", multiple=True,
              help="Read a capture instead of an interface; - is stdin; repeatable, merged by time.")  # fmt: skip
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
@click.option("--events", is_flag=True,
              help="With --json, also events for the kernel's retransmissions and changes of state.")  # fmt: skip
@click.option("--sort", type=click.Choice(SORT_KEYS), default="rate", show_default=True, help="Order of the table.")
@seconds(
    "--interval",
    least=0.1,
    text=f"Time between refreshes; of files there is one output at the end without it.  [default: {INTERVAL_S:g}]",
)
@click.option("-o", "-w", "--output", metavar="FILE",
              help="Write the packets to FILE: .pcapng or .pcap, also .gz or .zst; - is stdout.")  # fmt: skip
@click.option("--snaplen", metavar="BYTES", type=click.IntRange(1, 262_144),
              help="Keep this much of each packet.  [default: its headers; of files, all]")  # fmt: skip
@size("--rotate-size", text="Begin a new output file after so many bytes (k, M, G).")
@seconds("--rotate-seconds", text="Begin a new output file after so long.", least=0.1)
@click.option("--rotate-files", metavar="N", type=click.IntRange(min=1), help="Keep the last N output files.")
@click.option("--sequence", is_flag=True, help="Draw a time-sequence diagram of each connection.")
@click.option("--graph", is_flag=True, help="Draw throughput, RTT, bytes in flight and window over time.")
@click.option("--ladder", is_flag=True, help="Show each connection's packets between its two ends.")
@click.option("--connection", metavar="ID", type=click.IntRange(min=1),
              help="Draw this connection only (# in the table).")  # fmt: skip
@click.option("--picture", metavar="FILE", help="Draw into FILE (.png, .svg, .pdf) instead of the terminal.")
@click.option("--hook", type=click.Choice(["tc", "xdp"]), default="tc", show_default=True,
              help="Where to see incoming packets.")  # fmt: skip
@click.option("--probes", type=click.Choice(["auto", "kprobes", "tracepoints", "off"]), default="auto",
              show_default=True, help="How to follow the kernel's own sockets.")  # fmt: skip
@click.option("--samples", metavar="N", type=click.IntRange(1, 1000),
              help="Look at a socket's numbers so often a second at most.  [default: 10]")  # fmt: skip
@click.option("--pid", metavar="PID", type=click.IntRange(min=1), multiple=True,
              help="Only sockets of this process; repeatable.")  # fmt: skip
@click.option("--comm", metavar="NAME", multiple=True, help="Only sockets of processes of this name; repeatable.")
@click.option("--cgroup", metavar="PATH", multiple=True, help="Only sockets of processes in this cgroup; repeatable.")
@click.option(
    "--container",
    metavar="ID",
    multiple=True,
    help="Only sockets of this container; repeatable. One with a network of its own also needs --netns PID.",
)
@click.option("--netns", metavar="NAME|PATH|PID", help="Trace in this network namespace.")
@click.option("--ring-size", metavar="MIB", type=click.Choice(RING_SIZES_MIB),
              help="Perf ring of each CPU: 1, 2, 4 … 1024.  [default: 16, less on many CPUs]")  # fmt: skip
@click.option("--max-connections", type=click.IntRange(1, 10_000_000), default=MAX_CONNECTIONS, show_default=True,
              help="Connections in the table; then the least recently active one leaves.")  # fmt: skip
@seconds(
    "--idle-timeout",
    text=f"A silent connection leaves after this long, unless its socket here is open.  "
    f"[default: {IDLE_TIMEOUT_S:g}; of files, never]",
)
@seconds(
    "--closed-timeout",
    text=f"A closed connection leaves after this long.  [default: {CLOSED_TIMEOUT_S:g}; of files, never]",
)
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR in the environment does the same.")
@click.option("-v", "--verbose", is_flag=True,
              help="Say on stderr what is set up; tracebacks for errors; with --packets, every layer.")  # fmt: skip
@click.option("-D", "--list-interfaces", is_flag=True, help="List the interfaces and exit.")
@click.version_option(__version__, prog_name="tcptrace", message="%(prog)s %(version)s")
def command(list_interfaces: bool, no_color: bool, **options: Any) -> None:
    """Show every TCP connection on INTERFACE, as it happens, or in capture files.

    INTERFACE is the default route's if not given.  FILTER is an expression as tcpdump takes it
    (pcap-filter(7)), evaluated in the kernel; with -f, every argument belongs to it.

    \b
    Examples:
      sudo tcptrace eth0
      sudo tcptrace eth0 'port 443 and host 10.0.0.5'
      sudo tcptrace --json eth0 | jq 'select(.event == "connection")'
      sudo tcptrace eth0 -o trace.pcapng
      tcptrace -f trace.pcapng port 443
      tcptrace -f trace.pcapng --sequence --connection 3 --picture sequence.svg
    """
    try:
        if list_interfaces:
            print_interfaces()
            return
        asked = Options(color=not no_color, **options)
        if asked.files:
            from tcptrace.cli.files import run_files

            run_files(asked)
        else:
            from tcptrace.cli.live import run_live

            run_live(asked)
    except BrokenPipeError as error:
        raise ReaderGone from error  # click has an answer of its own to a broken pipe


def print_interfaces() -> None:
    """One line an interface, as `-D` shows them."""
    from tcptrace.sources.live.interface import list_interfaces

    for entry in list_interfaces():
        state = "up" if entry.is_up else "down"
        kind = entry.link or entry.type_name
        click.echo(f"{entry.index:3}  {entry.name:15}  {state:4}  {kind:8}  {' '.join(entry.addresses)}")
