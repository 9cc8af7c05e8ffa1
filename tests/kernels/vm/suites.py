"""Which kernels there are to boot, and where what was fetched of them stays."""

import os
from pathlib import Path
from typing import Final

SUITES: Final = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
"""The Debian suite that has the kernel."""

DEFAULT: Final = "6.12"


class UnavailableError(Exception):
    """A kernel, or what boots it, cannot be had here; the text says why."""


def chosen_kernels() -> list[str]:
    """TCPTRACE_KERNELS: names separated by blanks or commas, or `all`."""
    names = os.environ.get("TCPTRACE_KERNELS", "").replace(",", " ").split() or [DEFAULT]
    if names == ["all"]:
        return list(SUITES)
    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"TCPTRACE_KERNELS knows {', '.join(SUITES)} and all, not {', '.join(unknown)}")
    return list(dict.fromkeys(names))


def cache_folder() -> Path:
    """What was fetched once is never fetched again while it is there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "tcptrace", "kernels")
