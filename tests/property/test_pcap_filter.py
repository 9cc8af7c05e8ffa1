"""The C text of a filter, compiled, against libpcap's own interpreter: same frames, same verdicts.

Where a filter speaks of no tags, libpcap is given the frame without its VLAN tags.
"""

import contextlib
import ctypes
import ctypes.util
import importlib.resources
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcptrace.sources.live.pcap_filter import filter_source, translate

WINDOW_BYTES = 256
DLT_EN10MB, DLT_RAW = 1, 12

# Of any link with IP.
IP_EXPRESSIONS = [
    "tcp",
    "tcp port 443",
    "port 53",
    "src port 80",
    "tcp dst port 443 or udp src port 53",
    "portrange 80-443",
    "not portrange 1-1024",
    "host 10.0.0.5",
    "host 10.0.0.5 and port 443",
    "src host 10.0.0.5 and not dst host 192.168.1.1",
    "net 10.0.0.0/8 or ip6",
    "src net 192.168.1.0/24",
    "host 2001:db8::1",
    "net 2001:db8::/32 and tcp",
    "ip6 and tcp port 80",
    "ip and not tcp",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
    "tcp[0:2] < 1024 and tcp[2:2] - tcp[0:2] > 300",
    "len > 100",
    "greater 90",
    "less 80",
    "ip[2:2] > 576",
    "ip[2:2] + 14 = len or ip[2:2] = len",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff = 0 and ip[8] > 5",
    "(tcp[4:4] / 3) % 7 = 2",
    "100 / (tcp[13] & 3) >= 50",
    "100 % tcp[13] = 1",
    "ip[8] << 4 | ip[9] > 900",
    "tcp[4:4] << (tcp[13] & 63) > 1000000",
    "tcp[4:4] >> (tcp[13] & 63) = 0",
    "tcp[4:4] * 3 ^ tcp[8:4] > 0x7fffffff",
    "-tcp[0:2] & 0xff = 0xb0",
    "ip[4:2] = tcp[0:2] or ip[8] + ip[9] = 70",
    "ip[tcp[13]:4] > 0x20000000",
    "tcp[len - 60] > 64",
    "tcp[tcp[13]] & 1 = 1",
    "ip[240] > 100",
    "tcp[200:4] & 1 = 1 or port 22",
    "ip6[6] = 44 or ip6[40] = 6",
    "ip proto 17 or icmp",
    "ip multicast or ip6 multicast",
    " or ".join(f"tcp port {port}" for port in range(70, 90)),
]
# Of Ethernet only.
ETHERNET_EXPRESSIONS = [
    "arp",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:02 and tcp port 80",
    "ether multicast",
    "ether proto 0x8100",
    "ether[12:2] = 0x0800",
    "ether[11:2] = 0x0108",
    "ether[10:4] & 0xffff = 0x86dd",
    "ether[9:4] & 0x7f > 0",
    "ether[tcp[13] & 15:4] & 0xff > 7",
    "ether[ether[5]:2] & 3 = 1",
    "ether[len - 20] > 50",
    "ether[252:4] & 1 = 1",
    "vlan",
    "vlan 5 and tcp port 80",
    "vlan and vlan 5",
    "not vlan",
    "tcp port 80 or (vlan and tcp port 80)",
    "mpls",
    "pppoes",
]
SPEAKS_OF_TAGS = ("vlan", "mpls", "pppoes")


class Case(NamedTuple):
    """One compiled filter and libpcap's program for the same."""

    name: str
    source: str
    program: "Program"
    ethernet: bool
    without_tags: bool


class Insn(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    ]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(Insn))]


class PacketHeader(ctypes.Structure):
    _fields_ = [
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    ]


def load_libpcap() -> ctypes.CDLL:
    for name in ("libpcap.so.1", "libpcap.so.0.8", ctypes.util.find_library("pcap")):
        with contextlib.suppress(OSError):
            if name is not None:
                library = ctypes.CDLL(name)
                library.pcap_open_dead.restype = ctypes.c_void_p
                library.pcap_close.argtypes = [ctypes.c_void_p]
                library.pcap_compile.argtypes = [
                    ctypes.c_void_p,
                    ctypes.POINTER(Program),
                    ctypes.c_char_p,
                    ctypes.c_int,
                    ctypes.c_uint32,
                ]
                library.pcap_offline_filter.argtypes = [
                    ctypes.POINTER(Program),
                    ctypes.POINTER(PacketHeader),
                    ctypes.c_char_p,
                ]
                return library
    pytest.skip("libpcap is not installed")


def compile_program(library: ctypes.CDLL, expression: str, linktype: int) -> Program:
    handle = library.pcap_open_dead(linktype, 262144)
    program = Program()
    assert library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, 0xFFFFFFFF) == 0, expression
    library.pcap_close(handle)
    return program


def headers() -> Path:
    try:
        # A folder without __init__.py has no path of its own, the files in it have.
        return Path(str(importlib.resources.files("tcptrace.bpf") / "parse.h")).parent
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "bpf"


HARNESS = """
static int (*const filters[])(const struct frame *) = {{ {names} }};
const int verdict_values[] = {{ COUNT_TCP, COUNT_FILTERED, COUNT_FILTER_OUT_OF_REACH, PARSE_NEED_MORE }};

int verdict(int number, int link, const __u8 *bytes, __u64 frame_bytes, __u64 available)
{{
	struct packet_record r;
	struct frame f;

	__builtin_memset(&f, 0xa5, sizeof(f));
	__builtin_memcpy(f.window, bytes, available);
	f.available = available;
	f.frame_bytes = frame_bytes;
	if (parse_link(&f, link, &r) != COUNT_TCP)
		return -1;
	return filters[number](&f);
}}
"""


class Judge:
    """The compiled filters beside libpcap."""

    def __init__(self, library: ctypes.CDLL, cases: list[Case], folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler is installed")
        text = '#include "parse.h"\n'
        for number, case in enumerate(cases):
            text += case.source.replace("filter_matches(", f"filter_{number}(")
        text += HARNESS.format(names=", ".join(f"filter_{number}" for number in range(len(cases))))
        (folder / "filters.c").write_text(text)
        # A random program may well set a register for nothing.
        flags = ["-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-but-set-variable", "-Wno-unused-function"]
        flags += ["-DIN_KERNEL", "-O1", "-shared", "-fPIC", f"-I{headers()}"]
        subprocess.run([compiler, *flags, "-o", folder / "filters.so", folder / "filters.c"], check=True)
        self._compiled = ctypes.CDLL(str(folder / "filters.so"))
        self._compiled.verdict.argtypes = [
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint64,
            ctypes.c_uint64,
        ]
        self._libpcap = library
        self.cases = cases
        values = (ctypes.c_int * 4).in_dll(self._compiled, "verdict_values")
        self.match, self.no_match, self.out_of_reach, self.need_more = values

    def verdict(self, number: int, frame: bytes, available: int) -> int:
        """What the filter says with only the first bytes of the frame in the window; -1: no whole link header."""
        link = 0 if self.cases[number].ethernet else 1
        return int(self._compiled.verdict(number, link, frame, len(frame), available))

    def libpcap_matches(self, number: int, frame: bytes, captured: int) -> bool:
        case = self.cases[number]
        length = len(frame)
        frame = frame[:captured]
        if case.without_tags:
            frame = strip_tags(frame)
        header = PacketHeader(0, 0, len(frame), length)
        return bool(self._libpcap.pcap_offline_filter(ctypes.byref(case.program), ctypes.byref(header), frame))

    def check(self, number: int, frame: bytes, first: int) -> int:
        """Hold one filter against libpcap; `first`: how much of the frame is loaded at first."""
        name = self.cases[number].name
        reach = min(len(frame), WINDOW_BYTES)
        final = self.verdict(number, frame, reach)
        early = self.verdict(number, frame, min(first, reach))
        if final == -1:
            return final
        if early != -1:
            assert early in (final, self.need_more), name
        if final == self.match:
            assert self.libpcap_matches(number, frame, len(frame)), name
        elif final == self.no_match:
            assert not self.libpcap_matches(number, frame, len(frame)), name
        else:
            assert final == self.out_of_reach, name
            assert len(frame) > WINDOW_BYTES, name
            assert not self.libpcap_matches(number, frame, reach), name
        return final


def strip_tags(frame: bytes) -> bytes:
    for _ in range(2):
        if len(frame) < 18 or frame[12:14] not in (b"\x81\x00", b"\x88\xa8"):
            break
        frame = frame[:12] + frame[16:]
    return frame


MACS = [bytes.fromhex(mac) for mac in ("020000000001", "020000000002", "01005e000001", "ffffffffffff", "0200000e070c")]
PORTS = [22, 53, 80, 443, 8080, 0x0050 | 0x8000]
IPV4 = [bytes(a) for a in ((10, 0, 0, 5), (10, 1, 2, 3), (192, 168, 1, 1), (224, 0, 0, 1), (8, 8, 8, 8))]
IPV6 = [bytes.fromhex(a) for a in ("20010db8" + 23 * "0" + "1", "20010db9" + 24 * "0", "ff02" + 27 * "0" + "1")]
PAYLOADS = [b"", b"GET / HTTP/1.1\r\n\r\n", b"POST", bytes(range(256)), b"\x01" * 300]


def make_transport(rng: random.Random, protocol: int) -> bytes:
    ports = struct.pack("!HH", rng.choice(PORTS), rng.choice(PORTS))
    payload = rng.choice(PAYLOADS)
    if protocol != 6:
        return ports + struct.pack("!HH", 8 + len(payload), 0) + payload
    words = rng.choice([5, 5, 8, 10, 15, 3])
    header = struct.pack("!IIBBHHH", rng.getrandbits(32), rng.getrandbits(32), words << 4, rng.randrange(64), 512, 0, 0)
    return ports + header + bytes(4 * (max(words, 5) - 5)) + payload


def make_ip(rng: random.Random) -> tuple[int, bytes]:
    """Ethertype and packet."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice([0x0806, 0x8847, 0x8864, 0x88CC, 46]), rng.randbytes(rng.randrange(60))
    if kind < 7:
        protocol = rng.choice([6, 6, 6, 17, 1])
        transport = make_transport(rng, protocol)
        words = rng.choice([5, 5, 5, 6, 15])
        fragment = rng.choice([0, 0, 0, 0x4000, 0x2000, 0x00B9])
        total = rng.choice([4 * words + len(transport), 4 * words + len(transport), 0, rng.randrange(1500)])
        start = struct.pack(
            "!BBHHHBBH", 0x40 | words, 0, total, rng.choice(PORTS), fragment, rng.choice([1, 64]), protocol, 0
        )
        return 0x0800, start + rng.choice(IPV4) + rng.choice(IPV4) + bytes(4 * (words - 5)) + transport
    protocol = rng.choice([6, 6, 17, 58])
    rest = make_transport(rng, protocol)
    if rng.randrange(4) == 0:
        rest = bytes([protocol, 0, 0, 0, 0, 0, 0, 0]) + rest
        protocol = 44
    start = struct.pack("!IHBB", 0x60000000, len(rest), protocol, 64)
    return 0x86DD, start + rng.choice(IPV6) + rng.choice(IPV6) + rest


def make_frame(rng: random.Random, ethernet: bool) -> bytes:
    """Mostly sensible, at times with a byte changed or the end cut off."""
    ethertype, frame = make_ip(rng)
    if ethernet:
        for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
            frame = struct.pack("!HH", rng.choice([5, 0xA005, 6]), ethertype) + frame
            ethertype = rng.choice([0x8100, 0x8100, 0x88A8])
        frame = rng.choice(MACS) + rng.choice(MACS) + struct.pack("!H", ethertype) + frame
    if rng.randrange(4) == 0:
        at = rng.randrange(len(frame)) if frame else 0
        frame = frame[:at] + rng.randbytes(1) + frame[at + 1 :]
    if rng.randrange(3) == 0:
        frame = frame[: rng.randrange(len(frame) + 1)]
    return frame


def make_program(rng: random.Random) -> list[tuple[int, int, int, int]]:
    """A classic program of any instruction there is, jumping forward only."""
    memory = [0x60, 0x61, 0x02, 0x03]
    loads = [0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xB1]
    arithmetic = [op << 4 | source | 4 for op in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10) for source in (0, 8)]
    jumps = [op << 4 | source | 5 for op in (1, 2, 3, 4) for source in (0, 8)]
    others = [0x00, 0x01, 0x80, 0x81, 0x84, 0x07, 0x87]
    # libpcap leaves the scratch words as it finds them
    program = [(0x02, 0, 0, word) for word in range(16)]
    length = rng.randrange(4, 40)
    for left in range(length, 0, -1):
        group = rng.choice([memory, loads, loads, loads, arithmetic, jumps, others, [0x05]])
        code = rng.choice(group)
        jt = jf = 0
        k = rng.choice([0, 1, 2, 12, 14, 255, rng.getrandbits(8), rng.getrandbits(32)])
        if group is memory:
            k %= 16
        elif group is loads:
            k = rng.choice(
                [rng.randrange(40), rng.randrange(40), rng.randrange(40), rng.randrange(300), 0xFFFFFFF0 - k % 256]
            )
        elif code in (0x34, 0x94):
            k = max(k, 1)  # libpcap's interpreter trusts its own check for 0
        elif code in (0x64, 0x74):
            k %= 32  # and for shifts of all bits
        elif group is jumps:
            jt, jf = rng.randrange(left), rng.randrange(left)
        elif code == 0x05:
            k = rng.randrange(min(left, 4))
        program.append((code, jt, jf, k))
        if rng.randrange(12) == 0:
            program.append(rng.choice([(0x16, 0, 0, 0), (0x06, 0, 0, 0), (0x06, 0, 0, 1)]))
    # a jump counted before the returns came in between lands early, never past these
    return [*program, (0x16, 0, 0, 0)]


# What the random ones hardly ever do: the length in x, and a header length right behind the MAC addresses.
BY_HAND = [
    [(0x81, 0, 0, 0), (0x87, 0, 0, 0), (0x25, 0, 1, 70), (0x06, 0, 0, 1), (0x06, 0, 0, 0)],
    [(0xB1, 0, 0, 12), (0x87, 0, 0, 0), (0x15, 0, 1, 32), (0x06, 0, 0, 1), (0x06, 0, 0, 0)],
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Every expression of the lists above, on every link that has it."""
    library = load_libpcap()
    cases = []
    for expression in IP_EXPRESSIONS + ETHERNET_EXPRESSIONS:
        without_tags = not any(word in expression for word in SPEAKS_OF_TAGS)
        source = filter_source(expression, ethernet=True)
        cases.append(Case(expression, source, compile_program(library, expression, DLT_EN10MB), True, without_tags))
    for expression in IP_EXPRESSIONS:
        if "ether" not in expression:
            source = filter_source(expression, ethernet=False)
            cases.append(Case(expression, source, compile_program(library, expression, DLT_RAW), False, False))
    return Judge(library, cases, tmp_path_factory.mktemp("filters"))


@pytest.fixture(scope="module")
def random_programs(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Programs no expression would give."""
    library = load_libpcap()
    rng = random.Random(1)
    cases = []
    for number, program in enumerate(BY_HAND + [make_program(rng) for _ in range(150)]):
        instructions = (Insn * len(program))(*(Insn(*instruction) for instruction in program))
        # all of them with tags taken out and left in
        for without_tags in (True, False):
            source = translate(program, without_tags=without_tags)
            cases.append(Case(f"{number}: {program}", source, Program(len(program), instructions), True, without_tags))
    return Judge(library, cases, tmp_path_factory.mktemp("programs"))


def numbers(judge: Judge, ethernet: bool) -> Iterator[int]:
    return (number for number, case in enumerate(judge.cases) if case.ethernet is ethernet)


@pytest.mark.parametrize("ethernet", [True, False], ids=["ethernet", "raw"])
@given(rng=st.randoms(use_true_random=False), first=st.integers(1, WINDOW_BYTES))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_frame(judge: Judge, ethernet: bool, rng: random.Random, first: int) -> None:
    frame = make_frame(rng, ethernet)
    for number in numbers(judge, ethernet):
        judge.check(number, frame, first)


@given(frame=st.binary(min_size=14, max_size=300), first=st.integers(1, WINDOW_BYTES))
@settings(max_examples=100, deadline=None)
def test_any_bytes(judge: Judge, frame: bytes, first: int) -> None:
    for number in range(len(judge.cases)):
        judge.check(number, frame, first)


def test_every_expression_says_yes_and_no(judge: Judge) -> None:
    """Without this the comparisons above might compare nothing but `no` with `no`."""
    rng = random.Random(2)
    seen: dict[int, set[int]] = {number: set() for number in range(len(judge.cases))}
    for _ in range(1500):
        for ethernet in (True, False):
            frame = make_frame(rng, ethernet)
            for number in numbers(judge, ethernet):
                seen[number].add(judge.check(number, frame, 128))
    one_sided = {
        judge.cases[number].name for number, verdicts in seen.items() if not {judge.match, judge.no_match} <= verdicts
    }
    assert one_sided == set()
    assert any(judge.out_of_reach in verdicts for verdicts in seen.values())


def test_where_the_window_the_loaded_bytes_and_the_frame_end(tmp_path: Path) -> None:
    library = load_libpcap()
    names = ["ether[252:4] = 0x01010101", "ether[254:4] = 0x01010101", "ether[300] = 1", "vlan or ether[254] = 1"]
    programs = [compile_program(library, name, DLT_EN10MB) for name in names]
    cases = [
        Case(name, filter_source(name, ethernet=True), program, True, "vlan" not in name)
        for name, program in zip(names, programs, strict=True)
    ]
    judge = Judge(library, cases, tmp_path)
    last_word, over_the_edge, beyond, raw = range(4)
    plain, tagged = b"\x01" * 1000, b"\x01" * 12 + b"\x81\x00" + b"\x01" * 986

    assert judge.verdict(last_word, plain, 256) == judge.match
    assert judge.verdict(last_word, plain, 255) == judge.need_more
    assert judge.verdict(last_word, plain[:255], 255) == judge.no_match
    # 252 without its tag is 256 with it
    assert judge.verdict(last_word, tagged, 256) == judge.out_of_reach
    assert judge.verdict(last_word, tagged[:259], 256) == judge.no_match

    assert judge.verdict(over_the_edge, plain, 256) == judge.out_of_reach
    assert judge.verdict(over_the_edge, plain[:258], 14) == judge.out_of_reach
    assert judge.verdict(over_the_edge, plain[:257], 14) == judge.no_match

    assert judge.verdict(beyond, plain, 14) == judge.out_of_reach
    assert judge.verdict(beyond, plain[:300], 256) == judge.no_match

    assert judge.verdict(raw, plain, 18) == judge.need_more
    assert judge.verdict(raw, tagged, 18) == judge.match


def test_random_programs(random_programs: Judge) -> None:
    rng = random.Random(3)
    seen = set()
    for _ in range(300):
        frame = make_frame(rng, True)
        for number in range(len(random_programs.cases)):
            seen.add(random_programs.check(number, frame, 64))
    assert seen >= {random_programs.match, random_programs.no_match, random_programs.out_of_reach}
