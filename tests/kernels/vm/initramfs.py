"""The guest's first file system: a busybox, the script `init`, and modules in the order in which they load."""

import lzma
import re
import stat
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

from vm.packages import Kernel

INIT: Final = Path(__file__).with_name("init")

# Some are built in here or there.  The kernel loads others by itself later, which takes longer.
MODULES: Final = (
    *("virtio_pci", "9pnet_virtio", "9p", "overlay"),
    *("veth", "tun", "ifb", "8021q"),
    *("sch_ingress", "cls_bpf", "sch_netem", "sch_tbf"),
    *("tcp_diag", "af_packet"),
)
FOLDERS: Final = ("bin", "dev", "lower", "memory", "modules", "proc", "root", "sys")


def initramfs(kernel: Kernel) -> bytes:
    """A cpio archive, not compressed."""
    modules = with_dependencies(kernel)
    archive = Archive()
    for folder in FOLDERS:
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("init", stat.S_IFREG | 0o755, INIT.read_bytes())
    archive.add("bin/busybox", stat.S_IFREG | 0o755, kernel.busybox.read_bytes())
    archive.add("modules/folder", stat.S_IFREG | 0o644, f"{kernel.modules.parent}\n".encode())
    archive.add("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in modules).encode())
    for name, content in modules.items():
        archive.add(f"modules/{name}.ko", stat.S_IFREG | 0o644, content)
    return archive.finish()


def with_dependencies(kernel: Kernel) -> dict[str, bytes]:
    """By name, each after those that it needs."""
    files = {_canonical(path.name.partition(".ko")[0]): path for path in kernel.modules.rglob("*.ko*")}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name in loaded or name not in files:
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        for needed in _needs(content):
            load(needed)
        loaded[name] = content

    for name in MODULES:
        load(name)
    return loaded


def _needs(module: bytes) -> Iterator[str]:
    """The names in its section .modinfo: those it takes symbols from, and those it asks for otherwise."""
    for words in re.findall(rb"\0depends=([^\0]*)\0", module):
        yield from filter(None, map(_canonical, words.decode().split(",")))
    for words in re.findall(rb"\0softdep=pre: ([^\0]*)\0", module):
        yield from map(_canonical, words.decode().partition("post:")[0].split())


def _canonical(name: str) -> str:
    return name.replace("-", "_")


class Archive:
    """The format of `cpio -H newc`, as linux/Documentation/driver-api/early-userspace/buffer-format.rst has it."""

    def __init__(self) -> None:
        self._out = BytesIO()
        self._count = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        self._count += 1
        path = name.encode() + b"\0"
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        self._out.write(b"070701" + b"".join(b"%08X" % field for field in fields))
        for part in (path, content):
            self._out.write(part)
            self._out.write(bytes(-self._out.tell() % 4))

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()
