"""One captured frame -> at most one record: headers, filter, counts."""

cimport cython
from libc.string cimport memcpy, memset

from tcptrace.records cimport DIRECTION_EGRESS, DIRECTION_INGRESS, packet_record

from tcptrace.sources.capture_file.chunk cimport (
    COUNT_FILTERED,
    COUNT_FRAMES,
    COUNT_RECORDS,
    COUNT_TCP,
    DIRECTION_UNKNOWN,
    chunk,
    publish,
)

from tcptrace.sources.capture_file.chunk import COUNTER_NAMES

cdef extern from "decapsulate.h" nogil:
    enum: PARSE_UNSUPPORTED_LINK

    struct carried:
        const uint8_t *ip
        uint32_t ip_bytes

    struct decapsulator:
        pass

    decapsulator *decapsulator_new()
    void decapsulator_free(decapsulator *d)
    int parse_captured(
        decapsulator *d, const uint8_t *bytes, uint32_t captured, uint32_t original, uint32_t link_type,
        uint64_t time_ns, packet_record *r, carried *where)

cdef enum:
    LINKTYPE_ETHERNET = 1
    LINKTYPE_LINUX_SLL = 113
    LINKTYPE_PPP_WITH_DIR = 204
    LINKTYPE_LINUX_SLL2 = 276
    # Where their packet type is, and two of its values (packet(7)).
    SLL_TYPE_OFFSET = 1
    SLL2_TYPE_OFFSET = 10
    PACKET_HOST = 0
    PACKET_OUTGOING = 4

cdef int TIME_OUT_OF_RANGE = COUNTER_NAMES.index("time_out_of_range")
cdef int WITHOUT_TIME = COUNTER_NAMES.index("without_time")

if COUNTER_NAMES.index("unsupported_link") != PARSE_UNSUPPORTED_LINK:
    raise ImportError("the parser of captured frames does not match its counters: reinstall tcptrace")


@cython.final
cdef class FrameParser:
    """Frames of one file; `filter` is None for no filter."""

    def __cinit__(self, FrameFilter filter):
        self.filter = filter
        self.state = decapsulator_new()
        if self.state == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.state != NULL:
            decapsulator_free(<decapsulator *>self.state)

    def stop(self):
        """Whoever reads frames for this parser shall end soon."""
        self.stopping = True

    cdef void take(self, chunk *c, captured_frame *f) noexcept nogil:
        """The next frame of the file; the chunk must not be full."""
        cdef int verdict
        c.counters[COUNT_FRAMES] += 1
        if not f.time_known:
            # It lies between its neighbours; nothing else is known of it.
            c.counters[WITHOUT_TIME] += 1
            f.time_ns = self.previous_ns
        elif not f.time_in_range:
            c.counters[TIME_OUT_OF_RANGE] += 1
        if f.time_ns < self.previous_ns:
            c.unordered += 1
        self.previous_ns = f.time_ns
        verdict = self.verdict(c, f)
        c.counters[verdict] += 1
        if verdict == COUNT_TCP:
            c.counters[COUNT_RECORDS] += 1
            keep(c, f)
        if c.frames == 0:
            c.first_ns = f.time_ns
        publish(&c.last_ns, f.time_ns)
        publish(&c.frames, c.frames + 1)

    cdef int verdict(self, chunk *c, captured_frame *f) noexcept nogil:
        """What the frame is; with COUNT_TCP the next record of the chunk is filled but does not count yet."""
        cdef carried where
        cdef packet_record *r = c.records + c.count
        cdef int verdict
        memset(&where, 0, sizeof(where))
        # All else is set with the verdict COUNT_TCP; what no file tells is zero since the chunk was made.
        memset(r.sack_left, 0, sizeof(r.sack_left))
        memset(r.sack_right, 0, sizeof(r.sack_right))
        # Where more bytes are there than the frame is said to have had, they are what counts.
        verdict = parse_captured(
            <decapsulator *>self.state, f.bytes, f.captured, max(f.original, f.captured), f.link_type,
            f.time_ns, r, &where
        )
        if verdict == PARSE_UNSUPPORTED_LINK:
            self.unsupported_link_type = f.link_type
            self.unsupported_frames += 1
        if self.filter is not None and not self.passes(f, verdict, where.ip, where.ip_bytes):
            return COUNT_FILTERED
        if verdict == COUNT_TCP:
            r.time_ns = f.time_ns
            r.direction = link_direction(f) if f.direction == DIRECTION_UNKNOWN else f.direction
            r.note |= f.note
            r.segments = f.segments
            # The byte that tells the direction was not on the wire.
            r.frame_bytes = f.frame_bytes - (f.link_type == LINKTYPE_PPP_WITH_DIR)
        return verdict

    cdef bint passes(self, captured_frame *f, int verdict, const uint8_t *ip, uint32_t ip_bytes) noexcept nogil:
        if verdict == PARSE_UNSUPPORTED_LINK:
            return True
        if self.filter.on_raw_frames:
            return f.filter != NULL and self.filter.matches_raw(f.filter, f.bytes, f.captured, f.original)
        return self.filter.matches(
            f.bytes, f.captured, f.original, f.link_type == LINKTYPE_ETHERNET,
            ip if verdict == COUNT_TCP else NULL, ip_bytes
        )


cdef uint8_t link_direction(captured_frame *f) noexcept nogil:
    """Linux's cooked captures (`-i any`) and PPP with a direction say it in their link header."""
    cdef uint32_t at
    if f.link_type == LINKTYPE_PPP_WITH_DIR:
        if f.captured == 0:
            return DIRECTION_UNKNOWN
        return DIRECTION_EGRESS if f.bytes[0] else DIRECTION_INGRESS
    if f.link_type == LINKTYPE_LINUX_SLL:
        at = SLL_TYPE_OFFSET
    elif f.link_type == LINKTYPE_LINUX_SLL2:
        at = SLL2_TYPE_OFFSET
    else:
        return DIRECTION_UNKNOWN
    if f.captured <= at:
        return DIRECTION_UNKNOWN
    if f.bytes[at] == PACKET_OUTGOING:
        return DIRECTION_EGRESS
    return DIRECTION_INGRESS if f.bytes[at] == PACKET_HOST else DIRECTION_UNKNOWN


cdef void keep(chunk *c, captured_frame *f) noexcept nogil:
    """The record at hand counts, and its frame is kept where frames are."""
    cdef uint64_t i = c.count
    if c.arena != NULL:
        memcpy(c.arena + c.arena_used, f.bytes, f.captured)
        c.starts[i] = c.arena_used
        c.captured_bytes[i] = f.captured
        c.original_bytes[i] = f.original
        c.interfaces[i] = f.interface
        c.arena_used += f.captured
    publish(&c.count, i + 1)
