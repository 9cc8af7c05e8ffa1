"""Network namespaces, veth pairs and outside observers for tests: `ip` and `tc`, never the code under test.

with Namespace() as near, Namespace() as far:
    veth(near, far, "10.1.1.1/24", "10.1.1.2/24")
    far.run(["ping", "-c1", "10.1.1.1"])
"""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

# How much longer things may take here than on the machine itself: emulated kernels set it.
SLOWNESS = float(os.environ.get("TCPTRACE_TEST_SLOWNESS", "1"))

# Longer than anything here takes; a test that hangs fails instead.
TIMEOUT_S = 30.0 * SLOWNESS


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

    def traffic_control(self, interface: str) -> str:
        """All that `tc` shows of an interface: qdiscs and the filters of both hooks, to be compared as text."""
        shown = [self.output("tc", "qdisc", "show", "dev", interface)]
        shown += [self.output("tc", "filter", "show", "dev", interface, hook) for hook in ("ingress", "egress")]
        return "\n".join(shown)

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


def _command(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"check": True, "capture_output": True, "text": True, "timeout": TIMEOUT_S} | options
    try:
        return subprocess.run(command, **options)
    except subprocess.CalledProcessError as error:
        error.add_note(f"stderr: {error.stderr}")
        raise
