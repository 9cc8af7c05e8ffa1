"""What is copied of a socket, and the C that it is read by, compiled here for a kernel made up."""

import ctypes
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcptrace.errors import MissingFeatureError
from tcptrace.sources.live.btf import Field
from tcptrace.sources.live.socket_layout import (
    ALIGNMENT,
    GAP_BYTES,
    NEEDED,
    accept_source,
    byte_ranges,
    layout_source,
)

from .kernel_types import EVERY_FIELD, FakeKernelTypes

FIELDS = st.builds(Field, st.integers(0, 3000), st.integers(1, 24))
READER = """
#include <string.h>
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;
#define bpf_probe_read_kernel(to, size, from) memcpy(to, from, size)
{layout}
__u64 read_{name}(char *sk) {{ __u8 image[IMAGE_BYTES] = {{}}; READ_VIEW(image, sk); return FIELD_{name}(image); }}
"""


@given(st.lists(FIELDS, min_size=1, max_size=40))
def test_every_field_is_in_one_range(fields: list[Field]) -> None:
    ranges = byte_ranges(fields)
    assert ranges == sorted(ranges)
    for field in fields:
        assert any(start <= field.offset and field.offset + field.size <= end for start, end in ranges)
    for start, end in ranges:
        assert (start % ALIGNMENT, end % ALIGNMENT) == (0, 0)
    # Nearer to each other, one copy would have been cheaper.
    assert all(later[0] - earlier[1] > GAP_BYTES for earlier, later in pairwise(ranges))


def test_ranges_by_hand() -> None:
    assert byte_ranges([Field(4, 4), Field(16, 2), Field(400, 16)]) == [(0, 24), (400, 416)]


class OneField(FakeKernelTypes):
    """srtt_us stands where the test puts it."""

    def __init__(self, srtt: Field | None) -> None:
        super().__init__()
        self._srtt = srtt

    def field(self, struct: str, path: str) -> Field | None:
        return self._srtt if path == "srtt_us" else super().field(struct, path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Field(1237, 1), 1237 % 251),
        (Field(96, 4), int.from_bytes(bytes([96, 97, 98, 99]), "little")),
        (Field(23, 1, 2, 3), 23 >> 2 & 7),
        (None, 0),
    ],
)
def test_a_field_is_read_from_where_it_stands(tmp_path: Path, field: Field | None, value: int) -> None:
    types: Any = OneField(field)
    source, library = tmp_path / "reader.c", tmp_path / "reader.so"
    source.write_text(READER.format(layout=layout_source(types), name="srtt_us"))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    read = ctypes.CDLL(str(library)).read_srtt_us
    read.restype = ctypes.c_uint64
    assert read(bytes(number % 251 for number in range(8192))) == value


@pytest.mark.parametrize("name", NEEDED)
def test_without_these_there_is_nothing_to_tell(name: str) -> None:
    types: Any = FakeKernelTypes({EVERY_FIELD[name][1]})
    with pytest.raises(MissingFeatureError, match=f"sockets have no {name}"):
        layout_source(types)


def test_what_a_kernel_may_lack() -> None:
    types: Any = FakeKernelTypes({"srtt_us", "chrono_stat", "kn", "group_leader"})
    lines = layout_source(types).splitlines()
    for name in ("srtt_us", "chrono_busy", "chrono_sndbuf", "kernfs_id", "process_comm"):
        assert f"#define HAS_{name} 0" in lines
    assert "#define HAS_snd_cwnd 1" in lines


def test_the_way_from_a_file_descriptor() -> None:
    types: Any = FakeKernelTypes()
    assert "#define HAVE_TASK_FILES" in (accept_source(types) or "")
    without: Any = FakeKernelTypes({"fdt"})
    assert accept_source(without) is None
