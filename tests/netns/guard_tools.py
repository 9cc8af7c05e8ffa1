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


@contextmanager
def loaded_programs() -> Iterator[Programs]:
    """Compiled and in the kernel; MissingFeatureError without bcc."""
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


@contextmanager
def new_place(programs: Programs) -> Iterator[Place]:
    """Two fresh namespaces joined by veth0; whatever was started there is killed at the end."""
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
