"""The perf rings, opened by hand: batches out in bulk, the CPUs merged by time.

One ring a CPU.  Each sample says that everything the CPU saw before its `time_ns` has been handed
over.  The lowest such time of all CPUs is how far the merge may go without a later read turning up
something earlier.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tcptrace.records cimport (
    COUNT_RECORDS_LOST, COUNT_THINNED, COUNTERS, FRAME_MAX_BYTES, NOTE_COUNTED, packet_record,
)
from tcptrace.sources.live.cpu_ring cimport SURE_NS, cpu_ring, drain
from tcptrace.sources.live.frame_queue cimport frames_out, hand_on, has_room_for_next
from tcptrace.sources.live.loss_windows cimport is_within
from tcptrace.sources.live.perf_buffer cimport begin_reading

import os
import select

from tcptrace.records import COUNTERS as COUNTER_NAMES
from tcptrace.records import FRAME_MAX_BYTES as SAMPLE_FRAME_MAX_BYTES
from tcptrace.records import PACKET_RECORD
from tcptrace.sources.live.perf_event import open_ring

# A CPU that says nothing for this long (stopped by its hypervisor, taken offline) no longer holds the others up.
cdef uint64_t STALL_NS = 250_000_000
# One that went idle is no longer waited for after three ticks: had it worked again, it would have said so.
cdef uint64_t RESTING_NS = 60_000_000

if (
    PACKET_RECORD.itemsize != sizeof(packet_record)
    or len(COUNTER_NAMES) != COUNTERS
    or SAMPLE_FRAME_MAX_BYTES != FRAME_MAX_BYTES
):
    raise ImportError("tcptrace.records and the compiled ring reader do not match: reinstall tcptrace")


cdef class Ring:
    """Per-CPU perf rings of `ring_bytes` each (a power of two, at least a page), merged.

    snaplen: what the programs were compiled with; 0 if records come without their frames.
    Raises NotPermittedError or MissingFeatureError when the kernel does not open them.
    """

    cdef cpu_ring *rings
    cdef int ring_count
    cdef uint64_t last_ns
    cdef uint32_t snaplen
    cdef readonly uint64_t unordered
    """Records that turned up after a later one had been handed on (only after a CPU stalled)."""
    cdef readonly bint drained
    """The last read() handed on all that it knew to be in order."""
    cdef readonly bint has_more
    """But there was more than it takes at a time: another one need not wait."""
    cdef readonly dict fds
    """Perf event file descriptor of each CPU, for the BPF map."""
    cdef list maps
    cdef object poller

    def __cinit__(self, cpus, ring_bytes, now_ns, uint32_t snaplen=0):
        cdef int index
        self.snaplen = snaplen
        self.rings = <cpu_ring *>calloc(len(cpus), sizeof(cpu_ring))
        if self.rings == NULL:
            raise MemoryError
        self.fds = {}
        self.maps = []
        self.poller = select.poll()
        for index, cpu in enumerate(cpus):
            self._open(index, cpu, ring_bytes, now_ns)

    def __dealloc__(self):
        cdef int index
        if self.rings == NULL:
            return
        for index in range(self.ring_count):
            free(self.rings[index].pending)
            free(self.rings[index].frames.bytes)
        free(self.rings)

    def _open(self, int index, int cpu, uint64_t ring_bytes, uint64_t now_ns):
        cdef cpu_ring *ring = &self.rings[index]
        cdef uint8_t[::1] view
        fd, mapped = open_ring(cpu, ring_bytes)
        self.fds[cpu] = fd
        self.maps.append(mapped)
        view = mapped
        begin_reading(&ring.perf, &view[0], ring_bytes)
        ring.complete_ns = now_ns
        ring.unsure_ns = SURE_NS
        self.ring_count = index + 1
        self.poller.register(fd, select.POLLIN)

    def wake_also_by(self, fds):
        """wait() ends too when one of these perf rings is a quarter full."""
        for fd in fds:
            self.poller.register(fd, select.POLLIN)

    def wait(self, double timeout_s):
        """Until a ring is a quarter full or `timeout_s` has passed."""
        self.poller.poll(timeout_s * 1000)

    def complete_ns(self, uint64_t now_ns):
        """Everything captured up to this time has been read or waits to be; now_ns is CLOCK_MONOTONIC."""
        return self._horizon(now_ns)

    cdef uint64_t _horizon(self, uint64_t now_ns) noexcept nogil:
        cdef uint64_t lowest = now_ns, at
        cdef cpu_ring *ring
        cdef int index
        for index in range(self.ring_count):
            ring = &self.rings[index]
            at = 0 if ring.behind else now_ns - (RESTING_NS if ring.resting else STALL_NS)
            lowest = min(lowest, max(ring.complete_ns, at))
        return lowest

    def read(self, out, uint64_t now_ns, frames=None):
        """Fill the PACKET_RECORD array `out` in time order; how many records were written.

        Fewer than len(out) means that the rings hold nothing more that is known to be in order, or that
        frames.data is full.  `frames` (records.Frames, as long as `out`) is needed where there is a snaplen.
        """
        cdef uint8_t[::1] view = out.view("u1")
        cdef packet_record *to = <packet_record *>&view[0]
        cdef uint64_t room = view.shape[0] // sizeof(packet_record)
        cdef uint64_t count
        cdef frames_out frames_to
        cdef int index
        if self.snaplen:
            frames_to = _writable(frames, self.snaplen)
        with nogil:
            self.drained = True
            self.has_more = False
            for index in range(self.ring_count):
                if drain(&self.rings[index], self.snaplen):
                    self.has_more = True
            count = self._merge(to, room, self._horizon(now_ns), &frames_to if self.snaplen else NULL)
            if not self.drained:
                self.has_more = True
        return count

    cdef uint64_t _merge(self, packet_record *to, uint64_t room, uint64_t horizon, frames_out *frames) noexcept nogil:
        """Runs of the CPU whose next record is the earliest, each up to the next CPU's."""
        cdef uint64_t count = 0, limit, at
        cdef cpu_ring *ring
        cdef cpu_ring *earliest
        cdef bint were_losses = self._were_losses()
        cdef int index
        while count < room:
            earliest = NULL
            limit = horizon
            for index in range(self.ring_count):
                ring = &self.rings[index]
                if ring.first == ring.end:
                    continue
                at = ring.pending[ring.first].time_ns
                if earliest == NULL or at < earliest.pending[earliest.first].time_ns:
                    if earliest != NULL:
                        limit = min(limit, earliest.pending[earliest.first].time_ns)
                    earliest = ring
                else:
                    limit = min(limit, at)
            if earliest == NULL or earliest.pending[earliest.first].time_ns > horizon:
                break
            while count < room and earliest.first < earliest.end and earliest.pending[earliest.first].time_ns <= limit:
                if frames != NULL and not has_room_for_next(frames, &earliest.frames):
                    self.drained = False
                    return count
                to[count] = earliest.pending[earliest.first]
                if were_losses and self._is_unaware(to[count].time_ns):
                    to[count].note &= ~NOTE_COUNTED
                if frames != NULL:
                    hand_on(frames, count, &earliest.frames, &to[count])
                if to[count].time_ns < self.last_ns:
                    self.unordered += 1
                    to[count].note &= ~NOTE_COUNTED  # whether it was aware is not known any more
                else:
                    self.last_ns = to[count].time_ns
                earliest.first += 1
                count += 1
            if earliest.first == earliest.end:
                earliest.first = earliest.end = 0
        if count == room:
            self.drained = False
        return count

    cdef bint _were_losses(self) noexcept nogil:
        cdef int index
        for index in range(self.ring_count):
            if self.rings[index].windows.count or self.rings[index].was_full:
                return True
        return False

    cdef bint _is_unaware(self, uint64_t time_ns) noexcept nogil:
        """A record of that time was written while a batch that is lost was under way."""
        cdef bint found = False
        cdef int index
        for index in range(self.ring_count):
            if is_within(&self.rings[index].windows, time_ns):
                found = True
            elif self.rings[index].was_full and self.rings[index].complete_ns <= time_ns:
                found = True
        return found

    def counters(self):
        """What the BPF programs counted, summed over the CPUs as of their last batch: name -> count."""
        cdef uint64_t totals[COUNTERS]
        cdef int index, counter
        memset(totals, 0, sizeof(totals))
        for index in range(self.ring_count):
            for counter in range(COUNTERS):
                totals[counter] += self.rings[index].counters[counter]
        return {name: totals[counter] for counter, name in enumerate(COUNTER_NAMES)}

    def lost(self):
        """Records that the reader does not get: lost to a full ring, or thinned out because of that."""
        cdef uint64_t lost = 0
        cdef int index
        for index in range(self.ring_count):
            lost += self.rings[index].counters[COUNT_RECORDS_LOST] + self.rings[index].counters[COUNT_THINNED]
        return lost

    def lost_ns(self):
        """Up to when lost() has risen, as far as that has been read; 0 while it has not."""
        cdef uint64_t latest = 0
        cdef int index
        for index in range(self.ring_count):
            latest = max(latest, self.rings[index].lost_ns)
        return latest

    def unsure_ns(self):
        """Records since this time that are not NOTE_COUNTED may have lost ones before them; None: none have."""
        cdef uint64_t earliest = SURE_NS
        cdef int index
        for index in range(self.ring_count):
            earliest = min(earliest, self.rings[index].unsure_ns)
            if self.rings[index].was_full:
                earliest = min(earliest, self.rings[index].complete_ns)
        return None if earliest == SURE_NS else earliest

    def note_counts_read(self, uint64_t time_ns):
        """What was lost before is known of each flow, all records up to then having been handed on: if nothing was lost
        since then, no record is unsure any more.
        """
        cdef cpu_ring *ring
        cdef int index
        for index in range(self.ring_count):
            ring = &self.rings[index]
            if not is_within(&ring.windows, time_ns) and ring.lost_ns < time_ns:
                ring.unsure_ns = SURE_NS

    def lost_samples(self):
        """Samples the kernel reports as lost (PERF_RECORD_LOST); `records_lost` counts their records."""
        cdef int index
        return sum(self.rings[index].perf.lost_samples for index in range(self.ring_count))

    def close(self):
        """Give the rings back.  Nothing may be read afterwards."""
        self.ring_count = 0
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        self.maps.clear()


cdef frames_out _writable(frames, uint32_t snaplen) except *:
    """Where in the arrays of `frames` to write; they outlive the call."""
    cdef uint8_t[::1] data = frames.data
    cdef int64_t[::1] starts = frames.starts
    cdef uint32_t[::1] captured = frames.captured_bytes, original = frames.original_bytes
    cdef frames_out to
    to.data, to.size, to.used, to.snaplen = &data[0], data.shape[0], 0, snaplen
    to.starts, to.captured_bytes, to.original_bytes = &starts[0], &captured[0], &original[0]
    return to
