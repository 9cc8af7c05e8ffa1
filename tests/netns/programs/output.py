"""What a process writes, line by line as it comes, and never waited for longer than TIMEOUT_S."""

import queue
import threading
from typing import IO

from netns_tools import TIMEOUT_S


class Output:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                self._lines.put(line)
        self._lines.put("")

    def line(self) -> str:
        """The next line, "" at the end; queue.Empty if neither comes."""
        return self._lines.get(timeout=TIMEOUT_S)

    def rest(self) -> list[str]:
        """All lines up to the end."""
        return list(iter(self.line, ""))
