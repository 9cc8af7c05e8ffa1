"""Where captured packets go: what a file's name says of its format, and the names of several files."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tcptrace.errors import UsageError

STANDARD_OUTPUT: Final = "-"
FORMATS: Final = ("pcapng", "pcap")
COMPRESSIONS: Final = ("gz", "zst")
_DIGITS: Final = 5
"""Of a file's number, so that names sort up to a hundred thousand files."""


@dataclass(frozen=True)
class Target:
    """What `-o` names.  compression: one of COMPRESSIONS, or None."""

    path: str
    file_format: str
    compression: str | None


def parse_target(path: str, file_format: str | None = None) -> Target:
    """By extension: .pcap or .pcapng, .gz or .zst after it; standard output, a pipe or a device is pcapng.

    file_format: one of FORMATS, whatever the name says.  UsageError where the name says nothing.
    """
    if file_format is not None and file_format not in FORMATS:
        raise UsageError(f"{file_format!r} is no capture format: {' or '.join(FORMATS)}")
    _, named, compression = _split(path)
    if named is None and file_format is None and (path == STANDARD_OUTPUT or _is_stream(path)):
        named = FORMATS[0]
    chosen = file_format or named
    if chosen is None:
        raise UsageError(f"{path}: the name must end in .pcapng or .pcap, and .gz or .zst after it if wanted")
    return Target(path, chosen, compression)


def numbered_path(path: str, number: int) -> str:
    """The name of file `number` of several: x-00001.pcapng.gz of x.pcapng.gz.  0 is the only file: as it is."""
    if number == 0:
        return path
    stem = _split(path)[0]
    return f"{stem}-{number:0{_DIGITS}}{path[len(stem) :]}"


def _split(path: str) -> tuple[str, str | None, str | None]:
    """What is before the extensions, the format and the compression."""
    stem, compression = _without_extension(path, COMPRESSIONS)
    stem, file_format = _without_extension(stem, FORMATS)
    return stem, file_format, compression


def _without_extension(path: str, known: tuple[str, ...]) -> tuple[str, str | None]:
    stem, extension = os.path.splitext(path)
    return (stem, extension[1:].lower()) if extension[1:].lower() in known else (path, None)


def _is_stream(path: str) -> bool:
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return False
