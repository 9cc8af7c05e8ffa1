"""pcap files, read by libpcap: all its byte orders, time units and variants.

libpcap reads through a buffer of ours.  Of files as this machine would write them, which nearly all are, a record that
is whole in that buffer and within libpcap's bounds is taken from there; any other one is libpcap's, and so is what is
wrong with it.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport FILE, fclose, setvbuf, _IONBF
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, read

from tcptrace.sources.capture_file.chunk cimport DIRECTION_UNKNOWN, FRAME_MAX_BYTES, Chunk, chunk, is_full
from tcptrace.sources.capture_file.frame_filter cimport loaded_bpf_insn, loaded_bpf_program
from tcptrace.sources.capture_file.frame_parser cimport FrameParser, captured_frame

import os

from tcptrace.sources.libpcap import function_address

cdef extern from "timestamps.h" nogil:
    int seconds_to_ns(uint32_t seconds, uint64_t fraction_ns, uint64_t *ns)

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdio_ext.h>
    #include <sys/time.h>

    struct offline_pkthdr { struct timeval ts; uint32_t caplen, len; };
    typedef void *(*pcap_fopen_f)(FILE *, unsigned int, char *);
    typedef int (*pcap_next_ex_f)(void *, struct offline_pkthdr **, const uint8_t **);
    typedef char *(*pcap_geterr_f)(void *);
    typedef void (*pcap_close_f)(void *);
    typedef int (*pcap_number_f)(void *);
    """
    struct timeval:
        long tv_sec
        long tv_usec
    struct offline_pkthdr:
        timeval ts
        uint32_t caplen
        uint32_t len
    ctypedef void *(*pcap_fopen_f)(FILE *, unsigned int, char *) noexcept nogil
    ctypedef int (*pcap_next_ex_f)(void *, offline_pkthdr **, const uint8_t **) noexcept nogil
    ctypedef char *(*pcap_geterr_f)(void *) noexcept nogil
    ctypedef void (*pcap_close_f)(void *) noexcept nogil
    ctypedef int (*pcap_number_f)(void *) noexcept nogil
    ctypedef struct cookie_io_functions_t:
        ssize_t (*read)(void *, char *, size_t) noexcept nogil
        int (*close)(void *) noexcept nogil
    FILE *fopencookie(void *cookie, const char *mode, cookie_io_functions_t functions) nogil
    enum: FSETLOCKING_BYCALLER
    int __fsetlocking(FILE *file, int kind) nogil

cdef enum:
    PRECISION_NANO = 1
    ERROR_BYTES = 256
    # Few system calls, and still in the CPU's cache.
    READ_BYTES = 1 << 18
    FILE_HEADER_BYTES = 24
    RECORD_HEADER_BYTES = 16
    NS_PER_US = 1000

# A record's header as it is in the file.
cdef struct record_header:
    uint32_t seconds
    uint32_t fraction
    uint32_t captured
    uint32_t original

# What has been read of the file: bytes first to end of the buffer are not used yet.
cdef struct read_ahead:
    int fd
    uint8_t *buffer
    size_t first
    size_t end


cdef ssize_t read_buffered(void *cookie, char *to, size_t bytes) noexcept nogil:
    """As read(2)."""
    cdef read_ahead *ahead = <read_ahead *>cookie
    cdef ssize_t got
    if ahead.first == ahead.end:
        got = read(ahead.fd, ahead.buffer, READ_BYTES)
        if got <= 0:
            return got
        ahead.first = 0
        ahead.end = got
    bytes = min(bytes, ahead.end - ahead.first)
    memcpy(to, ahead.buffer + ahead.first, bytes)
    ahead.first += bytes
    return bytes


cdef int close_buffered(void *cookie) noexcept nogil:
    return close((<read_ahead *>cookie).fd)


cdef class PcapReader:
    """The frames of the pcap file that begins at file descriptor `fd`, which is taken over.

    `record_header_bytes` and `micros` (times are microseconds) are of the file's variant.
    Raises ValueError with libpcap's message for a file header that it does not take.
    """

    cdef FrameParser parser
    cdef void *pcap
    cdef read_ahead ahead
    cdef int64_t plain_most  # bytes of the longest frame that libpcap gives as it is in the file; -1: none
    cdef pcap_next_ex_f next_ex
    cdef pcap_geterr_f geterr
    cdef pcap_close_f close
    cdef captured_frame frame
    cdef object program
    cdef loaded_bpf_program raw_program
    cdef bint micros
    cdef uint32_t record_header_bytes
    cdef readonly uint64_t offset
    """Bytes of the file read so far; when broken, where the broken record begins."""
    cdef readonly uint64_t packets
    cdef readonly str error
    """Why fill() gave up, None if it did not."""

    def __cinit__(self, int fd, FrameParser parser, uint32_t link_type, uint16_t interface, uint32_t record_header_bytes,
                  bint micros):
        cdef char message[ERROR_BYTES]
        cdef FILE *file
        cdef pcap_fopen_f fopen
        self.parser = parser
        self.frame.link_type = link_type
        self.frame.interface = interface
        self.frame.direction = DIRECTION_UNKNOWN
        self.frame.segments = 1
        self.frame.time_known = True
        self.record_header_bytes = record_header_bytes
        self.micros = micros
        self.offset = FILE_HEADER_BYTES
        fopen = <pcap_fopen_f><uintptr_t>function_address("pcap_fopen_offline_with_tstamp_precision")
        self.next_ex = <pcap_next_ex_f><uintptr_t>function_address("pcap_next_ex")
        self.geterr = <pcap_geterr_f><uintptr_t>function_address("pcap_geterr")
        self.close = <pcap_close_f><uintptr_t>function_address("pcap_close")
        self.plain_most = -1
        self.ahead.fd = fd
        self.ahead.buffer = <uint8_t *>malloc(READ_BYTES)
        if self.ahead.buffer == NULL:
            raise MemoryError
        file = fopencookie(&self.ahead, b"rb", cookie_io_functions_t(read=read_buffered, close=close_buffered))
        if file == NULL:
            raise OSError(errno, os.strerror(errno))
        setvbuf(file, NULL, _IONBF, 0)  # what libpcap has not used stays in our buffer
        # One thread reads it: a lock for each of libpcap's two freads a packet would cost as much as they do.
        __fsetlocking(file, FSETLOCKING_BYCALLER)
        memset(message, 0, sizeof(message))
        with nogil:
            self.pcap = fopen(file, PRECISION_NANO, message)
        if self.pcap == NULL:
            fclose(file)
            raise ValueError(message.decode(errors="replace"))
        if (self._number("pcap_major_version"), self._number("pcap_minor_version")) == (2, 4):
            if not self._number("pcap_is_swapped") and record_header_bytes == RECORD_HEADER_BYTES:
                self.plain_most = min(self._number("pcap_snapshot"), <int>FRAME_MAX_BYTES)

    def _number(self, name):
        return (<pcap_number_f><uintptr_t>function_address(name))(self.pcap)

    def __dealloc__(self):
        if self.pcap != NULL:
            self.close(self.pcap)
        free(self.ahead.buffer)

    def set_filter(self, bytes program):
        """The program that FrameParser's filter has for raw frames of this link type."""
        self.program = program
        self.raw_program.length = len(program) // sizeof(loaded_bpf_insn)
        self.raw_program.instructions = <loaded_bpf_insn *><const uint8_t *>program
        self.frame.filter = &self.raw_program

    def fill(self, Chunk into):
        """Frames into the chunk until it is full: True.  False: the file ended, or broke (see `error`)."""
        cdef int result
        with nogil:
            result = self._fill(&into.c)
        if result >= 0:
            return result == 1
        if result == -1:
            self.error = self.geterr(self.pcap).decode(errors="replace")
        elif result == -3:
            self.error = f"a frame of {self.frame.captured} bytes, more than the {FRAME_MAX_BYTES} that are supported"
        return False

    cdef int _fill(self, chunk *c) noexcept nogil:
        """1 if the chunk is full, else what pcap_next_ex() said, or -3 for a frame too long."""
        cdef offline_pkthdr *header
        cdef const uint8_t *data
        cdef captured_frame *frame = &self.frame
        cdef int result
        while not is_full(c) and not self.parser.stopping:
            if self._take_plain(c):
                continue
            result = self.next_ex(self.pcap, &header, &data)
            if result != 1:
                return 0 if result == -2 else result
            frame.captured = header.caplen
            if header.caplen > FRAME_MAX_BYTES:
                return -3
            frame.bytes = data
            frame.original = frame.frame_bytes = header.len
            frame.time_in_range = self._time(header, &frame.time_ns)
            self.parser.take(c, frame)
            self._took()
        return 1

    cdef inline bint _take_plain(self, chunk *c) noexcept nogil:
        """The next frame, if it needs nothing of libpcap."""
        cdef captured_frame *frame = &self.frame
        cdef size_t left = self.ahead.end - self.ahead.first
        cdef const uint8_t *at = self.ahead.buffer + self.ahead.first
        cdef record_header header
        if left < sizeof(header):
            return False
        memcpy(&header, at, sizeof(header))
        if <int64_t>header.captured > self.plain_most or left - sizeof(header) < header.captured:
            return False
        frame.captured = header.captured
        frame.bytes = at + sizeof(header)
        frame.original = frame.frame_bytes = header.original
        frame.time_in_range = seconds_to_ns(
            header.seconds, <uint64_t>header.fraction * NS_PER_US if self.micros else header.fraction, &frame.time_ns
        )
        self.ahead.first += sizeof(header) + header.captured
        self.parser.take(c, frame)
        self._took()
        return True

    cdef inline void _took(self) noexcept nogil:
        self.packets += 1
        self.offset += self.record_header_bytes + self.frame.captured

    cdef bint _time(self, offline_pkthdr *header, uint64_t *ns) noexcept nogil:
        """Both fields are unsigned in the file; libpcap takes them for signed ones."""
        cdef uint64_t fraction
        if self.micros:
            fraction = <uint64_t><uint32_t>(header.ts.tv_usec // NS_PER_US) * NS_PER_US
        else:
            fraction = <uint32_t>header.ts.tv_usec
        return seconds_to_ns(<uint32_t>header.ts.tv_sec, fraction, ns) != 0
