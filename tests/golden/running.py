"""The command as a process: what it printed and how it ended, with limits to its time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("tcptrace")
# Fifty times what these tests' captures need, and far below what a loop without end would take.
CPU_S = 15
# numpy, threads and an empty connection table need 200 MiB; what a file promises or unpacks to must not come on top.
MEMORY_BYTES = 512 << 20
# Of the tester, these would change what is printed.
LEFT_OUT = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONUNBUFFERED")
USUAL = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    """How it went."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of --json; raises where one is none."""
        return [json.loads(line, parse_constant=not_json) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last = self.events[-1]
        assert last["event"] == "summary"
        return last

    @property
    def connections(self) -> list[dict[str, Any]]:
        """The final word on each."""
        return [event for event in self.events if event["event"] == "connection" and event["final"]]


def not_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def tcptrace(*arguments: str | Path, stdin: bytes | int = b"", folder: Path | None = None,
             environment: Mapping[str, str] = {}, **popen: Any) -> Run:  # fmt: skip
    """Runs in `folder`; `stdin` is what it reads there, or a file descriptor."""
    process = subprocess.Popen(
        ["prlimit", f"--cpu={CPU_S}", f"--data={MEMORY_BYTES}", COMMAND, *arguments],
        stdin=stdin if isinstance(stdin, int) else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in LEFT_OUT} | USUAL | dict(environment),
        **popen,
    )
    with process:
        try:
            out, err = process.communicate(None if isinstance(stdin, int) else stdin, timeout=60)
        finally:
            process.kill()  # nothing if it has ended
    return Run(process.returncode, out, err.decode())


def all_at_once(calls: Mapping[str, Callable[[], Run]]) -> dict[str, Run]:
    """Their results: starting takes most of the time, and there is more than one CPU."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in started.items()}
