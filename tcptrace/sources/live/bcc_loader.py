"""bcc: found, told where our own headers are, and asked to compile and load.

bcc is a package of the system, not of PyPI (the library of that name there is something else),
so it is looked for in the system's own folders, for that one name.
"""

import contextlib
import ctypes
import glob
import importlib.machinery
import importlib.util
import mmap
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tcptrace.errors import MissingFeatureError, NotPermittedError, TcptraceError

# Debian and Ubuntu; Fedora, Arch and openSUSE keep it beside their own Python's packages.
SYSTEM_FOLDERS: Final = (
    "/usr/lib/python3/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
)
# Of linux/perf_event.h.
PERF_TYPE_SOFTWARE: Final = 1
PERF_COUNT_SW_CPU_CLOCK: Final = 0
INSTALL_HINT: Final = (
    "install python3-bpfcc (Debian, Ubuntu), python3-bcc (Fedora, openSUSE) or python-bcc (Arch); not from PyPI"
)


def import_bcc() -> Any:
    """The system's bcc module.

    Raises MissingFeatureError when there is none, or when it does not import.
    """
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    folders = [folder for pattern in SYSTEM_FOLDERS for folder in sorted(glob.glob(pattern), reverse=True)]
    spec = importlib.machinery.PathFinder.find_spec("bcc", folders)
    if spec is None or spec.loader is None:
        raise MissingFeatureError(f"bcc is not installed: {INSTALL_HINT}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules["bcc"]
        raise MissingFeatureError(f"bcc in {spec.origin} does not work: {error}; {INSTALL_HINT}") from error
    if not hasattr(module, "BPF"):
        raise MissingFeatureError(f"{spec.origin} is not the BPF compiler collection: {INSTALL_HINT}")
    return module


def compile_programs(text: str, headers: Path, defines: Sequence[str]) -> Any:
    """Compile C `text` with our own headers; the bcc.BPF object.

    Raises MissingFeatureError with the compiler's first complaint.
    """
    bcc = import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    with _stderr_aside() as said:
        try:
            # Without debug information (-g0) it is a tenth faster; bcc wants bytes here and text there.
            cflags = ["-g0", f"-I{headers}", *(f"-D{define}" for define in defines)]
            return bcc.BPF(text=text.encode(), cflags=cflags)
        except Exception as error:
            complaint = _first_complaint(said()) or str(error)
    raise MissingFeatureError(f"bcc {bcc.__version__} cannot compile the BPF programs: {complaint}")


def load(programs: Any, name: str, kind: int) -> int:
    """Load function `name` as a program of type `kind` into the kernel; its file descriptor.

    Raises NotPermittedError or MissingFeatureError with the kernel's reason.
    """
    with _stderr_aside() as said:
        try:
            return int(programs.load_func(name.encode(), kind).fd)
        except Exception as error:
            text, reason = said(), str(error)
    if "Operation not permitted" in text + reason:
        raise NotPermittedError(f"the kernel does not let us load BPF programs: {reason}")
    raise MissingFeatureError(f"the kernel refuses BPF program {name}: {_last_line(text) or reason}")


def load_with(programs: Any, name: str, kind: int, marker: int, value: int) -> int:
    """As load(), with `value` wherever an instruction has the constant `marker`; again and again, with others.

    Raises MissingFeatureError, too, where the compiler has left none.
    """
    lib, key = import_bcc().lib, name.encode()
    size_bytes = lib.bpf_function_size(programs.module, key)
    # Not read-only, as bcc itself puts the maps' descriptors there.
    code = (ctypes.c_char * size_bytes).from_address(lib.bpf_function_start(programs.module, key))
    original = code.raw
    changed = [
        struct.pack("=Ii", head, value if constant == marker else constant)  # the second half of struct bpf_insn
        for head, constant in struct.iter_unpack("=Ii", original)
    ]
    if b"".join(changed) == original:
        raise MissingFeatureError(f"the compiler has made something else of BPF program {name}")
    code.raw = b"".join(changed)
    try:
        fd = load(programs, name, kind)
    finally:
        code.raw = original
    programs.funcs[f"{name} {value}".encode()] = programs.funcs.pop(key)
    return fd


def loaded_fd(programs: Any, name: str) -> int:
    """File descriptor of a program that load() has loaded."""
    return int(programs.funcs[name.encode()].fd)


def map_fd(programs: Any, name: str) -> int:
    """File descriptor of BPF map `name`, also where bcc cannot describe its types in Python."""
    return int(import_bcc().lib.bpf_table_fd(programs.module, name.encode()))


def put_in_map(programs: Any, name: str, entries: dict[int, int]) -> None:
    """Write int -> int entries into BPF map `name`, flags 0.  Raises TcptraceError."""
    bcc = import_bcc()
    fd = programs[name.encode()].map_fd
    for key, value in entries.items():
        result = bcc.lib.bpf_update_elem(fd, ctypes.byref(ctypes.c_int(key)), ctypes.byref(ctypes.c_int(value)), 0)
        if result < 0:
            raise TcptraceError(f"BPF map {name}: {os.strerror(ctypes.get_errno())}")


def put_keys_in_map(programs: Any, name: str, keys: Sequence[bytes]) -> None:
    """Write entries of one byte, 1, into BPF map `name`.  Raises TcptraceError."""
    bcc = import_bcc()
    fd = programs[name.encode()].map_fd
    for key in keys:
        if (
            bcc.lib.bpf_update_elem(fd, ctypes.create_string_buffer(key, len(key)), ctypes.byref(ctypes.c_uint8(1)), 0)
            < 0
        ):
            raise TcptraceError(f"BPF map {name}: {os.strerror(ctypes.get_errno())}")


def share_memory(programs: Any, name: str, size_bytes: int) -> mmap.mmap:
    """What is in BPF map `name`, made with BPF_F_MMAPABLE, as it changes.  Raises MissingFeatureError."""
    try:
        return mmap.mmap(programs[name.encode()].map_fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError as error:
        raise MissingFeatureError(f"BPF map {name} cannot be shared: {error.strerror}") from error


def attach_tick(programs: Any, name: str, frequency_hz: int) -> None:
    """Run program `name` on every CPU so often, by its software clock.  Raises MissingFeatureError."""
    with _stderr_aside() as said:
        try:
            programs.attach_perf_event(
                ev_type=PERF_TYPE_SOFTWARE,
                ev_config=PERF_COUNT_SW_CPU_CLOCK,
                fn_name=name.encode(),
                sample_freq=frequency_hz,
            )
            return
        except Exception as error:
            reason = _last_line(said()) or str(error)
    raise MissingFeatureError(f"the kernel does not run programs by a perf clock: {reason} (CONFIG_PERF_EVENTS)")


def attach_raw_tracepoint(programs: Any, name: str, tracepoint: str) -> bool:
    """Run program `name` at a raw tracepoint; False where the kernel has no such tracepoint."""
    with _stderr_aside():
        try:
            programs.attach_raw_tracepoint(tp=tracepoint.encode(), fn_name=name.encode())
        except Exception:
            return False
    return True


def attach_kprobe(programs: Any, name: str, function: str) -> bool:
    """Run program `name` where the kernel's `function` begins; False where it has none, or no kprobes."""
    with _stderr_aside():
        try:
            programs.attach_kprobe(event=function.encode(), fn_name=name.encode())
        except Exception:
            return False
    return True


def release(programs: Any) -> None:
    """Give maps, programs and what they are attached to back to the kernel; needs no privileges."""
    # bcc would look for each kprobe in tracefs as well, which only root may and only kernels before 4.17 need.
    for by_program in programs.kprobe_fds.values():
        for fd in by_program.values():
            import_bcc().lib.bpf_close_perf_event_fd(fd)
    programs.kprobe_fds.clear()
    programs.cleanup()


@contextlib.contextmanager
def _stderr_aside() -> Iterator[Any]:
    """bcc's compiler and the verifier write to file descriptor 2: keep that for the error message."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        saved = os.dup(2)
        os.dup2(aside.fileno(), 2)

        def said() -> str:
            aside.seek(0)
            return aside.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _first_complaint(text: str) -> str | None:
    found = re.search(r"^.*(?:error|fatal): .*$", text, re.MULTILINE)
    return found.group(0).strip() if found else None


def _last_line(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("processed")]
    return lines[-1] if lines else None
