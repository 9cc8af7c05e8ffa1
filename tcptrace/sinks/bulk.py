"""Whole columns of structured arrays as lists of Python values, unknown as None."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace.sinks import human

Column = npt.NDArray[Any]


def integers(column: Column) -> list[int | None]:
    """Signed integers; negative is unknown."""
    values: list[int | None] = column.tolist()
    if column.size and column.min() < 0:
        return [None if value is None or value < 0 else value for value in values]
    return values


def floats(column: Column, decimals: int = 3) -> list[float | None]:
    """Rounded; NaN and infinite are unknown."""
    values: list[float | None] = np.round(column, decimals).tolist()
    known = np.isfinite(column)
    if known.all():
        return values
    return [value if is_known else None for value, is_known in zip(values, known.tolist(), strict=True)]


def where(present: Column, values: Sequence[Any]) -> list[Any]:
    """`values`, with None where `present` is false."""
    return [value if is_there else None for value, is_there in zip(values, present.tolist(), strict=True)]


def names(column: Column, table: Sequence[str | None]) -> list[str | None]:
    """An index into `table` as the name it stands for."""
    return [table[index] for index in column.tolist()]


def packed(column: Column) -> list[bytes]:
    """A column of byte arrays (addresses) as bytes objects."""
    size = column.shape[-1]
    raw = np.ascontiguousarray(column).tobytes()
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def addresses(raw: Sequence[bytes], ip_versions: Sequence[int]) -> list[str]:
    """16-byte addresses as text."""
    return list(map(human.address, raw, ip_versions))
