"""FILTER and the short forms -p and -i: what is put together, what is refused, what the C text looks like."""

import ctypes
import ctypes.util
import re

import pytest

from tcptrace.errors import MissingFeatureError, UsageError
from tcptrace.sources.live import pcap_filter
from tcptrace.sources.live.pcap_filter import (
    DLT_EN10MB,
    DLT_RAW,
    combine,
    compile_classic,
    filter_source,
    has_link_keyword,
    translate,
)

try:
    pcap_filter._libpcap()
except MissingFeatureError:
    needs_libpcap = pytest.mark.skip(reason="libpcap is not installed")
else:
    needs_libpcap = pytest.mark.skipif(False, reason="")

RETURN_0 = (0x06, 0, 0, 0)
RETURN_ALL = (0x06, 0, 0, 262144)


@pytest.mark.parametrize(
    ("words", "ports", "hosts", "expected"),
    [
        ([], [], [], None),
        ([" ", ""], [], [], None),
        (["tcp", "port", "80"], [], [], "tcp port 80"),
        ([], [443], [], "tcp port 443"),
        ([], [0, 65535], [], "tcp port 0 or tcp port 65535"),
        ([], [], ["10.0.0.5"], "host 10.0.0.5"),
        ([], [], ["10.0.0.0/8", "2001:db8::/32"], "net 10.0.0.0/8 or net 2001:db8::/32"),
        ([], [], ["192.168.1.7/24"], "net 192.168.1.0/24"),
        ([], [], ["2001:DB8::0:1"], "host 2001:db8::1"),
        ([], [], ["fe80::1%eth0"], "host fe80::1"),
        ([], [], ["::ffff:10.0.0.5"], "host 10.0.0.5"),
        ([], [], ["vlan", "www.example.org"], "host \\vlan or host \\www.example.org"),
        (
            ["net 10.0.0.0/8", "or ip6"],
            [80, 443],
            ["10.0.0.5"],
            "(tcp port 80 or tcp port 443) and (host 10.0.0.5) and (net 10.0.0.0/8 or ip6)",
        ),
        # what follows `vlan` is read behind the tag, so the ports have to follow it
        (["vlan 5"], [80], [], "(vlan 5) and (tcp port 80)"),
    ],
)
def test_combine(words: list[str], ports: list[int], hosts: list[str], expected: str | None) -> None:
    assert combine(words, ports, hosts) == expected


@pytest.mark.parametrize("port", [-1, 65536, 1_000_000])
def test_combine_refuses_a_port_that_cannot_be(port: int) -> None:
    with pytest.raises(UsageError, match=rf"^filter: port {port} is not between 0 and 65535$"):
        combine([], [80, port], [])


@pytest.mark.parametrize(
    "host",
    ["", "10.0.0.256", "10.0.0", "1.2.3.4/33", "::/129", "a b", "a)or(b", "-a", "a..b", "12:34", "host\n", "x" * 64],
)
def test_combine_refuses_what_is_no_host(host: str) -> None:
    with pytest.raises(UsageError, match=r"is not an IP address, network or host name$"):
        combine([], [], [host])


@needs_libpcap
def test_combined_parts_are_all_understood_by_libpcap() -> None:
    expression = combine(["not", "port", "22"], [80, 443], ["10.0.0.5", "10.0.0.0/8", "::1", "::/0", "2001:db8::/32"])
    assert expression is not None
    assert len(compile_classic(expression, DLT_EN10MB)) > 10


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("vlan", True),
        ("vlan 5 and tcp port 80", True),
        ("tcp and(vlan)", True),
        ("!vlan||ip", True),
        ("tcp&&mpls", True),
        ("pppoes 0x17", True),
        ("host vlan-gateway", False),
        ("host my.vlan", False),
        ("host my-vlan or host vlan.example.org", False),
        ("host xvlan or host vlan5 or host vlan_5", False),
        ("host \\vlan", False),
        ("pppoed or tcp", False),
        ("", False),
    ],
)
def test_link_keyword_is_a_word_of_its_own(expression: str, expected: bool) -> None:
    assert has_link_keyword(expression) is expected


@pytest.mark.parametrize("expression", [None, "", "  \n"])
@pytest.mark.parametrize("ethernet", [True, False])
def test_no_expression_lets_everything_through(expression: str | None, ethernet: bool) -> None:
    source = filter_source(expression, ethernet=ethernet)
    assert re.findall(r"\b(?:return|if|goto|bytes_at)\b.*", source) == ["return COUNT_TCP;"]


@needs_libpcap
def test_compile_classic_gives_libpcaps_program() -> None:
    assert compile_classic("ip", DLT_EN10MB) == [(0x28, 0, 0, 12), (0x15, 0, 1, 0x800), RETURN_ALL, RETURN_0]
    assert compile_classic("ip", DLT_RAW)[0] == (0x30, 0, 0, 0)


@needs_libpcap
@pytest.mark.parametrize(
    "expression", ["tcp port", "port 80 and", "(", "ip[0] / 0 = 1", "TCP port 80", "net 10.0.0.1/8"]
)
def test_bad_expression_is_a_usage_error_in_libpcaps_words(expression: str) -> None:
    with pytest.raises(UsageError, match=r"^filter: .{5}"):
        filter_source(expression, ethernet=True)


@needs_libpcap
def test_a_link_without_ethernet_header_refuses_what_needs_one() -> None:
    assert filter_source("ether host 02:00:00:00:00:01", ethernet=True).count("bytes_at") >= 2
    with pytest.raises(UsageError, match=r"^filter: .*ether"):
        filter_source("ether host 02:00:00:00:00:01", ethernet=False)


@needs_libpcap
def test_bytes_that_are_not_text_reach_libpcap_as_they_are() -> None:
    with pytest.raises(UsageError, match=r"^filter: "):
        filter_source("port \udcff", ethernet=True)
    with pytest.raises(UsageError, match=r"zero character"):
        filter_source("tcp\0garbage", ethernet=True)


@needs_libpcap
def test_a_loop_is_refused() -> None:
    with pytest.raises(UsageError, match=r"loop \(protochain\)"):
        filter_source("ip6 protochain 6", ethernet=True)


@needs_libpcap
def test_tags_are_stepped_over_only_where_the_expression_does_not_speak_of_them() -> None:
    assert "tags" in filter_source("tcp port 80", ethernet=True)
    assert "tags" not in filter_source("vlan 5 and tcp port 80", ethernet=True)
    assert "tags" not in filter_source("tcp port 80", ethernet=False)


@needs_libpcap
@pytest.mark.parametrize(
    "expression", ["tcp port 443", "portrange 1-1024 or net 10.0.0.0/8", "len > 100 and ip[2:2] % 7 = 3"]
)
def test_every_label_is_jumped_to_and_every_jump_has_its_label(expression: str) -> None:
    source = filter_source(expression, ethernet=True)
    labels = re.findall(r"^(\w+):", source, re.MULTILINE)
    assert labels
    assert len(set(labels)) == len(labels)
    assert set(labels) == set(re.findall(r"goto (\w+);", source))


@pytest.mark.parametrize(
    "program",
    [
        [],
        [(0x00, 0, 0, 1)],  # no return
        [(0x05, 0, 0, 1), RETURN_0],  # past the end
        [(0x15, 0, 1, 0), RETURN_0],
        [(0x05, 0, 0, 0xFFFFFFFF), RETURN_0],  # backwards
        [(0x60, 0, 0, 16), RETURN_0],  # there are 16 scratch words
        [(0x03, 0, 0, 0xFFFFFFFF), RETURN_0],
        [(0x70, 0, 0, 0), RETURN_0],  # MEM, but of two bytes
        [(0xB4, 0, 0, 0), RETURN_0],  # an operation after XOR
        [(0x55, 0, 0, 0), RETURN_0],  # a jump of extended BPF
        [(0x8D, 0, 0, 0), RETURN_0],
        [(0xFFFF, 0, 0, 0), RETURN_0],
    ],
)
def test_a_program_no_classic_machine_would_run_is_refused(program: list[tuple[int, int, int, int]]) -> None:
    with pytest.raises(UsageError, match=r"^filter: "):
        translate(program, without_tags=False)


def test_division_by_a_constant_zero_is_no_match() -> None:
    for code in (0x34, 0x94):
        assert "return COUNT_FILTERED;\n\treturn COUNT_TCP;" in translate(
            [(code, 0, 0, 0), RETURN_ALL], without_tags=False
        )


def test_without_libpcap_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(pcap_filter, "_libpcap", pcap_filter._libpcap.__wrapped__)
    with pytest.raises(MissingFeatureError, match=r"libpcap0\.8 \(Debian.*libpcap \(Fedora.*libpcap1 \(openSUSE"):
        filter_source("tcp", ethernet=True)
