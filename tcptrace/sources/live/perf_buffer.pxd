# A perf ring in memory, as the kernel writes it: events, among them samples with what a BPF program submitted.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <linux/perf_event.h>
    #include <unistd.h>

    static unsigned long long data_head(void *page)
    {
        return __atomic_load_n(&((struct perf_event_mmap_page *)page)->data_head, __ATOMIC_ACQUIRE);
    }

    static void set_data_tail(void *page, unsigned long long tail)
    {
        /* Before data_head is looked at again: not a release alone. */
        __atomic_store_n(&((struct perf_event_mmap_page *)page)->data_tail, tail, __ATOMIC_SEQ_CST);
    }
    """
    enum: PERF_RECORD_LOST
    enum: PERF_RECORD_SAMPLE

    struct perf_event_header:
        uint32_t type
        unsigned short size

    uint64_t data_head(void *page) nogil
    void set_data_tail(void *page, uint64_t tail) nogil
    int getpagesize() nogil

cdef struct perf_buffer:
    void *page             # struct perf_event_mmap_page, then the data
    uint8_t *data
    uint64_t size          # of the data, a power of two
    uint64_t tail
    uint64_t lost_samples  # PERF_RECORD_LOST

cdef inline void begin_reading(perf_buffer *ring, uint8_t *mapped, uint64_t size) noexcept nogil:
    """The first page is the kernel's, `size` bytes of data follow it."""
    ring.page = mapped
    ring.data = mapped + <uint64_t>getpagesize()
    ring.size = size

cdef inline void copy_out(const perf_buffer *ring, uint64_t at, void *to, uint64_t count) noexcept nogil:
    """`count` bytes from position `at`, which may run over the end of the ring."""
    cdef uint64_t offset = at & (ring.size - 1)
    cdef uint64_t straight = ring.size - offset
    if count <= straight:
        memcpy(to, ring.data + offset, count)
    else:
        memcpy(to, ring.data + offset, straight)
        memcpy(<uint8_t *>to + straight, ring.data, count - straight)

cdef inline perf_event_header *event_at_tail(const perf_buffer *ring) noexcept nogil:
    """Events are 8-byte aligned, so their header never runs over the end."""
    return <perf_event_header *>(ring.data + (ring.tail & (ring.size - 1)))

cdef inline bint next_sample(perf_buffer *ring, uint64_t *at, uint32_t *bytes) noexcept nogil:
    """Whether the event at the tail is a sample, and where its bytes are; one that tells of losses is counted."""
    cdef perf_event_header *event = event_at_tail(ring)
    cdef uint64_t lost[2]
    at[0] = ring.tail + sizeof(perf_event_header) + sizeof(uint32_t)
    if event.type == PERF_RECORD_SAMPLE:
        copy_out(ring, ring.tail + sizeof(perf_event_header), bytes, sizeof(uint32_t))
        return True
    if event.type == PERF_RECORD_LOST:
        copy_out(ring, ring.tail + sizeof(perf_event_header), lost, sizeof(lost))
        ring.lost_samples += lost[1]
    return False

cdef inline void pass_event(perf_buffer *ring) noexcept nogil:
    ring.tail += event_at_tail(ring).size
