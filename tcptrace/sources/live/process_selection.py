"""Which processes the user asked for: as C for the programs, and in /proc for sockets that are open already."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.errors import TcptraceError
from tcptrace.records import NAME_BYTES, SOCKET_KEY
from tcptrace.sources.live import bcc_loader
from tcptrace.sources.live.containers import Cgroup, Cgroups
from tcptrace.sources.live.sock_diag import LISTEN, Sockets
from tcptrace.sources.live.socket_owners import PROC, socket_inodes

WORD_BYTES: Final = 8
CGROUP_MAP: Final = "selected_cgroups"


@dataclass(frozen=True)
class ProcessSelection:
    """Processes of which one of `pids`, one of `comms` and one of `cgroups` is true; an empty one leaves it open."""

    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[Cgroup, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pids or self.comms or self.cgroups)

    def require_processes(self) -> None:
        """TcptraceError if one of the pids is no process's: nothing would ever be seen of it."""
        for pid in self.pids:
            try:
                with open(f"{PROC}/{pid}/status", encoding="utf-8", errors="replace") as lines:
                    process = int(next(line.split()[1] for line in lines if line.startswith("Tgid:")))
            except (OSError, StopIteration):
                raise TcptraceError(f"no such process: {pid}") from None
            if process != pid:
                raise TcptraceError(f"no such process: {pid} is a thread of process {process}")

    def source(self) -> str:
        """current_is_selected() for bpf/followed.c: whether the process at work now is one of these."""
        tests = [self._any_pid(), self._any_comm(), self._any_cgroup()]
        table = [f"BPF_CGROUP_ARRAY({CGROUP_MAP}, {len(self.cgroups)});"] if self.cgroups else []
        return "\n".join(
            [
                *table,
                "static __always_inline int current_is_selected(void)",
                "{",
                f"\t__u64 comm[{NAME_BYTES // WORD_BYTES}] = {{}};",
                "\t__u32 pid = bpf_get_current_pid_tgid() >> 32;",
                "",
                "\tread_current_comm(comm);",
                f"\treturn {' && '.join(test for test in tests if test)};",
                "}",
            ]
        )

    def _any_pid(self) -> str:
        return _any(f"pid == {pid}" for pid in self.pids)

    def _any_comm(self) -> str:
        return _any(
            " && ".join(f"comm[{index}] == {word}ULL" for index, word in enumerate(_words(name))) for name in self.comms
        )

    def _any_cgroup(self) -> str:
        # Not by bpf_get_current_ancestor_cgroup_id(), which tracing programs have from Linux 5.14 on only.
        return _any(f"{CGROUP_MAP}.check_current_task({index}) == 1" for index in range(len(self.cgroups)))

    def put_cgroups(self, programs: Any) -> None:
        """Tell the programs which cgroups these are, before they run.  TcptraceError if one is gone."""
        if not self.cgroups:
            return
        fds = []
        try:
            for one in self.cgroups:
                fds.append(os.open(one.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            bcc_loader.put_in_map(programs, CGROUP_MAP, dict(enumerate(fds)))
        except FileNotFoundError as error:
            raise TcptraceError(f"no such cgroup any more: {error.filename}") from error
        finally:
            for fd in fds:
                os.close(fd)

    def inodes(self, cgroups: Cgroups) -> set[int]:
        """Sockets that these processes have open now; as root, that is of every user."""
        return {inode for pid in self._running(cgroups) for inode in socket_inodes(pid)}

    def _running(self, cgroups: Cgroups) -> Iterator[int]:
        for pid in self.pids or [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]:
            with suppress(OSError):
                if self._has_comm(pid) and self._is_in_cgroup(pid, cgroups):
                    yield pid

    def _has_comm(self, pid: int) -> bool:
        if not self.comms:
            return True
        with open(f"{PROC}/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n") in map(_cut, self.comms)

    def _is_in_cgroup(self, pid: int, cgroups: Cgroups) -> bool:
        if not self.cgroups:
            return True
        path = cgroups.path(cgroups.of_process(pid), 0.0)
        roots = [cgroups.path(one.id, 0.0) for one in self.cgroups]
        return path is not None and any(
            root == "/" or path == root or path.startswith(f"{root}/") for root in roots if root is not None
        )


def selected_flows(sockets: Sockets, netns: int) -> npt.NDArray[Any]:
    """What bpf/packet.c is to let through (SOCKET_KEY): packets of these sockets' connections, to listeners any SYN."""
    flows = np.zeros(len(sockets.records), SOCKET_KEY)
    keys = sockets.records["key"]
    listens = sockets.records["view"]["state"] == LISTEN
    for name in ("local_addr", "remote_addr", "remote_port", "ip_version"):
        flows[name][~listens] = keys[name][~listens]
    flows["local_port"] = keys["local_port"]
    flows["netns"] = netns
    return flows


def _any(tests: Iterator[str]) -> str:
    either = " || ".join(f"({test})" for test in tests)
    return f"({either})" if either else ""


def _cut(name: str) -> bytes:
    """As the kernel keeps it: the last of its bytes is 0."""
    return name.encode()[: NAME_BYTES - 1]


def _words(name: str) -> list[int]:
    """The kernel's 16 bytes of a name as numbers of this machine's byte order, which is BPF's too."""
    return list(np.frombuffer(_cut(name).ljust(NAME_BYTES, b"\0"), np.uint64))
