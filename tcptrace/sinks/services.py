"""Names of TCP services for whole columns of ports, each looked up once."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tcptrace.sinks import human
from tcptrace.sinks.json_text.lines import encoded

_NOT_ASKED: Final = -2
_NONE: Final = -1


class Services:
    """Those found so far, as JSON in `encoded`; ports are told by indices into it, -1 for a port without a name."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []
        self._of_port = np.full(1 << 16, _NOT_ASKED, "i4")

    def of_ports(self, ports: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._of_port[ports]
        if found.min(initial=0) == _NOT_ASKED:
            for port in set(ports[found == _NOT_ASKED].tolist()):  # np.unique() imports numpy.ma, for 10 ms
                self._of_port[port] = self._index_of(human.service(port))
            found = self._of_port[ports]
        return found

    def of_connections(
        self, src_ports: npt.NDArray[Any], dst_ports: npt.NDArray[Any], initiator_known: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Of the destination's port; of the source's only where it is not known who began."""
        found = self.of_ports(dst_ports).copy()
        doubtful = np.flatnonzero((found < 0) & (initiator_known == 0))
        found[doubtful] = self.of_ports(src_ports[doubtful])
        return found

    def _index_of(self, name: str | None) -> int:
        if name is None:
            return _NONE
        (text,) = encoded([name])
        if text not in self.encoded:
            self.encoded.append(text)
        return self.encoded.index(text)
