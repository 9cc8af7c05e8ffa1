"""Opening the file that packets are written to, without harm to what is read."""

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from tcptrace.errors import UsageError
from tcptrace.sinks.capture_writer.target import STANDARD_OUTPUT, numbered_path

OpenFile = Callable[[int], int]
"""The number of a file (0: the only one) to a descriptor open for writing, not yet emptied.  Raises OSError."""
RemoveFile = Callable[[int], None]
"""Delete the file of a number.  Raises OSError."""
Identity = tuple[int, int]
"""Device and inode."""


def plain_open(path: str) -> OpenFile:
    """By this process itself; standard output too."""

    def open_file(number: int) -> int:
        if path == STANDARD_OUTPUT:
            return os.dup(1)
        return os.open(numbered_path(path, number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o666)

    return open_file


def plain_remove(path: str) -> RemoveFile:
    """By this process itself."""
    return lambda number: os.unlink(numbered_path(path, number))


def identities(paths: Iterable[str]) -> set[Identity]:
    """Of the regular files among them; `-` is standard input."""
    found = set()
    for path in paths:
        with suppress(OSError):
            status = os.fstat(0) if path == STANDARD_OUTPUT else os.stat(path)
            if stat.S_ISREG(status.st_mode):
                found.add((status.st_dev, status.st_ino))
    return found


def replace_content(fd: int, path: str, inputs: set[Identity]) -> None:
    """Empty the file, unless it is one of the inputs (UsageError).  Standard output stays as the shell opened it."""
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) in inputs:
        raise UsageError(f"{path} is read from: writing to it would destroy it")
    if stat.S_ISREG(status.st_mode) and path != STANDARD_OUTPUT:
        os.ftruncate(fd, 0)
    if path == STANDARD_OUTPUT and os.isatty(fd):
        raise UsageError("packets are not for a terminal: name a file, or send standard output to one")
