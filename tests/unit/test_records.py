"""tcptrace.records against what a compiler makes of bpf/records.h, the one definition."""

import importlib.resources
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tcptrace import records

PREFIXES = ("DIRECTION_", "FLAG_", "OPTION_", "NOTE_", "SOCKET_", "SOCKETS_", "ROLE_", "OWNER_")
"""Enums that Python knows by the same names."""

STRUCTS = {
    "packet_record": records.PACKET_RECORD,
    "flow_key": records.FLOW_KEY,
    "flow_direction": records.FLOW_DIRECTION,
    "flow_count": records.FLOW_COUNT,
    "socket_key": records.SOCKET_KEY,
    "socket_view": records.SOCKET_VIEW,
    "socket_record": records.SOCKET_RECORD,
    "socket_counts": records.SOCKET_COUNTS,
}
"""What crosses from the kernel."""

Layout = dict[str, tuple[int, int, int, int]]
"""Of each field: offset, size, size of one element, 1 if it is an unsigned number."""


def header() -> Path:
    return Path(str(importlib.resources.files("tcptrace.bpf") / "records.h"))


def header_text() -> str:
    return re.sub(r"/\*.*?\*/", "", header().read_text(), flags=re.DOTALL)


def fields_of(struct: str) -> list[tuple[str, bool]]:
    """Names of its fields, and which are arrays, as they stand in the header."""
    body = re.search(rf"struct {struct} \{{(.*?)\}};", header_text(), re.DOTALL)
    assert body is not None
    return [(name, bool(array)) for name, array in re.findall(r"(\w+)\s*(\[\w+\])?;", body[1])]


def enum_names() -> list[str]:
    return [
        name
        for body in re.findall(r"enum \w+ \{(.*?)\}", header_text(), re.DOTALL)
        for name in re.findall(r"\b[A-Z]\w+\b", body)
    ]


def ask_compiler(folder: Path, lines: list[str]) -> list[list[int]]:
    """Numbers that C expressions have."""
    text = ["#include <stddef.h>", "#include <stdio.h>", '#include "records.h"', "int main(void)", "{"]
    text += [f'\tprintf("%lld %lld %lld %lld\\n", {line});' for line in lines]
    (folder / "ask.c").write_text("\n".join([*text, "\treturn 0;", "}", ""]))
    command = ["gcc", "-Wall", "-Werror", f"-I{header().parent}", "-o", str(folder / "ask"), str(folder / "ask.c")]
    subprocess.run(command, check=True)
    answer = subprocess.run([str(folder / "ask")], check=True, capture_output=True, text=True).stdout
    return [[int(number) for number in line.split()] for line in answer.splitlines()]


@pytest.fixture(scope="module", params=STRUCTS)
def struct(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def layout(struct: str, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    fields = fields_of(struct)
    dtype = STRUCTS[struct]
    lines = [f"(long long)sizeof(struct {struct}), 0LL, 0LL, 0LL"]
    for name, array in fields:
        field = f"((struct {struct} *)0)->{name}"
        element = f"{field}[0]" if array else field
        is_number = name not in dtype.fields or dtype.fields[name][0].base.names is None
        unsigned = f"(long long)((__typeof__({element}))-1 > 0)" if is_number else "0LL"
        lines.append(
            f"(long long)offsetof(struct {struct}, {name}), (long long)sizeof({field}), "
            f"(long long)sizeof({element}), {unsigned}"
        )
    answers = ask_compiler(tmp_path_factory.mktemp("layout"), lines)
    names = ["", *(name for name, _ in fields)]
    return {name: (a, b, c, d) for name, (a, b, c, d) in zip(names, answers, strict=True)}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    names = [*enum_names(), "SACK_BLOCKS", "FRAME_MAX_BYTES", "NAME_BYTES"]
    answers = ask_compiler(tmp_path_factory.mktemp("values"), [f"(long long){name}, 0LL, 0LL, 0LL" for name in names])
    return dict(zip(names, (answer[0] for answer in answers), strict=True))


def test_record_has_the_headers_fields_at_their_places(struct: str, layout: Layout) -> None:
    dtype = STRUCTS[struct]
    expected = {}
    for name, (kind, offset) in dtype.fields.items():
        # A struct (kind V) has no sign.
        expected[name] = (offset, kind.itemsize, kind.base.itemsize, int(kind.base.kind == "u"))
    assert {name: place for name, place in layout.items() if name} == expected
    assert dtype.itemsize == layout[""][0]
    assert list(dtype.names) == list(layout)[1:]


def test_record_has_no_padding(layout: Layout) -> None:
    """What is not a field would carry kernel memory out."""
    total = layout.pop("")[0]
    end = 0
    for offset, size, _, _ in layout.values():
        assert offset == end
        end += size
    assert end == total
    layout[""] = (total, 0, 0, 0)


def test_record_is_in_host_byte_order() -> None:
    assert all(kind.base.isnative for dtype in STRUCTS.values() for kind, _ in dtype.fields.values())


def test_nested_structs_are_those_of_their_own(tmp_path: Path) -> None:
    """In C, too: the header names them by type."""
    types = re.findall(r"struct (\w+) (\w+);", header_text())
    nested = {name: STRUCTS[kind] for kind, name in types}
    fields = {**records.SOCKET_RECORD.fields, **records.FLOW_COUNT.fields}
    assert nested == {name: fields[name][0] for name in ("key", "view", "from_lower", "from_higher")}


def test_batch_header_has_no_padding(tmp_path: Path) -> None:
    names = [name for name, _ in fields_of("batch_header")]
    assert names[-1] == "counters"
    sizes = " + ".join(f"sizeof(((struct batch_header *)0)->{name})" for name in names)
    whole, parts, _, _ = ask_compiler(
        tmp_path, [f"(long long)sizeof(struct batch_header), (long long)({sizes}), 0LL, 0LL"]
    )[0]
    assert whole == parts == 16 + 8 * len(records.COUNTERS)


def test_frame_head_has_no_padding(tmp_path: Path) -> None:
    names = [name for name, _ in fields_of("frame_head")]
    assert names == ["original_bytes", "captured_bytes"]
    sizes = " + ".join(f"sizeof(((struct frame_head *)0)->{name})" for name in names)
    whole, parts, _, _ = ask_compiler(
        tmp_path, [f"(long long)sizeof(struct frame_head), (long long)({sizes}), 0LL, 0LL"]
    )[0]
    assert whole == parts == 8


def test_the_largest_frame_fills_a_perf_sample() -> None:
    """perf_event_header (8 bytes), the raw data's size (4), head, record, head, frame: below 64 KiB, padded to 8."""
    before = 8 + 4 + 16 + records.PACKET_RECORD.itemsize + 8
    assert -(-(before + records.FRAME_MAX_BYTES) // 8) * 8 == 0xFFF8


def test_constants_are_the_headers(values: dict[str, int]) -> None:
    ours = {
        name: value for name, value in vars(records).items() if name.startswith(PREFIXES) and isinstance(value, int)
    }
    assert ours == {name: value for name, value in values.items() if name.startswith(PREFIXES)}
    assert values["SACK_BLOCKS"] == records.SACK_BLOCKS
    assert values["FRAME_MAX_BYTES"] == records.FRAME_MAX_BYTES
    assert values["NAME_BYTES"] == records.NAME_BYTES


def test_every_constant_is_one_bit_of_its_own(values: dict[str, int]) -> None:
    for prefix in ("FLAG_", "OPTION_", "NOTE_"):
        bits = [value for name, value in values.items() if name.startswith(prefix)]
        assert len(bits) > 1
        assert np.bitwise_or.reduce(bits) == sum(bits) == 2 ** len(bits) - 1


def test_flag_names_are_in_the_order_of_their_bits(values: dict[str, int]) -> None:
    assert {f"FLAG_{name}": 1 << bit for bit, name in enumerate(records.FLAG_NAMES)} == {
        name: value for name, value in values.items() if name.startswith("FLAG_")
    }


def test_counters_are_in_the_order_of_the_enum(values: dict[str, int]) -> None:
    counters = {value: name for name, value in values.items() if name.startswith("COUNT_")}
    assert [counters[index] for index in range(len(counters))] == [f"COUNT_{name.upper()}" for name in records.COUNTERS]
    assert values["COUNTERS"] == len(records.COUNTERS)


def test_causes_are_in_the_order_of_the_enum(values: dict[str, int]) -> None:
    causes = {value: name for name, value in values.items() if name.startswith("CAUSE_")}
    assert [causes[index] for index in range(len(causes))] == [f"CAUSE_{name.upper()}" for name in records.CAUSES]
    assert values["CAUSES"] == len(records.CAUSES)
