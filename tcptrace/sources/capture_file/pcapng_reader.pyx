"""pcapng files (draft-ietf-opsawg-pcapng): several sections and interfaces, directions, and our own notes on packets."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from tcptrace.records cimport DIRECTION_EGRESS, DIRECTION_INGRESS, NOTE_FIRST_SEND, NOTE_SENT_BEFORE

from tcptrace.sources.capture_file.byte_stream cimport AT_END, NO_MEMORY, THERE, ByteStream
from tcptrace.sources.capture_file.chunk cimport DIRECTION_UNKNOWN, FRAME_MAX_BYTES, Chunk, chunk, is_full
from tcptrace.sources.capture_file.frame_filter cimport loaded_bpf_insn, loaded_bpf_program
from tcptrace.sources.capture_file.frame_parser cimport FrameParser, captured_frame

import os

from tcptrace.sources.capture_file.pcapng_options import interface_options

cdef extern from "timestamps.h" nogil:
    struct time_unit:
        pass
    void set_time_unit(time_unit *unit, uint8_t resolution, int64_t offset_s)
    int units_to_ns(const time_unit *unit, uint64_t units, uint64_t *ns)

cdef extern from "pcapng_blocks.h" nogil:
    enum: BLOCK_SECTION_HEADER
    enum: BLOCK_INTERFACE
    enum: BLOCK_PACKET
    enum: BLOCK_SIMPLE_PACKET
    enum: BLOCK_ENHANCED_PACKET
    enum: BYTE_ORDER_MAGIC
    enum: BLOCK_HEAD_BYTES
    enum: BLOCK_FRAME_BYTES
    enum: BLOCK_MAX_BYTES
    enum: OPTION_END
    enum: OPTION_PACKET_FLAGS
    enum: OPTION_CUSTOM_BYTES
    enum: OWN_OPTION_ENTERPRISE
    enum: OWN_OPTION_NAME_BYTES
    enum: OWN_OPTION_VERSION
    enum: OWN_OPTION_BYTES
    const char *OWN_OPTION_NAME
    uint16_t load16(const uint8_t *p, bint swapped)
    uint32_t load32(const uint8_t *p, bint swapped)
    uint32_t padded(uint32_t bytes)

cdef enum outcome:
    GOES_ON
    FULL
    ENDED
    CUT_OFF
    UNREADABLE
    OUT_OF_MEMORY
    NO_SECTION
    BAD_BYTE_ORDER
    BAD_VERSION
    BAD_LENGTH
    BAD_TRAILER
    TOO_SHORT
    BAD_CAPTURED
    BAD_INTERFACE
    TOO_MANY_INTERFACES

ERRORS = {
    UNREADABLE: "it cannot be read",
    OUT_OF_MEMORY: "out of memory",
    NO_SECTION: "no section header where one has to be",
    BAD_BYTE_ORDER: "a section header with an unknown byte order",
    BAD_VERSION: "version {0} of the format is not known",
    BAD_LENGTH: "a block of {0} bytes, which cannot be",
    BAD_TRAILER: "a block with two lengths, {0} at its end",
    TOO_SHORT: "a block of {0} bytes, too short for what it is",
    BAD_CAPTURED: "a frame of {0} bytes, which its block does not hold",
    BAD_INTERFACE: "a packet of an interface {0} that was not described",
    TOO_MANY_INTERFACES: "more interfaces than can be told apart",
}

cdef enum:
    # Smallest blocks of their kinds, both lengths included.
    SECTION_BYTES = 28
    INTERFACE_BYTES = 20
    PACKET_BYTES = 32
    SIMPLE_PACKET_BYTES = 16
    VERSION = 1


cdef struct interface:
    uint32_t link_type
    uint32_t snaplen
    uint16_t index
    time_unit unit
    loaded_bpf_program filter


cdef class PcapngReader:
    """The frames of the pcapng file that begins at file descriptor `fd`, which is taken over.

    `add_interface(place, link_type, options)` is called for each interface, `place` counting them from 0 in
    each section; it returns the index that its frames shall have and the filter's program for its raw
    frames (None: there is none), or raises OverflowError.
    """

    cdef FrameParser parser
    cdef ByteStream stream
    cdef object add_interface
    cdef list programs
    cdef bint in_section
    cdef bint swapped
    cdef interface *interfaces
    cdef uint32_t interface_count
    cdef uint32_t interface_room
    cdef uint64_t detail
    cdef object raised
    cdef readonly uint64_t offset
    """Bytes of the file read so far; when broken, where the broken block begins."""
    cdef readonly uint64_t packets
    cdef readonly str error
    """Why fill() gave up, None if it did not."""

    def __cinit__(self, int fd, FrameParser parser, add_interface):
        self.stream = ByteStream(fd)
        self.parser = parser
        self.add_interface = add_interface
        self.programs = []

    def __dealloc__(self):
        free(self.interfaces)

    def fill(self, Chunk into):
        """Frames into the chunk until it is full: True.  False: the file ended, or broke (see `error`)."""
        cdef outcome result
        with nogil:
            result = self._fill(&into.c)
        if self.raised is not None:
            raise self.raised
        if result == FULL:
            return True
        if result == CUT_OFF:
            self.error = "cut off in the middle of a block"
        elif result == UNREADABLE:
            self.error = os.strerror(self.stream.error_number)
        elif result != ENDED:
            self.error = ERRORS[result].format(self.detail)
        return False

    cdef outcome _fill(self, chunk *c) noexcept nogil:
        cdef outcome result = GOES_ON
        cdef uint32_t block_bytes = 0
        while result == GOES_ON:
            if is_full(c) or self.parser.stopping:
                return FULL
            result = self._next_block(&block_bytes)
            if result == GOES_ON:
                result = self._block(c, self.stream.buffer + self.stream.first, block_bytes)
            if result == GOES_ON:
                self.stream.first += block_bytes
                self.offset += block_bytes
        return result

    cdef outcome _next_block(self, uint32_t *block_bytes) noexcept nogil:
        """A whole block into the stream's buffer, its length checked."""
        cdef const uint8_t *p
        cdef uint32_t length
        cdef int there = self.stream.need(BLOCK_FRAME_BYTES)
        if there == AT_END and self.stream.end == self.stream.first:
            return ENDED
        if there != THERE:
            return self._not_there(there)
        p = self.stream.buffer + self.stream.first
        if load32(p, False) == BLOCK_SECTION_HEADER:
            self.swapped = load32(p + BLOCK_HEAD_BYTES, False) != BYTE_ORDER_MAGIC
            if load32(p + BLOCK_HEAD_BYTES, self.swapped) != BYTE_ORDER_MAGIC:
                return BAD_BYTE_ORDER
        elif not self.in_section:
            return NO_SECTION
        length = load32(p + 4, self.swapped)
        self.detail = length
        if length < BLOCK_FRAME_BYTES or length % 4 != 0 or length > BLOCK_MAX_BYTES:
            return BAD_LENGTH
        there = self.stream.need(length)
        if there != THERE:
            return self._not_there(there)
        p = self.stream.buffer + self.stream.first
        self.detail = load32(p + length - 4, self.swapped)
        if self.detail != length:
            return BAD_TRAILER
        block_bytes[0] = length
        return GOES_ON

    cdef outcome _not_there(self, int there) noexcept nogil:
        if there == NO_MEMORY:
            return OUT_OF_MEMORY
        return CUT_OFF if there == AT_END else UNREADABLE

    cdef outcome _block(self, chunk *c, const uint8_t *block, uint32_t length) noexcept nogil:
        """One whole block; those of no interest are passed over."""
        cdef uint32_t kind = load32(block, self.swapped)
        cdef const uint8_t *body = block + BLOCK_HEAD_BYTES
        self.detail = length
        if kind == BLOCK_ENHANCED_PACKET:
            if length < PACKET_BYTES:
                return TOO_SHORT
            return self._packet(c, body, length, load32(body, self.swapped))
        if kind == BLOCK_PACKET:
            if length < PACKET_BYTES:
                return TOO_SHORT
            return self._packet(c, body, length, load16(body, self.swapped))
        if kind == BLOCK_SIMPLE_PACKET:
            return TOO_SHORT if length < SIMPLE_PACKET_BYTES else self._simple_packet(c, body, length)
        if kind == BLOCK_INTERFACE:
            return TOO_SHORT if length < INTERFACE_BYTES else self._interface(body, length)
        if kind == BLOCK_SECTION_HEADER:
            return TOO_SHORT if length < SECTION_BYTES else self._section(body)
        return GOES_ON

    cdef outcome _section(self, const uint8_t *body) noexcept nogil:
        self.detail = load16(body + 4, self.swapped)
        if self.detail != VERSION:
            return BAD_VERSION
        self.in_section = True
        self.interface_count = 0
        return GOES_ON

    cdef outcome _interface(self, const uint8_t *body, uint32_t length) noexcept nogil:
        cdef interface *grown
        cdef uint32_t room
        if self.interface_count == self.interface_room:
            room = self.interface_room * 2 + 8
            grown = <interface *>realloc(self.interfaces, room * sizeof(interface))
            if grown == NULL:
                return OUT_OF_MEMORY
            self.interfaces = grown
            self.interface_room = room
        with gil:
            try:
                self._describe(&self.interfaces[self.interface_count], body, length)
            except OverflowError:
                return TOO_MANY_INTERFACES
            except Exception as error:
                self.raised = error
                return ENDED
        self.interface_count += 1
        return GOES_ON

    cdef int _describe(self, interface *i, const uint8_t *body, uint32_t length) except -1:
        memset(i, 0, sizeof(interface))
        i.link_type = load16(body, self.swapped)
        i.snaplen = load32(body + 4, self.swapped)
        options = interface_options((body + 8)[: length - INTERFACE_BYTES], "big" if self._is_big_endian() else "little")
        set_time_unit(&i.unit, options.time_resolution, options.time_offset_s)
        index, program = self.add_interface(self.interface_count, i.link_type, i.snaplen, options)
        i.index = index
        if program is not None:
            self.programs.append(program)
            i.filter.length = len(program) // sizeof(loaded_bpf_insn)
            i.filter.instructions = <loaded_bpf_insn *><const uint8_t *>program
        return 0

    cdef bint _is_big_endian(self) noexcept nogil:
        cdef uint16_t one = 1
        return (<uint8_t *>&one)[0] == self.swapped

    cdef outcome _packet(self, chunk *c, const uint8_t *body, uint32_t length, uint32_t interface_id) noexcept nogil:
        """An enhanced packet, or the obsolete packet: their bodies differ in the first word only."""
        cdef captured_frame frame
        cdef uint32_t room = length - PACKET_BYTES, taken
        cdef uint64_t units
        self.detail = interface_id
        if interface_id >= self.interface_count:
            return BAD_INTERFACE
        units = <uint64_t>load32(body + 4, self.swapped) << 32 | load32(body + 8, self.swapped)
        frame.captured = load32(body + 12, self.swapped)
        frame.original = load32(body + 16, self.swapped)
        frame.bytes = body + 20
        self.detail = frame.captured
        if frame.captured > room or frame.captured > FRAME_MAX_BYTES:
            return BAD_CAPTURED
        frame.time_known = True
        frame.time_in_range = units_to_ns(&self.interfaces[interface_id].unit, units, &frame.time_ns) != 0
        self._set_defaults(&frame, &self.interfaces[interface_id])
        taken = padded(frame.captured)
        if taken < room:
            self._packet_options(&frame, frame.bytes + taken, room - taken)
        self._take(c, &frame)
        return GOES_ON

    cdef outcome _simple_packet(self, chunk *c, const uint8_t *body, uint32_t length) noexcept nogil:
        """It belongs to the section's first interface and has no time."""
        cdef captured_frame frame
        self.detail = 0
        if self.interface_count == 0:
            return BAD_INTERFACE
        frame.original = load32(body, self.swapped)
        frame.captured = frame.original
        if self.interfaces[0].snaplen > 0:
            frame.captured = min(frame.captured, self.interfaces[0].snaplen)
        self.detail = frame.captured
        if frame.captured > length - SIMPLE_PACKET_BYTES or frame.captured > FRAME_MAX_BYTES:
            return BAD_CAPTURED
        frame.bytes = body + 4
        frame.time_known = False
        frame.time_in_range = True
        self._set_defaults(&frame, &self.interfaces[0])
        self._take(c, &frame)
        return GOES_ON

    cdef void _set_defaults(self, captured_frame *frame, interface *i) noexcept nogil:
        frame.link_type = i.link_type
        frame.interface = i.index
        frame.filter = &i.filter if i.filter.length > 0 else NULL
        frame.direction = DIRECTION_UNKNOWN
        frame.note = 0
        frame.segments = 1
        frame.frame_bytes = frame.original

    cdef void _take(self, chunk *c, captured_frame *frame) noexcept nogil:
        self.parser.take(c, frame)
        self.packets += 1

    cdef void _packet_options(self, captured_frame *frame, const uint8_t *p, uint32_t left) noexcept nogil:
        """Options that do not hold together end here; the packet itself is whole."""
        cdef uint16_t code, count
        cdef uint32_t flags
        while left >= 4:
            code = load16(p, self.swapped)
            count = load16(p + 2, self.swapped)
            if code == OPTION_END or count > left - 4:
                return
            if code == OPTION_PACKET_FLAGS and count == 4:
                flags = load32(p + 4, self.swapped) & 3
                if flags == 1:
                    frame.direction = DIRECTION_INGRESS
                elif flags == 2:
                    frame.direction = DIRECTION_EGRESS
            elif code == OPTION_CUSTOM_BYTES and count == OWN_OPTION_BYTES:
                self._own_option(frame, p + 4)
            if padded(count) >= left - 4:
                return
            left -= 4 + padded(count)
            p += 4 + padded(count)

    cdef void _own_option(self, captured_frame *frame, const uint8_t *p) noexcept nogil:
        if load32(p, self.swapped) != OWN_OPTION_ENTERPRISE:
            return
        p += 4
        if memcmp(p, OWN_OPTION_NAME, OWN_OPTION_NAME_BYTES) != 0 or p[OWN_OPTION_NAME_BYTES] != OWN_OPTION_VERSION:
            return
        p += OWN_OPTION_NAME_BYTES
        frame.note = p[1] & (NOTE_FIRST_SEND | NOTE_SENT_BEFORE)
        frame.segments = max(load16(p + 2, self.swapped), 1)
        frame.frame_bytes = load32(p + 4, self.swapped)
