"""Which connections are shown first."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcptrace.model import CONNECTION, Rows
from tcptrace.sinks import order
from tcptrace.sinks.sort_keys import SORT_KEYS

NAN = float("nan")


def ids(table: Rows, key: str, limit: int = 100) -> list[int]:
    return table["id"][order.top(table, key, limit)].tolist()


@pytest.fixture
def table(make_row: Callable[..., Rows], put_socket: Callable[..., None]) -> Rows:
    rows = np.concatenate(
        [
            make_row(
                1,
                ("10.0.0.9", 1),
                ("10.0.0.2", 443),
                sent_bytes_per_s=5.0,
                received_bytes_per_s=5.0,
                sent_bytes=1,
                received_packets=9,
                state="ESTABLISHED",
                duration_s=3,
                handshake_rtt_us=50.0,
            ),
            make_row(2, ("10.0.0.1", 2), ("2001:db8::1", 22), sent_bytes_per_s=20.0, sent_bytes=7, duration_s=1),
            make_row(
                3,
                ("10.0.0.1", 1),
                ("10.0.0.1", 80),
                sent_bytes_per_s=NAN,
                received_bytes_per_s=NAN,
                received_bytes=7,
                sent_rtt_smoothed_us=70.0,
                handshake_rtt_us=1.0,
                sent_retransmissions=2,
                state="SYN-SENT",
            ),
            make_row(4, ("1.1.1.1", 1), ("1.1.1.1", 1), sent_bytes_per_s=1e9, sent_bytes=10**9, in_use=0),
            make_row(5, ("10.0.0.9", 1), ("10.0.0.2", 443), sent_bytes_per_s=10.0, start_ns=10**18 * 2, state="CLOSED"),
        ]
    )
    rows["last_ns"] = np.maximum(rows["last_ns"], rows["start_ns"])
    put_socket(rows[0:1], "src", comm="curl", pid=10, srtt_us=90, cwnd_packets=10)
    put_socket(rows[2:3], "dst", comm="cat", pid=70, cwnd_packets=30)
    put_socket(rows[4:5], "src", comm="curl", pid=9, srtt_us=80, cwnd_packets=20)
    return rows


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rate", [2, 1, 5, 3]),  # 1 and 5 tie; 3 is not known
        ("bytes", [2, 3, 1, 5]),
        ("packets", [1, 2, 3, 5]),
        ("rtt", [3, 1, 2, 5]),
        ("retransmissions", [3, 1, 2, 5]),
        ("duration", [1, 2, 3, 5]),
        ("start", [5, 1, 2, 3]),
        ("state", [3, 1, 5, 2]),
        ("src", [3, 2, 1, 5]),
        ("dst", [3, 1, 5, 2]),
        ("port", [2, 3, 1, 5]),
        ("process", [3, 5, 1, 2]),  # cat, curl/9, curl/10; 2 has no socket
        ("srtt", [1, 5, 2, 3]),
        ("cwnd", [3, 5, 1, 2]),
    ],
)
def test_each_key(table: Rows, key: str, expected: list[int]) -> None:
    assert ids(table, key) == expected


def test_every_key_has_its_case() -> None:
    cases = test_each_key.pytestmark[0].args[1]
    assert [key for key, _ in cases] == list(SORT_KEYS) == list(order._KEYS)


@pytest.mark.parametrize("key", SORT_KEYS)
def test_the_first_few_are_the_beginning_of_all(table: Rows, key: str) -> None:
    everything = ids(table, key)
    assert len(everything) == 4
    assert [ids(table, key, limit) for limit in range(6)] == [everything[:limit] for limit in range(6)]


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.5, NAN]), st.booleans()), max_size=60),
    st.integers(0, 70),
)
def test_rates_are_as_a_plain_sort_has_them(values: list[tuple[float, bool]], limit: int) -> None:
    table = np.zeros(len(values), CONNECTION)
    table["id"] = np.arange(len(values))[::-1]
    table["sent"]["bytes_per_s"] = [rate for rate, _ in values]
    table["received"]["bytes_per_s"] = NAN
    table["in_use"] = [used for _, used in values]
    plain = sorted(
        (rate != rate, 0 if rate != rate else -rate, len(values) - 1 - position)
        for position, (rate, used) in enumerate(values)
        if used
    )
    assert ids(table, "rate", limit) == [number for _, _, number in plain][:limit]


def test_an_empty_table() -> None:
    assert ids(np.zeros(8, CONNECTION), "src", 5) == []
    assert ids(np.zeros(0, CONNECTION), "rate", 5) == []


class ChangingView:
    """A table of which some rows change from update to update."""

    def __init__(self, rows: Rows, touched: list[int]) -> None:
        self.rows = rows
        self.indices = np.array(sorted(touched), "i4")

    def table(self) -> Rows:
        return self.rows

    def touched(self) -> np.ndarray:
        return self.indices


def shuffled(rows: Rows, rng: np.random.Generator, indices: list[int]) -> None:
    """New values for these rows, few different ones, so that there are ties."""
    for index in indices:
        row = rows[index]
        row["in_use"] = rng.integers(0, 4) > 0
        row["id"] = rng.integers(1, 1 << 40)
        row["start_ns"], row["last_ns"] = rng.integers(0, 3), rng.integers(3, 6)
        row["state"], row["near_end"] = rng.integers(0, 11), rng.integers(0, 4)
        row["src_addr"], row["dst_addr"] = rng.integers(0, 2, 16), rng.integers(0, 2, 16)
        row["src_port"], row["dst_port"] = rng.integers(0, 3, 2)
        row["handshake_rtt_us"] = rng.choice([NAN, 1.0, 2.0])
        for direction in (row["sent"], row["received"]):
            direction["bytes_per_s"], direction["rtt_smoothed_us"] = rng.choice([NAN, 0.0, 5.0], 2)
            direction["bytes"], direction["packets"], direction["retransmissions"] = rng.integers(0, 3, 3)
        for end in (row["src_socket"], row["dst_socket"]):
            end["time_ns"], end["pid"], end["srtt_us"] = rng.integers(0, 2), *rng.integers(-1, 3, 2)
            end["cwnd_packets"], end["state"] = rng.integers(-1, 3), rng.integers(0, 13)
            end["comm"][:2] = rng.integers(0, 3, 2)


@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_remembered_is_as_the_whole_table(key: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    memory = np.zeros(200, CONNECTION)
    ranking, size = order.Ranking(key), 0
    for _ in range(20):
        added = int(rng.integers(0, 10))
        touched = set(rng.integers(0, size, 5).tolist() if size else ()) | set(range(size, size + added))
        size += added
        rows = memory[:size]
        shuffled(rows, rng, sorted(touched))
        limit = int(rng.integers(0, 60))
        assert ranking.top(ChangingView(rows, list(touched)), limit).tolist() == order.top(rows, key, limit).tolist()


def test_another_table_is_read_anew(table: Rows) -> None:
    ranking = order.Ranking("bytes")
    assert table["id"][ranking.top(ChangingView(table, []), 9)].tolist() == [2, 3, 1, 5]
    assert table["id"][ranking.top(ChangingView(table[:2], []), 9)].tolist() == [2, 1]
