"""A kernel, its modules and a busybox for it: fetched once, then from the cache without any network."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vm.debian import Suite
from vm.suites import SUITES, UnavailableError, cache_folder

VARIANTS = ("-cloud-amd64", "-rt-amd64")
"""Kernels of the same version that are built otherwise; those for clouds have no 9p."""


@dataclass(frozen=True)
class Kernel:
    """What is needed of one kernel, on disk."""

    name: str
    folder: Path

    @property
    def release(self) -> str:
        """As `uname -r` prints it."""
        return (self.folder / "release").read_text().strip()

    @property
    def image(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def modules(self) -> Path:
        return self.folder / "modules" / self.release

    @property
    def busybox(self) -> Path:
        """Linked statically, so that it runs before anything is mounted."""
        return self.folder / "busybox"


def kernel(name: str) -> Kernel:
    """From the cache, or fetched into it; UnavailableError if it cannot be had."""
    folder = cache_folder() / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder.parent) as work:
            made = Path(work, "kernel")
            _fetch(name, Path(work), made)
            try:
                # It gets its name when it is complete; another run may have been faster.
                made.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    return Kernel(name, folder)


def _fetch(name: str, work: Path, target: Path) -> None:
    suite = Suite(SUITES[name], work / "apt")
    package = _newest(name, suite)
    release = package.removeprefix("linux-image-")
    # Newer suites have the kernel and its modules in packages of their own, which are named alike.
    parts = [one for one in suite.depends(package) if one in (f"linux-binary-{release}", f"linux-modules-{release}")]
    unpacked = work / "unpacked"
    suite.unpack([package, *parts, "busybox-static"], unpacked)
    target.mkdir()
    (target / "release").write_text(f"{release}\n")
    modules = _first(unpacked, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    image = _first(unpacked, f"boot/vmlinuz-{release}", f"{modules.relative_to(unpacked)}/vmlinuz")
    shutil.move(image, target / "vmlinuz")
    shutil.move(_first(unpacked, "bin/busybox", "usr/bin/busybox"), target / "busybox")
    (target / "modules").mkdir()
    shutil.move(modules, target / "modules" / release)
    _index_modules(target, release)


def _newest(name: str, suite: Suite) -> str:
    pattern = re.compile(rf"linux-image-{re.escape(name)}\.[^ ]*-amd64")
    packages = [one for one in suite.names(f"linux-image-{name}.") if pattern.fullmatch(one)]
    packages = [one for one in packages if not one.endswith(VARIANTS)]
    if not packages:
        raise UnavailableError(
            f"Debian's {suite.name} offers no kernel {name} here: {suite.trouble or 'no such package'}"
        )
    return max(packages, key=lambda one: [int(number) for number in re.findall(r"\d+", one)])


def _first(folder: Path, *candidates: str) -> Path:
    for candidate in candidates:
        if (folder / candidate).exists():
            return folder / candidate
    raise UnavailableError(f"the packages have no {candidates[0]}")


def _index_modules(folder: Path, release: str) -> None:
    """What modprobe needs to find them; busybox looks for them below lib/modules."""
    with tempfile.TemporaryDirectory(dir=folder) as base:
        Path(base, "lib").mkdir()
        Path(base, "lib/modules").symlink_to(folder / "modules")
        subprocess.run([folder / "busybox", "depmod", "-b", base, release], check=True, timeout=300)
