# The perf ring of one CPU and what has been taken out of it: records, and their frames, that wait to be merged.
#
# Each sample is a struct batch_header, and as many records as it says.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from tcptrace.records cimport BATCH_RECORDS, STAGED_FRAME_MAX_BYTES, batch_header, frame_head, packet_record
from tcptrace.sources.live.frame_queue cimport (
    FRAME_QUEUE_MAX_BYTES, frame_queue, padded, room_behind, waiting_bytes,
)

cdef extern from *:
    """
    #include <linux/perf_event.h>

    static unsigned long long data_head(void *page)
    {
        return __atomic_load_n(&((struct perf_event_mmap_page *)page)->data_head, __ATOMIC_ACQUIRE);
    }

    static void set_data_tail(void *page, unsigned long long tail)
    {
        __atomic_store_n(&((struct perf_event_mmap_page *)page)->data_tail, tail, __ATOMIC_RELEASE);
    }
    """
    enum: PERF_RECORD_LOST
    enum: PERF_RECORD_SAMPLE

    struct perf_event_header:
        uint32_t type
        unsigned short size

    uint64_t data_head(void *page) nogil
    void set_data_tail(void *page, uint64_t tail) nogil

cdef enum:
    # Records of one CPU kept waiting for the others; past that they stay in the ring, where a full one is counted.
    PENDING_MAX = 262_144

cdef struct cpu_ring:
    void *page             # struct perf_event_mmap_page, then the data
    uint8_t *data
    uint64_t size          # of the data, a power of two
    uint64_t tail
    packet_record *pending
    uint64_t first         # of the pending records
    uint64_t end
    uint64_t capacity
    frame_queue frames     # of the pending records, where frames are asked for
    uint64_t complete_ns   # everything up to here has been handed over
    bint resting           # it went idle then
    bint behind            # the ring holds more than was taken out
    uint64_t lost_samples  # PERF_RECORD_LOST
    uint64_t counters[16]

cdef inline void copy_out(cpu_ring *ring, uint64_t at, void *to, uint64_t count) noexcept nogil:
    """`count` bytes from position `at`, which may run over the end of the ring."""
    cdef uint64_t offset = at & (ring.size - 1)
    cdef uint64_t straight = ring.size - offset
    if count <= straight:
        memcpy(to, ring.data + offset, count)
    else:
        memcpy(to, ring.data + offset, straight)
        memcpy(<uint8_t *>to + straight, ring.data, count - straight)

cdef inline int make_room(cpu_ring *ring) noexcept nogil:
    """Room for one more batch behind the pending records; -1 without memory."""
    cdef packet_record *grown
    cdef uint64_t waiting = ring.end - ring.first
    if ring.end + BATCH_RECORDS <= ring.capacity:
        return 0
    if ring.first > 0:
        memcpy_down(ring, waiting)
        if ring.end + BATCH_RECORDS <= ring.capacity:
            return 0
    grown = <packet_record *>realloc(ring.pending, (ring.capacity * 2 + BATCH_RECORDS) * sizeof(packet_record))
    if grown == NULL:
        return -1
    ring.pending = grown
    ring.capacity = ring.capacity * 2 + BATCH_RECORDS
    return 0

cdef inline void memcpy_down(cpu_ring *ring, uint64_t waiting) noexcept nogil:
    cdef uint64_t i
    for i in range(waiting):
        ring.pending[i] = ring.pending[ring.first + i]
    ring.first = 0
    ring.end = waiting

cdef inline int take_batch(cpu_ring *ring, uint64_t at, uint64_t bytes, uint32_t snaplen) noexcept nogil:
    """The batch of `bytes` bytes at position `at` goes to the pending records; -1 without memory."""
    cdef batch_header header
    cdef uint64_t end = at + bytes
    if bytes < sizeof(batch_header):
        return 0
    copy_out(ring, at, &header, sizeof(batch_header))
    if header.count > BATCH_RECORDS or sizeof(batch_header) + header.count * sizeof(packet_record) > bytes:
        return 0
    if make_room(ring) < 0:
        return -1
    at += sizeof(batch_header)
    if snaplen == 0:
        copy_out(ring, at, ring.pending + ring.end, header.count * sizeof(packet_record))
        ring.end += header.count
    elif take_framed(ring, at, end, header.count, snaplen) < 0:
        return -1
    ring.complete_ns = header.time_ns
    ring.resting = header.resting != 0
    memcpy(ring.counters, header.counters, sizeof(header.counters))
    return 0

cdef inline int take_framed(cpu_ring *ring, uint64_t at, uint64_t end, uint32_t count, uint32_t snaplen) noexcept nogil:
    """As many records from position `at`, each with its frame; -1, and none taken, without memory."""
    cdef frame_head head
    cdef uint64_t taken, bytes
    if room_behind(&ring.frames, padded(end - at)) < 0:
        return -1
    for taken in range(count):
        copy_out(ring, at, ring.pending + ring.end, sizeof(packet_record))
        at += sizeof(packet_record)
        copy_out(ring, at, &head, sizeof(frame_head))
        bytes = sizeof(frame_head) + head.captured_bytes
        if at + bytes > end:
            return 0
        copy_out(ring, at, ring.frames.bytes + ring.frames.end, bytes)
        ring.frames.end += padded(bytes)
        ring.end += 1
        # Staged frames have a slot each, of one size.
        at += sizeof(frame_head) + padded(snaplen) if snaplen <= STAGED_FRAME_MAX_BYTES else bytes
    return 0

cdef inline void drain(cpu_ring *ring, uint32_t snaplen) noexcept nogil:
    """What is in the ring goes to the pending records, as far as there is room for it."""
    cdef uint64_t head = data_head(ring.page)
    cdef perf_event_header *event
    cdef uint32_t bytes
    cdef uint64_t lost[2]
    while (
        ring.tail < head
        and ring.end - ring.first < PENDING_MAX
        and waiting_bytes(&ring.frames) < FRAME_QUEUE_MAX_BYTES
    ):
        # Events are 8-byte aligned, so their header never runs over the end.
        event = <perf_event_header *>(ring.data + (ring.tail & (ring.size - 1)))
        if event.type == PERF_RECORD_SAMPLE:
            copy_out(ring, ring.tail + sizeof(perf_event_header), &bytes, sizeof(bytes))
            if take_batch(ring, ring.tail + sizeof(perf_event_header) + sizeof(bytes), bytes, snaplen) < 0:
                break
        elif event.type == PERF_RECORD_LOST:
            copy_out(ring, ring.tail + sizeof(perf_event_header), lost, sizeof(lost))
            ring.lost_samples += lost[1]
        ring.tail += event.size
    ring.behind = ring.tail < head
    set_data_tail(ring.page, ring.tail)
