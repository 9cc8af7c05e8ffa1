from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/time.h>

    /* As <pcap/bpf.h> and <pcap/pcap.h> have them; the library is only loaded, not compiled against. */
    struct loaded_bpf_insn { unsigned short code; unsigned char jt, jf; uint32_t k; };
    struct loaded_bpf_program { unsigned int length; struct loaded_bpf_insn *instructions; };
    struct loaded_pkthdr { struct timeval ts; uint32_t caplen, len; };
    typedef int (*pcap_offline_filter_f)(
        const struct loaded_bpf_program *, const struct loaded_pkthdr *, const uint8_t *);
    """
    struct loaded_bpf_insn:
        pass
    struct loaded_bpf_program:
        unsigned int length
        loaded_bpf_insn *instructions
    struct loaded_pkthdr:
        uint32_t caplen
        uint32_t len
    ctypedef int (*pcap_offline_filter_f)(
        const loaded_bpf_program *, const loaded_pkthdr *, const uint8_t *) noexcept nogil


cdef class FrameFilter:
    cdef object programs
    cdef pcap_offline_filter_f run
    cdef loaded_bpf_program plain
    cdef dict kept
    cdef uint8_t *scratch
    cdef readonly bint on_raw_frames

    cdef loaded_bpf_insn *instructions(self, bytes program)
    cdef bint matches(
        self, const uint8_t *bytes, uint32_t captured, uint32_t original, bint ethernet,
        const uint8_t *ip, uint32_t ip_bytes) noexcept nogil
    cdef bint matches_raw(
        self, const loaded_bpf_program *program, const uint8_t *bytes, uint32_t captured, uint32_t original) noexcept nogil
    cdef void set_ethertype(self, uint16_t ethertype) noexcept nogil
    cdef bint matches_scratch(
        self, uint32_t head_bytes, const uint8_t *rest, uint32_t rest_bytes, uint32_t original) noexcept nogil
