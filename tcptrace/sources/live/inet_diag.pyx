"""The kernel's answers to questions about sockets (sock_diag(7)), read in one pass: netlink bytes to socket records.

Layouts are those of linux/netlink.h, linux/inet_diag.h and linux/tcp.h; struct tcp_info has grown with the kernels
and each sends as much of it as it knows.
"""

from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tcptrace.records cimport NAME_BYTES, SOCKET_FOUND, socket_record, socket_view

import errno
import os

import numpy as np

from tcptrace.records import SOCKET_RECORD

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/netlink.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/socket.h>

    /* The system's own headers may be older than the kernel that answers, so both are written out here. */
    struct diag_message {            /* struct inet_diag_msg */
        uint8_t family, state, timer, retrans;
        uint16_t source_port, destination_port; /* network order */
        uint8_t source[16], destination[16];
        uint32_t interface;
        uint32_t cookie[2];
        uint32_t expires, receive_queue, write_queue, uid, inode;
    };

    struct kernel_tcp_info {         /* struct tcp_info as of Linux 6.2 */
        uint8_t state, ca_state, retransmits, probes, backoff, options, window_scales, flags;
        uint32_t rto, ato, snd_mss, rcv_mss;
        uint32_t unacked, sacked, lost, retrans, fackets;
        uint32_t last_data_sent, last_ack_sent, last_data_recv, last_ack_recv;
        uint32_t pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering;
        uint32_t rcv_rtt, rcv_space, total_retrans;
        uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
        uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
        uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
        uint32_t delivered, delivered_ce;
        uint64_t bytes_sent, bytes_retrans;
        uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd, rcv_wnd, rehash;
    };

    /* One row a netlink message: MESSAGE below. */
    struct message_row {
        uint32_t seq, inode, interface;
        int32_t error;
        uint16_t type, flags;
        uint8_t family, ipv6_only, unused[2];
    };

    _Static_assert(sizeof(struct diag_message) == 72, "struct inet_diag_msg");
    _Static_assert(offsetof(struct kernel_tcp_info, pacing_rate) == 104, "struct tcp_info");
    _Static_assert(sizeof(struct kernel_tcp_info) == 240, "struct tcp_info up to tcpi_rehash");
    _Static_assert(sizeof(struct message_row) == 24, "message_row has no padding");

    /* Whether the kernel's `bytes` reach to the end of a field. */
    #define HAS(field) (bytes >= (int64_t)(offsetof(struct kernel_tcp_info, field) + sizeof(((struct kernel_tcp_info *)0)->field)))

    static int64_t known64(uint64_t value) { return value > INT64_MAX ? -1 : (int64_t)value; }
    static int32_t known32(uint32_t value) { return value > INT32_MAX ? -1 : (int32_t)value; }

    /* Takes what is there into fields that are -1 so far; `view` is Cython's struct socket_view. */
    #define TAKE32(to, field) do { if (HAS(field)) view->to = known32(info->field); } while (0)
    #define TAKE64(to, field) do { if (HAS(field)) view->to = known64(info->field); } while (0)

    static void take_tcp_info(struct socket_view *view, const uint8_t *from, int64_t bytes)
    {
        struct kernel_tcp_info copy = {0}, *info = &copy; /* attributes are aligned to 4 bytes only */

        memcpy(info, from, bytes < (int64_t)sizeof(copy) ? (size_t)bytes : sizeof(copy));
        if (HAS(ca_state))
            view->congestion_state = (int8_t)info->ca_state;
        /* Without a sample yet rtt is 0 and rttvar what RFC 6298 section 2.1 makes the first timeout from. */
        if (HAS(rttvar) && info->rtt != 0) {
            TAKE32(srtt_us, rtt);
            TAKE32(rttvar_us, rttvar);
        }
        if (HAS(retrans))
            view->in_flight_packets = known32(info->unacked - (info->sacked + info->lost) + info->retrans);
        TAKE32(rtt_min_us, min_rtt);           /* ~0: no sample */
        TAKE32(rto_us, rto);
        TAKE32(cwnd_packets, snd_cwnd);
        TAKE32(lost_packets, lost);
        TAKE32(sacked_packets, sacked);
        TAKE32(reordering_packets, reordering);
        TAKE32(delivered_packets, delivered);
        TAKE32(dsack_duplicates, dsack_dups);
        TAKE32(snd_wnd_bytes, snd_wnd);
        TAKE32(rcv_wnd_bytes, rcv_wnd);
        TAKE32(retransmissions, total_retrans);
        TAKE64(bytes_sent, bytes_sent);
        TAKE64(bytes_retransmitted, bytes_retrans);
        TAKE64(bytes_acked, bytes_acked);
        TAKE64(bytes_received, bytes_received);
        TAKE64(pacing_rate_bytes_per_s, pacing_rate); /* ~0: not paced */
        TAKE64(busy_us, busy_time);
        TAKE64(rwnd_limited_us, rwnd_limited);
        TAKE64(sndbuf_limited_us, sndbuf_limited);
        /* tcp_compute_delivery_rate() in net/ipv4/tcp.c: 0 is that there was no sample. */
        if (HAS(delivery_rate) && info->delivery_rate != 0)
            TAKE64(delivery_rate_bytes_per_s, delivery_rate);
        /* TCP_INFINITE_SSTHRESH of net/tcp.h is 0x7fffffff. */
        if (HAS(snd_ssthresh) && info->snd_ssthresh < INT32_MAX)
            view->ssthresh_packets = (int32_t)info->snd_ssthresh;
    }

    /* One datagram of a netlink socket, without waiting; its whole length even where it did not fit, or -errno. */
    static int64_t receive_one(int fd, void *to, uint64_t bytes)
    {
        ssize_t length;

        do {
            length = recv(fd, to, bytes, MSG_DONTWAIT | MSG_TRUNC);
        } while (length < 0 && errno == EINTR);
        return length < 0 ? -errno : length;
    }
    """
    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
    struct nlattr:
        uint16_t nla_len
        uint16_t nla_type
    enum: NLMSG_ERROR
    enum: NLMSG_DONE
    enum: EAGAIN

    struct diag_message:
        uint8_t family
        uint8_t state
        uint16_t source_port
        uint16_t destination_port
        uint8_t source[16]
        uint8_t destination[16]
        uint32_t interface
        uint32_t uid
        uint32_t inode
    struct message_row:
        uint32_t seq
        uint32_t inode
        uint32_t interface
        int32_t error
        uint16_t type
        uint16_t flags
        uint8_t family
        uint8_t ipv6_only
    void take_tcp_info(socket_view *view, const uint8_t *from_, int64_t bytes) nogil
    int64_t known64(uint64_t value) nogil
    int32_t known32(uint32_t value) nogil
    int64_t receive_one(int fd, void *to, uint64_t bytes) nogil

cdef enum:
    # linux/sock_diag.h, linux/inet_diag.h
    SOCK_DIAG_BY_FAMILY = 20
    INET_DIAG_INFO = 2
    INET_DIAG_CONG = 4
    INET_DIAG_SKV6ONLY = 11
    INET_DIAG_CGROUP_ID = 21
    # linux/netlink.h: the two flags that are not part of an attribute's type.
    NLA_TYPE_MASK = 0x3fff
    HEADER_BYTES = 16
    # include/net/tcp_states.h
    TCP_LISTEN = 10
    FAMILY_INET = 2

MESSAGE = np.dtype(
    [
        ("seq", "u4"),
        ("inode", "u4"),
        ("interface", "u4"),
        ("error", "i4"),
        ("type", "u2"),
        ("flags", "u2"),
        ("family", "u1"),
        ("ipv6_only", "u1"),
        ("unused", "u1", 2),
    ]
)


def parse(const uint8_t[::1] data, int64_t time_ns, uint32_t netns):
    """What `data`, whole netlink datagrams one after the other, says: (records, messages), a row of each a message.

    Of records only those count whose message is a socket (type SOCK_DIAG_BY_FAMILY): their event is FOUND, what is
    not known is -1, and the owner is nobody yet but for the uid.  `error` of a message is the errno that NLMSG_ERROR
    and NLMSG_DONE carry, positive, else 0.  ValueError where a message is cut off.
    """
    cdef Py_ssize_t count = count_messages(data)
    records = np.zeros(count, SOCKET_RECORD)
    messages = np.zeros(count, MESSAGE)
    if count == 0:
        return records, messages
    cdef uint8_t[::1] record_bytes = records.view(np.uint8)
    cdef uint8_t[::1] message_bytes = messages.view(np.uint8)
    cdef socket_record *record = <socket_record *>&record_bytes[0]
    cdef message_row *row = <message_row *>&message_bytes[0]
    cdef const uint8_t *at = &data[0]
    cdef const nlmsghdr *header
    cdef Py_ssize_t index
    cdef bint is_whole = True
    with nogil:
        for index in range(count):
            header = <const nlmsghdr *>at
            row[index].seq = header.nlmsg_seq
            row[index].type = header.nlmsg_type
            row[index].flags = header.nlmsg_flags
            if header.nlmsg_type == SOCK_DIAG_BY_FAMILY:
                record[index].time_ns = time_ns
                record[index].key.netns = netns
                record[index].event = SOCKET_FOUND
                is_whole &= take_socket(at + HEADER_BYTES, header.nlmsg_len - HEADER_BYTES, &record[index], &row[index])
                record[index].view.time_ns = time_ns
            elif header.nlmsg_type == NLMSG_ERROR or header.nlmsg_type == NLMSG_DONE:
                row[index].error = error_of(at + HEADER_BYTES, header.nlmsg_len - HEADER_BYTES)
            at += padded(header.nlmsg_len)
    if not is_whole:
        raise ValueError("a message about a socket is cut off")
    return records, messages


def receive_waiting(int fd, uint8_t[::1] buffer, Py_ssize_t largest):
    """Take the datagrams that wait in a netlink socket into `buffer`, each at a multiple of 4; the bytes used.

    Ends early when less than `largest` bytes, which is more than a datagram may have, are free.  OSError as recv(2).
    """
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t size = buffer.shape[0]
    cdef int64_t length = 0
    with nogil:
        while used + largest <= size:
            length = receive_one(fd, &buffer[used], size - used)
            if length < 0 or length > size - used:
                break
            used += padded(length)
    if length > size - used:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    if length < 0 and length != -EAGAIN:
        raise OSError(-length, os.strerror(-length))
    return used


cdef inline int64_t padded(int64_t length) noexcept nogil:
    """NLMSG_ALIGN, NLA_ALIGN."""
    return (length + 3) & ~<int64_t>3


cdef Py_ssize_t count_messages(const uint8_t[::1] data) except -1:
    cdef Py_ssize_t size = data.shape[0], at = 0, count = 0
    cdef uint32_t length
    while at < size:
        if size - at < HEADER_BYTES:
            raise ValueError("a netlink message's header is cut off")
        length = (<const nlmsghdr *>&data[at]).nlmsg_len
        if length < HEADER_BYTES or length > size - at:
            raise ValueError("a netlink message is cut off")
        at += padded(length)
        count += 1
    return count


cdef int32_t error_of(const uint8_t *payload, int64_t size) noexcept nogil:
    """struct nlmsgerr begins with it, and a dump's end has nothing else."""
    cdef int32_t number = 0
    if size >= 4:
        memcpy(&number, payload, 4)
    return -number if number < 0 else 0


cdef bint take_socket(const uint8_t *payload, int64_t size, socket_record *record, message_row *row) noexcept nogil:
    """struct inet_diag_msg and its attributes; False where that is cut off."""
    cdef const diag_message *message = <const diag_message *>payload
    cdef const nlattr *attribute
    cdef const uint8_t *value
    cdef int64_t at = sizeof(diag_message)
    cdef int64_t length
    cdef uint64_t number
    unknown(&record.view)
    if size < at:
        return False
    row.family = message.family
    row.inode = message.inode
    row.interface = message.interface
    take_ends(message, record)
    record.view.state = message.state
    # Without an inode there is no file, and the uid is only what was left in its place.
    if message.inode != 0:
        record.view.uid = known32(message.uid)
    while at + <int64_t>sizeof(nlattr) <= size:
        attribute = <const nlattr *>(payload + at)
        length = <int64_t>attribute.nla_len - sizeof(nlattr)
        if length < 0 or at + attribute.nla_len > size:
            return False
        value = payload + at + sizeof(nlattr)
        at += padded(attribute.nla_len)
        if attribute.nla_type & NLA_TYPE_MASK == INET_DIAG_INFO:
            # Of a listening socket two of the fields are its queue: tcp_get_info() in net/ipv4/tcp.c.
            if message.state != TCP_LISTEN:
                take_tcp_info(&record.view, value, length)
        elif attribute.nla_type & NLA_TYPE_MASK == INET_DIAG_CONG:
            memcpy(record.view.congestion_control, value, min(length, <int64_t>NAME_BYTES - 1))
        elif attribute.nla_type & NLA_TYPE_MASK == INET_DIAG_SKV6ONLY and length >= 1:
            row.ipv6_only = value[0]
        elif attribute.nla_type & NLA_TYPE_MASK == INET_DIAG_CGROUP_ID and length >= 8:
            memcpy(&number, value, 8)  # 4-byte aligned only
            # 0 is no cgroup: the socket's has not been set.
            if number != 0:
                record.view.cgroup_id = known64(number)
    return True


cdef void take_ends(const diag_message *message, socket_record *record) noexcept nogil:
    record.key.local_port = swapped(message.source_port)
    record.key.remote_port = swapped(message.destination_port)
    if message.family == FAMILY_INET:
        record.key.ip_version = 4
        map_address(record.key.local_addr, message.source)
        map_address(record.key.remote_addr, message.destination)
        return
    memcpy(record.key.local_addr, message.source, 16)
    memcpy(record.key.remote_addr, message.destination, 16)
    record.key.ip_version = 4 if is_mapped(message.source) and is_mapped(message.destination) else 6


cdef inline uint16_t swapped(uint16_t port) noexcept nogil:
    cdef const uint8_t *bytes = <const uint8_t *>&port
    return <uint16_t>(bytes[0] << 8 | bytes[1])


cdef inline void map_address(uint8_t *to, const uint8_t *ipv4) noexcept nogil:
    """RFC 4291 section 2.5.5.2."""
    memset(to, 0, 10)
    memset(to + 10, 0xff, 2)
    memcpy(to + 12, ipv4, 4)


cdef inline bint is_mapped(const uint8_t *address) noexcept nogil:
    cdef int index
    for index in range(10):
        if address[index]:
            return False
    return address[10] == 0xff and address[11] == 0xff


cdef void unknown(socket_view *view) noexcept nogil:
    """-1 everywhere but in what has a zero for it: names, state, role, owner_source."""
    memset(view, 0xff, sizeof(socket_view))
    memset(view.comm, 0, sizeof(view.comm))
    memset(view.congestion_control, 0, sizeof(view.congestion_control))
    view.state = view.role = view.owner_source = 0
