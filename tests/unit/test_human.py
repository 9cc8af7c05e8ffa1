"""Units, addresses, flags and times as text."""

import math
import os
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcptrace.model import ANALYSIS
from tcptrace.sinks import human


@pytest.fixture
def tokyo() -> Iterator[None]:
    """Nine hours ahead of UTC, no daylight saving."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    human._local_second.cache_clear()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()
    human._local_second.cache_clear()


def v4(text: str) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes(map(int, text.split(".")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2**63 - 1, "9.2 EB"),
        (1e30, ">999 EB"),
        (-1, "–"),
        (math.nan, "–"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert human.byte_count(value) == text
    assert human.byte_rate(value) == (text if text == "–" else f"{text}/s")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04, "<0.1"), (0.4, "0.4"), (9.96, "10"), (12.5, "12"), (15_340, "15.3k"), (math.inf, "–")],
)
def test_quantity(value: float, text: str) -> None:
    assert human.quantity(value) == text


def test_a_count_keeps_every_digit_that_fits() -> None:
    assert human.count(1_234, 5) == "1,234"
    assert human.count(12_345, 6) == "12,345"
    assert human.count(12_345, 5) == "12.3k"
    assert human.count(-1, 5) == "–"


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.2 µs"),
        (85.25, "85.2 µs"),
        (999.4, "999 µs"),
        (999.5, "1.0 ms"),
        (12_345, "12.3 ms"),
        (999_499, "999 ms"),
        (999_500, "1.0 s"),
        (59.94e6, "59.9 s"),
        (59.96e6, "1m00s"),
        (125e6, "2m05s"),
        (3_725e6, "1h02m"),
        (86_400e6 * 5 + 3_600e6 * 6, "5d06h"),
        (9e14, "10416d"),
        (math.nan, "–"),
        (-1, "–"),
    ],
)
def test_durations(microseconds: float, text: str) -> None:
    assert human.duration_us(microseconds) == text
    assert human.duration_s(microseconds / 1e6) == text


@given(st.floats(min_value=0, max_value=1e25) | st.integers(min_value=0, max_value=2**64))
def test_no_number_is_wider_than_promised(value: float) -> None:
    assert len(human.quantity(value)) <= 5
    assert len(human.byte_count(value)) <= 7
    assert len(human.byte_rate(value)) <= 9
    assert len(human.duration_us(value)) <= 7
    assert len(human.duration_s(value)) <= 7
    assert len(human.count(int(value), 5)) <= 5


def test_addresses() -> None:
    assert human.address(v4("10.1.2.3"), 4) == "10.1.2.3"
    assert human.address(bytes.fromhex("20010db8") + bytes(11) + b"\1", 6) == "2001:db8::1"
    assert human.endpoint("10.1.2.3", "80") == "10.1.2.3:80"
    assert human.endpoint("2001:db8::1", "http") == "[2001:db8::1]:http"
    assert human.mac(bytes([2, 0, 0xAB, 0, 0, 0xFF])) == "02:00:ab:00:00:ff"


def test_an_endpoint_gives_up_the_service_then_the_middle_of_the_address_but_not_the_port() -> None:
    assert human.endpoint_fit("10.1.2.3", 5432, "postgresql", 19) == "10.1.2.3:postgresql"
    assert human.endpoint_fit("10.1.2.3", 5432, "postgresql", 18) == "10.1.2.3:5432"
    assert human.endpoint_fit("2001:db8:1:2:3:4:5:6", 443, None, 18) == "[2001:d…4:5:6]:443"
    assert human.endpoint_fit("255.255.255.255", 65535, None, 18) == "255.25…5.255:65535"


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 65535),
    st.none() | st.text("abc-", min_size=1, max_size=16),
    st.integers(1, 60),
)
def test_an_endpoint_is_never_wider_than_asked(raw: bytes, port: int, name: str | None, width: int) -> None:
    text = human.endpoint_fit(human.address(raw, 6), port, name, width)
    assert len(text) <= width
    assert width < 12 or text.endswith((f":{port}", f":{name}"))


def test_flags() -> None:
    assert human.flags_short(0x12) == "[S.]"
    assert human.flags_short(0x18) == "[P.]"
    assert human.flags_short(0x1FF) == "[FSRP.UEWe]"
    assert human.flags_short(0) == "[none]"
    assert human.flags_words(0x12) == "SYN|ACK"
    assert human.flags_words(0x1FF) == "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR|AE"
    assert human.flags_words(0) == ""


def test_findings_are_words_and_a_kind_stands_for_the_whole() -> None:
    everything = human.findings((1 << len(ANALYSIS)) - 1, 12).split(", ")
    assert len(everything) == len(ANALYSIS) - 1 == 16
    assert "retransmission" not in everything
    assert "dup ack 12" in everything
    assert "_" not in "".join(everything)
    assert human.findings(1 << ANALYSIS.index("retransmission"), 0) == "retransmission"
    assert human.findings(1 << ANALYSIS.index("duplicate_ack"), 0) == "dup ack"
    assert human.findings(1 << ANALYSIS.index("window_full"), 12) == "window full"
    assert human.findings(0, 0) == ""


def test_utc_keeps_every_nanosecond() -> None:
    assert human.rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
    assert human.rfc3339(0) == "1970-01-01T00:00:00.000000000Z"
    assert human.rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.usefixtures("tokyo")
def test_local_time_of_day() -> None:
    assert human.local_time(1_700_000_000_123_456_789) == "07:13:20.123456"
    assert human.rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"


def test_community_id_is_the_published_one_in_both_directions() -> None:
    one, other = v4("128.232.110.120"), v4("66.35.250.204")
    assert human.community_id(one, 34855, other, 80, 4) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
    assert human.community_id(other, 80, one, 34855, 4) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.integers(0, 65535))
def test_community_ids_of_ipv6_have_no_direction(one: bytes, other: bytes, port: int) -> None:
    there, back = human.community_id(one, port, other, 443, 6), human.community_id(other, 443, one, port, 6)
    assert there == back
    assert re.fullmatch(r"1:[A-Za-z0-9+/]{27}=", there)


def test_stopwatch() -> None:
    assert human.stopwatch(83.9) == "00:01:23"
    assert human.stopwatch(360_000) == "100:00:00"


@pytest.mark.parametrize(
    ("name", "pid", "text"),
    [
        ("curl", 12_345, "curl/12345"),
        ("kworker/0:1", 7, "kworker/0:1/7"),
        ("", 7, "?/7"),
        ("curl", -1, "curl"),
        ("", -1, "–"),
        ("a\x1b[2J\x9b\nb\u202ec\u0301d抓e", 1, "a?[2J??b?c?d?e/1"),
        ("\ufffdé~жλ", 1, "?é~жλ/1"),
    ],
)
def test_process(name: str, pid: int, text: str) -> None:
    assert human.process(name, pid) == text


def test_whatever_a_process_calls_itself_every_letter_of_it_is_one_cell() -> None:
    from rich.cells import cell_len

    for code in range(0x110000):
        shown = human.process(chr(code), -1)
        assert len(shown) == cell_len(shown) == 1, hex(code)


@pytest.mark.parametrize(
    ("width", "text"),
    [(16, "prometheus/12345"), (15, "prom…heus/12345"), (9, "p…s/12345"), (8, "prom…345"), (1, "…"), (0, "")],
)
def test_process_fit(width: int, text: str) -> None:
    assert human.process_fit("prometheus", 12_345, width) == text


def test_kernel_name() -> None:
    assert human.kernel_name(b"curl\0garbage\0\0\0\0") == "curl"
    assert human.kernel_name(bytes(16)) == ""
    assert human.kernel_name(b"sixteen letters!") == "sixteen letters!"
    assert human.kernel_name(b"a\xffb\x1b".ljust(16, b"\0")) == "a\ufffdb\x1b"
