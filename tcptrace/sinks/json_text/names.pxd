# Addresses, times and packets in short as sinks.human and sinks.connection_json have them, written where `to` points.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport strlen

from tcptrace.records cimport FLAG_ACK
from tcptrace.sinks.json_text.numbers cimport exact_most, put_natural, put_padded, put_text

cdef extern from "<arpa/inet.h>":
    const char *inet_ntop(int family, const void *address, char *to, unsigned int size) nogil
    int AF_INET6

cdef enum:
    ADDRESS_MOST = 64
    BRIEF_MOST = 512        # characters of a packet in short; each of its words is added apart
    NS_A_SECOND = 1_000_000_000
    SECONDS_A_DAY = 86_400

# model.PACKET_BRIEF.
cdef struct brief:
    int64_t time_ns
    uint32_t seq
    uint32_t ack
    uint32_t payload_bytes
    uint16_t window
    uint16_t flags
    uint16_t segments
    uint16_t received
    uint32_t analysis

cdef inline char *put_address(char *to, const uint8_t *address, int64_t ip_version) noexcept nogil:
    cdef int i
    if ip_version != 4:
        inet_ntop(AF_INET6, address, to, ADDRESS_MOST)
        return to + strlen(to)
    for i in range(12, 16):
        to = put_natural(to, address[i])
        to[0] = c'.'
        to += 1
    return to - 1

cdef inline char *put_mac(char *to, const uint8_t *address) noexcept nogil:
    cdef const char *digits = b"0123456789abcdef"
    cdef int i
    for i in range(6):
        to[0] = digits[address[i] >> 4]
        to[1] = digits[address[i] & 15]
        to[2] = c':'
        to += 3
    return to - 1

cdef inline char *put_date(char *to, int64_t days) noexcept nogil:
    """Days since 1970-01-01 as a date of the Gregorian calendar: eras of 400 years that begin in March."""
    cdef int64_t since = days + 719_468, era, day, year, month
    era = (since if since >= 0 else since - 146_096) // 146_097
    day = since - era * 146_097
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    year += 400 * era + (month <= 2)
    to = put_padded(to, year, 4)
    to[0] = c'-'
    to = put_padded(to + 1, month, 2)
    to[0] = c'-'
    return put_padded(to + 1, day + 1, 2)

cdef inline char *put_time(char *to, int64_t wall_ns) noexcept nogil:
    """Nanoseconds since 1970 as RFC 3339 UTC."""
    cdef int64_t seconds = wall_ns // NS_A_SECOND, ns = wall_ns % NS_A_SECOND, days, of_day
    if ns < 0:
        ns += NS_A_SECOND
        seconds -= 1
    days, of_day = seconds // SECONDS_A_DAY, seconds % SECONDS_A_DAY
    if of_day < 0:
        of_day += SECONDS_A_DAY
        days -= 1
    to = put_date(to, days)
    to[0] = c'T'
    to = put_padded(to + 1, of_day // 3600, 2)
    to[0] = c':'
    to = put_padded(to + 1, of_day // 60 % 60, 2)
    to[0] = c':'
    to = put_padded(to + 1, of_day % 60, 2)
    to[0] = c'.'
    to = put_padded(to + 1, ns, 9)
    to[0] = c'Z'
    return to + 1

cdef inline char *put_offset(char *to, int64_t time_ns) noexcept nogil:
    """As format(time_ns / 1e9, "+.6f")."""
    cdef uint64_t amount = -<uint64_t>time_ns if time_ns < 0 else <uint64_t>time_ns
    if amount >= exact_most() or amount % 1000 == 500:  # how it is rounded is the double's own matter
        return to + snprintf(to, ADDRESS_MOST, b"%+.6f", time_ns / 1e9)
    amount = (amount + 500) // 1000
    to[0] = c'+'
    if time_ns < 0:
        to[0] = c'-'
    to = put_natural(to + 1, amount // 1_000_000)
    to[0] = c'.'
    return put_padded(to + 1, amount % 1_000_000, 6)

cdef inline char *put_flags(char *to, uint32_t flags, const char *letters) noexcept nogil:
    """tcpdump's letters, in brackets."""
    cdef int bit
    cdef char *start = to
    to[0] = c'['
    to += 1
    for bit in range(9):
        if flags >> bit & 1:
            to[0] = letters[bit]
            to += 1
    if to == start + 1:
        to = put_text(to, b"none", 4)
    to[0] = c']'
    return to + 1

cdef inline char *put_brief(char *to, const brief *p, int64_t start_ns, const char *letters) noexcept nogil:
    """+0.000123 sent [P.] seq 1 ack 1 win 502 len 10; what the engine found is left to the caller."""
    to = put_offset(to, p.time_ns - start_ns)
    if p.received:
        to = put_text(to, b" received ", 10)
    else:
        to = put_text(to, b" sent ", 6)
    to = put_flags(to, p.flags, letters)
    to = put_natural(put_text(to, b" seq ", 5), p.seq)
    if p.flags & FLAG_ACK:
        to = put_natural(put_text(to, b" ack ", 5), p.ack)
    to = put_natural(put_text(to, b" win ", 5), p.window)
    to = put_natural(put_text(to, b" len ", 5), p.payload_bytes)
    if p.segments > 1:
        to = put_natural(put_text(to, b" \\u00d7", 7), p.segments)
    return to
