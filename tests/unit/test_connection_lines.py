"""The lines of connections against json.dumps() of plain dicts, and their parts against Python's own."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcptrace.engine.stored_rows import SOCKET_FIELDS, StoredRows
from tcptrace.model import CONNECTION, PACKET_BRIEF, Rows, TraceInfo
from tcptrace.records import SOCKET_VIEW
from tcptrace.sinks import human
from tcptrace.sinks.json_text import lines
from tcptrace.sinks.ndjson import BATCH_LINES, Ndjson

from .handmade import START_NS
from .plain_connections import connection_events

INT64 = st.integers(-(2**63), 2**63 - 1)
TIME = "2023-11-14T22:13:21.000000000Z"

INTEGERS = [-1, 0, 1, 9, 10, 99, 1_000, 2**31 - 1, 2**32, 10**15, 2**53 + 1, 2**63 - 1]
FLOATS = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    -0.0004,
    0.0005,
    0.0015,
    1e-9,
    0.1,
    2.5,
    -1.25,
    999.9995,
    1e12,
    1e15,
    1e17,
    1e300,
]
NAMES = [b"", b"curl", b"k\xc3\xa4se", b'"\\\n', b"\xff\xfe", b"a" * 16]
INDICES = {"near_end": 4, "handshake": 5, "closed_by": 4, "close_kind": 3, "end_reason": 7}
FLAGS = ("initiator_known", "port_reuse", "in_use", "changed", "mac_known")


def values_for(rng: np.random.Generator, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Whatever may be in a field, the limits most of all."""
    if name in ("comm", "congestion_control"):
        chosen = [NAMES[i].ljust(16, b"\0")[:16] for i in rng.integers(0, len(NAMES), shape[0])]
        return np.frombuffer(b"".join(chosen), "u1").reshape(shape)
    if name in FLAGS:
        return rng.integers(0, 2, shape)
    if name in INDICES or name.endswith("state"):
        return rng.integers(0, INDICES.get(name, 11), shape)
    if name == "ip_version":
        return rng.choice([4, 6], shape)
    if dtype.kind == "f":
        return np.where(
            rng.random(shape) < 0.5, rng.choice(FLOATS, shape), rng.random(shape) * 10.0 ** rng.integers(-5, 12)
        )
    if dtype.itemsize < 4:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, endpoint=True)
    known = [number for number in INTEGERS if np.iinfo(dtype).min <= number <= np.iinfo(dtype).max]
    return np.where(rng.random(shape) < 0.5, rng.choice(known, shape), rng.integers(0, 2**31 - 1, shape))


def fill(rng: np.random.Generator, rows: np.ndarray) -> None:
    for name in rows.dtype.names or ():
        dtype = rows.dtype[name].base
        if dtype.names is None:
            rows[name] = values_for(rng, name, dtype, rows[name].shape)
        else:
            fill(rng, rows[name])


def any_rows(seed: int, count: int, *, with_sockets: bool) -> Rows:
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, CONNECTION)
    fill(rng, rows)
    rows["id"] = np.arange(count) + 1
    rows["records_lost"] = abs(rows["records_lost"])
    rows["start_ns"] = START_NS + rng.integers(-(10**6), 10**18, count)
    elapsed_ns = rng.choice([0, 1, 500, 99_999, 100_000, 1_500, 10**9, 10**15 - 1, 10**15, 3 * 10**15 + 7], count)
    rows["last_ns"] = rows["start_ns"] + elapsed_ns
    rows["recent_total"] = rng.integers(0, 12, count)
    rows["recent"]["time_ns"] = rows["start_ns"][:, np.newaxis] + rng.choice(
        [-1_500, -1, 0, 499, 500, 501, 999_999_500, 1_234_567, 10**15 + 500], (count, 5)
    )
    rows["recent"]["received"] %= 2
    for end in ("src_socket", "dst_socket"):
        rows[end]["time_ns"] = rng.integers(0, 2, count) if with_sockets else 0
    return rows


def plain_text(rows: Rows, info: TraceInfo, **fields: Any) -> bytes:
    events = connection_events(rows, TIME, info, **fields)
    return "".join(json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n" for event in events).encode()


def stored(rows: Rows) -> StoredRows:
    """As the engine's rows are, with something else between them, and their sockets elsewhere."""
    room = np.zeros(len(rows), np.dtype([("row", CONNECTION), ("other", "u1", 24)]))
    room["row"] = rows
    fields = CONNECTION.fields
    assert fields is not None
    names = [name for name in CONNECTION.names or () if name not in SOCKET_FIELDS]
    offsets = [fields[name][1] for name in names]
    formats = [fields[name][0] for name in names]
    others = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": room.itemsize})
    return StoredRows(room.view(others), rows[list(SOCKET_FIELDS)].copy())


class Sink:
    """The output, into memory."""

    def __init__(self, info: TraceInfo) -> None:
        self.stream = io.BytesIO()
        self.ndjson = Ndjson(self.stream, now_ns=lambda: START_NS)
        self.ndjson.open(info)
        self.written = len(self.stream.getvalue())

    def take(self) -> bytes:
        text = self.stream.getvalue()[self.written :]
        self.written += len(text)
        return text


@pytest.fixture
def info(info: TraceInfo) -> TraceInfo:
    return dataclasses.replace(
        info,
        probes="kprobes",
        netns=4_026_531_840,
        container_of=lambda cgroup_id: f"{cgroup_id:x}" if cgroup_id % 2 else None,
    )


@pytest.mark.parametrize("with_sockets", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_lines_are_what_plain_dicts_say(seed: int, with_sockets: bool, info: TraceInfo, make_view: Any) -> None:
    rows = stored(any_rows(seed, 40, with_sockets=with_sockets))
    view = make_view(rows, time_ns=START_NS + 10**9)
    sink = Sink(info)
    sink.ndjson.update(view)
    chosen = rows[(rows["in_use"] == 1) & (rows["changed"] == 1)]
    assert sink.take() == plain_text(chosen, info, final=False)
    sink.ndjson.update(view)  # what was remembered of them is the same
    assert sink.take() == plain_text(chosen, info, final=False)
    sink.ndjson.close(view)
    text = plain_text(rows[rows["in_use"] == 1], info, final=True, end_reason="trace_end")
    assert sink.take().startswith(text)


def test_ended_rows_more_than_a_batch(info: TraceInfo, make_view: Any) -> None:
    rows = any_rows(1, BATCH_LINES + 3, with_sockets=True)
    rows["start_ns"] = rows["last_ns"] = rows["recent"]["time_ns"] = START_NS + 10**9
    sink = Sink(info)
    sink.ndjson.ended(rows)
    assert sink.take() == plain_text(rows, info, final=True)


def test_a_row_with_another_connection_has_another_community_id(info: TraceInfo, make_view: Any, make_row: Any) -> None:
    sink, ids = Sink(info), []
    for number, port in ((1, 1000), (2, 1001), (2, 1001)):
        row = make_row(number, ("10.0.0.1", port), ("10.0.0.2", 443))
        sink.ndjson.update(make_view(row))
        ids.append(json.loads(sink.take())["community_id"])
    ends = [bytes(row[f"{end}_addr"][0]) for end in ("src", "dst")]
    assert ids == [human.community_id(ends[0], port, ends[1], 443, 4) for port in (1000, 1001, 1001)]


def encoded(column: lines.Column, count: int) -> list[str]:
    text = lines.Lines().encode([column], np.zeros(count, CONNECTION), np.arange(count)).decode()
    return [line.removeprefix('{"x":').removesuffix("}") for line in text.splitlines()]


@given(st.lists(st.floats(-1e300, 1e300) | st.floats(-1e6, 1e6) | st.sampled_from(FLOATS), min_size=1))
def test_thousandths(values: list[float]) -> None:
    column = np.array(values)
    known = [json.dumps(one) if np.isfinite(one) else "null" for one in np.round(column, 3).tolist()]
    assert encoded(lines.thousandths("x", column), len(values)) == known


@given(st.lists(INT64 | st.integers(-(10**10), 10**10), min_size=1))
def test_seconds(values: list[int]) -> None:
    assert encoded(lines.seconds("x", np.array(values, "i8")), len(values)) == [json.dumps(ns / 1e9) for ns in values]


@given(st.lists(INT64 | st.integers(0, 2 * 10**18), min_size=1))
def test_times(values: list[int]) -> None:
    told = encoded(lines.times("x", np.array(values, "i8"), 0), len(values))
    assert told == [f'"{human.rfc3339(ns)}"' for ns in values]


@given(st.lists(INT64, min_size=1))
def test_integers(values: list[int]) -> None:
    expected = ["null" if value < 0 else str(value) for value in values]
    assert encoded(lines.integers("x", np.array(values, "i8")), len(values)) == expected


@settings(max_examples=30)
@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.sampled_from([4, 6])), min_size=1))
def test_addresses(values: list[tuple[bytes, int]]) -> None:
    rows = np.zeros(len(values), CONNECTION)
    rows["src_addr"] = [list(raw) for raw, _ in values]
    rows["ip_version"] = [version for _, version in values]
    text = lines.Lines().encode([lines.addresses("x", ("src_addr",))], rows, np.arange(len(rows))).decode()
    assert [json.loads(line)["x"] for line in text.splitlines()] == [human.address(*value) for value in values]


def test_no_lines() -> None:
    assert lines.Lines().encode([lines.constant("x", 1)], np.zeros(0, CONNECTION), np.arange(0)) == b""


@pytest.mark.parametrize("rows", [np.zeros(3, PACKET_BRIEF), np.zeros(3, SOCKET_VIEW)])
def test_other_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(TypeError):
        lines.Lines().encode([lines.integers("x", ("id",))], rows, np.arange(3))


def test_doubles_are_asked_for() -> None:
    with pytest.raises(TypeError):
        lines.thousandths("x", np.zeros(3, "i8"))
