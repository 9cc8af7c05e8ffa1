"""Who was accepted and who connected, of sockets made by hand."""

import numpy as np
import pytest

from tcptrace.records import ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN
from tcptrace.sources.live.inet_diag import parse
from tcptrace.sources.live.sock_diag import Sockets
from tcptrace.sources.live.socket_roles import find_roles

from .diag_bytes import INFO, SKV6ONLY, attribute, found, tcp_info

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LISTEN = 1, 2, 3, 4, 5, 6, 10
HERE, THERE, LO = "192.0.2.1", "198.51.100.7", "127.0.0.1"
A, P, U = ROLE_ACTIVE, ROLE_PASSIVE, ROLE_UNKNOWN


def roles(*messages: bytes) -> list[int]:
    """Of the sockets that do not listen."""
    records, rows = parse(b"".join(messages), 1, 1)
    sockets = Sockets(records, rows["inode"], rows["interface"], rows["family"], rows["ipv6_only"])
    result = find_roles(sockets)
    listening = records["view"]["state"] == LISTEN
    assert not np.any(result[listening])
    return result[~listening].tolist()


def listener(address: str, port: int, *, ipv6_only: bool = False) -> bytes:
    anybody = "::" if ":" in address else "0.0.0.0"
    attributes = [attribute(SKV6ONLY, bytes([ipv6_only]))] if ":" in address else []
    return found((address, port), (anybody, 0), *attributes, state=LISTEN)


def numbers(state: int = ESTABLISHED, **fields: int) -> list[int]:
    return roles(found((HERE, 5000), (THERE, 443), attribute(INFO, tcp_info(state=state, **fields)), state=state))


@pytest.mark.parametrize(
    ("state", "fields", "role"),
    [
        (ESTABLISHED, {"bytes_sent": 100, "bytes_acked": 101}, A),
        (ESTABLISHED, {"bytes_sent": 100, "bytes_acked": 100}, P),
        (ESTABLISHED, {"bytes_sent": 100, "bytes_retrans": 40, "bytes_acked": 61}, A),
        (ESTABLISHED, {"bytes_sent": 100, "bytes_retrans": 40, "bytes_acked": 60}, P),
        (ESTABLISHED, {"bytes_acked": 1}, A),
        (ESTABLISHED, {}, P),
        (FIN_WAIT2, {"bytes_sent": 100, "bytes_acked": 102}, A),
        (FIN_WAIT2, {"bytes_sent": 100, "bytes_acked": 101}, P),
    ],
)
def test_the_syn_counts_as_an_acknowledged_byte(state: int, fields: dict[str, int], role: int) -> None:
    assert numbers(state, **fields) == [role]


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        (ESTABLISHED, {"bytes_sent": 100, "bytes_acked": 100, "unacked": 1}),
        (ESTABLISHED, {"bytes_sent": 100, "bytes_acked": 90}),
        (FIN_WAIT1, {"bytes_sent": 100, "bytes_acked": 100}),
    ],
)
def test_numbers_that_do_not_tell(state: int, fields: dict[str, int]) -> None:
    # Nobody listens on the port, so it connected.
    assert numbers(state, **fields) == [A]


def test_the_state_comes_first() -> None:
    near, far = (HERE, 5000), (THERE, 443)
    assert roles(listener("0.0.0.0", 5000), found(near, far, state=SYN_SENT)) == [A]
    assert roles(found(near, far, state=SYN_RECV)) == [P]


@pytest.mark.parametrize(
    ("listened", "local", "role"),
    [
        ((HERE, 80), HERE, P),
        (("0.0.0.0", 80), HERE, P),
        (("::", 80), HERE, P),
        (("::", 80), f"::ffff:{HERE}", P),
        (("::", 80), "2001:db8::1", P),
        (("2001:db8::1", 80), "2001:db8::1", P),
        (("0.0.0.0", 80), "2001:db8::1", A),
        (("2001:db8::2", 80), "2001:db8::1", A),
        (("192.0.2.9", 80), HERE, A),
        (("0.0.0.0", 81), HERE, A),
    ],
)
def test_who_listens(listened: tuple[str, int], local: str, role: int) -> None:
    remote = {HERE: THERE, f"::ffff:{HERE}": f"::ffff:{THERE}"}.get(local, "2001:db8::99")
    assert roles(listener(*listened), found((local, 80), (remote, 40_000), state=TIME_WAIT)) == [role]


def test_an_ipv6_only_listener_takes_no_ipv4() -> None:
    only = listener("::", 80, ipv6_only=True)
    assert roles(only, found((HERE, 80), (THERE, 40_000), state=TIME_WAIT)) == [A]
    assert roles(only, found(("2001:db8::1", 80), ("2001:db8::2", 40_000), state=TIME_WAIT)) == [P]


def both_ends(*attributes: bytes) -> list[bytes]:
    """Of a connection over lo from port 4000 to port 80; only of the first there may be numbers."""
    return [found((LO, 4000), (LO, 80), *attributes), found((LO, 80), (LO, 4000))]


def test_both_ends_of_one_connection() -> None:
    assert roles(listener("0.0.0.0", 80), *both_ends()) == [A, P]
    assert roles(listener("0.0.0.0", 4000), *both_ends()) == [P, A]


def test_both_ends_are_listened_on_or_neither() -> None:
    assert roles(listener("0.0.0.0", 80), listener(LO, 4000), *both_ends()) == [U, U]
    assert roles(*both_ends()) == [U, U]


def test_the_other_ends_numbers_tell() -> None:
    connected = attribute(INFO, tcp_info(bytes_acked=1))
    accepted = attribute(INFO, tcp_info(bytes_acked=0))
    assert roles(listener("0.0.0.0", 80), listener(LO, 4000), *both_ends(connected)) == [A, P]
    assert roles(*both_ends(accepted)) == [P, A]


def test_one_end_alone_on_the_same_host() -> None:
    left = found((LO, 4000), (LO, 80), state=TIME_WAIT)
    assert roles(listener(LO, 80), left) == [A]
    assert roles(listener(LO, 4000), left) == [P]
    assert roles(listener(LO, 4000), listener(LO, 80), left) == [U]
    assert roles(left) == [A]


def test_a_socket_connected_to_itself() -> None:
    itself = found((LO, 80), (LO, 80))
    assert roles(itself) == [U]
    assert roles(listener(LO, 80), itself) == [U]
