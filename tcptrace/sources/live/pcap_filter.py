"""pcap-filter expressions -> classic BPF, by libpcap -> C text for bpf/packet.c.

libpcap knows the language (pcap-filter(7)) and optimises; its result, a loop-free program
for the machine of McCanne and Jacobson, "The BSD Packet Filter" (USENIX 1993), is written
out as one C function with a goto for each jump.
"""

import ctypes
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from tcptrace.errors import UsageError
from tcptrace.sources.libpcap import Program
from tcptrace.sources.libpcap import libpcap as _libpcap

DLT_EN10MB: Final = 1
DLT_RAW: Final = 12
"""Link types of pcap_open_dead(3), as Linux numbers them: Ethernet, and no link header."""

Instruction = tuple[int, int, int, int]
"""code, jt, jf, k of struct bpf_insn."""

_SNAPSHOT_BYTES: Final = 262144
_NETMASK_UNKNOWN: Final = 0xFFFFFFFF
_SCRATCH_WORDS: Final = 16
_MAC_ADDRESSES_BYTES: Final = 12

# Words after which libpcap itself moves the offsets of all that follows.
_LINK_KEYWORDS: Final = frozenset({"vlan", "mpls", "pppoes"})
# A word of pcap-filter(7); a backslash makes a name of what would be a keyword.
_WORD: Final = re.compile(r"\\[^ !()\n\t]+|[A-Za-z0-9_][-.\w]*", re.ASCII)
# RFC 1123 section 2.1; the last label is not a number, or it would be an address gone wrong.
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\.)*(?![0-9]+\Z)[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?",
    re.ASCII | re.IGNORECASE,
)

_SIGNATURE: Final = "static __always_inline int filter_matches(const struct frame *f)"
_PLAIN: Final = {
    0x00: "a = {k}u;",
    0x01: "x = {k}u;",
    0x80: "a = f->frame_bytes;",
    0x81: "x = f->frame_bytes;",
    0x60: "a = m{k};",
    0x61: "x = m{k};",
    0x02: "m{k} = a;",
    0x03: "m{k} = x;",
    0x84: "a = -a;",
    0x07: "x = a;",
    0x87: "a = x;",
}
_SCRATCH: Final = frozenset({0x60, 0x61, 0x02, 0x03})
_ARITHMETIC: Final = {
    0x00: "+",
    0x10: "-",
    0x20: "*",
    0x30: "/",
    0x40: "|",
    0x50: "&",
    0x60: "<<",
    0x70: ">>",
    0x90: "%",
    0xA0: "^",
}
_COMPARISONS: Final = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}
_LOAD_ABSOLUTE: Final = {0x20: 4, 0x28: 2, 0x30: 1}
_LOAD_INDIRECT: Final = {0x40: 4, 0x48: 2, 0x50: 1}
_LOAD_HEADER_LENGTH: Final = 0xB1
_JUMP_ALWAYS: Final = 0x05
_RETURN_CONSTANT: Final = 0x06
_RETURN_A: Final = 0x16
_CLASS_MASK: Final = 0xFF07
_CLASS_ARITHMETIC: Final = 4
_CLASS_JUMP: Final = 5
_OPERAND_X: Final = 0x08
_READ: Final = {4: "load_be32(p)", 2: "load_be16(p)", 1: "*p"}


def compile_classic(expression: str, linktype: int) -> list[Instruction]:
    """What libpcap makes of an expression, optimised.

    `linktype` is DLT_EN10MB or DLT_RAW; host names are looked up here and now.  Source:
    pcap_compile(3).  Raises UsageError with libpcap's message for a bad expression,
    MissingFeatureError without libpcap.
    """
    if "\0" in expression:
        raise UsageError("filter: the expression has a zero character in it")
    library = _libpcap()
    handle = library.pcap_open_dead(linktype, _SNAPSHOT_BYTES)
    if not handle:
        raise MemoryError("pcap_open_dead")
    try:
        program = Program()
        if library.pcap_compile(handle, ctypes.byref(program), os.fsencode(expression), 1, _NETMASK_UNKNOWN) != 0:
            message: bytes = library.pcap_geterr(handle)
            raise UsageError(f"filter: {message.decode(errors='replace')}")
        try:
            return [(i.code, i.jt, i.jf, i.k) for i in program.instructions[: program.length]]
        finally:
            library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)


def has_link_keyword(expression: str) -> bool:
    """Whether the expression itself speaks of VLAN tags, MPLS labels or PPPoE sessions (pcap-filter(7))."""
    return not _LINK_KEYWORDS.isdisjoint(_WORD.findall(expression))


def _look(offset: str, size: int) -> str:
    return f"p = bytes_at(f, at = {offset}, n = {size}); if (!p) goto lost;"


def _load(k: int, size: int, *, indexed: bool, without_tags: bool) -> Iterator[str]:
    """LD ABS and LD IND: `size` bytes of the frame at k (+ x) into a, or away to `lost`."""
    index = " + x" if indexed else ""
    if not without_tags or (not indexed and k + size <= _MAC_ADDRESSES_BYTES):
        yield f"{_look(f'{k}ull{index}', size)} a = {_READ[size]};"
    elif k >= _MAC_ADDRESSES_BYTES:
        yield f"{_look(f'tags + {k}ull{index}', size)} a = {_READ[size]};"
    else:
        # The tags may lie between these bytes.  The last one first: with it, the others are there too.
        for i in reversed(range(size)):
            yield f"at = {k + i}ull{index}; if (at >= {_MAC_ADDRESSES_BYTES}) at += tags;"
            shift = 8 * (size - 1 - i)
            yield f"{_look('at', 1)} a {'|=' if shift else '='} (__u32)*p << {shift};"


def _arithmetic(code: int, k: int) -> Iterator[str]:
    operator = _ARITHMETIC[code & 0xF0]
    operand = "x" if code & _OPERAND_X else f"{k}u"
    if operator in "/%":
        if operand == "x":
            yield "if (!x) return COUNT_FILTERED;"
        yield "return COUNT_FILTERED;" if operand == "0u" else f"a = a {operator} {operand};"
    elif operator in ("<<", ">>"):
        # C leaves shifts by the width and more open; libpcap's own interpreter gives 0.
        if operand == "x":
            yield f"a = x < 32 ? a {operator} x : 0;"
        else:
            yield f"a = a {operator} {operand};" if k < 32 else "a = 0;"
    else:
        yield f"a = a {operator} {operand};"


def _statements(number: int, instruction: Instruction, without_tags: bool) -> Iterator[str]:
    code, jt, jf, k = instruction
    if code in _PLAIN and not (code in _SCRATCH and k >= _SCRATCH_WORDS):
        yield _PLAIN[code].format(k=k)
    elif code in _LOAD_ABSOLUTE:
        yield from _load(k, _LOAD_ABSOLUTE[code], indexed=False, without_tags=without_tags)
    elif code in _LOAD_INDIRECT:
        yield from _load(k, _LOAD_INDIRECT[code], indexed=True, without_tags=without_tags)
    elif code == _LOAD_HEADER_LENGTH:
        shifted = without_tags and k >= _MAC_ADDRESSES_BYTES
        yield f"{_look(f'tags + {k}ull' if shifted else f'{k}ull', 1)} x = (*p & 0xf) << 2;"
    elif code & _CLASS_MASK == _CLASS_ARITHMETIC and code & 0xF0 in _ARITHMETIC:
        yield from _arithmetic(code, k)
    elif code == _JUMP_ALWAYS:
        # libpcap reads k as signed here: "protochain" loops by it.
        if k >= 1 << 31:
            raise UsageError("filter: the kernel program cannot loop (protochain)")
        yield f"goto l{number + 1 + k};"
    elif code & _CLASS_MASK == _CLASS_JUMP and code & 0xF0 in _COMPARISONS:
        condition = f"a {_COMPARISONS[code & 0xF0]} {'x' if code & _OPERAND_X else f'{k}u'}"
        if jt == jf:
            if jt:
                yield f"goto l{number + 1 + jt};"
        elif jt == 0:
            yield f"if (!({condition})) goto l{number + 1 + jf};"
        else:
            yield f"if ({condition}) goto l{number + 1 + jt};"
            if jf:
                yield f"goto l{number + 1 + jf};"
    elif code == _RETURN_CONSTANT:
        yield f"return {'COUNT_TCP' if k else 'COUNT_FILTERED'};"
    elif code == _RETURN_A:
        yield "return a ? COUNT_TCP : COUNT_FILTERED;"
    else:
        raise UsageError(f"filter: instruction {code:#04x} {k:#x} of libpcap's program is not understood")


def translate(program: Sequence[Instruction], *, without_tags: bool) -> str:
    """The C function filter_matches() that does what a classic BPF program does to a struct frame.

    With `without_tags` the program sees the Ethernet frame as if parse_link() had taken the VLAN
    tags out of it; LEN is the frame's length on the wire, tags included, either way.  The text
    needs bpf/parse.h before it.  Raises UsageError for a program that loops, runs past its end or
    has instructions that no classic BPF machine knows.  Source: bpf_filter() of libpcap, whose
    verdicts are the measure.
    """
    body = [list(_statements(i, instruction, without_tags)) for i, instruction in enumerate(program)]
    targets = {int(label) for lines in body for line in lines for label in re.findall(r"goto l(\d+);", line)}
    ends = bool(program) and program[-1][0] in (_RETURN_CONSTANT, _RETURN_A)
    if not ends or max(targets, default=0) >= len(program):
        raise UsageError("filter: libpcap's program runs past its end")

    lines = []
    for number, statements in enumerate(body):
        if number in targets:
            # A label needs a statement after it, and an instruction may have come to nothing.
            lines.append(f"l{number}:" + ("" if statements else ";"))
        lines += ["\t" + statement for statement in statements]
    used = set(re.findall(r"\b(?:a|x|m\d+|p|tags)\b", "\n".join(lines)))
    head = [_SIGNATURE, "{"]
    if registers := sorted(used - {"p", "tags"}):
        head.append(f"\t__u32 {', '.join(f'{register} = 0' for register in registers)};")
    if "tags" in used:
        head.append("\t__u64 tags = f->offset - ETHERNET_HEADER_BYTES;")
    if "p" in used:
        head += ["\tconst __u8 *p;", "\t__u64 at, n;", "\tint verdict;", ""]
        lines += [
            "lost:",
            "\tverdict = missing(f, at, n, COUNT_FILTERED);",
            "\treturn verdict == COUNT_TOO_DEEP ? COUNT_FILTER_OUT_OF_REACH : verdict;",
        ]
    return "\n".join([*head, *lines, "}", ""])


def filter_source(expression: str | None, *, ethernet: bool) -> str:
    """The C text that takes the place of the FILTER marker in bpf/packet.c.

    `ethernet`: whether frames begin with an Ethernet header; if not, with the IP header.  The
    expression sees Ethernet frames without their VLAN tags, so that `port 443` finds tagged frames
    as well, unless it says `vlan`, `mpls` or `pppoes` itself; then it sees the raw bytes.  None or
    an empty expression lets everything through.  Raises UsageError with libpcap's message for a bad
    expression, MissingFeatureError when libpcap cannot be loaded.  Source: pcap-filter(7).
    """
    if expression is None or not expression.strip():
        return "#define ALL_FRAMES\n" + _SIGNATURE + "\n{\n\t(void)f;\n\treturn COUNT_TCP;\n}\n"
    program = compile_classic(expression, DLT_EN10MB if ethernet else DLT_RAW)
    return translate(program, without_tags=ethernet and not has_link_keyword(expression))


def _host_term(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        if isinstance(address, ipaddress.IPv6Address):
            # ss(8) shows an IPv4 peer of an IPv6 socket so; on the wire it is IPv4.
            address = address.ipv4_mapped or address
        # The zone of a link-local address names an interface, which libpcap does not take.
        return f"host {str(address).partition('%')[0]}"
    try:
        return f"net {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        pass
    if _HOST_NAME.fullmatch(text):
        return f"host \\{text}"
    raise UsageError(f"filter: {text!r} is not an IP address, network or host name")


def combine(filter_words: Sequence[str], ports: Sequence[int], hosts: Sequence[str]) -> str | None:
    """One expression of the command line's FILTER words and its -p and -i short forms.

    Ports (TCP, 0 to 65535) are alternatives to each other, so are `hosts` (IP addresses, networks
    as ADDRESS/BITS, host names); the three parts must all match.  None if nothing was asked for.
    Raises UsageError for what is not a port or not an address; FILTER itself is only looked at by
    filter_source().
    """
    for port in ports:
        if not 0 <= port <= 65535:
            raise UsageError(f"filter: port {port} is not between 0 and 65535")
    parts = [
        " or ".join(f"tcp port {port}" for port in ports),
        " or ".join(_host_term(host) for host in hosts),
    ]
    words = " ".join(filter_words).strip()
    # `vlan` moves the offsets of what comes after it, not before: there FILTER leads.
    parts.insert(0 if has_link_keyword(words) else len(parts), words)
    given = [part for part in parts if part]
    if len(given) < 2:
        return given[0] if given else None
    return " and ".join(f"({part})" for part in given)
