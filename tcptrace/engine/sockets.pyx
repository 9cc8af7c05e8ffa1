"""What the kernel says of sockets: of which connection it is, what of it is kept, what has to be asked.

The probes tell of a socket when something happens to it, in the order of the packets; an answer (SOCKET_FOUND) is of
the moment of asking, some milliseconds ahead of the packets taken so far.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset

from tcptrace.engine.counting cimport NEAR_DST, NEAR_SRC, begin_row, name_end
from tcptrace.engine.rows cimport connection, endpoint, socket_of
from tcptrace.engine.states cimport (
    STATE_CLOSED, STATE_CLOSING, STATE_FIN_WAIT_1, STATE_FIN_WAIT_2, STATE_TIME_WAIT, STATE_UNKNOWN,
)
from tcptrace.records cimport (
    CAUSES, FLAG_ACK, FLAG_SYN, NAME_BYTES, OWNER_UNKNOWN, ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN, SOCKET_FOUND,
    SOCKET_STATE, packet_record, socket_key, socket_record, socket_view,
)

from tcptrace import model

# The kernel's numbers (include/net/tcp_states.h), indices of model.KERNEL_STATES.
cdef enum:
    KERNEL_ESTABLISHED = 1
    KERNEL_SYN_SENT
    KERNEL_SYN_RECV
    KERNEL_FIN_WAIT_1
    KERNEL_FIN_WAIT_2
    KERNEL_TIME_WAIT
    KERNEL_CLOSE
    KERNEL_CLOSE_WAIT
    KERNEL_LAST_ACK
    KERNEL_LISTEN
    KERNEL_CLOSING
    KERNEL_NEW_SYN_RECV
    KERNEL_STATES

if len(model.KERNEL_STATES) != KERNEL_STATES or model.KERNEL_STATES[KERNEL_CLOSE] != "CLOSED":
    raise ImportError("tcptrace.model and the compiled engine do not match: reinstall tcptrace")

# Index of model.STATES for each of the kernel's; LISTEN is no state of a connection.
cdef uint8_t[KERNEL_STATES] wire_names
for _state, _name in enumerate(model.KERNEL_STATES):
    wire_names[_state] = model.STATES.index(_name) if _name in model.STATES else 0

# A socket is in SYN-SENT before its SYN is at the interface: an address may have to be resolved first.
cdef int64_t SYN_LEAD_NS = 1_000_000_000
# A socket's record is written a little before the packet that it sends is seen.
cdef int64_t LEAD_NS = 20_000_000
# What a packet does to its socket is done so long after it was seen at the interface.  A sample is taken as it begins:
# it does not have the packet's own effects yet.
cdef int64_t SETTLE_NS = 20_000_000
# Numbers of a socket_view in a row: from bytes_sent, and from srtt_us to retransmissions_by.
cdef int LONG_NUMBERS = 9
cdef int NUMBERS_BUT_CAUSES = 15


cdef inline bint has_opened_only(uint8_t state) noexcept nogil:
    return state == KERNEL_SYN_SENT or state == KERNEL_SYN_RECV or state == KERNEL_NEW_SYN_RECV


cdef inline bint has_sent_no_fin(uint8_t state) noexcept nogil:
    return has_opened_only(state) or state == KERNEL_ESTABLISHED or state == KERNEL_CLOSE_WAIT


cdef inline bint is_open(uint8_t state) noexcept nogil:
    """There is a socket, more than what is left in TIME-WAIT."""
    return (
        0 < state < KERNEL_STATES and state != KERNEL_CLOSE and state != KERNEL_TIME_WAIT and state != KERNEL_LISTEN
    )


cdef bint is_held_open(connection *c) noexcept nogil:
    """The kernel's last word is that one of its sockets is open."""
    return is_open(c.sockets.src.state) or is_open(c.sockets.dst.state)


# --- Of which connection.


cdef packet_record packet_of(const socket_key *key) noexcept nogil:
    """Who sends to whom, in a packet that the socket would send: what its connection is looked up by."""
    cdef packet_record p
    memset(&p, 0, sizeof(p))
    memcpy(p.src_addr, key.local_addr, 16)
    memcpy(p.dst_addr, key.remote_addr, 16)
    p.src_port, p.dst_port = key.local_port, key.remote_port
    p.ip_version = key.ip_version
    return p


cdef inline bint opens(const socket_record *s) noexcept nogil:
    """The socket begins to connect: until now it was no connection's."""
    return s.event == SOCKET_STATE and s.view.state == KERNEL_SYN_SENT


cdef bint is_joined(connection *c, int x, const socket_record *s) noexcept nogil:
    """The record, whose addresses and ports are the connection's, is of its end x and not of another time.

    Ports are used again: a record of the socket before may come after the new SYN, and one of the next socket before
    the old connection has left.
    """
    cdef const endpoint *end = &c.ends[x]
    cdef int64_t time_ns = s.time_ns
    cdef uint8_t state = s.view.state
    if time_ns < c.row.start_ns:
        return is_joined_early(c, s)
    if opens(s) and end.seen and not (end.syn_seen and end.syn_ns >= time_ns):
        return False  # its own SYN is yet to come
    if end.fin_seen and time_ns > end.fin_ns and has_sent_no_fin(state):
        return False
    if s.event == SOCKET_FOUND:
        if state == KERNEL_SYN_SENT and end.ack_seen:
            return False
        if socket_of(c, x).state == KERNEL_CLOSE:
            return state == KERNEL_CLOSE or state == KERNEL_TIME_WAIT or state == KERNEL_FIN_WAIT_2
    return True


cdef inline bint is_joined_early(connection *c, const socket_record *s) noexcept nogil:
    """From before the row: the socket that sent its SYN, or one that is older than the trace."""
    cdef int64_t lead_ns = c.row.start_ns - <int64_t>s.time_ns
    if c.row.recent_total == 0:
        return s.view.state != KERNEL_CLOSE
    if s.view.state == KERNEL_SYN_SENT:
        return lead_ns <= SYN_LEAD_NS
    return lead_ns <= LEAD_NS and not c.ends[0].syn_seen and not c.ends[1].syn_seen


# --- What is kept.


cdef bint take_socket(connection *c, int x, const socket_record *s) noexcept nogil:
    """Take the record into end x of the row; whether there is news that no packet may have told of.

    These are that the socket is new there, that its state is another one now, that it has another owner, an answer with other
    numbers, and what an answer had overtaken, such as the causes of retransmissions.
    """
    cdef socket_view *have = socket_of(c, x)
    cdef socket_view before
    cdef uint8_t bit = 1 << x, state = have.state
    if s.event == SOCKET_FOUND:
        c.asked &= ~bit
        c.answered |= bit
    if s.view.time_ns <= 0:
        return False  # what happened was before there was a socket
    if not c.told & bit or is_successor(have, s):
        c.told |= bit
        memcpy(have, &s.view, sizeof(socket_view))
        return True
    memcpy(&before, have, sizeof(socket_view))
    take_owner(have, &s.view)
    if s.view.time_ns < have.time_ns:
        take_numbers(have, &s.view, False)
        return memcmp(&before, have, sizeof(socket_view)) != 0
    if have.state != KERNEL_CLOSE:
        take_numbers(have, &s.view, True)
    have.time_ns = s.view.time_ns
    if s.view.state:
        have.state = s.view.state
    return (
        have.state != state
        or have.owner_source != before.owner_source
        or (s.event == SOCKET_FOUND and differ(&before, have))
    )


cdef inline bint differ(const socket_view *one, const socket_view *other) noexcept nogil:
    """In any number."""
    return (
        memcmp(&one.bytes_sent, &other.bytes_sent, LONG_NUMBERS * sizeof(int64_t)) != 0
        or memcmp(&one.srtt_us, &other.srtt_us, NUMBERS_BUT_CAUSES * sizeof(int32_t)) != 0
    )


cdef inline bint is_successor(const socket_view *have, const socket_record *s) noexcept nogil:
    """It is another socket with the same ports, and nothing of the last one is its."""
    if s.view.time_ns < have.time_ns or s.event == SOCKET_FOUND:
        return False
    return opens(s) or (have.state == KERNEL_CLOSE and is_open(s.view.state))


cdef void take_numbers(socket_view *have, const socket_view *view, bint newer) noexcept nogil:
    """What the record knows; what it does not know (-1) stays as it was last known."""
    cdef int i
    cdef int64_t *long_numbers = &have.bytes_sent
    cdef const int64_t *new_long_numbers = &view.bytes_sent
    cdef int32_t *numbers = &have.srtt_us
    cdef const int32_t *new_numbers = &view.srtt_us
    for i in range(LONG_NUMBERS):
        if new_long_numbers[i] != -1 and (newer or long_numbers[i] == -1):
            long_numbers[i] = new_long_numbers[i]
    for i in range(NUMBERS_BUT_CAUSES):
        if new_numbers[i] != -1 and (newer or numbers[i] == -1):
            numbers[i] = new_numbers[i]
    for i in range(CAUSES):  # which only the probes know, and which only grow: an answer may have overtaken them
        have.retransmissions_by[i] = max(have.retransmissions_by[i], view.retransmissions_by[i])
    if newer and view.cwnd_packets != -1:
        have.ssthresh_packets = view.ssthresh_packets  # -1: infinite again
    if view.congestion_state != -1 and (newer or have.congestion_state == -1):
        have.congestion_state = view.congestion_state
    if view.congestion_control[0] and (newer or not have.congestion_control[0]):
        memcpy(have.congestion_control, view.congestion_control, NAME_BYTES)


cdef void take_owner(socket_view *have, const socket_view *view) noexcept nogil:
    """Who has the socket by the better source; of equals the first, so that whoever opened it stays.  Role, cgroup."""
    if view.owner_source > have.owner_source:
        have.owner_source = view.owner_source
        have.pid = view.pid
        have.uid = view.uid
        memcpy(have.comm, view.comm, NAME_BYTES)
        if view.cgroup_id != -1:
            have.cgroup_id = view.cgroup_id
    elif have.owner_source == OWNER_UNKNOWN:
        have.pid = view.pid if view.pid != -1 else have.pid
        have.uid = view.uid if view.uid != -1 else have.uid
        if view.comm[0]:
            memcpy(have.comm, view.comm, NAME_BYTES)
    if have.role == ROLE_UNKNOWN:
        have.role = view.role
    if have.cgroup_id == -1:  # else the owner's stays, whatever the socket's own is
        have.cgroup_id = view.cgroup_id


# --- Rows of sockets that have not been heard on the wire.


cdef bint makes_row(const socket_record *s) noexcept nogil:
    """The socket was open before the trace began: a connection like another, if a silent one."""
    return (
        s.event == SOCKET_FOUND and s.view.time_ns > 0 and s.view.state != KERNEL_CLOSE
        and 0 < s.view.state < KERNEL_STATES and s.view.state != KERNEL_LISTEN
    )


cdef int begin_with_socket(connection *c, const socket_record *s) noexcept nogil:
    """A new row from its socket; which end that is: 0 if src."""
    cdef int x, role = s.view.role
    begin_row(c, s.key.ip_version, s.time_ns)
    c.row.last_ns = s.time_ns
    c.row.changed = 1
    if role == ROLE_UNKNOWN and has_opened_only(s.view.state):
        role = ROLE_ACTIVE if s.view.state == KERNEL_SYN_SENT else ROLE_PASSIVE
    if role == ROLE_UNKNOWN:
        x = 1 if s.key.local_port < s.key.remote_port else 0
    else:
        c.row.initiator_known = 1
        x = 1 if role == ROLE_PASSIVE else 0
    name_end(c, x, s.key.local_addr, s.key.local_port)
    name_end(c, 1 - x, s.key.remote_addr, s.key.remote_port)
    return x


cdef int begin_with_packet(connection *c, int x, const packet_record *p) noexcept nogil:
    """The first packet of a row that its socket made; which end sent it, as it is from now on.

    All that packets tell begins here.  A SYN says who is src where no socket did.
    """
    cdef int sender = 1 if p.flags & FLAG_ACK else 0
    c.row.last_ns = p.time_ns
    c.row.start_ns = min(c.row.start_ns, <int64_t>p.time_ns)
    if not p.flags & FLAG_SYN or c.row.initiator_known:
        return x
    c.row.initiator_known = 1
    if sender == x:
        return x
    name_end(c, sender, p.src_addr, p.src_port)
    name_end(c, 1 - sender, p.dst_addr, p.dst_port)
    exchange_sockets(c)
    return sender


cdef void exchange_sockets(connection *c) noexcept nogil:
    """What was src's is dst's."""
    cdef socket_view src = c.sockets.src
    c.sockets.src = c.sockets.dst
    c.sockets.dst = src
    c.row.near_end = exchanged(c.row.near_end)
    c.told = exchanged(c.told)
    c.answered = exchanged(c.answered)
    c.asked_unknown = exchanged(c.asked_unknown)
    c.asked = 0


cdef inline uint8_t exchanged(uint8_t bits) noexcept nogil:
    return (bits & 1) << 1 | bits >> 1


cdef bint is_older_than_syn(connection *c, const packet_record *p) noexcept nogil:
    """The row is of a socket that was past its SYN before p, the first SYN, came: p begins another connection."""
    if c.row.recent_total > 0 or <int64_t>p.time_ns <= c.row.start_ns:
        return False
    return is_past_syn(c.sockets.src.state) or is_past_syn(c.sockets.dst.state)


cdef inline bint is_past_syn(uint8_t state) noexcept nogil:
    return state != 0 and not has_opened_only(state)


# --- What is shown.


cdef uint8_t shown_state(connection *c) noexcept nogil:
    """The kernel's state where it knows it, of the near end first; else what packets say.  Index of model.STATES."""
    cdef int first = 1 if c.row.near_end == NEAR_DST else 0
    return name_of(socket_of(c, first).state) or name_of(socket_of(c, 1 - first).state) or c.row.state


cdef inline uint8_t name_of(uint8_t state) noexcept nogil:
    return wire_names[state] if state < KERNEL_STATES else 0


# --- What has to be asked.


cdef int ends_to_ask(connection *c) noexcept nogil:
    """Of which ends the kernel should be asked, 1 for src and 2 for dst: those of which more is known by packets."""
    cdef int x, ends = 0
    for x in range(2):
        if is_to_ask(c, x):
            ends |= 1 << x
    c.confirm = 0
    return ends


cdef inline bint is_to_ask(connection *c, int x) noexcept nogil:
    cdef const socket_view *have = socket_of(c, x)
    cdef uint8_t bit = 1 << x
    if c.told & bit:
        if have.state == KERNEL_CLOSE:
            return may_linger(c.row.src_state if x == 0 else c.row.dst_state)
        return not has_settled(c, have.time_ns) or (c.confirm and is_open(have.state))
    # None is known: it may belong to a host behind this one, so that no answer is an answer too.
    if c.row.near_end & (NEAR_SRC if x == 0 else NEAR_DST) == 0 or c.asked_unknown & bit:
        return False
    c.asked_unknown |= bit
    return True


cdef bint has_settled(const connection *c, int64_t time_ns) noexcept nogil:
    """What the kernel says of a socket at that time has all that the packets seen so far have done."""
    return time_ns >= c.row.last_ns + SETTLE_NS


cdef inline bint may_linger(uint8_t wire_state) noexcept nogil:
    """After its socket the kernel may keep a small one, in TIME-WAIT or FIN-WAIT-2, of which no probe tells."""
    return (
        wire_state == STATE_UNKNOWN or wire_state == STATE_FIN_WAIT_1 or wire_state == STATE_FIN_WAIT_2
        or wire_state == STATE_CLOSING or wire_state == STATE_TIME_WAIT
    )


cdef void write_key(const connection *c, int x, socket_key *key) noexcept nogil:
    """How end x would see the connection."""
    memset(key, 0, sizeof(socket_key))
    key.ip_version = c.row.ip_version
    if x == 0:
        memcpy(key.local_addr, c.row.src_addr, 16)
        memcpy(key.remote_addr, c.row.dst_addr, 16)
        key.local_port, key.remote_port = c.row.src_port, c.row.dst_port
    else:
        memcpy(key.local_addr, c.row.dst_addr, 16)
        memcpy(key.remote_addr, c.row.src_addr, 16)
        key.local_port, key.remote_port = c.row.dst_port, c.row.src_port


cdef void take_silence(connection *c, int x) noexcept nogil:
    """The kernel was asked for the socket of end x and has none.

    What was left in TIME-WAIT or told to be closed is closed.  Of an open one its end was lost: its state is not
    known any more.  Of one that was never answered for and whose connection goes on, silence says nothing: it is
    in another network namespace.
    """
    cdef socket_view *have = socket_of(c, x)
    cdef uint8_t wire_state = c.row.src_state if x == 0 else c.row.dst_state
    c.asked &= ~<uint8_t>(1 << x)
    if not c.told & (1 << x) or have.state == KERNEL_CLOSE:
        return
    if have.state == KERNEL_TIME_WAIT:
        have.state = KERNEL_CLOSE
    elif c.answered & (1 << x) or wire_state == STATE_CLOSED or wire_state == STATE_TIME_WAIT:
        have.state = 0
