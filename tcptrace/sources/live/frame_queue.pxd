# The bytes of the frames whose records wait to be merged, in the records' order, and where they go then.
#
# An entry is a struct frame_head and the bytes after it, padded to 8, as they came in the sample.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from tcptrace.records cimport NOTE_TAG_8021AD, NOTE_TAG_ASIDE, frame_head, packet_record

cdef enum:
    # Of one CPU.  Past that they stay in the ring, where a full one is counted; few enough for the CPU's cache.
    FRAME_QUEUE_MAX_BYTES = 4 << 20
    # Where a VLAN tag begins, behind both MAC addresses (IEEE 802.3 section 3.2.7).
    TAG_OFFSET = 12
    TAG_BYTES = 4

cdef struct frame_queue:
    uint8_t *bytes
    uint64_t first
    uint64_t end
    uint64_t capacity

cdef struct frames_out:
    uint8_t *data
    uint64_t size
    uint64_t used
    uint32_t snaplen
    int64_t *starts
    uint32_t *captured_bytes
    uint32_t *original_bytes

cdef inline uint64_t padded(uint64_t bytes) noexcept nogil:
    return (bytes + 7) // 8 * 8

cdef inline uint64_t waiting_bytes(const frame_queue *queue) noexcept nogil:
    return queue.end - queue.first

cdef inline int room_behind(frame_queue *queue, uint64_t bytes) noexcept nogil:
    """Room for `bytes` more behind what waits; -1 without memory."""
    cdef uint64_t waiting = waiting_bytes(queue), capacity
    cdef uint8_t *grown
    if queue.end + bytes <= queue.capacity:
        return 0
    if waiting + bytes <= queue.first:  # down to the front, where it overlaps nothing that waits
        memcpy(queue.bytes, queue.bytes + queue.first, waiting)
        queue.first, queue.end = 0, waiting
        return 0
    capacity = 2 * (queue.end + bytes)
    grown = <uint8_t *>realloc(queue.bytes, capacity)
    if grown == NULL:
        return -1
    queue.bytes, queue.capacity = grown, capacity
    return 0

cdef inline bint has_room_for_next(const frames_out *to, const frame_queue *queue) noexcept nogil:
    cdef const frame_head *head = <const frame_head *>(queue.bytes + queue.first)
    return to.used + head.captured_bytes + TAG_BYTES <= to.size

cdef inline void hand_on(frames_out *to, uint64_t index, frame_queue *queue, packet_record *record) noexcept nogil:
    """The queue's first frame becomes frame `index`; a VLAN tag kept aside is put back into it."""
    cdef const frame_head *head = <const frame_head *>(queue.bytes + queue.first)
    cdef const uint8_t *bytes = queue.bytes + queue.first + sizeof(frame_head)
    cdef uint64_t captured = head.captured_bytes
    cdef uint8_t *data = to.data + to.used
    if record.note & NOTE_TAG_ASIDE and captured >= TAG_OFFSET:
        memcpy(data, bytes, TAG_OFFSET)
        put_tag(data + TAG_OFFSET, record)
        memcpy(data + TAG_OFFSET + TAG_BYTES, bytes + TAG_OFFSET, captured - TAG_OFFSET)
        captured = min(captured + TAG_BYTES, <uint64_t>to.snaplen)
    else:
        memcpy(data, bytes, captured)
    # From here on the bytes are those on the wire.
    record.note &= <uint8_t>~(NOTE_TAG_ASIDE | NOTE_TAG_8021AD)
    to.starts[index] = to.used
    to.captured_bytes[index] = captured
    to.original_bytes[index] = head.original_bytes
    to.used += captured
    queue.first += sizeof(frame_head) + padded(head.captured_bytes)
    if queue.first == queue.end:
        queue.first = queue.end = 0

cdef inline void put_tag(uint8_t *to, const packet_record *record) noexcept nogil:
    """IEEE 802.1Q: ethertype and tag control information."""
    cdef uint16_t ethertype = 0x88a8 if record.note & NOTE_TAG_8021AD else 0x8100
    to[0], to[1] = ethertype >> 8, ethertype & 0xff
    to[2], to[3] = record.vlan_outer >> 8, record.vlan_outer & 0xff
