from typing import Any

import numpy.typing as npt

class SocketRing:
    fds: dict[int, int]
    taken: int
    def __init__(self, cpus: list[int], ring_bytes: int) -> None: ...
    def read(self, until_ns: int) -> npt.NDArray[Any]: ...
    def close(self) -> None: ...
