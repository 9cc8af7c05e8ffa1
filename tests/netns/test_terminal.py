"""The live table on a terminal: drawn, fitted to its size, and the terminal given back at every end."""

import os
import pty
import re
import select
import signal
import statistics
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from netns_tools import TIMEOUT_S, Namespace, veth
from programs.inside import Pair, Sockets
from tracer import COMMAND

NEAR, FAR, PORT = "10.9.0.1", "10.9.0.2", 7000
# Speed is measured elsewhere; this only notices when it is lost.
FIRST_ROW_S = 3.0

ENTER_ALTERNATE, LEAVE_ALTERNATE = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"
CONTROL = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """As much of a terminal as the table needs; what would not fit or is not known fails."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.alternate = False
        self.cursor = True
        self.clear()

    def clear(self) -> None:
        self.lines = [""] * self.rows
        self.row = self.column = 0

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            control = CONTROL.match(data, at)
            if control:
                self._control(control[1].decode(), control[2].decode())
                at = control.end()
                continue
            end = at + 1
            while end < len(data) and data[end] not in b"\x1b\r\n":
                end += 1
            if data[at] not in b"\x1b\r\n":
                self._print(data[at:end].decode())
                at = end
                continue
            assert data[at] != 0x1B, data[at : at + 20]
            if data[at] == 0x0A:
                self._line_feed()
            else:
                self.column = 0
            at += 1

    def _control(self, parameters: str, final: str) -> None:
        if (parameters, final) in (("?1049", "h"), ("?1049", "l")):
            self.alternate = final == "h"
            self.clear()
        elif (parameters, final) in (("?25", "h"), ("?25", "l")):
            self.cursor = final == "h"
        elif final == "H":
            row, column = (int(one) if one else 1 for one in (parameters or "1;1").split(";"))
            self.row, self.column = row - 1, column - 1
        elif (parameters, final) == ("2", "J"):
            self.lines = [""] * self.rows
        elif (parameters, final) in (("", "K"), ("0", "K")):
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif final == "m":
            pass
        else:
            raise AssertionError(f"unknown control sequence: {parameters}{final}")

    def _print(self, text: str) -> None:
        assert text.isprintable(), text
        if self.alternate:
            assert self.column + len(text) <= self.columns, f"too wide: {text}"
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)

    def _line_feed(self) -> None:
        if self.alternate:
            assert self.row + 1 < self.rows, "the alternate screen scrolls"
        self.row = min(self.row + 1, self.rows - 1)
        self.column = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Terminal:
    """A tracer on a pseudo-terminal of its own; killed at the latest on leaving."""

    def __init__(
        self, namespace: Namespace, *arguments: str, columns: int = 80, rows: int = 24, **options: Any
    ) -> None:
        self.master, slave = pty.openpty()
        self.written = b""
        try:
            termios.tcsetwinsize(slave, (rows, columns))
            self.settings = termios.tcgetattr(slave)
            environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            self.began = time.monotonic()
            self.process = namespace.popen(
                [str(COMMAND), *arguments, "veth0"],
                stdin=slave,
                stdout=slave,
                env=environment | {"TERM": "xterm-256color"} | options.pop("environment", {}),
                start_new_session=True,
                **options,
            )
        except BaseException:
            os.close(self.master)
            raise
        finally:
            os.close(slave)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        os.close(self.master)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self.master, (rows, columns))
        # The terminal is not its controlling one.
        self.process.send_signal(signal.SIGWINCH)

    def read(self) -> bytes:
        """What came, b"" at the end; TimeoutError if neither does."""
        if not select.select([self.master], [], [], TIMEOUT_S)[0]:
            raise TimeoutError(self.written[-2000:])
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: no program has the terminal open any more
            data = b""
        self.written += data
        return data

    def read_until(self, reached: Callable[[bytes], bool]) -> None:
        """Until what was written since this call makes it true."""
        start = len(self.written)
        while not reached(self.written[start:]):
            assert self.read(), self.process.stderr and self.process.stderr.read()

    def read_rest(self, errors: str = "") -> int:
        """Everything; the exit code."""
        while self.read():
            pass
        code = self.process.wait(TIMEOUT_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == errors
        return code


@dataclass(frozen=True)
class Traffic:
    near: Namespace
    pairs: list[Pair]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as sockets:
        yield sockets


@pytest.fixture
def quiet(sockets: Sockets) -> Iterator[Traffic]:
    """Forty connections."""
    with Namespace() as near, Namespace() as far:
        veth(near, far, f"{NEAR}/24", f"{FAR}/24")
        yield Traffic(near, [sockets.pair(near, far, FAR, PORT + number) for number in range(40)])


@pytest.fixture
def traffic(quiet: Traffic) -> Iterator[Traffic]:
    """Forty connections that never rest."""
    with exchanging(quiet.pairs):
        yield quiet


@contextmanager
def exchanging(pairs: list[Pair]) -> Iterator[None]:
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            for pair in pairs:
                pair.ping_pong(1, 1000)
            over.wait(0.005)

    thread = threading.Thread(target=exchange, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(TIMEOUT_S)


def has_row(written: bytes) -> bool:
    return re.search(rb"10\.9\.0\.2:7\d\d\d", written) is not None


def assert_given_back(terminal: Terminal, columns: int = 80, rows: int = 24) -> str:
    """The normal screen, the cursor and the settings are back; what came after."""
    assert terminal.written.count(ENTER_ALTERNATE) == terminal.written.count(LEAVE_ALTERNATE) == 1
    table, after = terminal.written.split(LEAVE_ALTERNATE)
    assert ENTER_ALTERNATE in table
    assert terminal.written.rfind(SHOW_CURSOR) > terminal.written.rfind(HIDE_CURSOR) > 0
    assert HIDE_CURSOR not in after
    assert termios.tcgetattr(terminal.master) == terminal.settings
    return after.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back(traffic: Traffic, number: signal.Signals) -> None:
    with Terminal(traffic.near) as terminal:
        terminal.read_until(has_row)
        assert terminal.written.startswith((ENTER_ALTERNATE, HIDE_CURSOR))
        terminal.process.send_signal(number)
        assert terminal.read_rest() == 0
        summary = assert_given_back(terminal)
    assert f"{FAR}:70" in summary
    assert "packets" in summary
    for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", summary).splitlines():
        assert len(line) <= 80


def test_given_back_by_itself(traffic: Traffic) -> None:
    with Terminal(traffic.near, "--duration", "0.3") as terminal:
        assert terminal.read_rest() == 0
        assert FAR in assert_given_back(terminal)


def test_given_back_when_the_interface_goes(quiet: Traffic) -> None:
    with Terminal(quiet.near, "--interval", "0.1") as terminal:
        with exchanging(quiet.pairs):
            terminal.read_until(has_row)
        quiet.near.run(["ip", "link", "delete", "veth0"])
        assert terminal.read_rest("tcptrace: interface veth0 is gone\n") == 1
        assert FAR in assert_given_back(terminal)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (200, 60), (20, 5)])
def test_the_table_fits(traffic: Traffic, columns: int, rows: int) -> None:
    with Terminal(traffic.near, "--interval", "0.1", columns=columns, rows=rows) as terminal:
        terminal.read_until(lambda written: written.count(b"\x1b[H") >= 6)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_rest() == 0
        assert_given_back(terminal)
    screen = Screen(columns, rows)
    shown, _ = terminal.written.split(LEAVE_ALTERNATE)
    screen.feed(shown)
    assert screen.lines[0].startswith("tcptrace")
    endpoints = sum("10.9." in line for line in screen.lines)
    if columns >= 80:
        # Title, three lines of totals, an empty one, headings, and what is left out.
        assert endpoints == min(len(traffic.pairs), rows - 7)
        assert ("more" in screen.text) == (endpoints < len(traffic.pairs))
        assert "ESTABLISHED" in screen.text


def test_the_table_follows_the_size(traffic: Traffic) -> None:
    with Terminal(traffic.near, "--interval", "0.1") as terminal:
        for columns, rows in ((80, 24), (132, 40), (60, 12), (100, 30)):
            terminal.resize(columns, rows)
            # Whatever was under way for the old size is over after two more.
            terminal.read_until(lambda written: written.count(b"\x1b[H") >= 3)
            start = terminal.written.rfind(b"\x1b[H")
            terminal.read_until(lambda written: b"\x1b[H" in written)
            end = terminal.written.find(b"\x1b[H", start + 1)
            screen = Screen(columns, rows)
            screen.alternate = True
            screen.feed(terminal.written[start:end])
            assert screen.lines[0].startswith("tcptrace")
            assert max(map(len, screen.lines)) <= columns
            assert sum("10.9." in line for line in screen.lines) >= rows - 8
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_rest() == 0
        assert_given_back(terminal)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {})],
    ids=["option", "environment", "neither"],
)
def test_colours(quiet: Traffic, sockets: Sockets, arguments: list[str], environment: dict[str, str]) -> None:
    """A connection that is new and not answered is green."""
    quiet.near.run(["ip", "neighbour", "add", "10.9.0.77", "lladdr", "02:00:00:00:00:77", "dev", "veth0"])
    with Terminal(quiet.near, *arguments, environment=environment) as terminal:
        # The screen is taken once all is attached.
        terminal.read_until(lambda written: ENTER_ALTERNATE in written)
        unanswered = sockets.stream(quiet.near)
        unanswered.setblocking(False)
        unanswered.connect_ex(("10.9.0.77", PORT))
        terminal.read_until(lambda written: b"10.9.0.77" in written)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_rest() == 0
    colours = re.findall(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m", terminal.written)
    assert bool(colours) == (not arguments and not environment)


def test_from_start_to_the_first_row(traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    for _ in range(5):
        with Terminal(traffic.near) as terminal:
            terminal.read_until(has_row)
            times.append(time.monotonic() - terminal.began)
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.read_rest() == 0
    with capsys.disabled():
        print(f" [first row after {statistics.median(times):.2f} s, {min(times):.2f} to {max(times):.2f}]", end="")
    assert statistics.median(times) < FIRST_ROW_S
