"""Some rows of a table, of which no more is read than the fields that are asked for."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tcptrace.model import Indices, Rows


class Selected:
    """What `rows[indices]` would be, but nothing is copied until a field is asked for: rows are large."""

    def __init__(self, rows: Rows, indices: Indices) -> None:
        self._rows = rows
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, name: str) -> Any:
        column = self._rows[name]
        return column[self._indices] if column.dtype.names is None else Selected(column, self._indices)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._rows[self._indices], dtype)


def selected(rows: Rows, indices: Indices) -> Rows:
    """To whom it is handed it is like an array of rows, as far as they ask for fields by name."""
    return cast(Rows, Selected(rows, indices))
