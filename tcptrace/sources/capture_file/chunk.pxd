"""Records on their way from the thread that reads a file to who takes them."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tcptrace.records cimport packet_record

cdef extern from "parse.h" nogil:
    enum: COUNT_TCP
    enum: COUNT_FRAMES
    enum: COUNT_FILTERED
    enum: COUNT_RECORDS
    enum: DIRECTION_UNKNOWN
    enum: PARSE_NEED_MORE

# A longer frame is refused, as libpcap (MAXIMUM_SNAPLEN) and Wireshark refuse it.
cdef enum:
    FRAME_MAX_BYTES = 262144
    # Room for records.COUNTERS and what only files have.
    COUNTERS_ROOM = 32

cdef extern from *:
    """
    #define published(number) __atomic_load_n(number, __ATOMIC_ACQUIRE)
    #define publish(number, value) __atomic_store_n(number, value, __ATOMIC_RELEASE)
    """
    uint64_t published(uint64_t *number) nogil
    void publish(uint64_t *number, uint64_t value) nogil


cdef struct chunk:
    packet_record *records
    uint64_t capacity
    uint64_t count          # published: records below it are complete
    uint64_t done           # published: the thread has left this chunk
    uint64_t frames         # published: of any kind
    uint64_t first_ns       # of the first of them
    uint64_t last_ns        # published: of the last of them
    uint64_t unordered      # frames whose time is before their predecessor's
    uint64_t counters[COUNTERS_ROOM]
    # The frames' bytes, where they are kept: index i belongs to record i.
    uint8_t *arena          # NULL: not kept
    uint64_t arena_bytes
    uint64_t arena_used
    int64_t *starts
    uint32_t *captured_bytes
    uint32_t *original_bytes
    uint16_t *interfaces


cdef inline bint is_full(chunk *c) noexcept nogil:
    """No room for one more record, or for the bytes of the longest frame."""
    return c.count == c.capacity or (c.arena != NULL and c.arena_bytes - c.arena_used < FRAME_MAX_BYTES)


cdef class Chunk:
    cdef chunk c
    cdef readonly object records
    cdef object arrays
