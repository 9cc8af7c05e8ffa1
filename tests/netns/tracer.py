"""The installed `tcptrace --json`, run inside a namespace.

with Tracer(near, "veth0") as tracer:
    …traffic…
    tracer.stop()
tracer.summary["packets"]
"""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from netns_tools import TIMEOUT_S, Namespace

COMMAND = Path(sys.executable).with_name("tcptrace")
"""Beside the tests' interpreter: the installed one, not whatever PATH finds."""


class Tracer:
    """Ready, that is attached, once entered; ended at the latest on leaving, whatever happens."""

    def __init__(self, namespace: Namespace, interface: str, *arguments: str) -> None:
        self.namespace = namespace
        self.command = [str(COMMAND), "--json", *arguments, interface]
        self.events: list[dict[str, Any]] = []
        """All lines, once stop() has returned; only the first one until then."""
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> "Tracer":
        self.process = self.namespace.popen(self.command, stdin=subprocess.DEVNULL)
        try:
            for name in ("stdout", "stderr"):
                stream = getattr(self.process, name)
                self._readers.append(threading.Thread(target=self._lines[name].extend, args=(stream,), daemon=True))
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            # From now on always read, so that the tracer never waits for us.
            for reader in self._readers:
                reader.start()
            assert line, self._failure()
            self.events = [json.loads(line)]
            assert self.events[0]["event"] == "start", line
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def stop(self, number: signal.Signals = signal.SIGINT) -> list[dict[str, Any]]:
        """End it as Ctrl-C does; it must exit with 0 and without a word on stderr."""
        self.process.send_signal(number)
        code, errors = self._wait(), self._lines["stderr"]
        assert (code, errors) == (0, []), (code, errors)
        self.events += [json.loads(line) for line in self._lines["stdout"]]
        assert self.events[-1]["event"] == "summary"
        return self.events

    def latest(self, containing: str) -> dict[str, Any] | None:
        """Of the lines that there are by now the last one with this text in it."""
        lines = list(self._lines["stdout"])
        return next((json.loads(line) for line in reversed(lines) if containing in line), None)

    @property
    def start(self) -> dict[str, Any]:
        return self.events[0]

    @property
    def summary(self) -> dict[str, Any]:
        """The last line."""
        return self.events[-1]

    def of_kind(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    @property
    def packets(self) -> list[dict[str, Any]]:
        """The `packet` events, in their order (with --packets)."""
        return self.of_kind("packet")

    @property
    def finals(self) -> list[dict[str, Any]]:
        """The last word on each connection."""
        return [one for one in self.of_kind("connection") if one["final"]]

    def by_ports(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The last word on each connection, by source and destination port; a reused pair fails."""
        rows = {(one["src_port"], one["dst_port"]): one for one in self.finals}
        assert len(rows) == len(self.finals), "a pair of ports has two connections"
        return rows

    def _failure(self) -> str:
        return f"no start event; exit code {self._wait()}: {''.join(self._lines['stderr'])}"

    def _wait(self) -> int:
        """For the exit code, and for all that was printed."""
        code = self.process.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        return code

    def _kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for reader in self._readers:
            if reader.is_alive():
                reader.join(TIMEOUT_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait(TIMEOUT_S)
