"""Public captures and what tshark and Ostermann's tcptrace say about them, where a folder with them exists."""

import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("TCPTRACE_CAPTURES", Path(__file__).parents[3] / "shared" / "captures"))

Endpoint = tuple[str, int]


def names() -> list[str]:
    """The captures that have reference numbers, as FOLDER/NAME."""
    truths = sorted((FOLDER / "truth").glob("*.json"))
    return [path.stem.replace("__", "/", 1) for path in truths]


def truth(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "truth" / f"{name.replace('/', '__', 1)}.json").read_text())
    return loaded


@dataclass(frozen=True)
class Answer:
    """What our command prints of a file."""

    exit_code: int
    connections: list[dict[str, Any]]
    summary: dict[str, Any]
    stderr: str


def ask(*arguments: str) -> Answer:
    """tcptrace --json with the arguments."""
    command = [str(Path(sys.executable).with_name("tcptrace")), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    connections = [event for event in events if event["event"] == "connection" and event["final"]]
    summary = next((event for event in events if event["event"] == "summary"), {})
    return Answer(done.returncode, connections, summary, done.stderr)


def endpoint(pair: list[Any]) -> Endpoint:
    return str(ipaddress.ip_address(pair[0])), pair[1]


@dataclass(frozen=True)
class Stream:
    """One of tshark's streams, beside our connection."""

    name: str
    truth: dict[str, Any]
    ours: dict[str, Any]

    def direction(self, which: str) -> str:
        """Our name for tshark's "a2b" or "b2a"."""
        a_is_src = endpoint(self.truth["a"]) == (self.ours["src_ip"], self.ours["src_port"])
        return "sent" if a_is_src == (which == "a2b") else "received"

    def pairs(self, ours: str, theirs: str) -> list[tuple[int, int]]:
        """Our number and tshark's, for both directions."""
        return [
            (self.ours[f"{self.direction(which)}_{ours}"], self.truth.get(which, {}).get(theirs, 0))
            for which in ("a2b", "b2a")
        ]

    def flag(self, ours: str, theirs: str) -> tuple[int, int]:
        """Our count and tshark's of an analysis flag, both directions together."""
        mine = self.ours[f"sent_{ours}"] + self.ours[f"received_{ours}"]
        return mine, sum(self.truth.get(which, {}).get("flags", {}).get(theirs, 0) for which in ("a2b", "b2a"))


def match(name: str, connections: list[dict[str, Any]], reference: dict[str, Any]) -> list[Stream]:
    """Streams with the same two ends are matched in order of their start."""
    ours: dict[frozenset[Endpoint], list[dict[str, Any]]] = {}
    for connection in sorted(connections, key=lambda c: int(c["connection_id"])):
        ends = frozenset(
            {(connection["src_ip"], connection["src_port"]), (connection["dst_ip"], connection["dst_port"])}
        )
        ours.setdefault(ends, []).append(connection)
    streams = []
    for stream in sorted(reference["streams"], key=lambda s: int(s["stream"])):
        candidates = ours.get(frozenset({endpoint(stream["a"]), endpoint(stream["b"])}), [])
        if candidates:
            streams.append(Stream(f"{name}:{stream['stream']}", stream, candidates.pop(0)))
    return streams


@dataclass(frozen=True)
class Direction:
    """A direction of one of our connections, and what Ostermann's tcptrace says of it by its own labels."""

    stream: Stream
    which: str
    theirs: dict[str, Any]

    def ours(self, name: str) -> Any:
        return self.stream.ours[f"{self.stream.direction(self.which)}_{name}"]


def ostermann_directions(reference: dict[str, Any], streams: list[Stream]) -> list[Direction]:
    """Those with RTT samples, of connections whose two ends had no other; its a and b are put as tshark's."""
    directions = []
    for connection in reference.get("tcptrace", {}).get("connections", []):
        ends = [endpoint(connection[end]) for end in ("a", "b")]
        matching = [s for s in streams if {endpoint(s.truth["a"]), endpoint(s.truth["b"])} == set(ends)]
        if len(matching) != 1:
            continue
        is_turned = endpoint(matching[0].truth["a"]) != ends[0]
        for which, other in (("a2b", "b2a"), ("b2a", "a2b")):
            theirs = connection.get(which, {})
            if theirs.get("RTT samples"):
                directions.append(Direction(matching[0], other if is_turned else which, theirs))
    return directions
