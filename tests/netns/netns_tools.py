"""Network namespaces, veth pairs and outside observers for tests: `ip`, `tc`, the kernel, never the code under test.

with Namespace() as near, Namespace() as far:
    veth(near, far, "10.1.1.1/24", "10.1.1.2/24")
    far.run(["ping", "-c1", "10.1.1.1"])
"""

import ctypes
import errno
import json
import os
import platform
import secrets
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

# How much longer things may take here than on the machine itself: emulated kernels set it.
SLOWNESS = float(os.environ.get("TCPTRACE_TEST_SLOWNESS", "1"))

# Longer than anything here takes; a test that hangs fails instead.
TIMEOUT_S = 30.0 * SLOWNESS

KERNEL = tuple(map(int, platform.release().split(".")[:2]))

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x4000_0000
# bpf(2): its number, and of linux/bpf.h the command that lists what is attached, where, and how much that can be.
SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_PROG_QUERY = 16
BPF_TCX = {"ingress": 46, "egress": 47}
BPF_MPROG_MAX = 64


class Namespace:
    """A fresh network namespace with lo up; at the end its processes are killed and it is deleted."""

    def __init__(self) -> None:
        self.name = f"tcptrace-{secrets.token_hex(4)}"

    def __enter__(self) -> "Namespace":
        _command(["ip", "netns", "add", self.name])
        try:
            self.run(["ip", "link", "set", "lo", "up"])
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def delete(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _command(["ip", "netns", "del", self.name])

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end inside; CalledProcessError, with its stderr in the notes, unless check=False."""
        return _command(self._inside(command), **options)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start inside; text pipes for what is not given.  The process id is the command's own."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(self._inside(command), text=True, **options)

    def python(self, code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Python text inside, with the tests' own interpreter; arguments are in sys.argv[1:]."""
        return self.run([sys.executable, "-P", "-c", code, *arguments], **options)

    def popen_python(self, code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """As python(), started and left running."""
        return self.popen([sys.executable, "-P", "-c", code, *arguments], **options)

    def output(self, *command: str) -> str:
        return self.run(command).stdout

    def json(self, *command: str) -> Any:
        """Decoded output of a command that prints JSON, such as `ip -json link`."""
        return json.loads(self.output(*command))

    def pids(self) -> list[int]:
        return [int(word) for word in _command(["ip", "netns", "pids", self.name]).stdout.split()]

    def index_of(self, interface: str) -> int:
        return int(self.json("ip", "-json", "link", "show", "dev", interface)[0]["ifindex"])

    def filters(self, interface: str, hook: str) -> list[str]:
        """`tc filter show` of a clsact hook, a filter a line, without the lines that stand for a whole priority."""
        lines = self.output("tc", "filter", "show", "dev", interface, hook).splitlines()
        return [line for line in lines if "handle" in line or " fh " in line]

    def tcx_programs(self, interface: str, hook: str) -> list[int]:
        """Ids of the programs on a TCX hook, in their order; none where the kernel has no TCX (before Linux 6.6)."""
        with ThreadPoolExecutor(1) as inside:  # a thread of its own goes there, and ends
            return inside.submit(self._query_tcx, self.index_of(interface), BPF_TCX[hook]).result()

    def programs(self, interface: str, hook: str) -> list[int]:
        """Ids of the BPF programs that see this hook's packets, be it by TCX or by clsact."""
        filters = self.json("tc", "-json", "filter", "show", "dev", interface, hook)
        options = [one.get("options", {}) for one in filters]
        return [*self.tcx_programs(interface, hook), *(one["prog"]["id"] for one in options if "prog" in one)]

    def traffic_control(self, interface: str) -> str:
        """What is on an interface, to be compared as text: qdiscs, the filters of both hooks, TCX programs."""
        shown = [self.output("tc", "qdisc", "show", "dev", interface)]
        for hook in BPF_TCX:
            shown.append(self.output("tc", "filter", "show", "dev", interface, hook))
            shown += [f"tcx {hook} program {number}" for number in self.tcx_programs(interface, hook)]
        return "\n".join(shown)

    def _query_tcx(self, index: int, hook: int) -> list[int]:
        with open(f"/run/netns/{self.name}") as namespace:
            _system_call(LIBC.setns(namespace.fileno(), CLONE_NEWNET))
        ids = (ctypes.c_uint32 * BPF_MPROG_MAX)()
        # target_ifindex, attach_type, two kinds of flags, the address of prog_ids and their count
        attributes = bytearray(struct.pack("=IIIIQI36x", index, hook, 0, 0, ctypes.addressof(ids), len(ids)))
        buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
        try:
            _system_call(LIBC.syscall(SYSCALL_BPF, BPF_PROG_QUERY, buffer, len(attributes)))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return []
            raise
        return ids[: struct.unpack_from("=I", attributes, 24)[0]]

    def _inside(self, command: Sequence[str]) -> list[str]:
        # Not `ip netns exec`: that mounts /sys anew, which a chroot does not let it do.
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]


def veth(
    ns_a: Namespace,
    ns_b: Namespace,
    addr_a: str | Sequence[str],
    addr_b: str | Sequence[str],
    *,
    name_a: str = "veth0",
    name_b: str = "veth0",
    mtu_bytes: int = 1500,
) -> None:
    """Join two namespaces by a veth pair, addresses with prefix length ("10.1.1.1/24", "fd00::1/64"), both ends up."""
    peer = ["type", "veth", "peer", "name", name_b, "mtu", str(mtu_bytes), "netns", ns_b.name]
    _command(["ip", "link", "add", name_a, "mtu", str(mtu_bytes), "netns", ns_a.name, *peer])
    for namespace, name, addresses in ((ns_a, name_a, addr_a), (ns_b, name_b, addr_b)):
        for address in [addresses] if isinstance(addresses, str) else addresses:
            # An IPv6 address is usable at once only without duplicate address detection.
            detection = ["nodad"] if ":" in address else []
            namespace.run(["ip", "address", "add", address, "dev", name, *detection])
        namespace.run(["ip", "link", "set", name, "up"])


@contextmanager
def exit_of(pid: int) -> Iterator[None]:
    """On leaving, wait for the end of a process that need not be our child; TimeoutError after TIMEOUT_S."""
    pidfd = os.pidfd_open(pid)
    try:
        yield
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(TIMEOUT_S * 1000):
            raise TimeoutError(f"process {pid} does not end")
    finally:
        os.close(pidfd)


def _system_call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _command(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"check": True, "capture_output": True, "text": True, "timeout": TIMEOUT_S} | options
    try:
        return subprocess.run(command, **options)
    except subprocess.CalledProcessError as error:
        error.add_note(f"stderr: {error.stderr}")
        raise
