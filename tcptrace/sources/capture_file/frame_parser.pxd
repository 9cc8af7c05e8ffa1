from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from tcptrace.sources.capture_file.chunk cimport chunk
from tcptrace.sources.capture_file.frame_filter cimport FrameFilter, loaded_bpf_program

cdef struct captured_frame:
    const uint8_t *bytes
    uint32_t captured
    uint32_t original
    uint32_t link_type
    uint16_t interface               # index into the source's list
    const loaded_bpf_program *filter # for raw frames of this link type; NULL: libpcap has none
    uint64_t time_ns
    bint time_known
    bint time_in_range
    uint8_t direction
    uint8_t note
    uint16_t segments
    uint32_t frame_bytes             # of all segments


cdef class FrameParser:
    cdef void *state  # struct decapsulator
    cdef readonly FrameFilter filter
    cdef uint64_t previous_ns
    cdef readonly uint32_t unsupported_link_type
    cdef readonly uint64_t unsupported_frames
    cdef bint stopping

    cdef void take(self, chunk *c, captured_frame *f) noexcept nogil
    cdef int verdict(self, chunk *c, captured_frame *f) noexcept nogil
    cdef bint passes(self, captured_frame *f, int verdict, const uint8_t *ip, uint32_t ip_bytes) noexcept nogil
