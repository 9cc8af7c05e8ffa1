"""The table's rows as Python sees them: model.CONNECTION, though what the kernel says of sockets is kept elsewhere.

A connection without sockets takes no memory for them, and that is a fifth of its row.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tcptrace.model import CONNECTION, Indices, Rows

SOCKET_FIELDS = ("src_socket", "dst_socket")


class StoredRows:
    """Used as an array of CONNECTION: a field by its name is no copy, rows by their indices are one.

    without_sockets: an array of all the other fields; sockets: one of those two, as long.
    """

    def __init__(self, without_sockets: Rows, sockets: npt.NDArray[Any]) -> None:
        self.without_sockets = without_sockets
        self._sockets = sockets

    def __len__(self) -> int:
        return len(self.without_sockets)

    def __getitem__(self, key: Any) -> Any:
        """A field by its name, else a copy of what an array's element or elements `key` would be."""
        if isinstance(key, str):
            return self._sockets[key] if key in SOCKET_FIELDS else self.without_sockets[key]
        indices = np.arange(len(self))[key]
        return self.take(indices) if indices.ndim else self.take(indices.reshape(1))[0]

    def take(self, indices: Indices) -> Rows:
        """A copy of these rows."""
        rows = np.empty(len(indices), CONNECTION)
        for stored in (self.without_sockets, self._sockets):
            names = list(stored.dtype.names or ())
            rows[names] = stored[indices][names]
        return rows
