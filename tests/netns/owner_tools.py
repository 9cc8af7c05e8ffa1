"""Processes of programs/owners.py or actors.py, told what to do; cgroups for them; what a tracer says of both ends."""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from netns_tools import TIMEOUT_S, Namespace

PROGRAMS = Path(__file__).parent / "programs"
FIELDS = ("pid", "process", "uid", "cgroup_id")

End = dict[str, Any]
Told = dict[str, End | None]
"""Of a connection, by "src" and "dst": port, peer_port and process, as that process says itself; None: no process."""


class Conductor:
    """The program's first process, inside a namespace."""

    def __init__(self, namespace: Namespace, program: str = "owners.py") -> None:
        self.process = namespace.popen([sys.executable, "-P", str(PROGRAMS / program)], stderr=None)

    def __enter__(self) -> "Conductor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """At the end of its input it ends; otherwise it is killed, and the namespace's end kills its children."""
        with self.process:
            if kind is not None:
                self.process.kill()
            assert self.process.stdin is not None
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait(TIMEOUT_S)

    def begin(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program has failed"
        return json.loads(line)

    def call(self, name: str, *arguments: Any) -> Any:
        """The function's result, once it is over."""
        self.begin(name, *arguments)
        return self.end()


@contextmanager
def cgroup2_folder() -> Iterator[Path]:
    """A new cgroup; at the end it is removed with all that is below it, whose processes must have ended."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mount = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    folder = Path(mount, f"tcptrace-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        for path, _, _ in os.walk(folder, topdown=False):
            os.rmdir(path)


def ports(connection: Told) -> tuple[int, int]:
    """Of a connection's source and destination."""
    src, dst = connection["src"], connection["dst"]
    one = src or dst
    assert one is not None
    pair = one["port"], one["peer_port"]
    return pair if one is src else (pair[1], pair[0])


def said(line: dict[str, Any]) -> Told:
    """What a `connection` line of the tracer says of the processes at both ends; None of an end it knows nothing of."""
    near, peer = ({name: line[f"{prefix}{name}"] for name in FIELDS} for prefix in ("", "peer_"))
    ends = [None if set(one.values()) == {None} else one for one in (near, peer)]
    if line["near_end"] == "dst":
        ends.reverse()
    return dict(zip(("src", "dst"), ends, strict=True))


def processes(connection: Told) -> Told:
    """The same of a connection as its processes say it."""
    return {end: None if one is None else one["process"] for end, one in connection.items()}
