"""Which memory of the compiler's libraries may be given back."""

import subprocess
import sys

from tcptrace.sources.live.compiler_memory import unchanged_mappings


def mapping(address: str, permissions: str, path: str, anonymous_kb: int) -> list[str]:
    return [
        f"{address} {permissions} 00001000 fe:00 1234    {path}",
        "Size:   8 kB",
        f"Anonymous:  {anonymous_kb} kB",
        "VmFlags: rd ex",
    ]


def test_only_what_is_as_in_the_file() -> None:
    library = "/usr/lib/libLLVM-14.so.1"
    lines = [
        *mapping("1000-3000", "r--p", library, 0),
        *mapping("3000-9000", "r-xp", library, 0),
        *mapping("9000-a000", "r--p", library, 4),  # relocated
        *mapping("a000-b000", "rw-p", library, 0),
        *mapping("b000-c000", "r-xs", library, 0),
        *mapping("c000-d000", "r-xp", "/usr/lib/libother.so", 0),
        *mapping("d000-e000", "r-xp", "", 0),
        *mapping("e000-f000", "r-xp", "/usr/lib/llvm-14/lib/libclang-cpp.so.14", 0),
    ]
    found = list(unchanged_mappings(lines, ("libLLVM", "libclang")))
    assert found == [(0x1000, 0x2000), (0x3000, 0x6000), (0xE000, 0x1000)]


PROGRAM = """
import ctypes, sys
from pathlib import Path
from tcptrace.sources.live import compiler_memory
import {module}

lines = Path("/proc/self/smaps").read_text().splitlines()
assert list(compiler_memory.unchanged_mappings(lines, (sys.argv[1],))), "nothing to give back"
compiler_memory.COMPILER_LIBRARIES = (sys.argv[1],)
compiler_memory.give_back()
{use}
print("works")
"""


def test_a_library_still_works_afterwards() -> None:
    """Of sqlite3: its code comes from the file again."""
    use = 'print(sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0])'
    program = PROGRAM.format(module="sqlite3", use=use)
    run = subprocess.run(
        [sys.executable, "-P", "-c", program, "libsqlite3"], capture_output=True, text=True, check=False
    )
    if "nothing to give back" in run.stderr:  # linked into the interpreter
        return
    assert (run.stdout, run.stderr) == ("42\nworks\n", "")
