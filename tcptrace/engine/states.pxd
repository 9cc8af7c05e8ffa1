# RFC 9293 section 3.3.2, worked out from what both ends were seen to send.
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

cdef uint8_t state_of(const endpoint *end, const endpoint *peer) noexcept nogil
cdef void update_states(connection *c) noexcept nogil
