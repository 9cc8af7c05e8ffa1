# From the two ends of a packet to its connection, either way round, in one look-up.
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset

from tcptrace.engine.rows cimport connection
from tcptrace.records cimport packet_record

cdef struct flow_index:
    uint64_t *slots         # row number + 1 in the low half, the hash's high half in the high one; 0 is empty
    uint64_t mask
    uint64_t mask_most      # what there is memory for
    uint64_t seeds[3]

cdef extern from *:
    """
    static inline uint64_t tcptrace_folded_product(uint64_t a, uint64_t b)
    {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t folded_product "tcptrace_folded_product" (uint64_t a, uint64_t b) nogil

cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """Every input bit reaches every output bit (the finaliser of splitmix64)."""
    value = (value ^ (value >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    value = (value ^ (value >> 27)) * <uint64_t>0x94d049bb133111eb
    return value ^ (value >> 31)

cdef inline void set_seed(flow_index *index, uint64_t seed) noexcept nogil:
    cdef int i
    for i in range(3):
        seed = index.seeds[i] = mix(seed + <uint64_t>0x9e3779b97f4a7c15)

cdef inline uint64_t hash_end(const uint64_t *seeds, const uint8_t *address, uint16_t port) noexcept nogil:
    """Products of sums with secret numbers: no part can be chosen to make up for another."""
    cdef uint64_t words[2]
    memcpy(words, address, 16)
    return folded_product(folded_product(words[0] + seeds[0], words[1] + seeds[1]) ^ port, seeds[2])

cdef inline uint64_t hash_of(const flow_index *index, const packet_record *p) noexcept nogil:
    """The same for both directions; seeded, so that nobody can choose addresses that collide."""
    return mix(
        hash_end(index.seeds, p.src_addr, p.src_port) + hash_end(index.seeds, p.dst_addr, p.dst_port)
    )

cdef inline int side_of(const connection *c, const packet_record *p) noexcept nogil:
    """0 if p runs from src to dst of c, 1 if the other way, -1 if it is not of c."""
    if p.ip_version != c.row.ip_version:
        return -1  # IPv6 packets may carry v4-mapped addresses
    if (
        p.src_port == c.row.src_port and p.dst_port == c.row.dst_port
        and memcmp(p.src_addr, c.row.src_addr, 16) == 0 and memcmp(p.dst_addr, c.row.dst_addr, 16) == 0
    ):
        return 0
    if (
        p.src_port == c.row.dst_port and p.dst_port == c.row.src_port
        and memcmp(p.src_addr, c.row.dst_addr, 16) == 0 and memcmp(p.dst_addr, c.row.src_addr, 16) == 0
    ):
        return 1
    return -1

cdef inline int32_t find(
    const flow_index *index, connection *rows, uint64_t hash, const packet_record *p, int *x
) noexcept nogil:
    """The row of p's connection and in x which end sent it; -1 if there is none."""
    cdef uint64_t at = hash & index.mask, slot
    cdef int32_t row
    while True:
        slot = index.slots[at]
        if slot == 0:
            return -1
        if slot >> 32 == hash >> 32:
            row = <int32_t>(<uint32_t>slot - 1)
            x[0] = side_of(&rows[row], p)
            if x[0] >= 0:
                return row
        at = (at + 1) & index.mask

cdef inline void insert(flow_index *index, uint64_t hash, int32_t row) noexcept nogil:
    cdef uint64_t at = hash & index.mask
    while index.slots[at] != 0:
        at = (at + 1) & index.mask
    index.slots[at] = (hash >> 32) << 32 | <uint64_t>(row + 1)

cdef inline void widen(flow_index *index, const connection *rows, int32_t used) noexcept nogil:
    """Twice as many slots.  Few connections stay near each other, in the CPU's cache."""
    cdef int32_t row
    index.mask = 2 * index.mask + 1
    memset(index.slots, 0, (index.mask + 1) * sizeof(uint64_t))
    for row in range(used):
        if rows[row].row.in_use:
            insert(index, rows[row].hash, row)

cdef inline void remove(flow_index *index, connection *rows, int32_t row) noexcept nogil:
    """Empty the slot and move up what had been pushed past it, so that no search stops short."""
    cdef uint64_t at = rows[row].hash & index.mask, hole, home
    while <uint32_t>index.slots[at] != <uint32_t>(row + 1):
        at = (at + 1) & index.mask
    hole = at
    while True:
        at = (at + 1) & index.mask
        if index.slots[at] == 0:
            break
        home = rows[<uint32_t>index.slots[at] - 1].hash
        if (at - home) & index.mask >= (at - hole) & index.mask:
            index.slots[hole] = index.slots[at]
            hole = at
    index.slots[hole] = 0
