"""Nothing of the probes stays in the kernel: no BPF program, no kprobe, however the tracer ends."""

import ctypes
import errno
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from netns_tools import Namespace, exit_of
from owner_tools import Conductor
from test_lifecycle import attempts
from tracer import Tracer

# bpf(2): its number, and the command that opens a program by its id.
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_PROG_GET_FD_BY_ID = 13
LIBC = ctypes.CDLL(None, use_errno=True)
# Of these there are always some: TC, the tick, going idle, and at least four probes.
PROGRAMS_AT_LEAST = 7


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds, by bpf_prog_show_fdinfo()."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = path.read_text().splitlines()
        found |= {int(line.split()[1]) for line in lines if line.startswith("prog_id:")}
    return found


def is_loaded(program: int) -> bool:
    attributes = (ctypes.c_uint32 * 32)(program)
    fd = LIBC.syscall(BPF_SYSCALL, BPF_PROG_GET_FD_BY_ID, attributes, ctypes.sizeof(attributes))
    if fd >= 0:
        os.close(fd)
        return True
    assert ctypes.get_errno() == errno.ENOENT, os.strerror(ctypes.get_errno())
    return False


@contextmanager
def debug_file_system() -> Iterator[Path]:
    with TemporaryDirectory(prefix="tcptrace-") as folder:
        subprocess.run(["mount", "-t", "debugfs", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def kprobes() -> set[str]:
    """All that are registered, and those that have a name; none on a kernel without them."""
    with debug_file_system() as folder:
        lists = (folder / "kprobes" / "list", folder / "tracing" / "kprobe_events")
        lines = [line for one in lists if one.exists() for line in one.read_text().splitlines()]
    # Its address, its kind (k, r), the function.
    return {line for line in lines if "tcp_" in line or "inet_csk_" in line}


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_nothing_stays(kill: bool) -> None:
    before = kprobes()
    with (
        Namespace() as namespace,
        Conductor(namespace) as conductor,
        Tracer(namespace, "lo", "--comm", "the client") as tracer,
    ):
        ours = [pid for pid in namespace.pids() if pid != conductor.process.pid]  # its guard as well, if it has one
        programs = programs_of(tracer.process.pid)
        assert len(programs) >= PROGRAMS_AT_LEAST
        assert all(map(is_loaded, programs))
        assert bool(kprobes() - before) == (tracer.start["probes"] != "raw tracepoints")
        conductor.call("plain", "127.0.0.1", 7001)
        with ExitStack() as ends:
            for pid in ours:
                ends.enter_context(exit_of(pid))
            if kill:
                tracer.process.kill()
                tracer.process.wait()
            else:
                tracer.stop()
        # The kernel lets go of them a moment later, when no CPU runs them any more.
        for _ in attempts():
            if not any(map(is_loaded, programs)) and kprobes() <= before:
                break
        assert [program for program in programs if is_loaded(program)] == []
        assert kprobes() - before == set()
