"""A tracer that can be told what to do and when to die, on a veth of its own."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netns_tools import TIMEOUT_S, Namespace, exit_of, veth

from tcptrace.sources.live.bcc_loader import import_bcc

BPF_HEADERS = Path(__file__).parents[2] / "bpf"

PROGRAMS = b"""
BPF_ARRAY(seen, u64, 2);

int count_ingress(struct __sk_buff *skb)
{
    seen.atomic_increment(0);
    return -1;
}

int count_egress(struct __sk_buff *skb)
{
    seen.atomic_increment(1);
    return -1;
}

/* TC_ACT_OK: whatever comes later does not run. */
int take_all(struct __sk_buff *skb)
{
    return 0;
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

# A tracer reduced to what attaches: GUARD or LINKS.  Commands are JSON lines: a method of that, `drop`, `fork`, or the
# name of a moment to die at.
TRACER = """
import json, os, signal, sys
from contextlib import closing
from tcptrace.sources.live import privileges
from tcptrace.sources.live.guard import Guard
from tcptrace.sources.live.links import Links

class DiesWaiting:
    def __init__(self, connection):
        self.sendmsg = connection.sendmsg
    def recv(self, size):
        os.kill(os.getpid(), signal.SIGKILL)

with closing(eval(sys.argv[1])) as hooks:
    print(json.dumps({"value": getattr(hooks, "pid", os.getpid())}), flush=True)
    for line in sys.stdin:
        name, positional, named = json.loads(line)
        try:
            if name == "die_waiting":
                hooks._connection = DiesWaiting(hooks._connection)
                answer = {"value": None}
            elif name == "drop":
                answer = {"value": privileges.drop()}
            elif name == "fork":
                answer = {"value": os.fork() or signal.pause()}
            else:
                answer = {"value": getattr(hooks, name)(*positional, **named)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)
"""
GUARD, LINKS = "Guard.start()", "Links()"

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


@dataclass(frozen=True)
class Programs:
    tc: dict[str, int]
    """By their hooks."""
    take_all: int
    xdp: int
    foreign_xdp: int
    seen: Any
    """Packets by the TC program that saw them."""

    def counts(self) -> list[int]:
        return [value.value for value in self.seen.values()]

    @property
    def fds(self) -> tuple[int, ...]:
        return *self.tc.values(), self.take_all, self.xdp, self.foreign_xdp


@contextmanager
def loaded_programs() -> Iterator[Programs]:
    """Compiled and in the kernel; MissingFeatureError without bcc."""
    bcc = import_bcc()
    # Bytes, but for cflags: bcc warns of text, and a warning is an error here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCC_KERNEL_SOURCE", str(BPF_HEADERS))
        compiled = bcc.BPF(text=PROGRAMS, cflags=[f"-I{BPF_HEADERS}"])
    tc = {hook: compiled.load_func(f"count_{hook}".encode(), compiled.SCHED_CLS).fd for hook in ("ingress", "egress")}
    take_all = compiled.load_func(b"take_all", compiled.SCHED_CLS).fd
    xdp, foreign_xdp = (compiled.load_func(name, compiled.XDP).fd for name in (b"pass_all", b"pass_all_too"))
    yield Programs(tc, take_all, xdp, foreign_xdp, compiled[b"seen"])
    compiled.cleanup()


class Tracer:
    """A process in a namespace that does as it is told."""

    def __init__(self, namespace: Namespace, programs: Programs, hooks: str) -> None:
        self.process = namespace.popen_python(TRACER, hooks, stderr=None, pass_fds=programs.fds)
        self.guard_pid: int = self.receive()["value"]
        """Its own where there is no guard."""

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
        tracer.ask("attach_tc", self.index, self.programs.tc)
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


@contextmanager
def new_place(programs: Programs, hooks: str = GUARD) -> Iterator[Place]:
    """Two fresh namespaces joined by veth0; whatever was started there is killed at the end."""
    with ExitStack() as stack:
        near, far = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        veth(near, far, "10.9.0.1/24", "10.9.0.2/24")

        def start() -> Tracer:
            tracer = Tracer(near, programs, hooks)
            stack.callback(tracer.finish)
            stack.callback(tracer.process.kill)
            return tracer

        yield Place(near, far, programs, near.index_of("veth0"), start)


def send_datagrams(namespace: Namespace, address: str, count: int) -> None:
    code = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); a = (sys.argv[1], 9)\n"
    namespace.python(f"{code}for _ in range({count}): s.sendto(b'x', a)", address)


def program_id(fd: int) -> int:
    return int(dict(line.split(":") for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())["prog_id"])
