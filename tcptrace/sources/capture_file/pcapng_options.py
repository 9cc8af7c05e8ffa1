"""What a pcapng interface description says of its interface."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

_IF_NAME: Final = 2
_IF_DESCRIPTION: Final = 3
_IF_TSRESOL: Final = 9
_IF_TSOFFSET: Final = 14
_MICROSECONDS: Final = 6
# Longer than any interface's name; a file may have thousands of 64 KiB.
_TEXT_MAX_BYTES: Final = 256

ByteOrder = Literal["little", "big"]


@dataclass
class InterfaceOptions:
    """Options of an interface description block (draft-ietf-opsawg-pcapng section 4.2)."""

    name: str | None = None
    description: str | None = None
    time_resolution: int = _MICROSECONDS  # n: 10^-n seconds; 128 + n: 2^-n
    time_offset_s: int = 0


def interface_options(data: bytes, order: ByteOrder) -> InterfaceOptions:
    """As far as they hold together: what comes after a broken one is not looked at."""
    options = InterfaceOptions()
    for code, value in _options(data, order):
        if code == _IF_NAME:
            options.name = _text(value)
        elif code == _IF_DESCRIPTION:
            options.description = _text(value)
        elif code == _IF_TSRESOL and len(value) == 1:
            options.time_resolution = value[0]
        elif code == _IF_TSOFFSET and len(value) == 8:
            options.time_offset_s = int.from_bytes(value, order, signed=True)
    return options


def _options(data: bytes, order: ByteOrder) -> Iterator[tuple[int, bytes]]:
    head = struct.Struct("<HH" if order == "little" else ">HH")
    at = 0
    while at + head.size <= len(data):
        code, length = head.unpack_from(data, at)
        at += head.size
        if code == 0 or at + length > len(data):
            return
        yield code, data[at : at + length]
        at += (length + 3) & ~3


def _text(value: bytes) -> str:
    return value[:_TEXT_MAX_BYTES].decode(errors="replace").rstrip("\0")
