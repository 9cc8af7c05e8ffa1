"""A file descriptor read through one buffer, which grows to the longest piece asked for."""

from libc.errno cimport EINTR, errno
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove
from posix.unistd cimport close, read

cdef enum:
    # Few system calls, and still in the CPU's cache.
    READ_BYTES = 1 << 18


cdef class ByteStream:
    """Takes `fd` over.  Bytes from buffer[first] on are those not yet used; whoever uses some moves `first`."""

    def __cinit__(self, int fd):
        self.fd = fd
        self.room = READ_BYTES
        self.buffer = <uint8_t *>malloc(self.room)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)
        close(self.fd)

    cdef int need(self, uint64_t count) noexcept nogil:
        """THERE: at least `count` bytes from `first` on are in the buffer.  Pointers into it end here."""
        cdef ssize_t got
        if self.end - self.first >= count:
            return THERE
        if self.make_room(count) < 0:
            return NO_MEMORY
        while self.end - self.first < count:
            got = read(self.fd, self.buffer + self.end, self.room - self.end)
            if got == 0:
                return AT_END
            if got > 0:
                self.end += got
            elif errno != EINTR:
                self.error_number = errno
                return READ_FAILED
        return THERE

    cdef int make_room(self, uint64_t count) noexcept nogil:
        cdef uint8_t *grown
        memmove(self.buffer, self.buffer + self.first, self.end - self.first)
        self.end -= self.first
        self.first = 0
        if count <= self.room:
            return 0
        grown = <uint8_t *>realloc(self.buffer, count)
        if grown == NULL:
            return -1
        self.buffer = grown
        self.room = count
        return 0
