"""`tcptrace --json`, whose lines are read while it runs."""

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from netns_tools import TIMEOUT_S, Namespace
from programs.output import Output
from tracer import COMMAND

Event = dict[str, Any]
Ports = tuple[int, int]
"""Of src and dst."""


class Watch:
    """Ready, that is attached, once made; to be ended, or left as a context."""

    def __init__(
        self, namespace: Namespace, *arguments: str, interface: str = "veth0", interval_s: float = 0.1
    ) -> None:
        command = [str(COMMAND), "--json", "--interval", str(interval_s), interface, *arguments]
        self.process = namespace.popen(command, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._output, self._errors = Output(self.process.stdout), Output(self.process.stderr)
        self.events: list[Event] = []
        """All that was read so far."""
        self.latest: dict[Ports, Event] = {}
        """The last `connection` event of each connection, by source and destination port."""
        self.start = self.next()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def next(self) -> Event:
        line = self._output.line()
        assert line, self._errors.rest()
        return self._take(line)

    def _take(self, line: str) -> Event:
        event: Event = json.loads(line)
        self.events.append(event)
        if event["event"] == "connection":
            self.latest[event["src_port"], event["dst_port"]] = event
        return event

    def lines(self, count: int) -> list[str]:
        """The next ones as they are, of which nothing else here will know."""
        return [self._output.line() for _ in range(count)]

    def read_until(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted."""
        while not wanted(event := self.next()):
            pass
        return event

    def read_until_seen(self, ports: Ports) -> None:
        """Until an event of that connection came."""
        while ports not in self.latest:
            self.next()

    def of_kind(self, event: str) -> list[Event]:
        return [one for one in self.events if one["event"] == event]

    def end(self) -> Event:
        """The summary."""
        self.process.send_signal(signal.SIGINT)
        lines = self._output.rest()
        assert (self._errors.rest(), self.process.wait(TIMEOUT_S)) == ([], 0)
        events = [self._take(line) for line in lines]
        assert events[-1]["event"] == "summary"
        assert events[-1]["records_lost"] == events[-1]["perf_lost_samples"] == 0
        return events[-1]


def settle(watches: Sequence[Watch], mark: Callable[[], Ports]) -> None:
    """Returns when all of them have told of all that has happened.

    They tell it in the order of intervals, so what comes after the event of a later packet is newer than that: `mark`
    makes a new connection that they all see.
    """
    for _ in range(2):
        ports = mark()
        for watch in watches:
            watch.read_until_seen(ports)
