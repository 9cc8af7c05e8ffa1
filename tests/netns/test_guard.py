"""The guard as `tc` and `ip` see it: what it attaches, and that nothing is left after any end."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns_tools import TIMEOUT_S, Namespace, exit_of, veth

from tcptrace.sources.live.bcc_loader import import_bcc

BPF_HEADERS = Path(__file__).parents[2] / "bpf"

PROGRAMS = b"""
BPF_ARRAY(seen, u64, 3);

int count_by_class(struct __sk_buff *skb)
{
    u32 class = skb->tc_classid;

    seen.atomic_increment(class < 2 ? class : 2);
    return -1;
}

int pass_all(struct xdp_md *context)
{
    return 2;
}

int pass_all_too(struct xdp_md *context)
{
    return 2;
}
"""

# A tracer reduced to its guard.  Commands are JSON lines: a method of Guard, `drop`, or the name of a moment to die at.
TRACER = """
import json, os, signal, sys
from tcptrace.sources.live import privileges
from tcptrace.sources.live.guard import Guard

class DiesWaiting:
    def __init__(self, connection):
        self.sendmsg = connection.sendmsg
    def recv(self, size):
        os.kill(os.getpid(), signal.SIGKILL)

with Guard.start() as guard:
    print(json.dumps({"value": guard.pid}), flush=True)
    for line in sys.stdin:
        name, positional, named = json.loads(line)
        try:
            if name == "die_waiting":
                guard._connection = DiesWaiting(guard._connection)
                answer = {"value": None}
            elif name == "drop":
                answer = {"value": privileges.drop()}
            else:
                answer = {"value": getattr(guard, name)(*positional, **named)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)
"""

# Somebody else's XDP program, attached as any loader would.
ATTACH_FOREIGN_XDP = """
import sys
from pyroute2 import IPRoute
with IPRoute() as netlink:
    index, program, flags = map(int, sys.argv[1:])
    netlink.link("set", index=index, xdp={"attrs": [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", flags)]})
"""
XDP_GENERIC, XDP_NATIVE = 2, 4
XDP_MODE = {1: "native", 2: "generic"}
"""XDP_ATTACHED_* as `ip -json link` prints it."""

# Somebody else's filters; classic BPF needs no object file.  TAKE_ALL returns TC_ACT_OK, so no later filter runs.
CLASSIC_BPF = ("bpf", "bytecode", "1,6 0 0 4294967295,")
TAKE_ALL = ("bpf", "direct-action", "bytecode", "1,6 0 0 0,")
U32 = ("protocol", "ip", "u32", "match", "u32", "0", "0", "classid", "1:7")


@dataclass(frozen=True)
class Programs:
    tc: int
    xdp: int
    foreign_xdp: int
    seen: Any
    """Packets by the class id that the TC program read: 0, 1, anything else."""

    def counts(self) -> list[int]:
        return [value.value for value in self.seen.values()]

    @property
    def fds(self) -> tuple[int, ...]:
        return self.tc, self.xdp, self.foreign_xdp


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    bcc = import_bcc()
    # Bytes, but for cflags: bcc warns of text, and a warning is an error here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCC_KERNEL_SOURCE", str(BPF_HEADERS))
        compiled = bcc.BPF(text=PROGRAMS, cflags=[f"-I{BPF_HEADERS}"])
    tc = compiled.load_func(b"count_by_class", compiled.SCHED_CLS).fd
    xdp, foreign_xdp = (compiled.load_func(name, compiled.XDP).fd for name in (b"pass_all", b"pass_all_too"))
    yield Programs(tc, xdp, foreign_xdp, compiled[b"seen"])
    compiled.cleanup()


class Tracer:
    """A process in a namespace that has started a guard and does as it is told."""

    def __init__(self, namespace: Namespace, programs: Programs) -> None:
        self.process = namespace.popen_python(TRACER, stderr=None, pass_fds=programs.fds)
        self.guard_pid: int = self.receive()["value"]

    def send(self, name: str, *positional: Any, **named: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps([name, positional, named]), file=self.process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the tracer has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, name: str, *positional: Any, **named: Any) -> Any:
        self.send(name, *positional, **named)
        answer = self.receive()
        assert "error" not in answer, answer
        return answer["value"]

    def refused(self, name: str, *positional: Any, **named: Any) -> tuple[str, str]:
        """Kind and message of the error that must come back."""
        self.send(name, *positional, **named)
        answer = self.receive()
        return answer["error"], answer["message"]

    def kill(self) -> None:
        """kill -9; returns once the guard too has ended."""
        with exit_of(self.guard_pid):
            self.process.kill()
        self.finish()

    def end(self) -> None:
        """An orderly end; returns once the guard too has ended."""
        with exit_of(self.guard_pid):
            self.ask("close")
        self.finish()

    def finish(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(TIMEOUT_S)


@dataclass(frozen=True)
class Place:
    """The namespace of a test, its veth0 and the other end of that."""

    namespace: Namespace
    peer: Namespace
    programs: Programs
    index: int
    start: Callable[[], Tracer]

    def attached(self) -> Tracer:
        """A tracer on both hooks of veth0."""
        tracer = self.start()
        tracer.ask("attach_tc", self.index, self.programs.tc, ingress=True, egress=True)
        return tracer

    def tc(self, *arguments: str) -> None:
        self.namespace.run(["tc", *arguments])

    def hooks(self) -> list[list[str]]:
        return [self.namespace.filters("veth0", hook) for hook in ("ingress", "egress")]

    def traffic_control(self) -> str:
        return self.namespace.traffic_control("veth0")

    def xdp(self, interface: str = "veth0") -> tuple[str, int] | None:
        """Mode and program id of what is attached."""
        shown = self.namespace.json("ip", "-json", "link", "show", "dev", interface)[0].get("xdp")
        return (XDP_MODE[shown["mode"]], shown["prog"]["id"]) if shown else None

    def attach_foreign_xdp(self, flags: int) -> None:
        arguments = [str(self.index), str(self.programs.foreign_xdp), str(flags)]
        self.namespace.python(ATTACH_FOREIGN_XDP, *arguments, pass_fds=[self.programs.foreign_xdp])


@pytest.fixture
def place(programs: Programs) -> Iterator[Place]:
    with ExitStack() as stack:
        near, far = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        veth(near, far, "10.9.0.1/24", "10.9.0.2/24")

        def start() -> Tracer:
            tracer = Tracer(near, programs)
            stack.callback(tracer.finish)
            stack.callback(tracer.process.kill)
            return tracer

        yield Place(near, far, programs, near.index_of("veth0"), start)


def program_id(fd: int) -> int:
    return int(dict(line.split(":") for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())["prog_id"])


def send_datagrams(namespace: Namespace, address: str, count: int) -> None:
    code = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); a = (sys.argv[1], 9)\n"
    namespace.python(f"{code}for _ in range({count}): s.sendto(b'x', a)", address)


# --- TC: attaching


def test_both_hooks_are_attached_and_nothing_is_left(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    (ingress,), (egress,) = place.hooks()
    for line in (ingress, egress):
        assert "direct-action" in line
        assert f"id {program_id(place.programs.tc)} " in line
        assert "pref 1 " in line
    assert "flowid 1:1" in egress
    assert "flowid" not in ingress
    tracer.end()
    assert place.traffic_control() == before


@pytest.mark.parametrize(("ingress", "egress"), [(True, False), (False, True)])
def test_one_hook_alone(place: Place, ingress: bool, egress: bool) -> None:
    before = place.traffic_control()
    tracer = place.start()
    tracer.ask("attach_tc", place.index, place.programs.tc, ingress=ingress, egress=egress)
    assert [len(filters) for filters in place.hooks()] == [int(ingress), int(egress)]
    tracer.end()
    assert place.traffic_control() == before


def test_the_program_reads_its_hook_in_the_class_id(place: Place) -> None:
    # The neighbour entries first, so that only the datagrams pass while we count.
    send_datagrams(place.namespace, "10.9.0.2", 1)
    send_datagrams(place.peer, "10.9.0.1", 1)
    place.attached()
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 300)
    outward = place.programs.counts()
    send_datagrams(place.peer, "10.9.0.1", 500)
    inward = place.programs.counts()
    # Answers (port unreachable, rate limited) and IPv6 chatter come on top.
    assert 300 <= outward[1] - start[1] < 320
    assert 500 <= inward[0] - outward[0] < 520
    assert outward[0] - start[0] < 20
    assert inward[1] - outward[1] < 20
    assert inward[2] == start[2]


def test_a_filter_that_ends_the_classification_does_not_hide_packets(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    place.tc("filter", "add", "dev", "veth0", "egress", "prio", "1", "handle", "1", *TAKE_ALL)
    place.attached()
    start = place.programs.counts()
    send_datagrams(place.namespace, "10.9.0.2", 50)
    assert place.programs.counts()[1] - start[1] >= 50


@pytest.mark.parametrize(("foreign", "priority"), [(CLASSIC_BPF, 1), (U32, 2)])
def test_foreign_filters_stay_as_they_are(place: Place, foreign: tuple[str, ...], priority: int) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    for hook in ("ingress", "egress"):
        place.tc("filter", "add", "dev", "veth0", hook, "prio", "1", *foreign)
    before, others = place.traffic_control(), place.hooks()
    tracer = place.attached()
    for filters, (other, *_) in zip(place.hooks(), others, strict=True):
        assert other in filters
        assert [f"pref {priority} " in line for line in filters if "tcptrace" in line] == [True]
    tracer.end()
    assert place.traffic_control() == before


def test_a_foreign_empty_clsact_stays(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "clsact")
    before = place.traffic_control()
    assert "clsact" in before
    tracers = place.attached(), place.attached()
    for tracer in tracers:
        tracer.end()
    assert place.traffic_control() == before


def test_our_clsact_stays_for_a_foreign_filter(place: Place) -> None:
    tracer = place.attached()
    place.tc("filter", "add", "dev", "veth0", "egress", "prio", "5", *U32)
    tracer.end()
    ingress, egress = place.hooks()
    assert ingress == []
    assert [line for line in egress if "tcptrace" in line] == []
    assert len(egress) > 0
    assert "clsact" in place.traffic_control()


def test_a_filter_put_in_our_place_is_not_removed(place: Place) -> None:
    tracer = place.attached()
    (ours,), _ = place.hooks()
    handle = ours.split("handle ")[1].split()[0]
    place.tc("filter", "replace", "dev", "veth0", "ingress", "prio", "1", "handle", handle, *CLASSIC_BPF)
    (theirs,), _ = place.hooks()
    tracer.end()
    assert place.hooks() == [[theirs], []]


# --- Several tracers


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("last", ["end", "kill"])
def test_two_tracers_end_in_any_order(place: Place, order: tuple[int, int], last: str) -> None:
    before = place.traffic_control()
    tracers = place.attached(), place.attached()
    assert [len(filters) for filters in place.hooks()] == [2, 2]
    tracers[order[0]].end()
    assert [len(filters) for filters in place.hooks()] == [1, 1]
    getattr(tracers[order[1]], last)()
    assert place.traffic_control() == before


def test_many_tracers_at_once(place: Place) -> None:
    before = place.traffic_control()
    for _ in range(3):
        tracers = [place.start() for _ in range(5)]
        for tracer in tracers:
            tracer.send("attach_tc", place.index, place.programs.tc, ingress=True, egress=True)
        assert [tracer.receive() for tracer in tracers] == [{"value": None}] * 5
        assert [len(filters) for filters in place.hooks()] == [5, 5]
        with ExitStack() as ends:
            for tracer in tracers:
                ends.enter_context(exit_of(tracer.guard_pid))
            for tracer in tracers[:3]:
                tracer.send("close")
            for tracer in tracers[3:]:
                tracer.process.kill()
            assert [tracer.receive() for tracer in tracers[:3]] == [{"value": None}] * 3
        assert place.traffic_control() == before


# --- The tracer's end, at every step


def test_killed_before_anything_was_asked(place: Place) -> None:
    before = place.traffic_control()
    place.start().kill()
    assert place.traffic_control() == before


@pytest.mark.parametrize("hooks", [{"ingress": True, "egress": False}, {"ingress": True, "egress": True}])
def test_killed_with_a_request_under_way(place: Place, hooks: dict[str, bool]) -> None:
    before = place.traffic_control()
    tracer = place.start()
    tracer.ask("die_waiting")
    with exit_of(tracer.guard_pid):
        tracer.send("attach_tc", place.index, place.programs.tc, **hooks)
    assert tracer.process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert place.traffic_control() == before


def test_killed_when_attached(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    assert place.xdp() is not None
    tracer.kill()
    assert place.traffic_control() == before
    assert place.xdp() is None


def test_killed_while_it_waits_for_the_removal(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    tracer.ask("die_waiting")
    with exit_of(tracer.guard_pid):
        tracer.send("close")
    assert tracer.process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert place.traffic_control() == before


def test_killed_after_giving_up_its_privileges(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    uid, _gid = tracer.ask("drop")
    assert uid != 0
    tracer.kill()
    assert place.traffic_control() == before


def test_ended_after_giving_up_its_privileges(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    uid, gid = tracer.ask("drop")
    status = Path(f"/proc/{tracer.process.pid}/status").read_text().splitlines()
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
    assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}" in status
    assert "NoNewPrivs:\t1" in status
    assert {f"Cap{name}:\t{0:016x}" for name in ("Inh", "Prm", "Eff", "Amb")} <= set(status)
    tracer.end()
    assert place.traffic_control() == before


def test_close_again_is_nothing(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    with exit_of(tracer.guard_pid):
        assert [tracer.ask("close"), tracer.ask("close")] == [None, None]
    assert place.traffic_control() == before


def test_the_guard_outlives_signals_and_holds_no_file_of_the_tracer(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.attached()
    process = Path(f"/proc/{tracer.guard_pid}")
    assert (process / "comm").read_text() == "tcptrace-guard\n"
    files = {os.readlink(link) for link in (process / "fd").iterdir()}
    assert [name for name in files if name.startswith("pipe:")] == []
    assert "/dev/null" in files
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGUSR1):
        os.kill(tracer.guard_pid, number)
    assert os.getsid(tracer.guard_pid) == tracer.guard_pid
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    tracer.end()
    assert place.traffic_control() == before


def test_a_killed_guard_is_told_of(place: Place) -> None:
    tracer = place.attached()
    os.kill(tracer.guard_pid, signal.SIGKILL)
    kind, message = tracer.refused("close")
    assert kind == "TcptraceError"
    assert "may be left" in message


# --- Errors


def test_interface_deleted_while_attached(place: Place) -> None:
    tracer = place.attached()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    place.namespace.run(["ip", "link", "delete", "veth0"])
    tracer.end()
    assert [one["ifname"] for one in place.namespace.json("ip", "-json", "link")] == ["lo"]


def test_no_such_interface(place: Place) -> None:
    tracer = place.start()
    for attach in ("attach_xdp", "attach_tc"):
        hooks = {} if attach == "attach_xdp" else {"ingress": True, "egress": True}
        kind, message = tracer.refused(attach, 9999, place.programs.xdp, **hooks)
        assert kind == "TcptraceError"
        assert "interface number 9999" in message
    tracer.end()


def test_an_ingress_qdisc_is_in_the_way_and_stays(place: Place) -> None:
    place.tc("qdisc", "add", "dev", "veth0", "ingress")
    before = place.traffic_control()
    tracer = place.start()
    kind, message = tracer.refused("attach_tc", place.index, place.programs.tc, ingress=True, egress=True)
    assert (kind, "ingress qdisc" in message) == ("TcptraceError", True)
    tracer.end()
    assert place.traffic_control() == before


def test_a_program_of_the_wrong_type_leaves_no_qdisc(place: Place) -> None:
    before = place.traffic_control()
    tracer = place.start()
    kind, message = tracer.refused("attach_tc", place.index, place.programs.xdp, ingress=True, egress=True)
    assert kind == "TcptraceError"
    assert "veth0" in message
    assert place.traffic_control() == before
    tracer.end()


# --- XDP


def test_xdp_native_on_veth(place: Place) -> None:
    tracer = place.start()
    assert tracer.ask("attach_xdp", place.index, place.programs.xdp) == "native"
    assert place.xdp() == ("native", program_id(place.programs.xdp))
    tracer.end()
    assert place.xdp() is None


def test_xdp_generic_on_lo(place: Place) -> None:
    tracer = place.start()
    assert tracer.ask("attach_xdp", 1, place.programs.xdp) == "generic"
    assert place.xdp("lo") == ("generic", program_id(place.programs.xdp))
    tracer.end()
    assert place.xdp("lo") is None


@pytest.mark.parametrize("flags", [XDP_GENERIC, XDP_NATIVE])
def test_a_foreign_xdp_program_is_refused_and_kept(place: Place, flags: int) -> None:
    place.attach_foreign_xdp(flags)
    before = place.xdp()
    assert before is not None
    tracer = place.start()
    kind, message = tracer.refused("attach_xdp", place.index, place.programs.xdp)
    assert (kind, "has an XDP program already" in message) == ("TcptraceError", True)
    tracer.end()
    assert place.xdp() == before


def test_an_xdp_program_put_in_our_place_is_kept(place: Place) -> None:
    tracer = place.start()
    tracer.ask("attach_xdp", place.index, place.programs.xdp)
    place.attach_foreign_xdp(XDP_NATIVE)
    tracer.end()
    assert place.xdp() == ("native", program_id(place.programs.foreign_xdp))


def test_no_pyroute2(place: Place) -> None:
    """Without it the tracer learns what to install, and ends as usual."""
    code = """
import sys
sys.modules["pyroute2"] = None
from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live.guard import Guard
with Guard.start() as guard:
    try:
        guard.attach_tc(1, 0, ingress=True, egress=True)
    except MissingFeatureError as error:
        print(error)
"""
    result: subprocess.CompletedProcess[str] = place.namespace.python(code)
    assert "pip install" in result.stdout
