# The perf ring of one CPU and what has been taken out of it: records, and their frames, that wait to be merged.
#
# Each sample is a struct batch_header, and as many records as it says, whole or not.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset

from tcptrace.records cimport (
    BATCH_HEAD_BYTES, BATCH_RECORDS, BATCH_WITHOUT_COUNTERS, COUNT_RECORDS_LOST, COUNT_THINNED, COUNTERS,
    SHORT_RECORD_BYTES, STAGED_FRAME_MAX_BYTES, batch_header, frame_head, is_whole_record, packet_record,
)
from tcptrace.sources.live.frame_queue cimport (
    FRAME_QUEUE_MAX_BYTES, frame_queue, padded, room_behind, waiting_bytes,
)
from tcptrace.sources.live.loss_windows cimport add_window, loss_windows
from tcptrace.sources.live.perf_buffer cimport (
    copy_out, data_head, next_sample, pass_event, perf_buffer, set_data_tail,
)

cdef enum:
    # Records of one CPU kept waiting for the others; past that they stay in the ring, where a full one is counted.
    PENDING_MAX = 262_144
    # Taken out at a time: these are in the CPU's cache still when they are merged and analysed.
    TAKEN_MAX = 1_024
    # A ring with less room than this may have refused a batch: the largest one, with staged frames.
    BATCH_ROOM_BYTES = 32_768
    # Or a sample of one large frame.
    FRAME_ROOM_BYTES = 65_536

cdef extern from *:
    """
    /* Later than all times. */
    #define SURE_NS 0x7fffffffffffffffull
    """
    const uint64_t SURE_NS

cdef struct cpu_ring:
    perf_buffer perf
    packet_record *pending
    uint64_t first         # of the pending records
    uint64_t end
    uint64_t capacity
    frame_queue frames     # of the pending records, where frames are asked for
    uint64_t complete_ns   # everything up to here has been handed over
    bint resting           # it went idle then
    bint behind            # the ring holds more than was taken out
    uint64_t counters[COUNTERS]
    uint32_t lost_lowest   # bits of COUNT_RECORDS_LOST, which also frames without the counters have
    uint64_t lost_ns       # up to when records were lost or left out, as far as that is known; 0: never
    uint64_t unsure_ns     # since when, as far as the counts of what was lost have not been read; or SURE_NS
    loss_windows windows   # when it was losing
    bint was_full          # since complete_ns it may have been losing:
    uint64_t full_head     # there was no room behind this position

cdef inline int make_room(cpu_ring *ring) noexcept nogil:
    """Room for one more batch behind the pending records; -1 without memory."""
    cdef packet_record *grown
    cdef uint64_t waiting = ring.end - ring.first
    if ring.end + BATCH_RECORDS <= ring.capacity:
        return 0
    if 2 * waiting <= ring.capacity and ring.first > 0:
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
    cdef uint64_t head_bytes = sizeof(batch_header)
    cdef uint64_t taken_before, begin_ns
    if bytes < BATCH_HEAD_BYTES:
        return 0
    copy_out(&ring.perf, at, &header, BATCH_HEAD_BYTES)
    if header.count & BATCH_WITHOUT_COUNTERS:
        header.count &= ~BATCH_WITHOUT_COUNTERS
        head_bytes = BATCH_HEAD_BYTES
    if header.count > BATCH_RECORDS or head_bytes + header.count * SHORT_RECORD_BYTES > bytes:
        return 0
    if make_room(ring) < 0:
        return -1
    if head_bytes == sizeof(batch_header):
        copy_out(&ring.perf, at, &header, head_bytes)
    at += head_bytes
    taken_before = ring.end
    if snaplen == 0:
        take_records(ring, at, end, header.count)
    elif take_framed(ring, at, end, header.count, snaplen) < 0:
        return -1
    begin_ns = ring.pending[taken_before].time_ns if taken_before < ring.end else header.time_ns
    if head_bytes == sizeof(batch_header):
        take_counters(ring, &header, begin_ns)
    else:
        if header.resting != ring.lost_lowest:
            ring.lost_lowest = header.resting
            note_loss(ring, begin_ns, header.time_ns)
        ring.complete_ns = header.time_ns
        ring.resting = False
    return 0

cdef inline void take_counters(cpu_ring *ring, const batch_header *header, uint64_t begin_ns) noexcept nogil:
    """How far the CPU has come, and what has become of its frames; its batch begins at begin_ns."""
    if <uint32_t>header.counters[COUNT_RECORDS_LOST] != ring.lost_lowest:
        note_loss(ring, begin_ns, header.time_ns)
    elif header.counters[COUNT_THINNED] != ring.counters[COUNT_THINNED]:
        note_unsure(ring, header.time_ns)
    ring.complete_ns = header.time_ns
    ring.resting = header.resting != 0
    ring.lost_lowest = <uint32_t>header.counters[COUNT_RECORDS_LOST]
    memcpy(ring.counters, header.counters, sizeof(header.counters))

cdef inline void note_loss(cpu_ring *ring, uint64_t begin_ns, uint64_t until_ns) noexcept nogil:
    """A batch is missing before the one that begins at begin_ns."""
    add_window(&ring.windows, ring.complete_ns, begin_ns)
    note_unsure(ring, until_ns)

cdef inline void note_unsure(cpu_ring *ring, uint64_t until_ns) noexcept nogil:
    """Records were lost or left out, up to then."""
    ring.lost_ns = until_ns
    ring.unsure_ns = min(ring.unsure_ns, ring.complete_ns)

cdef inline void take_records(cpu_ring *ring, uint64_t at, uint64_t end, uint32_t count) noexcept nogil:
    """As many records from position `at`, as far as they are there."""
    cdef packet_record *to
    cdef uint32_t taken
    cdef uint64_t bytes
    for taken in range(count):
        if at + SHORT_RECORD_BYTES > end:
            return
        to = ring.pending + ring.end
        copy_out(&ring.perf, at, to, SHORT_RECORD_BYTES)
        bytes = SHORT_RECORD_BYTES
        if not is_whole_record(to):
            memset(<uint8_t *>to + SHORT_RECORD_BYTES, 0, sizeof(packet_record) - SHORT_RECORD_BYTES)
        elif at + sizeof(packet_record) > end:
            return
        else:
            copy_out(&ring.perf, at, to, sizeof(packet_record))
            bytes = sizeof(packet_record)
        at += bytes
        ring.end += 1

cdef inline int take_framed(cpu_ring *ring, uint64_t at, uint64_t end, uint32_t count, uint32_t snaplen) noexcept nogil:
    """As many records from position `at`, each with its frame; -1, and none taken, without memory."""
    cdef frame_head head
    cdef uint64_t taken, bytes
    if room_behind(&ring.frames, padded(end - at)) < 0:
        return -1
    for taken in range(count):
        copy_out(&ring.perf, at, ring.pending + ring.end, sizeof(packet_record))
        at += sizeof(packet_record)
        copy_out(&ring.perf, at, &head, sizeof(frame_head))
        bytes = sizeof(frame_head) + head.captured_bytes
        if at + bytes > end:
            return 0
        copy_out(&ring.perf, at, ring.frames.bytes + ring.frames.end, bytes)
        ring.frames.end += padded(bytes)
        ring.end += 1
        # Staged frames have a slot each, of one size.
        at += sizeof(frame_head) + padded(snaplen) if snaplen <= STAGED_FRAME_MAX_BYTES else bytes
    return 0

cdef inline bint drain(cpu_ring *ring, uint32_t snaplen) noexcept nogil:
    """What is in the ring goes to the pending records, as far as there is room for it; whether that was not all at a time."""
    cdef uint64_t head = data_head(ring.perf.page), before = ring.perf.tail, at
    cdef uint64_t room_bytes = FRAME_ROOM_BYTES if snaplen > STAGED_FRAME_MAX_BYTES else BATCH_ROOM_BYTES
    cdef uint64_t enough = ring.end - ring.first + TAKEN_MAX
    cdef uint32_t bytes
    while (
        ring.perf.tail < head
        and ring.end - ring.first < enough
        and ring.end - ring.first < PENDING_MAX
        and waiting_bytes(&ring.frames) < FRAME_QUEUE_MAX_BYTES
    ):
        if next_sample(&ring.perf, &at, &bytes):
            if take_batch(ring, at, bytes, snaplen) < 0:
                break
            if ring.perf.tail >= ring.full_head:
                ring.was_full = False  # it has told what came of that
        pass_event(&ring.perf)
    ring.behind = ring.perf.tail < head
    set_data_tail(ring.perf.page, ring.perf.tail)
    # Until now the kernel had no more room than this leaves.
    head = data_head(ring.perf.page)
    if head - before + room_bytes > ring.perf.size and ring.perf.tail != before:
        ring.was_full = True
        ring.full_head = head
    return ring.behind and ring.end - ring.first >= enough
