"""libpcap, loaded when it is needed: the system's own shared library, nothing is needed of it at build time."""

import ctypes
import functools
from collections.abc import Iterator

from tcptrace.errors import MissingFeatureError


class Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    ]


class Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(Instruction))]


def _library_names() -> Iterator[str]:
    # find_library() runs other programs, and its module imports a lot: the names that libpcap has on Linux come first.
    yield from ("libpcap.so.1", "libpcap.so.0.8")
    import ctypes.util

    if (name := ctypes.util.find_library("pcap")) is not None:
        yield name


@functools.cache
def libpcap() -> ctypes.CDLL:
    """The library, its functions declared as far as they are called from Python.

    Raises MissingFeatureError where it is not installed.
    """
    for name in _library_names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        _declare(library)
        return library
    raise MissingFeatureError(
        "libpcap cannot be loaded: install libpcap0.8 (Debian, Ubuntu), libpcap (Fedora, Arch) or libpcap1 (openSUSE)"
    )


def _declare(library: ctypes.CDLL) -> None:
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
    library.pcap_compile.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(Program),
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint32,
    ]
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_freecode.restype = None
    library.pcap_freecode.argtypes = [ctypes.POINTER(Program)]
    library.pcap_close.restype = None
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_datalink_val_to_name.restype = ctypes.c_char_p
    library.pcap_datalink_val_to_name.argtypes = [ctypes.c_int]


def function_address(name: str) -> int:
    """Where a function of libpcap is, for compiled modules to call.  Raises MissingFeatureError if it has none such."""
    library = libpcap()
    try:
        function = getattr(library, name)
    except AttributeError:
        raise MissingFeatureError(f"this libpcap is too old: it has no {name}()") from None
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address
    return address


# Where the number in a file (LINKTYPE_) is not Linux's number of the link type (DLT_): pcap-linktype(7).
_DLT_OF_LINKTYPE = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}


def dlt_of(link_type: int) -> int:
    """Linux's DLT_ number of a file's LINKTYPE_ number."""
    return _DLT_OF_LINKTYPE.get(link_type, link_type)


def link_type_name(link_type: int) -> str:
    """As a user may look it up: `127 (IEEE802_11_RADIO)`."""
    name: bytes | None = libpcap().pcap_datalink_val_to_name(dlt_of(link_type))
    return f"{link_type} ({name.decode()})" if name else str(link_type)
