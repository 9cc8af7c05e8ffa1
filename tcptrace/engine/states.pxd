# TCP states (RFC 9293 section 3.3.2) as a function of facts, not of a history of transitions.
#
# The facts are what both ends were seen to send: so a segment seen twice, late or not at all
# cannot leave an end in a state that the rest of the traffic contradicts.
from libc.stdint cimport uint8_t

from tcptrace.engine.rows cimport connection, endpoint

cdef enum:
    STATE_UNKNOWN = 0
    STATE_SYN_SENT
    STATE_SYN_RECEIVED
    STATE_ESTABLISHED
    STATE_FIN_WAIT_1
    STATE_FIN_WAIT_2
    STATE_CLOSE_WAIT
    STATE_CLOSING
    STATE_LAST_ACK
    STATE_TIME_WAIT
    STATE_CLOSED
    STATES

# Indices of model.NEAR_ENDS.
cdef enum:
    NEAR_DST = 2

cdef inline uint8_t state_of(const endpoint *end, const endpoint *peer) noexcept nogil:
    """The state that `end` is in, STATE_UNKNOWN while nothing was seen of it.

    Of a FIN or SYN counts as received what its receiver has acknowledged.
    """
    if not end.seen:
        return STATE_UNKNOWN
    if end.syn_seen and not end.ack_seen:
        return STATE_SYN_SENT
    if end.syn_seen and not end.syn_acked and not end.fin_seen:
        return STATE_SYN_RECEIVED
    if not end.fin_seen:
        return STATE_CLOSE_WAIT if peer.fin_acked else STATE_ESTABLISHED
    if not peer.fin_acked:
        return STATE_FIN_WAIT_2 if end.fin_acked else STATE_FIN_WAIT_1
    if end.closed_second:
        return STATE_CLOSED if end.fin_acked else STATE_LAST_ACK
    return STATE_TIME_WAIT if end.fin_acked else STATE_CLOSING

cdef inline void update_states(connection *c) noexcept nogil:
    """Both ends' states, and the connection's: that of the end on our side, else the initiator's."""
    if c.reset:
        c.row.src_state = c.row.dst_state = c.row.state = STATE_CLOSED
        return
    c.row.src_state = state_of(&c.ends[0], &c.ends[1])
    c.row.dst_state = state_of(&c.ends[1], &c.ends[0])
    c.row.state = c.row.dst_state if c.row.near_end == NEAR_DST else c.row.src_state
    if c.row.state == STATE_UNKNOWN:
        c.row.state = c.row.src_state or c.row.dst_state
