"""Packages of any Debian suite, through an apt configuration of its own.

The machine's own lists and packages stay as they are; the mirror, and how it is reached, are those of its own apt.
Every file is checked by apt against the suite's signed index, with the keys of the package debian-archive-keyring.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vm.suites import UnavailableError

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS: Final = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
ARCHITECTURE: Final = "amd64"
FETCH_TIMEOUT_S: Final = 900.0

# As they stand in a list of sources; what follows a hyphen (-updates, -security) comes off first.
RELEASES: Final = frozenset(
    (
        *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
    )
)


class Suite:
    """One suite's packages, and those of its security updates; what it keeps is in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
            raise UnavailableError(f"no {missing[0]} here to fetch Debian's kernels with")
        if not KEYRING.exists():
            raise UnavailableError("no keys to check Debian's packages with: install debian-archive-keyring")
        self.name = name
        self.folder = folder
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "sources.list").write_text("".join(f"{line}\n" for line in self._sources()))
        (folder / "apt.conf").write_text("".join(f"{line}\n" for line in self._configuration()))
        # Not an error yet: a suite may have no security updates any more.
        update = self._apt(["apt-get", "update", "-q"], check=False)
        self.trouble = first_complaint(update)
        """With fetching the indexes; empty if there was none."""

    def names(self, prefix: str) -> list[str]:
        """Of all packages that begin so."""
        return self._apt(["apt-cache", "pkgnames", prefix]).stdout.split()

    def depends(self, package: str) -> list[str]:
        lines = self._apt(["apt-cache", "depends", "--important", package]).stdout.splitlines()
        return [match[1] for line in lines if (match := re.fullmatch(r"\s*Depends: ([^<>\s]+)", line))]

    def unpack(self, packages: Sequence[str], target: Path) -> None:
        """Fetch and unpack; no script of a package runs."""
        folder = self.folder / "packages"
        folder.mkdir(exist_ok=True)
        self._apt(["apt-get", "download", "-q", *packages], cwd=folder)
        for file in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", file, target], check=True, timeout=FETCH_TIMEOUT_S)
            file.unlink()

    def _sources(self) -> list[str]:
        main, security = mirrors()
        options = f"[arch={ARCHITECTURE} signed-by={KEYRING}]"
        lines = [f"deb {options} {main} {self.name} main"]
        if security is not None and self.name != "sid":
            lines.append(f"deb {options} {security} {self.name}-security main")
        return lines

    def _configuration(self) -> list[str]:
        dumped = _run(["apt-config", "dump"], dict(os.environ)).stdout.splitlines()
        transport = [line for line in dumped if re.match(r"Acquire::(?!IndexTargets|Languages)", line)]
        return [
            *transport,
            'Acquire::Languages "none";',
            'Acquire::Retries "3";',
            'APT::Sandbox::User "";',  # its own user could not write here
            f'APT::Architecture "{ARCHITECTURE}";',
            f'Dir::State "{self.folder / "state"}";',
            'Dir::State::status "/dev/null";',
            f'Dir::Cache "{self.folder / "cache"}";',
            f'Dir::Etc::sourcelist "{self.folder / "sources.list"}";',
            *(f'Dir::Etc::{name} "/dev/null";' for name in ("main", "parts", "sourceparts", "preferences")),
        ]

    def _apt(
        self, command: Sequence[str], *, cwd: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        result = _run(command, os.environ | {"APT_CONFIG": str(self.folder / "apt.conf")}, cwd)
        if check and result.returncode != 0:
            raise UnavailableError(f"{' '.join(command[:2])} of Debian's {self.name} failed: {first_complaint(result)}")
        return result


def mirrors() -> tuple[str, str | None]:
    """Where this machine's own apt has Debian from, and its security updates."""
    if named := os.environ.get("TCPTRACE_DEBIAN_MIRROR"):
        return named, None
    listing = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)"]
    main, security = None, None
    for line in _run(listing, dict(os.environ)).stdout.splitlines():
        address, _, release = line.partition(" ")
        if release.partition("-")[0] in RELEASES:
            if release.endswith("-security"):
                security = security or address
            else:
                main = main or address
    if main is None:
        raise UnavailableError("this machine's apt knows no Debian mirror: name one by TCPTRACE_DEBIAN_MIRROR")
    return main, security


def first_complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Of apt; empty if it has none."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return lines[0] if lines else f"exit code {result.returncode}" if result.returncode else ""


def _run(
    command: Sequence[str], environment: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment | {"LC_ALL": "C.UTF-8"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_TIMEOUT_S,
    )
