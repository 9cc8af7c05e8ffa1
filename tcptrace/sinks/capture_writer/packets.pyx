"""Records and their frames as the packets of a pcap or pcapng file: the inner loop of writing."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tcptrace.records cimport DIRECTION_EGRESS, DIRECTION_INGRESS, NOTE_FIRST_SEND, NOTE_SENT_BEFORE, packet_record

from tcptrace.records import PACKET_RECORD

cdef enum:
    # pcapng: draft-ietf-opsawg-pcapng, sections 3.5 (options), 4.3 (Enhanced Packet Block) and 4.3.1 (its flags).
    ENHANCED_PACKET_BLOCK = 6
    OPTION_END = 0
    OPTION_COMMENT = 1
    OPTION_FLAGS = 2
    FLAGS_INBOUND = 1
    FLAGS_OUTBOUND = 2
    # A custom option with binary data that survives a copy, and the number that RFC 5612 sets aside for examples.
    OPTION_CUSTOM = 2989
    CUSTOM_ENTERPRISE = 32473
    CUSTOM_VERSION = 1
    NS_PER_S = 1_000_000_000

cdef struct enhanced_packet:
    uint32_t type
    uint32_t block_bytes
    uint32_t interface
    uint32_t time_high
    uint32_t time_low
    uint32_t captured_bytes
    uint32_t original_bytes

cdef struct option:
    uint16_t code
    uint16_t bytes

cdef struct flags_option:
    option head
    uint32_t flags

# What pcapng has no field for.  The value's first bytes tell it from what others do with the same number.
cdef struct custom_option:
    option head
    uint32_t enterprise
    char magic[8]
    uint8_t version
    uint8_t note
    uint16_t segments
    uint32_t frame_bytes

cdef struct pcap_packet:
    uint32_t time_s
    uint32_t time_ns
    uint32_t captured_bytes
    uint32_t original_bytes


cdef inline Py_ssize_t padded(Py_ssize_t size) noexcept nogil:
    """To a multiple of four, as pcapng wants its fields."""
    return (size + 3) & ~<Py_ssize_t>3


cdef inline uint8_t *put(uint8_t *to, const void *what, Py_ssize_t size) noexcept nogil:
    memcpy(to, what, size)
    return to + size


cdef inline uint8_t *put_padded(uint8_t *to, const void *what, Py_ssize_t size) noexcept nogil:
    memcpy(to, what, size)
    memset(to + size, 0, padded(size) - size)
    return to + padded(size)


cdef class PacketEncoder:
    """The packets of one batch.  Byte order is the machine's, which both formats allow.

    offset_ns: what makes a record's time UTC; snaplen: bytes of each frame to keep at most;
    comments: one for each record, or None where it has none.
    """

    cdef const uint8_t[::1] records
    cdef const uint8_t[::1] data
    cdef const int64_t[:] starts
    cdef const uint32_t[:] captured
    cdef const uint32_t[:] original
    cdef const uint16_t[:] interfaces
    cdef Py_ssize_t count
    cdef uint64_t offset_ns
    cdef uint32_t snaplen
    cdef list comments

    def __init__(self, records, frames, int64_t offset_ns, uint32_t snaplen, list comments=None):
        if records.dtype != PACKET_RECORD:
            raise TypeError("records are not of dtype PACKET_RECORD")
        self.records = records.view("u1")
        self.count = len(records)
        self.data = frames.data
        self.starts = frames.starts
        self.captured = frames.captured_bytes
        self.original = frames.original_bytes
        self.interfaces = frames.interfaces
        lengths = {len(self.starts), len(self.captured), len(self.original), len(self.interfaces)}
        if lengths != {self.count} or (comments is not None and len(comments) != self.count):
            raise ValueError("not as many frames or comments as records")
        self.offset_ns = <uint64_t>offset_ns
        self.snaplen = snaplen
        self.comments = comments

    cdef int check(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t used, Py_ssize_t limit,
                   uint8_t[::1] out) except -1:
        if start < 0 or stop > self.count or used < 0 or limit > len(out):
            raise IndexError("no such packets, or no such place for them")
        return 0

    cdef int check_frame(self, Py_ssize_t i) except -1:
        if self.starts[i] < 0 or self.starts[i] + <int64_t>self.captured[i] > len(self.data):
            raise ValueError(f"frame {i} reaches past the data")
        return 0

    def pcapng(self, uint8_t[::1] out, Py_ssize_t used, Py_ssize_t limit, Py_ssize_t start, Py_ssize_t stop):
        """Enhanced Packet Blocks of the packets from `start` on into out[used:limit], as many as fit there whole.

        The first packet that did not, or `stop`; and how much of `out` is used now.
        """
        cdef enhanced_packet block
        cdef flags_option direction
        cdef custom_option custom
        cdef option head
        cdef const packet_record *p
        cdef Py_ssize_t size, i = start
        cdef bint has_custom
        cdef uint8_t *to
        cdef uint64_t time_ns
        cdef bytes comment = None
        self.check(start, stop, used, limit, out)
        block.type = ENHANCED_PACKET_BLOCK
        direction.head = option(OPTION_FLAGS, 4)
        custom.head = option(OPTION_CUSTOM, sizeof(custom_option) - sizeof(option))
        custom.enterprise = CUSTOM_ENTERPRISE
        memcpy(custom.magic, b"tcptrace", 8)
        custom.version = CUSTOM_VERSION
        while i < stop:
            self.check_frame(i)
            p = <const packet_record *>&self.records[0] + i
            direction.flags = (FLAGS_INBOUND if p.direction == DIRECTION_INGRESS
                               else FLAGS_OUTBOUND if p.direction == DIRECTION_EGRESS else 0)
            has_custom = (p.segments > 1 or p.note & (NOTE_FIRST_SEND | NOTE_SENT_BEFORE) != 0 or p.frame_bytes != self.original[i])
            if self.comments is not None:
                comment = self.comments[i]
            block.captured_bytes = min(self.captured[i], self.snaplen)
            size = (0 if direction.flags == 0 else sizeof(flags_option)) + (sizeof(custom_option) if has_custom else 0)
            if comment is not None:
                size += sizeof(option) + padded(len(comment))
            if size:
                size += sizeof(option)
            size += sizeof(enhanced_packet) + padded(block.captured_bytes) + sizeof(uint32_t)
            if used + size > limit:
                break
            time_ns = p.time_ns + self.offset_ns
            block.block_bytes = size
            block.interface = self.interfaces[i]
            block.time_high = time_ns >> 32
            block.time_low = time_ns & 0xffffffff
            block.original_bytes = self.original[i]
            to = put(&out[0] + used, &block, sizeof(block))
            to = put_padded(to, &self.data[0] + self.starts[i], block.captured_bytes)
            if direction.flags:
                to = put(to, &direction, sizeof(direction))
            if has_custom:
                custom.note = p.note & (NOTE_FIRST_SEND | NOTE_SENT_BEFORE)
                custom.segments = p.segments
                custom.frame_bytes = p.frame_bytes
                to = put(to, &custom, sizeof(custom))
            if comment is not None:
                head = option(OPTION_COMMENT, len(comment))
                to = put(to, &head, sizeof(head))
                to = put_padded(to, <const char *>comment, len(comment))
            if direction.flags or has_custom or comment is not None:
                head = option(OPTION_END, 0)
                to = put(to, &head, sizeof(head))
            put(to, &block.block_bytes, sizeof(uint32_t))
            used += size
            i += 1
        return i, used

    def pcap(self, uint8_t[::1] out, Py_ssize_t used, Py_ssize_t limit, Py_ssize_t start, Py_ssize_t stop):
        """The same as packets of a pcap file with nanoseconds."""
        cdef pcap_packet packet
        cdef const packet_record *p
        cdef Py_ssize_t size, i = start
        cdef uint64_t time_ns
        cdef uint8_t *to
        self.check(start, stop, used, limit, out)
        while i < stop:
            self.check_frame(i)
            p = <const packet_record *>&self.records[0] + i
            packet.captured_bytes = min(self.captured[i], self.snaplen)
            size = sizeof(packet) + packet.captured_bytes
            if used + size > limit:
                break
            time_ns = p.time_ns + self.offset_ns
            packet.time_s = time_ns // NS_PER_S
            packet.time_ns = time_ns % NS_PER_S
            packet.original_bytes = self.original[i]
            to = put(&out[0] + used, &packet, sizeof(packet))
            put(to, &self.data[0] + self.starts[i], packet.captured_bytes)
            used += size
            i += 1
        return i, used
