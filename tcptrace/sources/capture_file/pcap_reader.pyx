"""pcap files, read by libpcap: all its byte orders, time units and variants."""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdio cimport FILE, fclose, setvbuf, _IOFBF
from libc.stdlib cimport free, malloc
from libc.string cimport memset

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
    FILE *fdopen(int fd, const char *mode) nogil
    enum: FSETLOCKING_BYCALLER
    int __fsetlocking(FILE *file, int kind) nogil

cdef enum:
    PRECISION_NANO = 1
    ERROR_BYTES = 256
    # Few system calls, and still in the CPU's cache.
    READ_BYTES = 1 << 18
    FILE_HEADER_BYTES = 24
    NS_PER_US = 1000


cdef class PcapReader:
    """The frames of the pcap file that begins at file descriptor `fd`, which is taken over.

    `record_header_bytes` and `micros` (times are microseconds) are of the file's variant.
    Raises ValueError with libpcap's message for a file header that it does not take.
    """

    cdef FrameParser parser
    cdef void *pcap
    cdef char *buffer
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
        self.buffer = <char *>malloc(READ_BYTES)
        if self.buffer == NULL:
            raise MemoryError
        file = fdopen(fd, b"rb")
        if file == NULL:
            raise OSError(errno, os.strerror(errno))
        setvbuf(file, self.buffer, _IOFBF, READ_BYTES)
        # One thread reads it: a lock for each of libpcap's two freads a packet would cost as much as they do.
        __fsetlocking(file, FSETLOCKING_BYCALLER)
        memset(message, 0, sizeof(message))
        with nogil:
            self.pcap = fopen(file, PRECISION_NANO, message)
        if self.pcap == NULL:
            fclose(file)
            raise ValueError(message.decode(errors="replace"))

    def __dealloc__(self):
        if self.pcap != NULL:
            self.close(self.pcap)
        free(self.buffer)

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
            self.packets += 1
            self.offset += self.record_header_bytes + header.caplen
        return 1

    cdef bint _time(self, offline_pkthdr *header, uint64_t *ns) noexcept nogil:
        """Both fields are unsigned in the file; libpcap takes them for signed ones."""
        cdef uint64_t fraction
        if self.micros:
            fraction = <uint64_t><uint32_t>(header.ts.tv_usec // NS_PER_US) * NS_PER_US
        else:
            fraction = <uint32_t>header.ts.tv_usec
        return seconds_to_ns(<uint32_t>header.ts.tv_sec, fraction, ns) != 0
