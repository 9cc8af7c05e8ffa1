from typing import Any

import numpy as np
import numpy.typing as npt

MESSAGE: np.dtype[Any]

def parse(
    data: bytes | bytearray | memoryview, time_ns: int, netns: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...
def receive_waiting(fd: int, buffer: bytearray | memoryview, largest: int) -> int: ...
