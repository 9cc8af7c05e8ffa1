"""The perf rings of what the kernel says of sockets: one a CPU, records out in the order of their times."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from tcptrace.records cimport BATCH_SAMPLES, socket_record
from tcptrace.sources.live.perf_buffer cimport (
    begin_reading, copy_out, data_head, next_sample, pass_event, perf_buffer, set_data_tail,
)

import os

import numpy as np

from tcptrace.records import SOCKET_RECORD
from tcptrace.sources.live.perf_event import open_ring

if SOCKET_RECORD.itemsize != sizeof(socket_record):
    raise ImportError("tcptrace.records and the compiled socket ring do not match: reinstall tcptrace")

# To numpy just bytes: for so many fields, even a copy of nothing takes it 0.03 ms.
RAW = np.dtype((np.void, SOCKET_RECORD.itemsize))
# Records taken out at once.
cdef int READ_RECORDS = 16_384
cdef uint64_t LATEST_NS = <uint64_t>-1


cdef class SocketRing:
    """Per-CPU perf rings of `ring_bytes` each (a power of two, at least a page).

    Raises NotPermittedError or MissingFeatureError when the kernel does not open them.
    """

    cdef perf_buffer *rings
    cdef int ring_count
    cdef readonly dict fds
    """Perf event file descriptor of each CPU, for the BPF map."""
    cdef readonly uint64_t taken
    """Records read so far."""
    cdef list maps
    cdef object waiting, none, buffer
    cdef uint64_t waiting_ns  # the first one's time

    def __cinit__(self, cpus, ring_bytes):
        cdef uint8_t[::1] view
        cdef int index
        self.rings = <perf_buffer *>calloc(len(cpus), sizeof(perf_buffer))
        if self.rings == NULL:
            raise MemoryError
        self.fds = {}
        self.maps = []
        self.none = np.zeros(0, SOCKET_RECORD)
        self.waiting = np.zeros(0, RAW)
        self.waiting_ns = LATEST_NS
        self.buffer = np.zeros(READ_RECORDS, RAW)
        for index, cpu in enumerate(cpus):
            fd, mapped = open_ring(cpu, ring_bytes)
            self.fds[cpu] = fd
            self.maps.append(mapped)
            view = mapped
            begin_reading(&self.rings[index], &view[0], ring_bytes)
            self.ring_count = index + 1

    def __dealloc__(self):
        free(self.rings)

    def read(self, uint64_t until_ns):
        """The records (SOCKET_RECORD) with times up to `until_ns`, in order; later ones are kept for the next call."""
        told = self._take_told()
        if not told and self.waiting_ns > until_ns:
            return self.none
        raw = np.concatenate([self.waiting, *told])
        raw = raw[np.argsort(raw.view(SOCKET_RECORD)["time_ns"], kind="stable")]
        times_ns = raw.view(SOCKET_RECORD)["time_ns"]
        ready = int(np.searchsorted(times_ns, until_ns, side="right"))
        self.waiting = raw[ready:].copy()
        self.waiting_ns = times_ns[ready] if ready < len(raw) else LATEST_NS
        return raw[:ready].view(SOCKET_RECORD)

    cdef list _take_told(self):
        """All that is in the rings, as arrays of RAW."""
        cdef uint8_t[::1] view = self.buffer.view("u1")
        cdef uint64_t count = READ_RECORDS
        cdef list told = []
        while count + BATCH_SAMPLES > <uint64_t>READ_RECORDS: # there may be more
            with nogil:
                count = self._drain(<socket_record *>&view[0])
            self.taken += count
            if count:
                told.append(self.buffer[:count].copy())
        return told

    cdef uint64_t _drain(self, socket_record *to) noexcept nogil:
        cdef uint64_t head, at, told, count = 0
        cdef perf_buffer *ring
        cdef uint32_t bytes
        cdef int index
        for index in range(self.ring_count):
            ring = &self.rings[index]
            head = data_head(ring.page)
            while ring.tail < head and count + BATCH_SAMPLES <= <uint64_t>READ_RECORDS:
                if next_sample(ring, &at, &bytes):
                    told = min(bytes // sizeof(socket_record), <uint32_t>BATCH_SAMPLES)
                    copy_out(ring, at, to + count, told * sizeof(socket_record))
                    count += told
                pass_event(ring)
            set_data_tail(ring.page, ring.tail)
        return count

    def close(self):
        """Give the rings back.  Nothing may be read afterwards."""
        self.ring_count = 0
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        self.maps.clear()
