"""What can be asked for on the command line."""

from dataclasses import dataclass
from typing import Final

# A connection that ended stays visible as long as Linux keeps TIME-WAIT (TCP_TIMEWAIT_LEN).
CLOSED_TIMEOUT_S: Final = 60.0
IDLE_TIMEOUT_S: Final = 600.0
INTERVAL_S: Final = 1.0
# About 300 MB when full: 2.1 kB each, and the round-trip times.
MAX_CONNECTIONS: Final = 131_072
# Ethernet, IPv6 and TCP with all their options: headers, and hardly any payload.
SNAPLEN_BYTES: Final = 128
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Options:
    """What the user asked for.  None: nothing was said, and the default depends on live or file."""

    interface: str | None
    filter_words: tuple[str, ...]
    files: tuple[str, ...]
    ports: tuple[int, ...]
    hosts: tuple[str, ...]
    duration: float | None
    count: int | None
    packets: bool
    json: bool
    events: bool
    sort: str
    interval: float | None
    output: str | None
    snaplen: int | None
    rotate_size: int | None
    rotate_seconds: float | None
    rotate_files: int | None
    sequence: bool
    graph: bool
    ladder: bool
    connection: int | None
    picture: str | None
    hook: str
    probes: str
    samples: int | None
    pid: tuple[int, ...]
    comm: tuple[str, ...]
    cgroup: tuple[str, ...]
    container: tuple[str, ...]
    netns: str | None
    ring_size: str | None
    max_connections: int
    idle_timeout: float | None
    closed_timeout: float | None
    color: bool
    verbose: bool

    @property
    def layers(self) -> bool:
        """Packets layer by layer."""
        return self.packets and self.verbose and not self.json

    @property
    def prints_meanwhile(self) -> bool:
        """Lines go to stdout while files are read, not at the end alone."""
        return self.packets or self.json or self.ladder or self.interval is not None

    @property
    def wants_frames(self) -> bool:
        """Some output needs the packets' own bytes."""
        return self.output is not None or self.layers
