"""The connection table: packets in, rows out.  Reads no clock and does no I/O.

record -> flow_index (which connection) -> analysis (what it says) -> row
"""

cimport cython
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tcptrace.engine.activity cimport activity_list, append, unlink
from tcptrace.engine.analysis cimport analyse
from tcptrace.engine.counting cimport begin, count_packet, forget_rate, refresh_rate
from tcptrace.engine.findings cimport PORT_REUSE
from tcptrace.engine.flow_index cimport find, flow_index, insert, remove
from tcptrace.engine.lookahead cimport FEW_CONNECTIONS, begin_lookahead, look_ahead, lookahead
from tcptrace.engine.outcome cimport complete_row
from tcptrace.engine.percentiles cimport release_histogram
from tcptrace.engine.rows cimport connection, connection_row, endpoint, finding
from tcptrace.engine.segments cimport release
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.engine.states cimport STATE_CLOSED, STATE_TIME_WAIT, STATES
from tcptrace.records cimport FLAG_ACK, FLAG_RST, FLAG_SYN, packet_record

import numpy as np

from tcptrace import model
from tcptrace.engine import layout
from tcptrace.records import PACKET_RECORD, SOCKET_KEY

# Rows that ended and wait for take_ended(); process() and expire() stop when there is no more room.
cdef int32_t ENDED_MAX = 1024
# Segments waiting for an acknowledgment, all connections together: 24 bytes each.
cdef int32_t SEGMENTS_MAX = 4_000_000
# Histograms of round-trip times, all connections together: a usual one takes 1 KB, a hostile one 18.
cdef int64_t HISTOGRAMS_MAX_BYTES = 64 << 20

# Indices of model.END_REASONS.
cdef enum:
    END_CLOSED = 1
    END_RESET = 2
    END_IDLE = 3
    END_EVICTED = 4
    END_REUSED = 5


layout.check()


@cython.no_gc_clear  # __dealloc__ walks the rows: the collector may not free their memory before
cdef class Table:
    """Connections of one trace.

    max_connections: rows; a further connection evicts the least recently active one.
    idle_ns, closed_ns: how long after its last packet a connection leaves, open or closed on both ends.
    seed: for the hash, so that remote hosts cannot choose colliding addresses.
    """

    cdef connection *rows
    cdef object memory, row_view
    cdef flow_index index
    cdef shared_memory shared
    cdef activity_list live, closed
    cdef connection_row *ended_rows
    cdef object ended_memory
    cdef int32_t ended_count, max_connections, used, free_row
    cdef int64_t idle_ns, closed_ns, refreshed_ns
    cdef int64_t packets, bytes, payload_bytes, previous_packets, previous_bytes
    cdef double packets_per_s, bytes_per_s
    cdef int64_t evicted, connections
    cdef uint64_t last_id
    cdef int64_t by_state[16]
    cdef finding unasked

    def __cinit__(self, int32_t max_connections, int64_t idle_ns, int64_t closed_ns, int64_t start_ns, uint64_t seed):
        cdef uint64_t slots = 16
        cdef uint8_t[::1] view
        if max_connections < 1:
            raise ValueError("max_connections must be at least 1")
        while slots < 2 * <uint64_t>max_connections:
            slots *= 2
        self.index.slots = <uint64_t *>calloc(slots, sizeof(uint64_t))
        if self.index.slots == NULL:
            raise MemoryError
        self.index.mask = slots - 1
        self.index.seed = seed
        # Pages of the table are only touched, and so only taken, as far as rows are used.
        self.memory = np.zeros(max_connections * sizeof(connection), "u1")
        view = self.memory
        self.rows = <connection *>&view[0]
        self.row_view = self.memory.view(_strided(model.CONNECTION, sizeof(connection)))
        self.ended_memory = np.zeros(ENDED_MAX, model.CONNECTION)
        view = self.ended_memory.view("u1")
        self.ended_rows = <connection_row *>&view[0]
        self.shared.segments.limit = SEGMENTS_MAX
        self.shared.segments.free = -1
        self.shared.histograms.limit_bytes = HISTOGRAMS_MAX_BYTES
        self.max_connections = max_connections
        self.free_row = -1
        self.live.newest = self.live.oldest = self.closed.newest = self.closed.oldest = -1
        self.idle_ns = idle_ns
        self.closed_ns = closed_ns
        self.refreshed_ns = start_ns

    def __dealloc__(self):
        cdef int32_t row
        for row in range(self.used):
            self._release(&self.rows[row].ends[0])
            self._release(&self.rows[row].ends[1])
        free(self.index.slots)
        free(self.shared.segments.items)

    def process(self, records, findings=None):
        """Take PACKET_RECORD records in; how many were taken.

        findings: an array of model.FINDING, as long as `records` at least, for what each of them came to.

        Fewer than all when connections that ended wait in take_ended(): fetch them and call again with the rest.
        """
        cdef const uint8_t[::1] view
        cdef uint8_t[::1] found_view
        cdef finding *found = NULL
        cdef const packet_record *first
        cdef lookahead ahead
        cdef uint64_t hash
        cdef int64_t count = len(records), at = 0
        if count == 0:
            return 0
        if records.dtype != PACKET_RECORD:
            raise TypeError("records are not of dtype PACKET_RECORD")
        view = records.view("u1")
        first = <const packet_record *>&view[0]
        if findings is not None:
            if findings.dtype != model.FINDING or len(findings) < count:
                raise TypeError("findings are not of dtype FINDING, or too few")
            found_view = findings.view("u1")
            found = <finding *>&found_view[0]
        with nogil:
            begin_lookahead(&ahead, &self.index, first, count)
            while at < count and self.ended_count < ENDED_MAX - 1:
                hash = look_ahead(
                    &ahead, &self.index, self.rows, &self.shared.segments, first, at, count, self.used > FEW_CONNECTIONS
                )
                self._packet(first + at, hash, &self.unasked if found == NULL else found + at)
                at += 1
        return at

    def process_sockets(self, records, ids=None):
        """Join what the kernel said of sockets (SOCKET_RECORD) to their connections; how many records were taken."""
        return len(records)

    def stale_sockets(self, limit):
        """Keys (SOCKET_KEY) of up to `limit` sockets of which packets have said more since than the kernel has."""
        return np.zeros(0, SOCKET_KEY)

    cdef void _packet(self, const packet_record *p, uint64_t hash, finding *found) noexcept nogil:
        cdef int x = 0
        cdef int32_t row = find(&self.index, self.rows, hash, p, &x)
        cdef connection *c
        cdef bint reused = row >= 0 and starts_anew(&self.rows[row], x, p)
        if reused:
            self._end(row, END_REUSED)
        if row < 0 or reused:
            row = self._add(hash, p, &x)
        c = &self.rows[row]
        found.rtt_us = NAN
        found.in_flight_bytes = -1
        found.duplicate_ack_number = 0
        found.connection_id = c.row.id
        found.received = x
        found.analysis = 0
        if reused:
            c.row.port_reuse = 1
            found.analysis = PORT_REUSE
        analyse(&self.shared, c, x, p, found)
        count_packet(c, x, p, found.analysis)
        self.packets += p.segments
        self.bytes += p.frame_bytes
        self.payload_bytes += p.payload_bytes
        self._now_newest(row)

    cdef void _now_newest(self, int32_t row) noexcept nogil:
        """To the front of the list it belongs to now."""
        cdef connection *c = &self.rows[row]
        unlink(&self.closed if c.settled else &self.live, self.rows, row)
        c.settled = c.reset or (is_over(c.row.src_state) and is_over(c.row.dst_state))
        append(&self.closed if c.settled else &self.live, self.rows, row)

    cdef int32_t _add(self, uint64_t hash, const packet_record *p, int *x) noexcept nogil:
        """A row for a connection that begins with p; x becomes which end sent it."""
        cdef int32_t row = self.free_row
        cdef connection *c
        if row >= 0:
            self.free_row = self.rows[row].older
        elif self.used < self.max_connections:
            row = self.used
            self.used += 1
        else:
            row = self._evict()
        c = &self.rows[row]
        memset(c, 0, sizeof(connection))
        self.last_id += 1
        self.connections += 1
        c.row.id = self.last_id
        c.hash = hash
        x[0] = begin(c, p)
        append(&self.live, self.rows, row)
        insert(&self.index, hash, row)
        return row

    cdef int32_t _evict(self) noexcept nogil:
        """Free the row of the least recently active connection."""
        cdef int32_t live = self.live.oldest, shut = self.closed.oldest, row = live
        if live < 0 or (shut >= 0 and self.rows[shut].row.last_ns <= self.rows[live].row.last_ns):
            row = shut
        self.evicted += 1
        self._end(row, END_EVICTED)
        self.free_row = self.rows[row].older
        return row

    cdef void _end(self, int32_t row, uint8_t reason) noexcept nogil:
        """The connection leaves the table; its row waits in ended_rows."""
        cdef connection *c = &self.rows[row]
        c.row.end_reason = reason
        complete_row(c)
        if c.row.changed:  # since the last interval: the rates are not of now
            forget_rate(&c.row.sent)
            forget_rate(&c.row.received)
        memcpy(&self.ended_rows[self.ended_count], &c.row, sizeof(connection_row))
        self.ended_count += 1
        self.connections -= 1
        unlink(&self.closed if c.settled else &self.live, self.rows, row)
        remove(&self.index, self.rows, row)
        self._release(&c.ends[0])
        self._release(&c.ends[1])
        c.row.in_use = 0
        c.older = self.free_row
        self.free_row = row

    cdef void _release(self, endpoint *end) noexcept nogil:
        """Give back what the endpoint holds of the shared memory."""
        release(&self.shared.segments, end)
        release_histogram(&self.shared.histograms, &end.rtts)

    def expire(self, int64_t now_ns):
        """End what has been idle or closed for long enough; False if there is more, but take_ended() comes first."""
        cdef bint room
        with nogil:
            room = self._expire(&self.closed, now_ns - self.closed_ns)
            room = room and self._expire(&self.live, now_ns - self.idle_ns)
        return room

    cdef bint _expire(self, activity_list *by_activity, int64_t before_ns) noexcept nogil:
        cdef int32_t row
        while by_activity.oldest >= 0 and self.rows[by_activity.oldest].row.last_ns <= before_ns:
            if self.ended_count >= ENDED_MAX - 1:
                return False
            row = by_activity.oldest
            if not self.rows[row].settled:
                self._end(row, END_IDLE)
            else:
                self._end(row, END_RESET if self.rows[row].reset else END_CLOSED)
        return True

    def take_ended(self):
        """Rows (a copy) of the connections that left since the last call."""
        taken = self.ended_memory[: self.ended_count].copy()
        self.ended_count = 0
        return taken

    def refresh(self, int64_t now_ns):
        """Work out the rates since the last refresh, and the totals; seconds they are over."""
        cdef double seconds = max((now_ns - self.refreshed_ns) / 1e9, 1e-9)
        cdef connection *c
        cdef int32_t row
        with nogil:
            memset(self.by_state, 0, sizeof(self.by_state))
            for row in range(self.used):
                c = &self.rows[row]
                if not c.row.in_use:
                    continue
                self.by_state[c.row.state] += 1
                if c.row.changed:
                    complete_row(c)
                if c.row.changed or c.row.sent.packets_per_s > 0 or c.row.received.packets_per_s > 0:
                    refresh_rate(&c.row.sent, &c.ends[0], seconds)
                    refresh_rate(&c.row.received, &c.ends[1], seconds)
        self.packets_per_s = (self.packets - self.previous_packets) / seconds
        self.bytes_per_s = (self.bytes - self.previous_bytes) / seconds
        self.previous_packets = self.packets
        self.previous_bytes = self.bytes
        self.refreshed_ns = now_ns
        return seconds

    def rows_view(self):
        """All rows ever used (model.CONNECTION, not a copy), those with in_use == 0 included."""
        return self.row_view[: self.used]

    def clear_changed(self):
        """The interval is over: `changed` begins anew."""
        self.row_view["changed"][: self.used] = 0

    def totals(self):
        """The trace so far (model.Totals); what only the source knows is left to the caller."""
        states = {model.STATES[i] or "unknown": self.by_state[i] for i in range(STATES) if self.by_state[i]}
        return model.Totals(
            packets=self.packets,
            bytes=self.bytes,
            payload_bytes=self.payload_bytes,
            packets_per_s=self.packets_per_s,
            bytes_per_s=self.bytes_per_s,
            connections=self.connections,
            connections_total=self.last_id,
            connections_by_state=states,
            evicted=self.evicted,
            rtt_samples_dropped=self.shared.segments.dropped,
            rtt_percentiles_dropped=self.shared.histograms.dropped,
        )


def _strided(dtype, itemsize):
    """`dtype` as the beginning of larger items."""
    names = list(dtype.names)
    return np.dtype({
        "names": names,
        "formats": [dtype.fields[name][0] for name in names],
        "offsets": [dtype.fields[name][1] for name in names],
        "itemsize": itemsize,
    })


cdef inline bint is_over(uint8_t state) noexcept nogil:
    return state == STATE_TIME_WAIT or state == STATE_CLOSED


cdef inline bint starts_anew(const connection *c, int x, const packet_record *p) noexcept nogil:
    """A SYN whose number is not the one that this connection began with: the same ports are used again."""
    cdef const endpoint *end = &c.ends[x]
    return p.flags & (FLAG_SYN | FLAG_ACK | FLAG_RST) == FLAG_SYN and end.base_known and p.seq != end.base_seq
