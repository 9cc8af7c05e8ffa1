# RFC 9293 section 3.4: sequence numbers are compared modulo 2**32.
from libc.stdint cimport int32_t, uint32_t

cdef inline bint before(uint32_t a, uint32_t b) noexcept nogil:
    """a comes before b."""
    return <int32_t>(a - b) < 0

cdef inline bint at_or_before(uint32_t a, uint32_t b) noexcept nogil:
    """a is b or comes before it."""
    return <int32_t>(a - b) <= 0
