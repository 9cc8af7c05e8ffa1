"""The connection table: packets in, rows out.  Reads no clock and does no I/O.

record -> flow_index (which connection) -> analysis (what it says) -> row
"""

cimport cython
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tcptrace.engine.activity cimport ACTIVITIES, LIVE, QUIET, SHUT, activity_list, append, unlink
from tcptrace.engine.analysis cimport analyse
from tcptrace.engine.asking cimport (
    ask, ask_queue, begin_asking, end_asking, make_room_for_asked, queue_row, take_silences,
)
from tcptrace.engine.counting cimport NEAR_DST, NEAR_SRC, begin, forget_rate, note_packet, refresh_rate
from tcptrace.engine.findings cimport PORT_REUSE
from tcptrace.engine.flow_counts cimport (
    begin_counts_here, catch_up, growth, is_behind, is_its_count, nothing_was_lost, packet_of_flow, settle, take_counts,
)
from tcptrace.engine.flow_index cimport find, flow_index, hash_of, insert, remove, set_seed, widen
from tcptrace.engine.in_step cimport note_whether_in_step, take_in_step
from tcptrace.engine.lookahead cimport FEW_CONNECTIONS, begin_lookahead, look_ahead, lookahead
from tcptrace.engine.outcome cimport complete_row
from tcptrace.engine.percentiles cimport release_histogram
from tcptrace.engine.rows cimport connection, connection_row, endpoint, finding, socket_pair, whole_row
from tcptrace.engine.segments cimport release
from tcptrace.engine.shared_memory cimport shared_memory
from tcptrace.engine.sequence cimport before
from tcptrace.engine.sockets cimport (
    begin_with_packet, begin_with_socket, has_settled, is_held_open, is_joined, is_older_than_syn,
    makes_row, packet_of, shown_state, take_socket,
)
from tcptrace.engine.states cimport STATE_CLOSED, STATE_TIME_WAIT, STATES
from tcptrace.engine.touched cimport begin_interval, has_rate, look_ahead_of, touch, touched_rows
from tcptrace.records cimport (
    FLAG_ACK, FLAG_RST, FLAG_SYN, FLOW_TIME, NOTE_COUNTED, SOCKET_FOUND, SOCKET_STATE, flow_count, flow_key, packet_record,
    socket_key, socket_record,
)

import numpy as np

from tcptrace import model
from tcptrace.engine import layout
from tcptrace.engine.stored_rows import SOCKET_FIELDS, StoredRows
from tcptrace.records import FLOW_COUNT, FLOW_KEY, PACKET_RECORD, SOCKET_KEY, SOCKET_RECORD, SOCKET_VIEW

# Rows that ended and wait for take_ended(); process() and expire() stop when there is no more room.
cdef int32_t ENDED_MAX = 1024
# The kernel may have counted so long before the trace begins, in units of FLOW_TIME(): a quarter of an hour and more.
cdef uint32_t SET_UP_TIME = 1 << 16
# Later than all times.
cdef uint64_t SURE_NS = 0x7fff_ffff_ffff_ffff
# Slots of the index as long as there are few connections; a power of two.
cdef int32_t SLOTS_FIRST = 1024
# Segments waiting for an acknowledgment, all connections together: 24 bytes each.
cdef int32_t SEGMENTS_MAX = 4_000_000
# Histograms of round-trip times, all connections together: of few samples one takes 24 to 120 bytes, of more usually
# 0.3 to 1 KB, a hostile one 6; twice or four times as much where a bucket has more than 255 or 65,535 of them.
cdef int64_t HISTOGRAMS_MAX_BYTES = 32 << 20

# Indices of model.END_REASONS.
cdef enum:
    END_CLOSED = 1
    END_RESET = 2
    END_IDLE = 3
    END_EVICTED = 4
    END_REUSED = 5


layout.check()
layout.check_names()


@cython.no_gc_clear  # __dealloc__ walks the rows: the collector may not free their memory before
cdef class Table:
    """Connections of one trace.

    max_connections: rows; a further connection evicts the least recently active one.
    idle_ns, closed_ns: how long after its last packet a connection leaves, open or closed on both ends.
    seed: for the hash, so that remote hosts cannot choose colliding addresses.
    """

    cdef connection *rows
    cdef socket_pair *sockets
    cdef object row_view, socket_view
    cdef flow_index index
    cdef shared_memory shared
    cdef activity_list lists[ACTIVITIES]
    cdef ask_queue asking
    cdef touched_rows touched
    cdef int64_t without_room
    cdef whole_row *ended_rows
    cdef object ended_memory, none_ended
    cdef int32_t ended_count, max_connections, used, free_row
    cdef int64_t idle_ns, closed_ns, refreshed_ns
    cdef int64_t packets, bytes, payload_bytes, previous_packets, previous_bytes
    cdef double packets_per_s, bytes_per_s
    cdef int64_t evicted, connections
    cdef uint64_t unsure_ns  # since when records that do not tell may have lost ones before them
    cdef uint32_t forgotten  # the latest packet of the connections that have left, FLOW_TIME()
    cdef uint64_t last_id
    cdef int64_t by_state[16]  # at the last refresh
    cdef int64_t in_state[16]  # of the rows that have been counted, by engine.rows' counted_as
    cdef finding unasked

    def __cinit__(self, int32_t max_connections, int64_t idle_ns, int64_t closed_ns, int64_t start_ns, uint64_t seed):
        cdef uint64_t slots = 16
        cdef int kind
        cdef uint8_t[::1] view
        if max_connections < 1:
            raise ValueError("max_connections must be at least 1")
        while slots < 2 * <uint64_t>max_connections:
            slots *= 2
        self.index.slots = <uint64_t *>calloc(slots, sizeof(uint64_t))
        if self.index.slots == NULL:
            raise MemoryError
        self.index.mask_most = slots - 1
        self.index.mask = min(slots, <uint64_t>SLOTS_FIRST) - 1
        begin_asking(&self.asking, slots // 2)
        self.touched.rows = <int32_t *>calloc(max_connections, sizeof(int32_t))
        if self.touched.rows == NULL:
            raise MemoryError
        set_seed(&self.index, seed)
        # Pages of the table are only touched, and so only taken, as far as rows are used.
        memory = np.zeros(max_connections * sizeof(connection), "u1")
        view = memory
        self.rows = <connection *>&view[0]
        self.row_view = memory.view(_without_sockets(sizeof(connection)))
        self.socket_view = np.zeros(max_connections, [(name, SOCKET_VIEW) for name in SOCKET_FIELDS])
        view = self.socket_view.view("u1")
        self.sockets = <socket_pair *>&view[0]
        self.ended_memory = np.zeros(ENDED_MAX, model.CONNECTION)
        self.none_ended = np.zeros(0, model.CONNECTION)
        view = self.ended_memory.view("u1")
        self.ended_rows = <whole_row *>&view[0]
        self.shared.segments.limit = SEGMENTS_MAX
        self.shared.segments.free = -1
        self.shared.histograms.limit_bytes = HISTOGRAMS_MAX_BYTES
        self.max_connections = max_connections
        self.free_row = -1
        for kind in range(ACTIVITIES):
            self.lists[kind].newest = self.lists[kind].oldest = -1
        self.idle_ns = idle_ns
        self.closed_ns = closed_ns
        self.refreshed_ns = start_ns
        self.forgotten = FLOW_TIME(start_ns) - SET_UP_TIME
        self.unsure_ns = SURE_NS

    def __dealloc__(self):
        cdef int32_t row
        for row in range(self.used):
            self._release(&self.rows[row].ends[0])
            self._release(&self.rows[row].ends[1])
        free(self.index.slots)
        end_asking(&self.asking)
        free(self.touched.rows)
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

    def expect_gaps(self, since_ns):
        """Records since that time that do not tell of losses (NOTE_COUNTED) may have lost ones before them; None: none."""
        if since_ns is None and self.unsure_ns != SURE_NS:
            with nogil:
                self._all_is_known()
        self.unsure_ns = SURE_NS if since_ns is None else since_ns

    cdef void _all_is_known(self) noexcept nogil:
        """Of connections that have lost nothing nothing is missing."""
        cdef connection *c
        cdef int32_t row
        for row in range(self.used):
            c = &self.rows[row]
            if c.has_gap and c.row.in_use and c.row.records_lost == 0 and not c.base_unsure:
                nothing_was_lost(c)

    def process_flows(self, keys, counts, int64_t now_ns):
        """Take what was lost of flows (FLOW_KEY, FLOW_COUNT), all records before that having been taken in.

        A flow none of whose records came becomes a connection.  How many were taken: fewer
        than all when connections that ended wait in take_ended(), as with process().
        """
        cdef const uint8_t[::1] key_view, count_view
        cdef const flow_key *first_key
        cdef const flow_count *first_count
        cdef int64_t count = len(keys), at = 0
        cdef uint32_t forgotten = self.forgotten
        if count == 0:
            return 0
        if keys.dtype != FLOW_KEY or counts.dtype != FLOW_COUNT or len(counts) < count:
            raise TypeError("keys are not of dtype FLOW_KEY, or counts not of FLOW_COUNT, or too few")
        key_view, count_view = keys.view("u1"), counts.view("u1")
        first_key, first_count = <const flow_key *>&key_view[0], <const flow_count *>&count_view[0]
        with nogil:
            while at < count and self.ended_count < ENDED_MAX - 1:
                self._flow(first_key + at, first_count + at, now_ns, forgotten)
                at += 1
        return at

    cdef void _flow(
        self, const flow_key *key, const flow_count *counted, int64_t now_ns, uint32_t forgotten
    ) noexcept nogil:
        cdef packet_record p = packet_of_flow(key, counted.since_ns)
        cdef uint64_t hash = hash_of(&self.index, &p)
        cdef int x = 0
        cdef int32_t row = find(&self.index, self.rows, hash, &p, &x)
        cdef growth by
        cdef connection *c
        if counted.from_lower.count == 0 and counted.from_higher.count == 0:
            return
        if row >= 0 and self.rows[row].row.start_ns > now_ns:
            return  # of one that had the same ports before
        if row < 0:
            if <int32_t>(p.flow_since - forgotten) <= 0:
                return  # it may have left the table, with all that it had
            row = self._add(hash, &p, &x)
            c = &self.rows[row]
            c.row.last_ns = now_ns
            self._move(row, LIVE, now_ns)
        else:
            c = &self.rows[row]
        if not is_its_count(c, p.flow_since, forgotten):
            return
        by = catch_up(c, x, &counted.from_lower, now_ns)
        self._grow(&by)
        by = catch_up(c, 1 - x, &counted.from_higher, now_ns)
        self._grow(&by)
        if c.row.changed:
            touch(&self.touched, self.rows, row)

    def process_sockets(self, records, ids=None):
        """Join what the kernel said of sockets (SOCKET_RECORD) to their connections; how many records were taken: all.

        ids: an array of u8, as long as `records` at least, for the connection of each of them; 0 where there is none.

        Open sockets that were asked for (SOCKET_FOUND) become connections without packets, as long as there is room:
        they evict nothing.
        """
        cdef const uint8_t[::1] view
        cdef uint64_t[::1] id_view
        cdef const socket_record *first
        cdef uint64_t *found = NULL
        cdef uint64_t id
        cdef int64_t count = len(records), at
        if count == 0:
            return 0
        if records.dtype != SOCKET_RECORD:
            raise TypeError("records are not of dtype SOCKET_RECORD")
        view = records.view("u1")
        first = <const socket_record *>&view[0]
        if ids is not None:
            if len(ids) < count:
                raise TypeError("ids are too few")
            id_view = ids
            found = &id_view[0]
        with nogil:
            for at in range(count):
                id = self._socket(first + at)
                if found != NULL:
                    found[at] = id
        return count

    def stale_sockets(self, int64_t limit):
        """Keys (SOCKET_KEY, netns 0) of up to `limit` sockets that the kernel should be asked for.

        These are sockets with packets since the kernel's last word; those told to be closed that may have left
        something in TIME-WAIT; once each, ends on this side of which no socket is known; and open ones that have been
        silent for the idle time.  The rest waits for the next call, in turn; both ends of a connection go together.

        The answers (SOCKET_FOUND) go to process_sockets() before the next refresh(): of what is not among them by then,
        the kernel has no socket.  It is asked for again only after further packets.
        """
        cdef uint8_t[::1] view
        cdef socket_key *keys
        cdef int64_t count
        take_silences(&self.asking, self.rows, &self.touched)
        if limit < 2:
            return np.zeros(0, SOCKET_KEY)
        make_room_for_asked(&self.asking, limit)
        found = np.empty(limit, SOCKET_KEY)
        view = found.view("u1")
        keys = <socket_key *>&view[0]
        with nogil:
            count = ask(&self.asking, self.rows, self.sockets, keys, limit)
        return found[:count].copy()

    cdef uint64_t _socket(self, const socket_record *s) noexcept nogil:
        """Take one record of a socket; its connection's id, 0 if there is none."""
        cdef int x = 0
        cdef packet_record p = packet_of(&s.key)
        cdef uint64_t hash = hash_of(&self.index, &p)
        cdef int32_t row = find(&self.index, self.rows, hash, &p, &x)
        cdef connection *c
        if row < 0:
            if not makes_row(s):
                return 0
            row = self._add_socket(hash, s, &x)
            if row < 0:
                return 0
        c = &self.rows[row]
        if not is_joined(c, x, s):
            return 0
        touch(&self.touched, self.rows, row)
        if take_socket(c, x, s):
            c.row.changed = 1
            if s.event == SOCKET_STATE:
                queue_row(&self.asking, &c.queued, row)  # for what may be left of it
        if s.event == SOCKET_FOUND and c.row.recent_total > 0 and not has_settled(c, s.view.time_ns):
            queue_row(&self.asking, &c.queued, row)  # the answer may have come before the last packet's effects
        if c.row.recent_total == 0:
            c.row.near_end |= NEAR_SRC if x == 0 else NEAR_DST
        if c.by_activity == QUIET and not is_held_open(c):
            self._move(row, SHUT, s.time_ns)
        return c.row.id

    cdef int32_t _add_socket(self, uint64_t hash, const socket_record *s, int *x) noexcept nogil:
        """A row without packets, which evicts nothing; -1 if there is no room.  x becomes which end the socket is."""
        cdef int32_t row = self._free_row()
        if row < 0:
            self.without_room += 1
            return -1
        self._make_slot()
        self._clear(row, hash)
        x[0] = begin_with_socket(&self.rows[row], s)
        self.rows[row].since_ns = s.time_ns
        append(self.lists, self.rows, row, QUIET)
        insert(&self.index, hash, row)
        return row

    cdef void _packet(self, const packet_record *p, uint64_t hash, finding *found) noexcept nogil:
        cdef int x = 0
        cdef int32_t row = find(&self.index, self.rows, hash, p, &x)
        cdef connection *c
        cdef growth by
        cdef bint reused = row >= 0 and starts_anew(&self.rows[row], x, p)
        cdef bint is_unsure = p.time_ns >= self.unsure_ns and not p.note & NOTE_COUNTED
        cdef bint was_behind = False
        cdef uint32_t previous = 0
        if reused:
            previous = FLOW_TIME(self.rows[row].row.last_ns)
            self._end(row, END_REUSED)
        if row < 0 or reused:
            row = self._add(hash, p, &x)
        c = &self.rows[row]
        if c.row.recent_total == 0 and c.told:
            x = begin_with_packet(c, x, p)
        found.rtt_us = NAN
        found.in_flight_bytes = -1
        found.duplicate_ack_number = 0
        found.connection_id = c.row.id
        found.received = x
        found.analysis = 0
        if reused:
            if p.note & NOTE_COUNTED and (p.flow_count or p.reverse_records):
                if <int32_t>(p.flow_since - previous) <= 0:  # the kernel takes it for the same one still
                    begin_counts_here(c, p.flow_since)
            c.row.port_reuse = 1
            found.analysis = PORT_REUSE
        by = take_counts(c, x, p, is_unsure, self.forgotten)
        if not take_in_step(&self.shared, c, x, p, found):
            if c.has_gap:
                was_behind = is_behind(&c.ends[x], p)
            analyse(&self.shared, c, x, p, found)
            if c.has_gap and not is_unsure:
                settle(c, x, p, was_behind)
            note_whether_in_step(c)
        note_packet(c, x, p, found.analysis)
        self._grow(&by)
        self._now_newest(row)

    cdef inline void _forget(self, uint32_t until) noexcept nogil:
        """What began to be counted by then may have been of one that leaves the table; times wrap."""
        if <int32_t>(until - self.forgotten) > 0:
            self.forgotten = until

    cdef inline void _grow(self, const growth *by) noexcept nogil:
        self.packets += by.packets
        self.bytes += by.bytes
        self.payload_bytes += by.payload_bytes

    cdef void _now_newest(self, int32_t row) noexcept nogil:
        """To the front of the list it belongs to now, and to those that the kernel may know more of."""
        cdef connection *c = &self.rows[row]
        cdef bint shut = c.reset or (is_over(c.row.src_state) and is_over(c.row.dst_state))
        self._move(row, SHUT if shut else LIVE, c.row.last_ns)
        queue_row(&self.asking, &c.queued, row)
        touch(&self.touched, self.rows, row)

    cdef inline void _move(self, int32_t row, int kind, int64_t since_ns) noexcept nogil:
        """To the front of that list."""
        cdef connection *rows = self.rows
        rows[row].since_ns = since_ns
        if self.lists[kind].newest == row:
            return
        unlink(self.lists, rows, row)
        append(self.lists, rows, row, kind)

    cdef int32_t _free_row(self) noexcept nogil:
        """A row that is not in use; -1 if there is none."""
        cdef int32_t row = self.free_row
        if row >= 0:
            self.free_row = self.rows[row].older
        elif self.used < self.max_connections:
            row = self.used
            self.used += 1
        return row

    cdef void _clear(self, int32_t row, uint64_t hash) noexcept nogil:
        """The next connection's row, all zero, as it is before its first use."""
        cdef connection *c = &self.rows[row]
        cdef uint8_t queued = c.queued, touched = c.touched
        if c.row.id:
            if c.told:  # few rows have sockets
                memset(c.sockets, 0, sizeof(socket_pair))
            memset(c, 0, sizeof(connection))
        c.sockets = &self.sockets[row]
        self.last_id += 1
        self.connections += 1
        c.row.id = self.last_id
        c.hash = hash
        c.queued = queued
        c.touched = touched
        touch(&self.touched, self.rows, row)

    cdef int32_t _add(self, uint64_t hash, const packet_record *p, int *x) noexcept nogil:
        """A row for a connection that begins with p; x becomes which end sent it."""
        cdef int32_t row = self._free_row()
        if row < 0:
            row = self._evict()
        self._make_slot()
        self._clear(row, hash)
        x[0] = begin(&self.rows[row], p)
        append(self.lists, self.rows, row, LIVE)
        insert(&self.index, hash, row)
        return row

    cdef inline void _make_slot(self) noexcept nogil:
        """For one more connection, in an index that is half full at most."""
        if 2 * <uint64_t>self.connections > self.index.mask and self.index.mask < self.index.mask_most:
            widen(&self.index, self.rows, self.used)

    cdef int32_t _evict(self) noexcept nogil:
        """Free the row of the least recently active connection."""
        cdef int32_t row = self._least(self.lists[LIVE].oldest, self.lists[SHUT].oldest)
        row = self._least(row, self.lists[QUIET].oldest)
        self.evicted += 1
        self._end(row, END_EVICTED)
        self.free_row = self.rows[row].older
        return row

    cdef inline int32_t _least(self, int32_t row, int32_t other) noexcept nogil:
        """The less recently active one, `other` if both are alike."""
        if row < 0 or (other >= 0 and self.rows[other].row.last_ns <= self.rows[row].row.last_ns):
            return other
        return row

    cdef void _end(self, int32_t row, uint8_t reason) noexcept nogil:
        """The connection leaves the table; its row waits in ended_rows."""
        cdef connection *c = &self.rows[row]
        c.row.end_reason = reason
        if reason != END_REUSED:
            self._forget(FLOW_TIME(c.row.last_ns))
            if c.flow_known:
                self._forget(c.flow_since)
        complete_row(&self.shared.histograms, c)
        if c.row.changed:  # since the last interval: the rates are not of now
            forget_rate(&c.row.sent)
            forget_rate(&c.row.received)
        self._keep_ended(c)
        self.connections -= 1
        unlink(self.lists, self.rows, row)
        remove(&self.index, self.rows, row)
        self._release(&c.ends[0])
        self._release(&c.ends[1])
        c.row.in_use = 0
        touch(&self.touched, self.rows, row)
        self._count_as(c, 0)
        c.older = self.free_row
        self.free_row = row

    cdef inline void _keep_ended(self, const connection *c) noexcept nogil:
        """A copy for take_ended(); the part for sockets is zero while none was there."""
        cdef whole_row *kept = &self.ended_rows[self.ended_count]
        memcpy(&kept.row, &c.row, sizeof(connection_row))
        if c.told:
            memcpy(&kept.sockets, c.sockets, sizeof(socket_pair))
        elif kept.sockets.src.time_ns or kept.sockets.dst.time_ns:
            memset(&kept.sockets, 0, sizeof(socket_pair))
        self.ended_count += 1

    cdef void _release(self, endpoint *end) noexcept nogil:
        """Give back what the endpoint holds of the shared memory."""
        release(&self.shared.segments, end)
        release_histogram(&self.shared.histograms, &end.rtts)

    def expire(self, int64_t now_ns):
        """End what has been idle or closed for long enough; False if there is more, but take_ended() comes first.

        What the kernel holds open is not idle: it is asked about again each idle time, and leaves an idle time after
        the kernel has ceased to know it.
        """
        cdef bint room
        with nogil:
            room = self._expire(SHUT, now_ns - self.closed_ns, now_ns)
            room = room and self._expire(LIVE, now_ns - self.idle_ns, now_ns)
            room = room and self._expire(QUIET, min(now_ns - self.idle_ns, now_ns - 1), now_ns)
        return room

    cdef bint _expire(self, int kind, int64_t before_ns, int64_t now_ns) noexcept nogil:
        cdef int32_t row = self.lists[kind].oldest
        while row >= 0 and self.rows[row].since_ns <= before_ns:
            if self.ended_count >= ENDED_MAX - 1:
                return False
            if kind == SHUT:
                self._end(row, END_RESET if self.rows[row].reset else END_CLOSED)
            elif is_held_open(&self.rows[row]):
                self._move(row, QUIET, now_ns)
                self.rows[row].confirm = 1
                queue_row(&self.asking, &self.rows[row].queued, row)
            else:
                self._end(row, END_IDLE)
            row = self.lists[kind].oldest
        return True

    def take_ended(self):
        """Rows (a copy) of the connections that left since the last call."""
        if self.ended_count == 0:
            return self.none_ended  # even a copy of nothing takes numpy 0.07 ms, for so many fields
        taken = self.ended_memory[: self.ended_count].copy()
        self.ended_count = 0
        return taken

    def refresh(self, int64_t now_ns):
        """Work out the rates since the last refresh, and the totals; seconds they are over."""
        cdef double seconds = max((now_ns - self.refreshed_ns) / 1e9, 1e-9)
        cdef int32_t at
        take_silences(&self.asking, self.rows, &self.touched)
        with nogil:
            for at in range(self.touched.count):
                look_ahead_of(&self.touched, self.rows, at)
                self._refresh_row(&self.rows[self.touched.rows[at]], seconds)
        memcpy(self.by_state, self.in_state, sizeof(self.by_state))
        self.packets_per_s = (self.packets - self.previous_packets) / seconds
        self.bytes_per_s = (self.bytes - self.previous_bytes) / seconds
        self.previous_packets = self.packets
        self.previous_bytes = self.bytes
        self.refreshed_ns = now_ns
        return seconds

    cdef inline void _refresh_row(self, connection *c, double seconds) noexcept nogil:
        if not c.row.in_use:
            return
        self._count_as(c, 1 + (shown_state(c) if c.told else c.row.state))
        if c.row.changed:
            complete_row(&self.shared.histograms, c)
        if c.row.changed or has_rate(c):
            refresh_rate(&c.row.sent, &c.ends[0], seconds)
            refresh_rate(&c.row.received, &c.ends[1], seconds)

    cdef inline void _count_as(self, connection *c, uint8_t state_and_1) noexcept nogil:
        """In the sums of states; 0: no more."""
        if c.counted_as:
            self.in_state[c.counted_as - 1] -= 1
        if state_and_1:
            self.in_state[state_and_1 - 1] += 1
        c.counted_as = state_and_1

    def rows_view(self):
        """All rows ever used (model.CONNECTION, not a copy), those with in_use == 0 included."""
        return StoredRows(self.row_view[: self.used], self.socket_view[: self.used])

    def touched_rows(self):
        """Which rows may not be as they were at the last clear_changed(): indices, ascending (a copy)."""
        cdef int32_t[::1] view
        touched = np.empty(self.touched.count, "i4")
        if self.touched.count:
            view = touched
            memcpy(&view[0], self.touched.rows, self.touched.count * sizeof(int32_t))
            touched.sort()
        return touched

    def clear_changed(self):
        """The interval is over: `changed` begins anew."""
        with nogil:
            begin_interval(&self.touched, self.rows)

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
            sockets_without_room=self.without_room,
            rtt_samples_dropped=self.shared.segments.dropped,
            rtt_percentiles_dropped=self.shared.histograms.dropped,
        )


def _without_sockets(itemsize):
    """The other fields of model.CONNECTION as the beginning of larger items."""
    fields = model.CONNECTION.fields
    names = [name for name in model.CONNECTION.names if name not in SOCKET_FIELDS]
    return np.dtype({
        "names": names,
        "formats": [fields[name][0] for name in names],
        "offsets": [fields[name][1] for name in names],
        "itemsize": itemsize,
    })


cdef inline bint is_over(uint8_t state) noexcept nogil:
    return state == STATE_TIME_WAIT or state == STATE_CLOSED


cdef inline bint starts_anew(connection *c, int x, const packet_record *p) noexcept nogil:
    """A SYN whose number is not the one that this connection began with: the same ports are used again."""
    cdef const endpoint *end = &c.ends[x]
    if p.flags & (FLAG_SYN | FLAG_ACK | FLAG_RST) != FLAG_SYN:
        return False
    if not end.base_known and c.opening_missed:  # one that is sent again is behind
        return (end.seen or end.next_told) and not before(p.seq, end.next_seq)
    return p.seq != end.base_seq if end.base_known else is_older_than_syn(c, p)
