"""Control groups by their ids, and the containers that they are of.  No privileges needed.

A cgroup's id is the inode of its directory in the cgroup2 file system (cgroup_id() in linux/cgroup.h).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tcptrace.errors import MissingFeatureError, TcptraceError

MOUNTINFO: Final = "/proc/self/mountinfo"
PROC: Final = "/proc"
# A full walk takes milliseconds; sockets of cgroups that are gone must not make it happen all the time.
REWALK_S: Final = 1.0
# Paths that are kept, those of removed cgroups too: 10 MB.
KEPT_PATHS: Final = 65_536
PREFIX_MIN_DIGITS: Final = 4

_ID: Final = r"(?P<id>[0-9a-f]{64})"
# By which name a runtime makes a container's own cgroup; the manager's ("conmon") is none.
_SCOPE: Final = re.compile(rf"(?:docker|cri-containerd|crio|libpod|libpod-payload)-{_ID}(?:\.scope)?")
_BARE: Final = re.compile(_ID)
# How mountinfo writes blanks and the like: proc_pid_mountinfo(5).
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """Where the cgroup2 file system is to be seen."""

    folder: str
    root: str  # the cgroup at `folder`, as a path from the root of this process's cgroup namespace


@dataclass(frozen=True)
class Cgroup:
    """A cgroup as the kernel numbers it, and its directory."""

    id: int
    folder: str


def find_mount() -> Mount | None:
    """The cgroup2 file system; on hosts with version 1, too, it is in a folder of its own.  None if there is none."""
    found = None
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields, _, source = line.partition(" - ")
                if source.split(" ", 1)[0] != "cgroup2":
                    continue
                root, folder = (_OCTAL.sub(lambda match: chr(int(match[1], 8)), text) for text in fields.split()[3:5])
                # Of several the one that shows the most; the last of them is on top.
                if found is None or len(root) <= len(found.root):
                    found = Mount(folder, root)
    except OSError:
        pass
    return found


def container_of_path(path: str) -> str | None:
    """Id of the innermost container whose cgroup the path is in: 64 hex digits.  None if it is no container's.

    Docker, containerd, CRI-O and Podman, with systemd's names of cgroups and with plain ones.
    """
    found = None
    for part in path.split("/"):
        if match := _SCOPE.fullmatch(part) or _BARE.fullmatch(part):
            found = match["id"]
    return found


class Cgroups:
    """The cgroups under the mount, by id; knows none where there is no cgroup2."""

    def __init__(self) -> None:
        self.mount = find_mount()
        self._paths: dict[int, str] = {}
        self._gone: set[int] = set()
        self._walked_s: float | None = None

    def path(self, cgroup_id: int, now_s: float) -> str | None:
        """From the mount, beginning with a slash; None if there is none (any more).

        A cgroup that is new since the last look is looked for, but not more often than once in REWALK_S of the clock
        that `now_s` is of.  One that has been removed keeps its path.
        """
        if cgroup_id <= 0 or cgroup_id in self._gone:
            return None
        if cgroup_id not in self._paths and (self._walked_s is None or now_s - self._walked_s >= REWALK_S):
            self._walked_s = now_s
            self._look_for(cgroup_id)
        return self._paths.get(cgroup_id)

    def container(self, cgroup_id: int, now_s: float) -> str | None:
        """Id of the container of a cgroup, 64 hex digits; None if it is none's."""
        path = self.path(cgroup_id, now_s)
        return None if path is None else container_of_path(path)

    def find_cgroup(self, container_id: str) -> Cgroup:
        """A container's cgroup, by the first digits of its id, at least PREFIX_MIN_DIGITS.

        TcptraceError if there is none, or more than one container; MissingFeatureError without cgroup2.
        """
        prefix = container_id.strip().lower()
        if not re.fullmatch(rf"[0-9a-f]{{{PREFIX_MIN_DIGITS},64}}", prefix):
            raise TcptraceError(
                f"container {container_id!r}: its id is needed, at least {PREFIX_MIN_DIGITS} hex digits of it"
            )
        self._require_mount()
        found: dict[str, tuple[int, str]] = {}
        for number, path in sorted(self._walk().items(), key=lambda item: item[1].count("/")):
            name = container_of_path(os.path.basename(path))
            if name is not None and name.startswith(prefix):
                found.setdefault(name, (number, path))  # the outermost: what is below is in it
        if not found:
            raise TcptraceError(f"no running container has an id that begins with {prefix}")
        if len(found) > 1:
            names = ", ".join(name[:12] for name in sorted(found))
            raise TcptraceError(f"several containers have ids that begin with {prefix}: {names}")
        ((number, path),) = found.values()
        return self._cgroup(number, path)

    def cgroup_of_path(self, path: str) -> Cgroup:
        """A cgroup by its directory, or its path from the mount, with or without a leading slash.

        TcptraceError if there is none; MissingFeatureError without cgroup2.
        """
        mount = self._require_mount()
        candidates = [f"{mount.folder}/{path}"] if path and "\0" not in path else []
        if candidates and os.path.isabs(path):
            candidates.insert(0, path)
        for candidate in candidates:
            folder = os.path.realpath(candidate)
            relative = os.path.relpath(folder, os.path.realpath(mount.folder))
            is_below = relative != ".." and not relative.startswith("../")
            if is_below and os.path.isdir(folder):
                return self._cgroup(os.stat(folder).st_ino, "/" if relative == "." else f"/{relative}")
        raise TcptraceError(f"no such cgroup: {path} (looked for under {mount.folder})")

    def of_process(self, pid: int) -> int:
        """Id of the cgroup that a process is in now; -1 if that cannot be told."""
        if self.mount is None:
            return -1
        try:
            with open(f"{PROC}/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    if line.startswith("0::"):
                        relative = os.path.relpath(line[3:].rstrip("\n"), self.mount.root)
                        return os.stat(f"{self.mount.folder}/{relative}").st_ino
        except OSError:
            pass  # the process or its cgroup is gone
        return -1

    def _look_for(self, cgroup_id: int) -> None:
        if len(self._paths) + len(self._gone) > KEPT_PATHS:
            self._paths.clear()
            self._gone.clear()
        self._paths.update(self._walk())
        if cgroup_id not in self._paths:
            self._gone.add(cgroup_id)  # it was there before it was asked for, and ids are not used again

    def _require_mount(self) -> Mount:
        if self.mount is None:
            raise MissingFeatureError("cgroups cannot be filtered by: no cgroup2 file system is mounted here")
        return self.mount

    def _cgroup(self, number: int, path: str) -> Cgroup:
        mount = self._require_mount()
        return Cgroup(number, mount.folder if path == "/" else f"{mount.folder}{path}")

    def _walk(self) -> dict[int, str]:
        """Id -> path of every cgroup that is there now."""
        if self.mount is None:
            return {}
        return {number: path or "/" for number, path in _directories(self.mount.folder)}


def _directories(root: str) -> Iterator[tuple[int, str]]:
    """(inode, path below root) of root and every directory under it; what vanishes meanwhile is passed over."""
    try:
        yield os.stat(root).st_ino, ""
    except OSError:
        return
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(root + parent) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        path = f"{parent}/{entry.name}"
                        yield entry.inode(), path
                        waiting.append(path)
        except OSError:
            continue
