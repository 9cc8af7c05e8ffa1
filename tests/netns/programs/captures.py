"""Capture files, read by `tcptrace -f` and by tshark; and how what one trace said is compared with another."""

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netns_tools import TIMEOUT_S
from tracer import COMMAND

Event = dict[str, Any]
Key = tuple[str, int, str, int]
"""Source and destination: address and port."""

COUNTS = (
    "packets",
    "bytes",
    "payload_bytes",
    "retransmissions",
    "retransmitted_bytes",
    "fast_retransmissions",
    "spurious_retransmissions",
    "out_of_order",
    "gaps",
    "duplicate_acks",
    "acked_unseen_segments",
    "sacks",
    "duplicate_sacks",
    "window_updates",
    "windows_full",
    "zero_windows",
    "zero_window_probes",
    "zero_window_probe_acks",
    "keep_alives",
    "keep_alive_acks",
    "ecn_ce",
    "ecn_ece",
    "ecn_cwr",
    "in_flight_bytes",
    "in_flight_max_bytes",
    "rtt_count",
    "seq",
    "ack",
    "window_bytes",
    "window_min_bytes",
    "window_max_bytes",
    "mss_bytes",
    "window_scale",
    "flags_seen",
    "ttl",
    "mac",
)
"""Of a direction, that do not depend on when a packet was seen, nor on which way it went."""
LIFE = (
    "src_state",
    "dst_state",
    "handshake",
    "closed_by",
    "close_kind",
    "port_reuse",
    "initiator_known",
    "ip_version",
    "vlan_id",
    "end_reason",
)
RTTS = (
    "handshake_rtt_us",
    "initial_rtt_us",
    *(f"{side}_rtt_{name}_us" for side in ("sent", "received") for name in ("min", "mean", "p50", "max")),
)
PERCENTILES_EXACT_TO = 0.004
DEFINED_OTHERWISE = {
    "time",  # the end of the trace; of a file, its last packet
    "interface",  # that is traced; of a file there is none
    *(f"{side}_{what}_per_s" for side in ("sent", "received") for what in ("packets", "bytes")),  # of the last interval
}
"""What a file's connection lines cannot have as live."""

ROOT_REMARK = 'Running as user "root" and group "root". This could be dangerous.'


@dataclass(frozen=True)
class Reading:
    """What `tcptrace -f` made of a file."""

    events: list[Event]

    @property
    def rows(self) -> dict[Key, Event]:
        return finals(self.events)

    @property
    def summary(self) -> Event:
        return self.events[-1]

    @property
    def packets(self) -> list[Event]:
        return [one for one in self.events if one["event"] == "packet"]


def finals(events: Iterable[Event]) -> dict[Key, Event]:
    """The last word on each connection; none may have its name twice."""
    found = [one for one in events if one["event"] == "connection" and one["final"]]
    rows = {(one["src_ip"], one["src_port"], one["dst_ip"], one["dst_port"]): one for one in found}
    assert len(rows) == len(found), "addresses and ports have two connections"
    return rows


def tcptrace(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """To its end, which must be a good one, and silent."""
    command = [str(COMMAND), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result


def read_back(path: Path, *arguments: str) -> Reading:
    lines = tcptrace("-f", path, "--json", *arguments).stdout.splitlines()
    return Reading([json.loads(line) for line in lines])


def judge(command: str, *arguments: str | Path, **options: Any) -> str:
    """stdout of tshark or capinfos, which must have nothing to complain of."""
    words = [command, *map(str, arguments)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)
    complaints = [line for line in result.stderr.splitlines() if line != ROOT_REMARK]
    assert (result.returncode, complaints) == (0, []), words
    return result.stdout


def lengths(path: Path) -> list[tuple[int, int]]:
    """Of each frame, by tshark: on the wire, and its TCP payload."""
    lines = judge("tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.len", "-e", "tcp.len").splitlines()
    return [(int(frame), int(payload)) for frame, payload in (line.split("\t") for line in lines)]


def packets_in(path: Path) -> int:
    """By capinfos."""
    return int(judge("capinfos", "-M", "-c", path).split()[-1])


# --- Comparing


def both_sides(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("sent", "received") for name in names)


def assert_equal(live: dict[Key, Event], file: dict[Key, Event], names: Sequence[str]) -> None:
    """These fields of all connections."""
    assert set(live) == set(file)
    apart = [
        (key, name, row[name], file[key][name])
        for key, row in live.items()
        for name in names
        if row[name] != file[key][name]
    ]
    assert not apart, apart


def assert_whole(live: dict[Key, Event], file: dict[Key, Event], but: Iterable[str] = ()) -> None:
    """Every field, to the nanosecond; a file knows nothing of what the kernel held."""
    (names,) = {tuple(row) for rows in (live, file) for row in rows.values()}
    kernels = names[names.index("kernel_state") : names.index("last_packets")]
    assert {row[name] for row in file.values() for name in kernels} == {None}
    assert_equal(live, file, [name for name in names if name not in DEFINED_OTHERWISE.union(but, kernels)])


def rtts_apart_us(live: dict[Key, Event], file: dict[Key, Event]) -> list[tuple[float, str]]:
    """How far each of RTTS is apart, beyond the width of a percentile's class, rising; both know it, or neither."""
    apart = []
    for key, row in live.items():
        for name in RTTS:
            ours, theirs = row[name], file[key][name]
            assert (ours is None) == (theirs is None), (key, name, ours, theirs)
            if ours is not None:
                exact_to = PERCENTILES_EXACT_TO * ours if "_p50_" in name else 0
                apart.append((max(0.0, abs(ours - theirs) - exact_to), name))
    return sorted(apart)
