"""A live source by itself: `python keep_frames.py INTERFACE SNAPLEN tc|xdp RING_BYTES FILE` (0: the default ring).

Prints "ready" once attached.  On stdin a first byte says read, a second one stop; then all that was read goes to FILE
(numpy's .npz), and what was counted to stdout, as JSON.
"""

import json
import os
import select
import sys
from dataclasses import asdict
from typing import Any

from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.opening import Opening
from tcptrace.sources.live.pcap_filter import filter_source

READ_TIMEOUT_S = 0.02


class Kept:
    """Batches put together again."""

    def __init__(self) -> None:
        self.arrays: dict[str, list[Any]] = {}
        self._bytes = 0

    def add(self, records: Any, frames: Any) -> None:
        sizes = {len(one) for one in (records, frames.starts, frames.captured_bytes, frames.original_bytes)}
        assert sizes == {len(frames.interfaces)}
        assert not frames.interfaces.any()
        used = int(frames.starts[-1] + frames.captured_bytes[-1]) if len(records) else 0
        for name, array in (
            ("records", records),
            ("data", frames.data[:used]),
            ("starts", frames.starts + self._bytes),
            ("captured_bytes", frames.captured_bytes),
            ("original_bytes", frames.original_bytes),
        ):
            self.arrays.setdefault(name, []).append(array.copy())
        self._bytes += used


def main(interface: str, snaplen: str, hook: str, ring_bytes: str, file: str) -> None:
    found = find_interface(interface)
    opening = Opening(
        found, filter_source(None, ethernet=found.link == "ethernet"), xdp=hook == "xdp", snaplen=int(snaplen)
    )
    try:
        source = opening.source(int(ring_bytes) or None)
        run(source, file)
        source.close()
    finally:
        opening.close()


def run(source: Any, file: str) -> None:
    import numpy as np

    from tcptrace.model import Totals

    print("ready", flush=True)
    kept = Kept()
    os.read(0, 1)
    stopped = False
    while not source.finished:
        if not stopped and select.select([0], [], [], 0)[0]:
            source.stop()
            stopped = True
        kept.add(source.read(READ_TIMEOUT_S), source.frames())
    while len(records := source.read(0)):
        kept.add(records, source.frames())
    totals = Totals()
    source.fill_totals(totals)
    np.savez(file, **{name: np.concatenate(arrays) for name, arrays in kept.arrays.items()})
    answer = {"counters": totals.counters, "unordered": totals.unordered, "attached": source.attached}
    print(json.dumps({**answer, "interfaces": [asdict(one) for one in source.interfaces]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
