from typing import Any

import numpy.typing as npt

def matching(program: bytes, frames: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> npt.NDArray[Any]: ...
