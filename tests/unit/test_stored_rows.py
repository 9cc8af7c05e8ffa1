"""Rows whose sockets are elsewhere: to Python they are one array."""

import numpy as np
import pytest

from tcptrace.engine.stored_rows import SOCKET_FIELDS, StoredRows
from tcptrace.model import CONNECTION

ROWS = 23


@pytest.fixture
def whole() -> np.ndarray:
    """Each byte of it its own."""
    random = np.random.default_rng(7)
    rows = np.zeros(ROWS, CONNECTION)
    rows.view("u1")[:] = random.integers(0, 256, rows.nbytes, "u1")
    return rows


@pytest.fixture
def stored(whole: np.ndarray) -> StoredRows:
    others = [name for name in CONNECTION.names or () if name not in SOCKET_FIELDS]
    return StoredRows(whole[others], whole[list(SOCKET_FIELDS)])


def values(rows: np.ndarray) -> str:
    """Of all fields; what lies between them is nobody's, and NaN is no number that equals itself."""
    return repr(rows.tolist())


@pytest.mark.parametrize("name", CONNECTION.names)
def test_fields_are_no_copies(whole: np.ndarray, stored: StoredRows, name: str) -> None:
    assert np.shares_memory(stored[name], whole)
    assert values(stored[name]) == values(whole[name])


@pytest.mark.parametrize("key", [[], [5, 0, 22, 5], slice(3, 19, 4), np.arange(ROWS) % 3 == 1], ids=str)
def test_rows_are_copies_of_all_fields(whole: np.ndarray, stored: StoredRows, key: object) -> None:
    key = np.array(key, int) if isinstance(key, list) else key
    taken = stored[key]
    assert taken.dtype == CONNECTION
    assert values(taken) == values(whole[key])
    assert not np.shares_memory(taken, whole)


def test_one_row(whole: np.ndarray, stored: StoredRows) -> None:
    assert values(stored[-1]) == values(whole[-1])


def test_no_row_behind_the_last(stored: StoredRows) -> None:
    assert len(stored) == ROWS
    with pytest.raises(IndexError):
        stored[ROWS]
