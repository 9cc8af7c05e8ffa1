"""Netlink messages about sockets as the kernel writes them (linux/inet_diag.h, linux/tcp.h), made by hand."""

import socket
import struct

SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR = 2
NLMSG_DONE = 3

# Attributes of struct inet_diag_msg.
INFO, CONG, SHUTDOWN, SKV6ONLY, CGROUP_ID = 2, 4, 8, 11, 21

# struct tcp_info, field by field up to Linux 6.2's, as `ss` and man pages name them.
TCP_INFO = (
    "B state,B ca_state,B retransmits,B probes,B backoff,B options,B wscale,B flags,"
    "I rto,I ato,I snd_mss,I rcv_mss,I unacked,I sacked,I lost,I retrans,I fackets,"
    "I last_data_sent,I last_ack_sent,I last_data_recv,I last_ack_recv,"
    "I pmtu,I rcv_ssthresh,I rtt,I rttvar,I snd_ssthresh,I snd_cwnd,I advmss,I reordering,I rcv_rtt,I rcv_space,"
    "I total_retrans,Q pacing_rate,Q max_pacing_rate,Q bytes_acked,Q bytes_received,I segs_out,I segs_in,"
    "I notsent_bytes,I min_rtt,I data_segs_in,I data_segs_out,Q delivery_rate,Q busy_time,Q rwnd_limited,"
    "Q sndbuf_limited,I delivered,I delivered_ce,Q bytes_sent,Q bytes_retrans,I dsack_dups,I reord_seen,"
    "I rcv_ooopack,I snd_wnd,I rcv_wnd,I rehash"
)
CODES, NAMES = zip(*(field.split() for field in TCP_INFO.split(",")), strict=True)
TCP_INFO_STRUCT = struct.Struct("=" + "".join(CODES))


def tcp_info(**fields: int) -> bytes:
    """struct tcp_info, 0 where nothing is said."""
    assert not fields.keys() - set(NAMES)
    return TCP_INFO_STRUCT.pack(*(fields.get(name, 0) for name in NAMES))


def read_tcp_info(data: bytes) -> dict[str, int]:
    """Of getsockopt(TCP_INFO): the fields that are there whole."""
    padded = TCP_INFO_STRUCT.unpack(data[: TCP_INFO_STRUCT.size].ljust(TCP_INFO_STRUCT.size, b"\0"))
    ends = [struct.calcsize("=" + "".join(CODES[: index + 1])) for index in range(len(CODES))]
    return {name: value for name, value, end in zip(NAMES, padded, ends, strict=True) if end <= len(data)}


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return padded(struct.pack("=HH", 4 + len(value), kind) + value)


def message(kind: int, payload: bytes, seq: int = 1, flags: int = 0) -> bytes:
    return padded(struct.pack("=IHHII", 16 + len(payload), kind, flags, seq, 0) + payload)


def found(
    local: tuple[str, int],
    remote: tuple[str, int],
    *attributes: bytes,
    state: int = 1,
    inode: int = 7,
    uid: int = 1000,
    interface: int = 0,
    family: int | None = None,
    seq: int = 1,
    flags: int = 0,
) -> bytes:
    """A message that there is such a socket."""
    family = family or (socket.AF_INET6 if ":" in local[0] else socket.AF_INET)
    addresses = b"".join(socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (local, remote))
    payload = struct.pack("=BBBB", family, state, 0, 0) + struct.pack(">HH", local[1], remote[1]) + addresses
    payload += struct.pack("=III", interface, 1, 0) + struct.pack("=IIIII", 0, 0, 0, uid, inode)
    return message(SOCK_DIAG_BY_FAMILY, payload + b"".join(attributes), seq, flags)


def failed(number: int, seq: int = 1) -> bytes:
    """NLMSG_ERROR with NETLINK_CAP_ACK: the errno and the request's header."""
    return message(NLMSG_ERROR, struct.pack("=iIHHII", -number, 72, SOCK_DIAG_BY_FAMILY, 1, seq, 0), seq)


def done(number: int = 0, seq: int = 1) -> bytes:
    return message(NLMSG_DONE, struct.pack("=i", -number), seq)
