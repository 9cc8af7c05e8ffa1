from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    # need(): what it says
    THERE = 1
    AT_END = 0
    READ_FAILED = -1
    NO_MEMORY = -2


cdef class ByteStream:
    cdef int fd
    cdef uint8_t *buffer
    cdef uint64_t room
    cdef uint64_t first
    cdef uint64_t end
    cdef int error_number

    cdef int need(self, uint64_t count) noexcept nogil
    cdef int make_room(self, uint64_t count) noexcept nogil
