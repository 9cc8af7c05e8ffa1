# What the next records will need is fetched into the CPU's cache while the ones before them are analysed: of many
# connections nothing else is there.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from tcptrace.engine.flow_index cimport flow_index, hash_of
from tcptrace.engine.rows cimport connection
from tcptrace.engine.segments cimport segment_pool
from tcptrace.records cimport SHORT_RECORD_BYTES, packet_record

cdef extern from *:
    """
    #define tcptrace_prefetch(p) __builtin_prefetch(p)
    """
    void prefetch "tcptrace_prefetch" (const void *p) nogil

cdef enum:
    RECORDS = 32            # records ahead that are themselves fetched
    HASHES = 16             # records ahead that the index is looked up for; a power of two
    ROWS = 10               # … that the connection is fetched for
    DETAILS = 4             # … that what the connection points to is fetched for
    CACHE_LINE = 64
    FEW_CONNECTIONS = 512   # they stay in the cache by themselves

# The hashes of the records ahead, the one of record i at i % HASHES.
cdef struct lookahead:
    uint64_t hashes[HASHES]

cdef inline int32_t row_at(const flow_index *index, uint64_t hash) noexcept nogil:
    """The row in the hash's own slot, if it may be the right one; else -1."""
    cdef uint64_t slot = index.slots[hash & index.mask]
    return <int32_t>(<uint32_t>slot - 1) if slot >> 32 == hash >> 32 else -1

cdef inline void fetch_lines(const void *start, int bytes) noexcept nogil:
    cdef int at = 0
    while at < bytes:
        prefetch(<const uint8_t *>start + at)
        at += CACHE_LINE

cdef inline void fetch_record(const packet_record *p) noexcept nogil:
    """As much as is read of most; it may begin anywhere in a line."""
    fetch_lines(p, SHORT_RECORD_BYTES)
    prefetch(<const uint8_t *>p + SHORT_RECORD_BYTES - 1)

cdef inline void fetch_row(const connection *c) noexcept nogil:
    """What a usual packet needs of its connection, about half of it."""
    fetch_lines(c, 2 * CACHE_LINE)
    fetch_lines(&c.row.sent, 3 * CACHE_LINE)
    fetch_lines(&c.row.received, 3 * CACHE_LINE)
    fetch_lines(&c.ends[0], 3 * CACHE_LINE)
    fetch_lines(&c.ends[1], 3 * CACHE_LINE)
    prefetch(&c.newer)

cdef inline void fetch_details(const connection *rows, const connection *c, const segment_pool *pool) noexcept nogil:
    """What it points to: neighbours by activity, segments that wait for an ACK."""
    cdef int x
    if c.newer >= 0:
        prefetch(&rows[c.newer].newer)
    if c.older >= 0:
        prefetch(&rows[c.older].newer)
    for x in range(2):
        if c.ends[x].unacked_first >= 0:
            prefetch(&pool.items[c.ends[x].unacked_first])

cdef inline uint64_t look_ahead(
    lookahead *ahead, const flow_index *index, connection *rows, const segment_pool *pool,
    const packet_record *records, int64_t at, int64_t count, bint fetch
) noexcept nogil:
    """The hash of record `at`; what those after it need is on its way."""
    cdef uint64_t hash = ahead.hashes[at % HASHES]
    cdef int32_t row
    if at + RECORDS < count:
        fetch_record(records + at + RECORDS)
    if at + HASHES < count:
        ahead.hashes[at % HASHES] = hash_of(index, records + at + HASHES)
        prefetch(&index.slots[ahead.hashes[at % HASHES] & index.mask])
    if not fetch:
        return hash
    if at + ROWS < count:
        row = row_at(index, ahead.hashes[(at + ROWS) % HASHES])
        if row >= 0:
            fetch_row(&rows[row])
    if at + DETAILS < count:
        row = row_at(index, ahead.hashes[(at + DETAILS) % HASHES])
        if row >= 0:
            fetch_details(rows, &rows[row], pool)
    return hash

cdef inline void begin_lookahead(
    lookahead *ahead, const flow_index *index, const packet_record *records, int64_t count
) noexcept nogil:
    cdef int64_t i
    for i in range(min(count, <int64_t>HASHES)):
        ahead.hashes[i] = hash_of(index, records + i)
