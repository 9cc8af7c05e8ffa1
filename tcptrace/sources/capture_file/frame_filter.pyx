"""A filter run by libpcap on captured frames, as the kernel runs it on live ones: without VLAN tags.

What carries the segment besides (tunnels, other link headers) is taken off too, so that `port 443` finds what is
inside.  An expression that speaks of tags or encapsulation itself sees the frame as it was captured.
"""

from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tcptrace.sources.libpcap import function_address

cdef extern from "parse.h" nogil:
    enum: ETHERNET_HEADER_BYTES
    enum: VLAN_TAG_BYTES
    enum: MAX_VLAN_TAGS
    enum: ETHERTYPE_IPV4
    enum: ETHERTYPE_IPV6
    enum: ETHERTYPE_8021Q
    enum: ETHERTYPE_8021AD
    uint16_t load_be16(const uint8_t *p)

cdef enum:
    MAC_ADDRESSES_BYTES = 12
    # libpcap makes programs for frames of up to this length.
    SCRATCH_BYTES = 262144


cdef class FrameFilter:
    """The filter of a filter_programs.FilterPrograms.  Not for two threads at once."""

    def __cinit__(self, programs):
        self.programs = programs
        self.run = <pcap_offline_filter_f><uintptr_t>function_address("pcap_offline_filter")
        self.on_raw_frames = programs.on_raw_frames
        self.kept = {}
        self.scratch = <uint8_t *>malloc(SCRATCH_BYTES)
        if self.scratch == NULL:
            raise MemoryError
        if not self.on_raw_frames:
            program = programs.plain()
            self.plain.length = len(program) // sizeof(loaded_bpf_insn)
            self.plain.instructions = self.instructions(program)

    def __dealloc__(self):
        free(self.scratch)

    cdef loaded_bpf_insn *instructions(self, bytes program):
        """They stay as long as the filter."""
        program = self.kept.setdefault(program, program)
        return <loaded_bpf_insn *><const uint8_t *>program

    cdef bint matches_raw(
        self, const loaded_bpf_program *program, const uint8_t *bytes, uint32_t captured, uint32_t original
    ) noexcept nogil:
        cdef loaded_pkthdr header
        memset(&header, 0, sizeof(header))
        header.caplen = captured
        header.len = original
        return self.run(program, &header, bytes) != 0

    cdef bint matches(
        self, const uint8_t *bytes, uint32_t captured, uint32_t original, bint ethernet,
        const uint8_t *ip, uint32_t ip_bytes
    ) noexcept nogil:
        """`ip`: the header that carries the segment, NULL where there is none; then only Ethernet can be looked at."""
        cdef uint32_t tags
        if ip == bytes + ETHERNET_HEADER_BYTES and ethernet:
            return self.matches_raw(&self.plain, bytes, captured, original)
        if ip != NULL and ip_bytes > 0:
            memset(self.scratch, 0, ETHERNET_HEADER_BYTES)
            if ethernet and captured >= MAC_ADDRESSES_BYTES:
                memcpy(self.scratch, bytes, MAC_ADDRESSES_BYTES)
            self.set_ethertype(ETHERTYPE_IPV6 if ip[0] >> 4 == 6 else ETHERTYPE_IPV4)
            return self.matches_scratch(ETHERNET_HEADER_BYTES, ip, ip_bytes, original)
        if not ethernet:
            return True
        tags = tag_bytes(bytes, captured)
        if tags == 0:
            return self.matches_raw(&self.plain, bytes, captured, original)
        memcpy(self.scratch, bytes, MAC_ADDRESSES_BYTES)
        return self.matches_scratch(
            MAC_ADDRESSES_BYTES, bytes + MAC_ADDRESSES_BYTES + tags, captured - MAC_ADDRESSES_BYTES - tags, original
        )

    cdef void set_ethertype(self, uint16_t ethertype) noexcept nogil:
        self.scratch[MAC_ADDRESSES_BYTES] = ethertype >> 8
        self.scratch[MAC_ADDRESSES_BYTES + 1] = ethertype & 0xff

    cdef bint matches_scratch(
        self, uint32_t head_bytes, const uint8_t *rest, uint32_t rest_bytes, uint32_t original
    ) noexcept nogil:
        """What stands in the scratch buffer so far, and `rest` after it."""
        cdef uint32_t count = min(rest_bytes, <uint32_t>SCRATCH_BYTES - head_bytes)
        memcpy(self.scratch + head_bytes, rest, count)
        return self.matches_raw(&self.plain, self.scratch, head_bytes + count, original)


cdef uint32_t tag_bytes(const uint8_t *bytes, uint32_t captured) noexcept nogil:
    """Bytes of VLAN tags after the addresses, as far as parse_link() follows them."""
    cdef uint32_t tags = 0
    cdef uint16_t ethertype
    while tags < MAX_VLAN_TAGS * VLAN_TAG_BYTES and captured >= ETHERNET_HEADER_BYTES + tags + VLAN_TAG_BYTES:
        ethertype = load_be16(bytes + MAC_ADDRESSES_BYTES + tags)
        if ethertype != ETHERTYPE_8021Q and ethertype != ETHERTYPE_8021AD:
            break
        tags += VLAN_TAG_BYTES
    return tags
