"""However a trace ends, at whatever moment: its exit code, its words, and that nothing of it is left."""

import fcntl
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from guard_tools import ATTACH_FOREIGN_XDP, XDP_NATIVE, loaded_programs
from netns_tools import KERNEL, TIMEOUT_S, Namespace, exit_of, veth
from programs.inside import Pair, Sockets
from programs.output import Output
from tracer import COMMAND

from tcptrace.cli.endings import PATIENCE_S

NEAR_ADDRESS, FAR_ADDRESS = "10.9.0.1", "10.9.0.2"

# The command as it is, and as it is where the kernel has no TCX.  Where it has none they are the same.
AS_IT_IS = [str(COMMAND)]
WITHOUT_TCX = [sys.executable, "-P", str(Path(__file__).with_name("programs") / "without_tcx.py")]
GUARD = "tcptrace-guard"
TCX_SINCE = (6, 6)
both_ways = pytest.mark.parametrize("link", [AS_IT_IS, WITHOUT_TCX], indirect=True, ids=["as it is", "without TCX"])
"""For tests that `link` shall run with either."""

# Nobody, but able to read an interpreter wherever it is installed.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]

# Somebody else's filters on a clsact of somebody else's; classic BPF needs no object file.
FOREIGN_FILTERS = (
    ["ingress", "prio", "1", "protocol", "all", "bpf", "direct-action", "bytecode", "1,6 0 0 4294967295,"],
    ["ingress", "prio", "9", "protocol", "ip", "u32", "match", "u32", "0", "0", "classid", "1:7"],
    ["egress", "prio", "3", "protocol", "all", "bpf", "bytecode", "1,6 0 0 4294967295,"],
)


# --- A tracer that may be ended at any time


class Trace:
    """A tracer started inside a namespace; killed at the latest on leaving."""

    def __init__(self, namespace: Namespace, command: list[str], *arguments: str, **options: Any) -> None:
        self.process = namespace.popen([*command, *arguments], stdin=subprocess.DEVNULL, **options)
        self.pid = self.process.pid
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.output, self.errors = Output(self.process.stdout), Output(self.process.stderr)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def started(self) -> "Trace":
        """Attached and running (with --json)."""
        line = self.output.line()
        assert line, self.errors.rest()
        assert json.loads(line)["event"] == "start"
        return self

    def set_up(self) -> "Trace":
        """Set-up is under way: it catches SIGTERM from its beginning."""
        for _ in attempts():
            if int(status_of(self.pid)["SigCgt"][0], 16) >> (signal.SIGTERM - 1) & 1:
                return self
            self.live_for(0.005)
            assert self.process.returncode is None, self.errors.rest()
        raise AssertionError("it catches no signal")

    def guard(self) -> int | None:
        """The guard's process id, if it has one; to be asked once it is being set up."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        guards = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == f"{GUARD}\n"]
        return guards[0] if guards else None

    def live_for(self, seconds: float) -> None:
        """Returns when that time is over, or at once at the process's end."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def end(self, number: signal.Signals | None = signal.SIGINT) -> list[dict[str, Any]]:
        """Signal it, or leave it to itself; all that it then wrote.  Exit 0, and not a word on stderr."""
        if number is not None:
            self.process.send_signal(number)
        lines = self.output.rest()
        assert (self.errors.rest(), self.process.wait(TIMEOUT_S)) == ([], 0)
        return [json.loads(line) for line in lines]


def attempts() -> Iterator[None]:
    """For a condition that nothing announces: as often as it takes, up to TIMEOUT_S."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        yield


def wait_until_deserted(namespace: Namespace) -> None:
    """No process is left inside; TimeoutError if one stays."""
    for _ in attempts():
        pids = namespace.pids()
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError), exit_of(pid):
                pass


@dataclass(frozen=True)
class Link:
    """near's veth0, where tracers run, and far's at the other end of it."""

    near: Namespace
    far: Namespace
    sockets: Sockets
    command: list[str]

    def connection(self, port: int = 7000) -> Pair:
        return self.sockets.pair(self.near, self.far, FAR_ADDRESS, port)

    def trace(self, *arguments: str, **options: Any) -> Trace:
        return self.sockets.enter_context(Trace(self.near, self.command, *arguments, **options))

    def run(self, *arguments: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """tcptrace to its own end."""
        return self.near.run([*(prefix or []), *self.command, *arguments], check=False)


@contextmanager
def two_namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace() as near, Namespace() as far:
        yield near, far


@pytest.fixture
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    """After a test that passed: no process, and traffic control as it was, on the interfaces that still exist."""
    with two_namespaces() as (near, far), Sockets() as sockets:
        veth(near, far, f"{NEAR_ADDRESS}/24", f"{FAR_ADDRESS}/24")
        before = near.traffic_control("veth0")
        yield Link(near, far, sockets, getattr(request, "param", AS_IT_IS))
        sockets.close()
        wait_until_deserted(near)
        if "veth0" in near.output("ip", "-brief", "link"):
            assert near.traffic_control("veth0") == before
            assert near.json("ip", "-json", "link", "show", "dev", "veth0")[0].get("xdp") is None


def refusal(result: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Exit code and message of a trace that never began: one line on stderr, none on stdout."""
    assert result.stdout == ""
    return result.returncode, single_line(result.stderr)


def single_line(errors: str) -> str:
    match = re.fullmatch(r"tcptrace: (.+)\n", errors)
    assert match, errors
    return match[1]


# --- Orderly ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_the_summary(link: Link, number: signal.Signals) -> None:
    trace = link.trace("--json", "veth0").started()
    pair = link.connection()
    pair.ping_pong(50)
    events = trace.end(number)
    assert [event["event"] for event in events if event["event"] != "connection"] == ["summary"]
    final, summary = events[-2:]
    # Three for the handshake, then 50 times data, data + ACK; the last datum is acknowledged late or not at all.
    packets = final["sent_packets"] + final["received_packets"]
    assert (final["src_port"], final["dst_port"], final["final"]) == (*pair.ports, True)
    assert summary["packets"] == packets >= 103
    assert final["sent_payload_bytes"] == final["received_payload_bytes"] == 5000


def test_duration(link: Link) -> None:
    trace = link.trace("--json", "--duration", "0.5", "veth0").started()
    pair = link.connection()
    pair.ping_pong(10)
    *_, final, summary = trace.end(None)
    assert summary["event"] == "summary"
    assert 0.5 <= summary["duration_s"] < 1.0
    assert final["sent_payload_bytes"] == 1000


@pytest.mark.parametrize("count", [1, 7, 100])
def test_count_is_exact(link: Link, count: int) -> None:
    trace = link.trace("--json", "--count", str(count), "veth0").started()
    pair = link.connection()
    pair.ping_pong(60)
    *_, final, summary = trace.end(None)
    assert (summary["event"], summary["packets"]) == ("summary", count)
    assert final["sent_packets"] + final["received_packets"] == count


def test_a_plain_table_ends_the_same_way(link: Link) -> None:
    trace = link.trace("--count", "9", "veth0").set_up()
    for _ in attempts():
        if link.near.programs("veth0", "egress"):  # attached last
            break
    link.connection().ping_pong(5)
    assert trace.process.wait(TIMEOUT_S) == 0
    assert trace.errors.rest() == []
    assert FAR_ADDRESS in "".join(trace.output.rest())


def test_interrupted_during_set_up(link: Link) -> None:
    trace = link.trace("--json", "veth0").set_up()
    assert trace.end()[-1]["event"] == "summary"


def test_interrupted_twice(link: Link) -> None:
    trace = link.trace("--json", "veth0").started()
    link.connection().ping_pong(5)
    trace.process.send_signal(signal.SIGINT)
    assert trace.end()[-1]["event"] == "summary"


def test_interrupted_over_and_over(link: Link) -> None:
    """For less than PATIENCE_S: who is still there after that wants it to end with nothing more said."""
    trace = link.trace("--json", "veth0").set_up()
    end = time.monotonic() + PATIENCE_S / 2
    while trace.process.poll() is None and time.monotonic() < end:
        trace.process.send_signal(signal.SIGINT)
        trace.live_for(0.01)
    assert json.loads(trace.output.rest()[-1])["event"] == "summary"
    trace.process.wait(TIMEOUT_S)
    assert (trace.errors.rest(), trace.process.returncode) == ([], 0)


@both_ways
def test_the_whole_terminal_is_interrupted(link: Link) -> None:
    """Ctrl-C reaches the process group; a guard is none of it."""
    trace = link.trace("--json", "veth0", process_group=0).started()
    guard = trace.guard()
    assert os.getpgid(trace.pid) == trace.pid
    assert guard is None or os.getpgid(guard) != trace.pid
    os.killpg(trace.pid, signal.SIGINT)
    assert trace.end(None)[-1]["event"] == "summary"


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "--packets"], ["--packets"], []])
def test_a_closed_pipe_ends_it_quietly(link: Link, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    trace_arguments = [str(COMMAND), *arguments, "--interval", "0.1", "veth0"]
    process = link.near.popen(trace_arguments, stdin=subprocess.DEVNULL, stdout=writer)
    with process:
        os.close(writer)
        with ExitStack() as killed:
            killed.callback(process.kill)
            pair = link.connection()
            with open(reader, "rb", buffering=0) as stream:
                for _ in attempts():
                    pair.ping_pong(1)
                    if select.select([stream], [], [], 0.05)[0]:
                        break
                assert stream.read(1)
            for _ in attempts():
                pair.ping_pong(1)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
                    break
            assert process.stderr is not None
            assert (process.stderr.read(), process.returncode) == ("", 0)


def test_a_reader_that_stopped_is_not_waited_for(link: Link) -> None:
    """The first signal asks for an end; one that comes seconds later does not leave it to the reader."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [str(COMMAND), "--json", "--packets", "--interval", "0.1", "veth0"]
    process = link.near.popen(command, stdin=subprocess.DEVNULL, stdout=writer)
    with process, open(reader, "rb", buffering=0) as stream, ExitStack() as killed:
        killed.callback(process.kill)
        os.close(writer)
        assert stream.read(1) == b"{"
        pair = link.connection()
        for _ in attempts():
            pair.ping_pong(50)
            if "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text():
                break
        for _ in attempts():
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                break
        assert process.stderr is not None
        assert (process.stderr.read(), process.returncode) == ("tcptrace: ended before all output was read\n", 1)
    assert link.near.programs("veth0", "ingress") == []


def test_head_takes_one_line(link: Link) -> None:
    pipeline = 'set -o pipefail; "$0" --json --interval 0.1 veth0 | head -1'
    with link.near.popen(["bash", "-c", pipeline, str(COMMAND)]) as shell:
        assert shell.stdout is not None
        assert shell.stderr is not None
        assert json.loads(shell.stdout.readline())["event"] == "start"
        pair = link.connection()
        for _ in attempts():
            pair.ping_pong(1)
            with suppress(subprocess.TimeoutExpired):
                shell.wait(0.05)
                break
        assert (shell.stdout.read(), shell.stderr.read(), shell.returncode) == ("", "", 0)


# --- The interface goes


@both_ways
@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_the_interface_is_deleted(link: Link, hook: str) -> None:
    trace = link.trace("--json", "--interval", "0.1", "--hook", hook, "veth0").started()
    pair = link.connection()
    pair.ping_pong(20)
    with exit_of(trace.guard() or trace.pid):
        link.near.run(["ip", "link", "delete", "veth0"])
    events = [json.loads(line) for line in trace.output.rest()]
    errors = "".join(trace.errors.rest())
    assert (trace.process.wait(TIMEOUT_S), single_line(errors)) == (1, "interface veth0 is gone")
    assert events[-1]["event"] == "summary"
    assert events[-2]["final"]
    assert (events[-2]["sent_payload_bytes"], events[-2]["received_payload_bytes"]) == (2000, 2000)


def test_the_interface_goes_down_and_comes_up_again(link: Link) -> None:
    trace = link.trace("--json", "--interval", "0.1", "veth0").started()
    link.near.run(["ip", "link", "set", "veth0", "down"])
    assert trace.errors.line() == "tcptrace: warning: interface veth0 is down\n"
    link.near.run(["ip", "link", "set", "veth0", "up"])
    pair = link.connection()
    pair.ping_pong(20)
    *_, final, _ = trace.end()
    assert final["sent_payload_bytes"] == 2000


# --- Traces that cannot begin


def test_no_such_interface(link: Link) -> None:
    code, message = refusal(link.run("veth7"))
    assert code == 1
    assert "veth7" in message


def test_no_default_route(link: Link) -> None:
    code, message = refusal(link.run())
    assert code in (1, 2)
    assert "default route" in message


def test_the_interface_is_down(link: Link) -> None:
    link.near.run(["ip", "link", "set", "veth0", "down"])
    code, message = refusal(link.run("veth0"))
    assert code == 1
    assert "veth0 is down" in message


@pytest.mark.parametrize("expression", ["tcp prot 443", "host nowhere.invalid", "port 99999", "tcp and (port 1", "and"])
def test_a_bad_filter_is_refused_in_libpcaps_words(link: Link, expression: str) -> None:
    code, message = refusal(link.run("veth0", expression))
    compiled = link.near.run(["tcpdump", "-d", "-y", "EN10MB", expression], check=False)
    words = compiled.stderr.splitlines()[-1].removeprefix("tcpdump: ").removeprefix("can't parse filter expression: ")
    assert code == 2
    assert words in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--interval", "0"],
        ["--interval", "often"],
        ["--count", "0"],
        ["--count", "-3"],
        ["--duration", "0"],
        ["--duration", "nan"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--ip", "10.0.0.256"],
        ["--ip", "10.0.0.1/33"],
        ["--hook", "socket"],
        ["--sort", "beauty"],
        ["--ring-size", "3"],
        ["--ring-size", "0"],
        ["--max-connections", "0"],
        ["--idle-timeout", "0"],
        ["--no-such-option"],
        ["--count"],
    ],
    ids="=".join,
)
def test_bad_options(link: Link, arguments: list[str]) -> None:
    code, _ = refusal(link.run("veth0", *arguments))
    assert code == 2


def test_not_root(link: Link) -> None:
    code, message = refusal(link.run("veth0", prefix=AS_NOBODY))
    assert code == 3
    assert "root" in message


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--version"], r"tcptrace \d+\.\d+.*\n"), (["-h"], r"(?s)Usage: .*--json.*"), (["-D"], r"(?s).*\bveth0\b.*")],
)
def test_without_root(link: Link, arguments: list[str], shown: str) -> None:
    result = link.run(*arguments, prefix=AS_NOBODY)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(shown, result.stdout)


@both_ways
def test_somebody_elses_xdp_program_stays(link: Link) -> None:
    show = ["ip", "-json", "link", "show", "dev", "veth0"]
    index = link.near.index_of("veth0")
    with loaded_programs() as programs:
        arguments = [str(index), str(programs.foreign_xdp), str(XDP_NATIVE)]
        link.near.python(ATTACH_FOREIGN_XDP, *arguments, pass_fds=[programs.foreign_xdp])
        before = link.near.json(*show)[0]["xdp"]
        code, message = refusal(link.run("--hook", "xdp", "veth0"))
        assert code == 1
        assert message == "veth0 has an XDP program already, which stays: ip link show veth0"
        assert link.near.json(*show)[0]["xdp"] == before
        # Beside it, TC is free.
        assert link.trace("--json", "veth0").started().end()[-1]["event"] == "summary"
        assert link.near.json(*show)[0]["xdp"] == before
        link.near.run(["ip", "link", "set", "dev", "veth0", "xdp", "off"])


@both_ways
@pytest.mark.parametrize("kill", [True, False])
def test_an_xdp_trace_leaves_nothing(link: Link, kill: bool) -> None:
    trace = link.trace("--json", "--hook", "xdp", "veth0").started()
    assert link.near.json("ip", "-json", "link", "show", "dev", "veth0")[0]["xdp"]
    if kill:
        trace.process.kill()
    else:
        link.connection().ping_pong(10)
        *_, final, _ = trace.end()
        assert (final["sent_payload_bytes"], final["received_payload_bytes"]) == (1000, 1000)


@both_ways
@pytest.mark.parametrize("files", [[], ["--rotate-size", "1M"]], ids=["one file", "files"])
def test_killed_while_it_writes(link: Link, tmp_path: Path, files: list[str]) -> None:
    """Links go with it, also where another process opens its files; without them the guard sees to that."""
    trace = link.trace("--json", "-o", str(tmp_path / "kept.pcapng"), *files, "veth0").started()
    link.connection().ping_pong(10)
    hooks = ("ingress", "egress")
    assert [len(link.near.programs("veth0", hook)) for hook in hooks] == [1, 1]
    has_links = any(link.near.tcx_programs("veth0", hook) for hook in hooks)
    trace.process.kill()
    trace.process.wait(TIMEOUT_S)
    if has_links:
        assert [link.near.programs("veth0", hook) for hook in hooks] == [[], []]


# --- Privileges


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


@pytest.mark.parametrize(
    ("environment", "uid", "gid"),
    [
        ({}, "65534", None),
        ({"SUDO_UID": "1234", "SUDO_GID": "2345"}, "1234", "2345"),
        ({"SUDO_UID": "0"}, "65534", None),
    ],
)
def test_the_tracing_process_has_no_privileges(
    link: Link, environment: dict[str, str], uid: str, gid: str | None
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    trace = link.trace("--json", "veth0", env=kept | environment).started()
    # The start event comes before the privileges go; a packet is seen only after.
    link.connection().ping_pong(1)
    for _ in attempts():
        if json.loads(trace.output.line())["event"] == "connection":
            break
    tasks = [int(path.name) for path in Path(f"/proc/{trace.pid}/task").iterdir()]
    for status in map(status_of, tasks):
        assert status["Uid"] == [uid] * 4
        assert status["Gid"] == [gid or status["Gid"][0]] * 4
        assert status["Gid"][0] != "0"
        assert status["Groups"] == []
        assert {status[f"Cap{name}"][0] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == ["1"]
    guard = trace.guard()
    assert (guard is None) == (link.command == AS_IT_IS and KERNEL >= TCX_SINCE)
    if guard is not None:
        assert status_of(guard)["Uid"] == ["0"] * 4
        assert status_of(guard)["PPid"] == [str(trace.pid)]
    trace.end()


# --- Two hundred starts and ends


@dataclass
class Soak:
    """Starts tracers on the interfaces of one namespace and ends each in its way."""

    near: Namespace
    random: random.Random

    def trace(self, moment: float, *arguments: str) -> Trace:
        """Half of them attach in one way, half in the other."""
        return Trace(self.near, (AS_IT_IS, WITHOUT_TCX)[int(1000 * moment) % 2], "--json", *arguments)

    def killed(self, interface: str, moment: float) -> None:
        with self.trace(moment, interface) as trace:
            trace.live_for(1.2 * moment)
            trace.process.kill()
            assert trace.process.wait(TIMEOUT_S) == -signal.SIGKILL

    def interrupted_early(self, interface: str, moment: float) -> None:
        with self.trace(moment, interface) as trace:
            trace.set_up()
            trace.live_for(0.8 * moment)
            assert trace.end()[-1]["event"] == "summary"

    def interrupted(self, interface: str, moment: float) -> None:
        with self.trace(moment, interface) as trace:
            assert trace.started().end(signal.SIGINT)[-1]["event"] == "summary"

    def terminated(self, interface: str, moment: float) -> None:
        with self.trace(moment, interface) as trace:
            assert trace.started().end(signal.SIGTERM)[-1]["event"] == "summary"

    def expired(self, interface: str, moment: float) -> None:
        with self.trace(moment, "-d", f"{0.01 + 0.1 * moment:.3f}", interface) as trace:
            assert trace.started().end(None)[-1]["event"] == "summary"


STARTS = 200
AT_ONCE = 4
ROUNDS = 4
SEED = 20


def test_two_hundred_starts_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter by kill -9 at any moment, set-up included; several at once, on the same interfaces and on others."""
    began = time.monotonic()
    chance = random.Random(SEED)
    with two_namespaces() as (near, far):
        soak = Soak(near, chance)
        interfaces = ("plain", "shared", "other")
        for number, name in enumerate(interfaces):
            veth(near, far, f"10.9.{number}.1/24", f"10.9.{number}.2/24", name_a=name, name_b=name)
        near.run(["tc", "qdisc", "add", "dev", "shared", "clsact"])
        for rule in FOREIGN_FILTERS:
            near.run(["tc", "filter", "add", "dev", "shared", *rule])
        before = [near.traffic_control(name) for name in interfaces]
        assert before[1].count("bytecode") == 2
        ways: list[Callable[[str, float], None]] = [
            soak.killed,
            *(chance.choice([soak.interrupted_early, soak.interrupted, soak.terminated, soak.expired]) for _ in "123"),
        ]
        for _ in range(ROUNDS):
            ends = [ways[number % len(ways)] for number in range(STARTS // ROUNDS)]
            chance.shuffle(ends)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                runs = [pool.submit(end, chance.choice(interfaces), chance.random()) for end in ends]
            for run in runs:
                run.result()
            wait_until_deserted(near)
            assert [near.traffic_control(name) for name in interfaces] == before
    with capsys.disabled():
        print(f" [{STARTS} in {time.monotonic() - began:.0f} s]", end="")
