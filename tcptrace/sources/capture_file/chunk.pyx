"""Records on their way from the thread that reads a file to who takes them.

One thread fills a chunk while another may already take the records below `count`: a slow stream is
seen as it comes.
"""

from libc.string cimport memset

import numpy as np

from tcptrace.records cimport COUNTERS, packet_record

from tcptrace.records import COUNTERS as LIVE_COUNTERS
from tcptrace.records import PACKET_RECORD, Frames

COUNTER_NAMES = (*LIVE_COUNTERS, "snapped", "unsupported_link", "time_out_of_range", "without_time")
"""Names of a chunk's counters; the parser's two verdicts that only files know follow enum counter."""

if (
    PACKET_RECORD.itemsize != sizeof(packet_record)
    or len(LIVE_COUNTERS) != COUNTERS
    or COUNTER_NAMES.index("snapped") != PARSE_NEED_MORE
    or len(COUNTER_NAMES) > COUNTERS_ROOM
):
    raise ImportError("tcptrace.records and the compiled capture reader do not match: reinstall tcptrace")


cdef class Chunk:
    """Room for `capacity` records, and for `arena_bytes` of their frames' bytes (0: they are not kept)."""

    def __cinit__(self, uint64_t capacity, uint64_t arena_bytes):
        cdef uint8_t[::1] records, arena
        cdef int64_t[::1] starts
        cdef uint32_t[::1] captured_bytes, original_bytes
        cdef uint16_t[::1] interfaces
        self.records = np.zeros(capacity, PACKET_RECORD)
        records = self.records.view("u1")
        self.c.records = <packet_record *>&records[0]
        self.c.capacity = capacity
        if arena_bytes == 0:
            return
        arrays = [np.empty(arena_bytes, "u1")] + [np.empty(capacity, kind) for kind in ("i8", "u4", "u4", "u2")]
        arena, starts, captured_bytes, original_bytes, interfaces = arrays
        self.arrays = arrays
        self.c.arena = &arena[0]
        self.c.arena_bytes = arena_bytes
        self.c.starts = &starts[0]
        self.c.captured_bytes = &captured_bytes[0]
        self.c.original_bytes = &original_bytes[0]
        self.c.interfaces = &interfaces[0]

    def clear(self):
        """Empty, ready to be filled."""
        self.c.frames = self.c.first_ns = self.c.last_ns = self.c.unordered = self.c.arena_used = 0
        memset(self.c.counters, 0, sizeof(self.c.counters))
        publish(&self.c.count, 0)
        publish(&self.c.done, 0)

    def finish(self):
        """Nothing more comes into it."""
        publish(&self.c.done, 1)

    def __len__(self):
        return published(&self.c.count)

    @property
    def done(self):
        return published(&self.c.done) != 0

    @property
    def frames(self):
        return published(&self.c.frames)

    @property
    def first_ns(self):
        return self.c.first_ns

    @property
    def last_ns(self):
        return published(&self.c.last_ns)

    @property
    def unordered(self):
        return self.c.unordered

    def counters(self):
        """Name -> count of the frames that went through here, as far as they are."""
        return {name: self.c.counters[index] for index, name in enumerate(COUNTER_NAMES)}

    def kept_frames(self):
        """records.Frames of the records; None where they are not kept."""
        if self.arrays is None:
            return None
        count = len(self)
        data, *columns = self.arrays
        return Frames(data[: self.c.arena_used], *(column[:count] for column in columns))
