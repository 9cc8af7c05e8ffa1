"""Several files' chunks -> one, by time.  Within a file its own order is kept, as Wireshark's mergecap does."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tcptrace.sources.capture_file.chunk cimport Chunk, chunk, is_full, publish, published

# What merge() returns besides the number of a file.
FULL = -1
ENDED = -2


cdef struct head:
    chunk *c             # NULL: this file has ended
    uint64_t first       # the next record
    uint64_t available   # records of the chunk that may be taken


cdef class Merge:
    """Of `files` files, each with one chunk at a time; of equal times the earlier file's come first."""

    cdef head *heads
    cdef int files
    cdef list chunks

    def __cinit__(self, int files):
        self.heads = <head *>calloc(files, sizeof(head))
        if self.heads == NULL:
            raise MemoryError
        self.files = files
        self.chunks = [None] * files

    def __dealloc__(self):
        free(self.heads)

    def put(self, int file, Chunk of):
        """The file's next chunk; None when it has ended."""
        self.chunks[file] = of
        self.heads[file].c = NULL if of is None else &of.c
        self.heads[file].first = self.heads[file].available = 0

    def is_used_up(self, int file):
        """All records of the file's chunk have been taken, as far as it is filled."""
        cdef head *h = &self.heads[file]
        return h.c == NULL or h.first == published(&h.c.count)

    def merge(self, Chunk into):
        """Records into the chunk: FULL, ENDED, or the number of the file that more is needed of to go on."""
        cdef int result
        with nogil:
            result = self._merge(&into.c)
        return result

    cdef int _merge(self, chunk *out) noexcept nogil:
        cdef uint64_t before
        cdef int file, earliest
        cdef head *h
        while not is_full(out):
            earliest = -1
            for file in range(self.files):
                h = &self.heads[file]
                if h.c == NULL:
                    continue
                if h.first == h.available:
                    h.available = published(&h.c.count)
                    if h.first == h.available:
                        return file
                if earliest < 0 or next_ns(h) < next_ns(&self.heads[earliest]):
                    earliest = file
            if earliest < 0:
                return -2
            before = self._others_ns(earliest)
            h = &self.heads[earliest]
            while h.first < h.available and next_ns(h) < before and not is_full(out):
                take(h, out)
        return -1

    cdef uint64_t _others_ns(self, int file) noexcept nogil:
        """Up to before this time the next records are this file's."""
        cdef uint64_t before = <uint64_t>-1, at
        cdef int other
        for other in range(self.files):
            if other != file and self.heads[other].c != NULL:
                at = next_ns(&self.heads[other])
                before = min(before, at + 1 if other > file else at)
        return before


cdef uint64_t next_ns(head *h) noexcept nogil:
    return h.c.records[h.first].time_ns


cdef void take(head *h, chunk *out) noexcept nogil:
    cdef chunk *c = h.c
    cdef uint64_t i = h.first, to = out.count
    out.records[to] = c.records[i]
    if out.arena != NULL:
        memcpy(out.arena + out.arena_used, c.arena + c.starts[i], c.captured_bytes[i])
        out.starts[to] = out.arena_used
        out.captured_bytes[to] = c.captured_bytes[i]
        out.original_bytes[to] = c.original_bytes[i]
        out.interfaces[to] = c.interfaces[i]
        out.arena_used += c.captured_bytes[i]
    h.first = i + 1
    publish(&out.count, to + 1)
