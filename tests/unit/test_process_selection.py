"""Which processes are chosen: the C for the kernel, run here with a process made up for it, and what /proc says."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcptrace.errors import TcptraceError
from tcptrace.records import SOCKET_RECORD
from tcptrace.sources.live import process_selection, socket_owners
from tcptrace.sources.live.containers import Cgroup, Cgroups, Mount
from tcptrace.sources.live.process_selection import ProcessSelection, selected_flows
from tcptrace.sources.live.sock_diag import LISTEN, Sockets

# What bpf/followed.c and bcc have; the process at work is `pid`, `name`, in the first `cgroups` of those asked for.
AROUND = """
#include <string.h>
#define __always_inline inline
typedef unsigned int __u32; typedef unsigned long long __u64;
static __u64 pid; static char name[16]; static __u32 cgroup;
static __u64 bpf_get_current_pid_tgid(void) {{ return pid << 32 | 77; }}
static void read_current_comm(void *comm) {{ memcpy(comm, name, 16); }}
static int check_current_task(int index) {{ return index == cgroup ? 1 : -22 * (index & 1); }}
struct cgroups {{ int (*check_current_task)(int); }};
#define BPF_CGROUP_ARRAY(array, size) static struct cgroups array = {{ check_current_task }}
{source}
int chosen(__u64 its_pid, const char *its_name, __u32 its_cgroup)
{{
    pid = its_pid; strncpy(name, its_name, 16); cgroup = its_cgroup;
    return current_is_selected();
}}
"""
NO_CGROUP = 99
ONE, TWO = Cgroup(11, "/cgroup/one"), Cgroup(12, "/cgroup/two")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@needs_cc
@pytest.mark.parametrize(
    ("selection", "process", "is_chosen"),
    [
        (ProcessSelection((23,)), (23, "any", NO_CGROUP), True),
        (ProcessSelection((23,)), (77, "any", NO_CGROUP), False),
        (ProcessSelection((23, 1237)), (1237, "any", NO_CGROUP), True),
        (ProcessSelection((), ("nginx",)), (1, "nginx", NO_CGROUP), True),
        (ProcessSelection((), ("nginx",)), (1, "nginx2", NO_CGROUP), False),
        (ProcessSelection((), ("nginx",)), (1, "ngin", NO_CGROUP), False),
        (ProcessSelection((), ("a", "longer than 8")), (1, "longer than 8", NO_CGROUP), True),
        (ProcessSelection((), ("a name that the kernel cuts",)), (1, "a name that the", NO_CGROUP), True),
        (ProcessSelection((), ("Zürich",)), (1, "Zürich", NO_CGROUP), True),
        (ProcessSelection((), (), (ONE, TWO)), (1, "any", 1), True),
        (ProcessSelection((), (), (ONE, TWO)), (1, "any", NO_CGROUP), False),
        (ProcessSelection((23,), ("nginx",), (ONE,)), (23, "nginx", 0), True),
        (ProcessSelection((23,), ("nginx",), (ONE,)), (24, "nginx", 0), False),
        (ProcessSelection((23,), ("nginx",), (ONE,)), (23, "httpd", 0), False),
        (ProcessSelection((23,), ("nginx",), (ONE,)), (23, "nginx", NO_CGROUP), False),
        (ProcessSelection((23, 24), ("nginx", "httpd")), (24, "httpd", NO_CGROUP), True),
    ],
)
def test_the_process_at_work(
    tmp_path: Path, selection: ProcessSelection, process: tuple[int, str, int], is_chosen: bool
) -> None:
    source, library = tmp_path / "chosen.c", tmp_path / "chosen.so"
    source.write_text(AROUND.format(source=selection.source()))
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Wno-unused", "-o", library, source], check=True)
    pid, name, cgroup = process
    chosen = ctypes.CDLL(str(library)).chosen
    chosen.argtypes = (ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint32)
    assert bool(chosen(pid, name.encode(), cgroup)) is is_chosen


def test_nothing_asked_for_is_everything() -> None:
    assert not ProcessSelection()
    assert ProcessSelection((1,))
    assert ProcessSelection((), ("a",))
    assert ProcessSelection((), (), (ONE,))


# --- Open already


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three processes: 23 and 24 named nginx, 25 named cat; their sockets are 230, 240 and 241, 250."""
    for pid, name, inodes in ((23, "nginx", (230,)), (24, "nginx", (240, 241)), (25, "cat", (250,))):
        folder = tmp_path / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(f"{name}\n")
        (folder / "status").write_text(f"Name:\t{name}\nTgid:\t{pid}\n")
        for number, inode in enumerate(inodes):
            os.symlink(f"socket:[{inode}]", folder / "fd" / str(number))
    (tmp_path / "proc" / "self").mkdir()
    for module in (process_selection, socket_owners):
        monkeypatch.setattr(module, "PROC", str(tmp_path / "proc"))
    return tmp_path / "proc"


class FakeCgroups(Cgroups):
    """23 is in /one, 24 in /one/below, 25 in /onehalf."""

    def __init__(self) -> None:
        super().__init__()
        self.mount = Mount("/cgroup", "/")

    def of_process(self, pid: int) -> int:
        return {23: 11, 24: 13, 25: 14}[pid]

    def path(self, cgroup_id: int, now_s: float) -> str | None:
        return {11: "/one", 12: "/two", 13: "/one/below", 14: "/onehalf", 1: "/"}[cgroup_id]


@pytest.mark.parametrize(
    ("selection", "inodes"),
    [
        (ProcessSelection((23,)), {230}),
        (ProcessSelection((23, 25)), {230, 250}),
        (ProcessSelection((), ("nginx",)), {230, 240, 241}),
        (ProcessSelection((24,), ("cat", "nginx")), {240, 241}),
        (ProcessSelection((25,), ("nginx",)), set()),
        (ProcessSelection((), (), (ONE,)), {230, 240, 241}),
        (ProcessSelection((), (), (TWO,)), set()),
        (ProcessSelection((), (), (TWO, Cgroup(1, "/cgroup"))), {230, 240, 241, 250}),
        (ProcessSelection((), ("cat",), (ONE,)), set()),
        (ProcessSelection((99,)), set()),
    ],
)
def test_sockets_that_they_hold(proc: Path, selection: ProcessSelection, inodes: set[int]) -> None:
    assert selection.inodes(FakeCgroups()) == inodes


def test_flows_to_let_through() -> None:
    """Of a connection, all of it; of who listens, the port alone."""
    records: Any = np.zeros(2, SOCKET_RECORD)
    records["key"]["local_port"] = 8001, 8002
    records["key"]["remote_port"] = 4001, 0
    records["key"]["local_addr"], records["key"]["remote_addr"] = 7, 9
    records["key"]["ip_version"] = 4, 6
    records["view"]["state"] = 1, LISTEN
    none = np.zeros(2, "u4")
    connection, listener = selected_flows(Sockets(records, none, none, none, none), 1237)
    assert connection["local_addr"].tolist() == [7] * 16
    assert connection["remote_addr"].tolist() == [9] * 16
    assert [int(connection[name]) for name in ("local_port", "remote_port", "ip_version", "netns")] == [
        8001, 4001, 4, 1237,
    ]  # fmt: skip
    assert bytes(listener.tobytes()).count(0) == len(listener.tobytes()) - 4
    assert (int(listener["local_port"]), int(listener["netns"])) == (8002, 1237)


def test_who_is_not_there(proc: Path) -> None:
    ProcessSelection((23, 25)).require_processes()
    with pytest.raises(TcptraceError, match=r"no such process: 26$"):
        ProcessSelection((23, 26)).require_processes()
    (proc / "27").mkdir()
    (proc / "27" / "status").write_text("Name:\tx\nTgid:\t23\n")
    with pytest.raises(TcptraceError, match="27 is a thread of process 23"):
        ProcessSelection((27,)).require_processes()


def test_a_cgroup_that_is_gone_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(TcptraceError, match="no such cgroup any more"):
        ProcessSelection((), (), (Cgroup(5, str(tmp_path / "gone")),)).put_cgroups(None)
