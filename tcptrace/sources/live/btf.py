"""How the running kernel lays out its structs: its own type information (BTF), read by libbpf.

libbpf is there where bcc is, which is built on it.
"""

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Final

from tcptrace.errors import MissingFeatureError

LIBRARIES: Final = ("libbpf.so.1", "libbpf.so.0", "libbcc.so.0")

# enum of linux/btf.h.
KIND_POINTER: Final = 2
KIND_ARRAY: Final = 3
KIND_STRUCT: Final = 4
KIND_UNION: Final = 5
KIND_TYPEDEF: Final = 8
KIND_FUNCTION: Final = 12
# Other names for a type: typedef, volatile, const, restrict, a type tag.
ALIASES: Final = (KIND_TYPEDEF, 9, 10, 11, 18)
POINTER_BYTES: Final = 8


class _Type(ctypes.Structure):
    """struct btf_type; what follows it in memory depends on its kind."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))


class _Member(ctypes.Structure):
    """struct btf_member."""

    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class _Array(ctypes.Structure):
    """struct btf_array."""

    _fields_ = (("type", ctypes.c_uint32), ("index_type", ctypes.c_uint32), ("count", ctypes.c_uint32))


@dataclass(frozen=True)
class Field:
    """Where a field stands in its struct.  bits: 0, or how many of them beginning at bit `shift` of its bytes."""

    offset: int
    size: int
    shift: int = 0
    bits: int = 0


class KernelTypes:
    """The types of the running kernel.  Raises MissingFeatureError where it does not tell them."""

    def __init__(self) -> None:
        self._lib = _load_library()
        self._btf = self._lib.btf__load_vmlinux_btf()
        if not self._btf or ctypes.c_long(self._btf).value < 0:  # old versions return -errno
            raise MissingFeatureError(
                "the kernel does not tell its types (/sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF)"
            )

    def has_typedef(self, name: str) -> bool:
        """Whether there is one of this name; every tracepoint has btf_trace_NAME."""
        return self._find(name, KIND_TYPEDEF) is not None

    def has_function(self, name: str) -> bool:
        """Whether the kernel has a function of this name that was not inlined away."""
        return self._find(name, KIND_FUNCTION) is not None

    def size(self, struct: str) -> int | None:
        """Bytes of a struct; None where there is none of this name."""
        found = self._find(struct, KIND_STRUCT)
        return None if found is None else int(self._type(found).size_or_type)

    @functools.cache  # noqa: B019, one object a run
    def field(self, struct: str, path: str) -> Field | None:
        """The field at `path` ("rtt_min.s.v": of an array, its first element); None where this kernel has no such."""
        at = self._find(struct, KIND_STRUCT)
        offset = shift = bits = 0
        for name in path.split("."):
            found = None if at is None else self._member(self._resolved(at), name)
            if found is None:
                return None
            at, bit_offset, bits = found
            offset, shift = offset + bit_offset // 8, bit_offset % 8
        assert at is not None
        return Field(offset, -(-(shift + bits) // 8) if bits else self._size(at), shift, bits)

    def _find(self, name: str, kind: int) -> int | None:
        found = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return found if found > 0 else None

    def _type(self, number: int) -> Any:
        return _Type.from_address(self._lib.btf__type_by_id(self._btf, number))

    def _resolved(self, number: int) -> int:
        """Through typedefs, qualifiers and arrays to what is behind them."""
        while True:
            one = self._type(number)
            kind = _kind(one)
            if kind in ALIASES:
                number = one.size_or_type
            elif kind == KIND_ARRAY:
                number = self._array(number).type
            else:
                return number

    def _array(self, number: int) -> Any:
        return _Array.from_address(self._lib.btf__type_by_id(self._btf, number) + ctypes.sizeof(_Type))

    def _size(self, number: int) -> int:
        one = self._type(number)
        kind = _kind(one)
        if kind in ALIASES:
            return self._size(one.size_or_type)
        if kind == KIND_ARRAY:
            array = self._array(number)
            return self._size(array.type) * int(array.count)
        return POINTER_BYTES if kind == KIND_POINTER else int(one.size_or_type)

    def _member(self, number: int, name: str) -> tuple[int, int, int] | None:
        """Type, offset in bits and number of bits (0: no bit field) of a member, also one of an anonymous member."""
        one = self._type(number)
        if _kind(one) not in (KIND_STRUCT, KIND_UNION):
            return None
        has_bit_fields = one.info >> 31
        first = self._lib.btf__type_by_id(self._btf, number) + ctypes.sizeof(_Type)
        for member in (_Member * (one.info & 0xFFFF)).from_address(first):
            offset = member.offset & 0xFFFFFF if has_bit_fields else member.offset
            text = self._lib.btf__name_by_offset(self._btf, member.name).decode()
            if text == name:
                return member.type, offset, member.offset >> 24 if has_bit_fields else 0
            if not text:
                inner = self._member(self._resolved(member.type), name)
                if inner is not None:
                    return inner[0], offset + inner[1], inner[2]
        return None


def _kind(one: Any) -> int:
    return int(one.info) >> 24 & 0x1F


def _load_library() -> Any:
    for name in LIBRARIES:
        try:
            lib = ctypes.CDLL(name)
            lib.btf__load_vmlinux_btf.restype = ctypes.c_void_p
            lib.btf__load_vmlinux_btf.argtypes = ()
            lib.btf__find_by_name_kind.restype = ctypes.c_int32
            lib.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
            lib.btf__type_by_id.restype = ctypes.c_void_p
            lib.btf__type_by_id.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
            lib.btf__name_by_offset.restype = ctypes.c_char_p
            lib.btf__name_by_offset.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        except (OSError, AttributeError):
            continue
        return lib
    raise MissingFeatureError("libbpf is not installed: it comes with bcc")
