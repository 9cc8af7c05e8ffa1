"""What bcc's compiler leaves in memory, given back: tens of megabytes that a trace has no use for."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

COMPILER_LIBRARIES: Final = ("libLLVM", "libclang")
MADV_DONTNEED: Final = 4  # of asm-generic/mman-common.h
M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
# Larger blocks are the kernel's again as soon as they are freed.  Else glibc keeps ever larger ones, as holes in its
# heap: 40 MB of them with 100,000 connections.
LARGE_BYTES: Final = 1 << 16


def give_back() -> None:
    """After the last compilation.  Where it is not possible, memory stays as it is.

    The libraries stay usable: what is needed of them once more comes from their files again.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "malloc_trim"):  # glibc has it
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.malloc_trim(0)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    try:
        mappings = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return
    for start, size in unchanged_mappings(mappings, COMPILER_LIBRARIES):
        libc.madvise(start, size, MADV_DONTNEED)


def unchanged_mappings(lines: list[str], libraries: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Start and bytes of what /proc/PID/smaps says to be these libraries' and as it is in their files.

    Nothing in such a mapping can be written to, and nothing was: relocated pages would be anonymous.
    """
    start = stop = 0
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):  # the first line of a mapping: range, permissions, offset, device, inode, path
            start = stop = 0
            is_one = len(words) > 5 and os.path.basename(words[5]).startswith(libraries)
            if is_one and words[1][1] == "-" and words[1][3] == "p":
                start, stop = (int(address, 16) for address in words[0].split("-"))
        elif words[0] == "Anonymous:" and words[1] == "0" and stop:
            yield start, stop - start
