"""Community IDs as JSON text: a hash for each connection, which is the same all its life."""

import numpy as np

from tcptrace.model import Indices, Rows
from tcptrace.sinks import bulk, human
from tcptrace.sinks.selected import selected


def encoded_ids(rows: Rows) -> list[bytes]:
    """Worked out anew."""
    src, dst = ((bulk.packed(rows[f"{end}_addr"]), rows[f"{end}_port"].tolist()) for end in ("src", "dst"))
    ids = map(human.community_id, *src, *dst, rows["ip_version"].tolist())
    return [b'"%b"' % text.encode("ascii") for text in ids]


class CommunityIds:
    """Of the engine's table: each is worked out when its connection is first asked for."""

    def __init__(self) -> None:
        self._connections = np.zeros(0, "u8")  # whose it is, by row
        self._texts = np.zeros(0, "S32")

    def of(self, table: Rows, indices: Indices) -> list[bytes]:
        """Of these rows of the table."""
        self._make_room(len(table))
        connections = table["id"][indices]
        new = np.flatnonzero(self._connections[indices] != connections)
        if len(new):
            places = indices[new]
            self._texts[places] = encoded_ids(selected(table, places))
            self._connections[places] = connections[new]
        known: list[bytes] = self._texts[indices].tolist()
        return known

    def _make_room(self, size: int) -> None:
        added = size - len(self._connections)
        if added > 0:
            self._connections = np.concatenate([self._connections, np.zeros(added, "u8")])
            self._texts = np.concatenate([self._texts, np.zeros(added, "S32")])
