"""What is read out of the kernel's answers about sockets, bytes made by hand."""

import errno
import struct
from typing import Any

import numpy as np
import pytest

from tcptrace.records import OWNER_UNKNOWN, ROLE_UNKNOWN, SOCKET_FOUND, SOCKET_VIEW
from tcptrace.sources.live.inet_diag import parse

from .diag_bytes import CGROUP_ID, CONG, INFO, SKV6ONLY, attribute, done, failed, found, message, tcp_info

NEAR, FAR = ("192.0.2.1", 40_000), ("198.51.100.7", 443)
NUMBERS = [name for name in SOCKET_VIEW.names if SOCKET_VIEW[name].kind == "i" and name != "time_ns"]
ALL_FIELDS = {
    "ca_state": 3,
    "rto": 204_000,
    "unacked": 20,
    "sacked": 3,
    "lost": 4,
    "retrans": 2,
    "rtt": 12_345,
    "rttvar": 678,
    "snd_ssthresh": 31,
    "snd_cwnd": 42,
    "reordering": 5,
    "total_retrans": 6,
    "pacing_rate": 1 << 40,
    "bytes_acked": 1 << 41,
    "bytes_received": 1 << 42,
    "min_rtt": 9_999,
    "delivery_rate": 1 << 43,
    "busy_time": 1 << 44,
    "rwnd_limited": 1 << 33,
    "sndbuf_limited": 1 << 34,
    "delivered": 77,
    "bytes_sent": 1 << 45,
    "bytes_retrans": 1 << 35,
    "dsack_dups": 8,
    "snd_wnd": 65_000,
    "rcv_wnd": 1_000_000,
}


def view_of(data: bytes) -> Any:
    records, messages = parse(data, 5, 6)
    assert len(records) == len(messages) == 1
    return records["view"][0]


def info_of(**fields: int) -> Any:
    return view_of(found(NEAR, FAR, attribute(INFO, tcp_info(**fields))))


def test_every_number_is_where_it_belongs() -> None:
    view = info_of(**ALL_FIELDS)
    assert {name: view[name].tolist() for name in NUMBERS} == {
        "bytes_sent": 1 << 45,
        "bytes_retransmitted": 1 << 35,
        "bytes_acked": 1 << 41,
        "bytes_received": 1 << 42,
        "delivery_rate_bytes_per_s": 1 << 43,
        "pacing_rate_bytes_per_s": 1 << 40,
        "busy_us": 1 << 44,
        "rwnd_limited_us": 1 << 33,
        "sndbuf_limited_us": 1 << 34,
        "cgroup_id": -1,
        "srtt_us": 12_345,
        "rttvar_us": 678,
        "rtt_min_us": 9_999,
        "rto_us": 204_000,
        "cwnd_packets": 42,
        "ssthresh_packets": 31,
        "in_flight_packets": 20 - 3 - 4 + 2,
        "lost_packets": 4,
        "sacked_packets": 3,
        "reordering_packets": 5,
        "delivered_packets": 77,
        "dsack_duplicates": 8,
        "snd_wnd_bytes": 65_000,
        "rcv_wnd_bytes": 1_000_000,
        "retransmissions": 6,
        "pid": -1,
        "uid": 1000,
        "congestion_state": 3,
    }
    assert view["retransmissions_by"].tolist() == [-1] * 6
    assert (view["role"], view["owner_source"]) == (ROLE_UNKNOWN, OWNER_UNKNOWN)


def test_the_event_and_the_ends() -> None:
    records, messages = parse(found(NEAR, FAR, state=8, interface=3, inode=99, seq=17), 5, 6)
    record, key = records[0], records["key"][0]
    assert (record["time_ns"], record["event"], record["view"]["time_ns"]) == (5, SOCKET_FOUND, 5)
    assert (key["local_port"], key["remote_port"], key["netns"], key["ip_version"]) == (40_000, 443, 6, 4)
    assert bytes(key["local_addr"]) == bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    assert bytes(key["remote_addr"]) == bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 7])
    assert record["view"]["state"] == 8
    assert messages[["seq", "inode", "interface", "error", "family"]][0].tolist() == (17, 99, 3, 0, 2)


@pytest.mark.parametrize(
    ("local", "remote", "version"),
    [("2001:db8::1", "2001:db8::2", 6), ("::ffff:10.0.0.1", "::ffff:10.0.0.2", 4), ("::", "::", 6)],
)
def test_ipv6_sockets(local: str, remote: str, version: int) -> None:
    records, _ = parse(found((local, 1), (remote, 2)), 5, 6)
    assert records["key"]["ip_version"] == version
    assert bytes(records["key"]["local_addr"][0])[-1] == {"2001:db8::1": 1, "::ffff:10.0.0.1": 1, "::": 0}[local]


def test_without_tcp_info_only_the_state_is_known() -> None:
    view = view_of(found(NEAR, FAR, state=6, inode=0, uid=0))
    assert {view[name].tolist() for name in NUMBERS} == {-1}
    assert (view["state"], bytes(view["congestion_control"])) == (6, bytes(16))


def test_a_listening_sockets_queue_is_no_packets_in_flight() -> None:
    view = view_of(found(NEAR, ("0.0.0.0", 0), attribute(INFO, tcp_info(unacked=3, sacked=128, rto=1)), state=10))
    assert {view[name].tolist() for name in NUMBERS} == {-1, 1000}


def test_before_the_first_sample() -> None:
    view = info_of(rtt=0, rttvar=250_000, min_rtt=0xFFFF_FFFF, snd_ssthresh=0x7FFF_FFFF, pacing_rate=2**64 - 1)
    for name in (
        "srtt_us",
        "rttvar_us",
        "rtt_min_us",
        "ssthresh_packets",
        "pacing_rate_bytes_per_s",
        "delivery_rate_bytes_per_s",
    ):
        assert view[name] == -1, name
    assert view["bytes_sent"] == 0


@pytest.mark.parametrize(
    ("bytes_sent", "known", "unknown"),
    [
        (232, ["snd_wnd_bytes", "dsack_duplicates", "bytes_sent"], ["rcv_wnd_bytes"]),  # Linux 5.10
        (231, ["dsack_duplicates"], ["snd_wnd_bytes"]),
        (192, ["sndbuf_limited_us", "delivery_rate_bytes_per_s"], ["delivered_packets", "bytes_sent"]),  # 4.10
        (104, ["retransmissions", "srtt_us", "ssthresh_packets"], ["pacing_rate_bytes_per_s", "bytes_acked"]),
        (0, [], [name for name in NUMBERS if name != "uid"]),
    ],
)
def test_an_older_kernel_sends_less(bytes_sent: int, known: list[str], unknown: list[str]) -> None:
    view = view_of(found(NEAR, FAR, attribute(INFO, tcp_info(**ALL_FIELDS)[:bytes_sent])))
    assert all(view[name] > 0 for name in known)
    assert all(view[name] == -1 for name in unknown)


def test_a_newer_kernel_sends_more() -> None:
    view = view_of(found(NEAR, FAR, attribute(INFO, tcp_info(**ALL_FIELDS) + bytes(100)), attribute(CONG, b"cubic\0")))
    assert view["rcv_wnd_bytes"] == 1_000_000
    assert bytes(view["congestion_control"]).rstrip(b"\0") == b"cubic"


def test_what_does_not_fit_is_not_known() -> None:
    view = info_of(delivered=0x8000_0000, bytes_sent=2**63)
    assert (view["delivered_packets"], view["bytes_sent"]) == (-1, -1)


def test_other_attributes() -> None:
    data = found(
        NEAR,
        FAR,
        attribute(99, b"x"),
        attribute(CGROUP_ID, struct.pack("=Q", 0x1_0000_0002)),
        attribute(CONG, b"a-name-of-sixteen-and-more"),
        attribute(SKV6ONLY, b"\1"),
    )
    records, messages = parse(data, 5, 6)
    assert records["view"]["cgroup_id"] == 0x1_0000_0002
    assert bytes(records["view"]["congestion_control"][0]) == b"a-name-of-sixte\0"
    assert messages["ipv6_only"] == 1


def test_errors_and_ends_between_sockets() -> None:
    data = found(NEAR, FAR, seq=3) + failed(errno.ENOENT, 4) + done(seq=5) + done(errno.EOPNOTSUPP, 6)
    records, messages = parse(data, 5, 6)
    assert messages["seq"].tolist() == [3, 4, 5, 6]
    assert messages["type"].tolist() == [20, 2, 3, 3]
    assert messages["error"].tolist() == [0, errno.ENOENT, 0, errno.EOPNOTSUPP]
    assert np.count_nonzero(records["view"]["time_ns"]) == 1


def test_nothing() -> None:
    assert [len(part) for part in parse(b"", 5, 6)] == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        found(NEAR, FAR)[:-1],
        found(NEAR, FAR) + b"\x10\0\0",
        message(20, bytes(71)),
        message(20, bytes(72) + struct.pack("=HH", 3, INFO)),
        message(20, bytes(72) + struct.pack("=HH", 300, INFO)),
        struct.pack("=IHHII", 15, 20, 0, 1, 0),
    ],
)
def test_what_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut off"):
        parse(data, 5, 6)
