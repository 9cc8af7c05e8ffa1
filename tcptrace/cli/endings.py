"""What ends a trace: signals, and readers that go away."""

import signal
import sys
import time
from typing import Any, Final, TextIO

import click

# A signal this long after the first means that somebody waits for us, while we wait for who reads our output.
PATIENCE_S: Final = 2.0


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


def say(line: str) -> None:
    """A line for the user that is not output; one, whatever the names of files in it are."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in line)
    click.echo(f"tcptrace: {printable}", err=True)


def warn(line: str) -> None:
    """Something the user should know; the trace goes on."""
    say(f"warning: {line}")
