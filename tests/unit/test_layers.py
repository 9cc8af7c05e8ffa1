"""Packets layer by layer: whole outputs as text, by frames put together here byte by byte."""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tcptrace import records as r
from tcptrace.model import ANALYSIS, FINDING, Clock, PacketBatch, Rows, Totals, TraceInfo
from tcptrace.sinks.layers import addresses, ip
from tcptrace.sinks.layers.dissect import MOST_LAYERS, dissect
from tcptrace.sinks.layers.glossary import GLOSSARY, findings_layer
from tcptrace.sinks.layers.layer_log import LayerLog
from tcptrace.sinks.layers.memory import Memory
from tcptrace.sinks.layers.parts import Layer, PseudoHeader, Scene
from tcptrace.sinks.layers.render import layer_lines

ETHERNET, RAW, IPV4_TYPE, IPV6_TYPE, VLAN_TYPE = 1, 101, 0x0800, 0x86DD, 0x8100
CLIENT4, SERVER4 = bytes([192, 168, 1, 10]), bytes([203, 0, 113, 80])
CLIENT6 = bytes.fromhex("20010db8000000000000000000000002")
SERVER6 = bytes.fromhex("20010db8000000000000000000000080")
TCP, SYN, ACK = 6, r.FLAG_SYN, r.FLAG_ACK
SYN_OPTIONS = bytes.fromhex("020405b4 0402 080a 00000064 00000000 01 030307")
ACK_OPTIONS = bytes.fromhex("0101 080a 00000067 000001f4")


# --- Frames.  Checksums as RFC 1071 tells them, word by word.


def checksum(data: bytes) -> int:
    total = 0
    for at in range(0, len(data), 2):
        total += (data[at] << 8) + (data[at + 1] if at + 1 < len(data) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(
    payload: bytes, kind: int = IPV4_TYPE, source: str = "00163ea1b2c3", destination: str = "525400123456"
) -> bytes:
    return bytes.fromhex(destination + source) + struct.pack("!H", kind) + payload


def ipv4(payload: bytes, protocol: int = TCP, ttl: int = 64, options: bytes = b"", **fields: int) -> bytes:
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        fields.get("traffic_class", 0),
        fields.get("length", words * 4 + len(payload)),
        fields.get("id", 0x1234),
        fields.get("fragment", 0x4000),
        ttl,
        protocol,
        0,
        *((CLIENT4, SERVER4) if not fields.get("back") else (SERVER4, CLIENT4)),
    )
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(payload: bytes, next_header: int = TCP, hop_limit: int = 64, traffic_class: int = 0) -> bytes:
    first = 6 << 28 | traffic_class << 20 | 0xABCDE
    return struct.pack("!IHBB", first, len(payload), next_header, hop_limit) + CLIENT6 + SERVER6 + payload


def tcp(
    seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b"", ports: tuple[int, int] = (40000, 443),
    window: int = 502, ends: tuple[bytes, bytes] = (CLIENT4, SERVER4), offload: bool = False, urgent: int = 0,
) -> bytes:  # fmt: skip
    """A segment with its checksum; `offload` leaves the sum of the pseudo-header in its place."""
    words = 5 + len(options) // 4
    header = struct.pack("!HHIIHHHH", *ports, seq, ack, words << 12 | flags, window, 0, urgent)
    segment = header + options + payload
    pseudo = ends[0] + ends[1] + struct.pack("!II", len(segment), TCP)
    value = ~checksum(pseudo) & 0xFFFF if offload else checksum(pseudo + segment)
    return segment[:16] + struct.pack("!H", value) + segment[18:]


# --- The log.


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day as it is in UTC."""
    monkeypatch.setattr(
        "tcptrace.sinks.human.local_time", lambda ns: f"22:13:{ns // 10**9 % 60:02d}.{ns % 10**9 // 1000:06d}"
    )


def record_of(make_packet: Callable[..., np.ndarray], frame: bytes, segment: bytes, **fields: Any) -> np.ndarray:
    """The record of a segment as the parser would make it, as far as the log reads it."""
    ports, seq, ack, word, window = struct.unpack("!IIIHH", segment[:16])
    ends = (ports >> 16, ports & 0xFFFF)
    hosts = ("192.168.1.10", "203.0.113.80") if ends[1] == 443 else ("203.0.113.80", "192.168.1.10")
    scale = segment[20 : (word >> 12) * 4].find(b"\x03\x03\x07")
    known = {"options": r.OPTION_WINDOW_SCALE, "window_scale": 7} if scale >= 0 else {}
    fields = {"frame_bytes": len(frame), "payload_bytes": len(segment) - (word >> 12) * 4, **known, **fields}
    return make_packet(
        (hosts[0], ends[0]), (hosts[1], ends[1]), seq=seq, ack=ack, flags=word & 0x1FF, window=window, **fields
    )


def finding_of(connection_id: int = 1, received: int = 0, analysis: tuple[str, ...] = (), **fields: Any) -> np.ndarray:
    finding = np.zeros(1, FINDING)
    finding["connection_id"], finding["received"] = connection_id, received
    finding["rtt_us"], finding["in_flight_bytes"] = np.nan, -1
    finding["analysis"] = sum(1 << ANALYSIS.index(name) for name in analysis)
    for name, value in fields.items():
        finding[name] = value
    return finding


def batch_of(*packets: tuple[np.ndarray, np.ndarray, bytes], kept: int = 1 << 20) -> PacketBatch:
    """Records, findings and frames, of which the capture kept `kept` bytes."""
    frames = [frame[:kept] for _, _, frame in packets]
    lengths = np.array([len(frame) for frame in frames], np.uint32)
    return PacketBatch(
        np.concatenate([record for record, _, _ in packets]),
        np.concatenate([finding for _, finding, _ in packets]),
        r.Frames(
            np.frombuffer(b"".join(frames), np.uint8),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]]),
            lengths,
            np.array([len(frame) for _, _, frame in packets], np.uint32),
            np.zeros(len(packets), np.uint16),
        ),
    )


def info_of(link_type: int = ETHERNET, name: str | None = "eth0") -> TraceInfo:
    interface = r.CaptureInterface(name, None, link_type, 0)
    return TraceInfo(None, None, None, Clock(0), "1.2.3", ("a.pcap",), (interface,))


def printed(*batches: PacketBatch, info: TraceInfo | None = None, width: int = 80) -> str:
    stream = io.StringIO()
    log = LayerLog(stream, width=width)
    log.open(info or info_of())
    for batch in batches:
        log.packets(batch)
    assert max(map(len, stream.getvalue().splitlines())) <= width
    return stream.getvalue()


def part_of(text: str, title: str) -> str:
    """The lines of one layer of the last packet."""
    block = text.rstrip("\n").split("\n\n")[-1]
    lines = block.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"  {title}"))
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith("   ")), len(lines))
    return "\n".join(lines[start:end]) + "\n"


@pytest.fixture
def talk(make_packet: Callable[..., np.ndarray]) -> Callable[..., tuple[np.ndarray, np.ndarray, bytes]]:
    """One packet of an IPv4 connection over Ethernet: record, finding and frame."""

    def make(
        seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b"", *, back: bool = False,
        window: int = 502, offload: bool = False, ttl: int = 64, finding: np.ndarray | None = None, **fields: Any,
    ) -> tuple[np.ndarray, np.ndarray, bytes]:  # fmt: skip
        ports, ends = ((443, 40000), (SERVER4, CLIENT4)) if back else ((40000, 443), (CLIENT4, SERVER4))
        segment = tcp(seq, ack, flags, payload, options, ports, window, ends, offload)
        frame = ethernet(ipv4(segment, ttl=ttl, back=back))
        record = record_of(make_packet, frame, segment, **fields)
        return record, finding if finding is not None else finding_of(received=int(back)), frame

    return make


Talk = Callable[..., tuple[np.ndarray, np.ndarray, bytes]]


SYN_TEXT = """\
packet 1  22:13:20.000000  → out  192.168.1.10:40000 > 203.0.113.80:443
  connection 1  eth0  74 bytes
  Ethernet II, from one machine to the next on a link
    destination       52:54:00:12:34:56  locally administered: set by software,
                                         not by the card's maker
    source            00:16:3e:a1:b2:c3  one network card, numbered by its maker
    ethertype         0x0800             IPv4 comes next
  IPv4, from host to host across networks
    version           4
    header length     20 bytes           5 words of 4 bytes
    DSCP              CS0 (0)            ordinary best-effort traffic
    ECN               Not-ECT (0)        a full queue can only drop it
    total length      60 bytes           this header and all behind it
    identification    0x1234             the same in all fragments of a packet
    flags             DF                 do not fragment: if too big, drop it
    fragment offset   0                  not a fragment
    TTL               64                 a usual start value: no router yet
    protocol          6                  TCP comes next
    header checksum   0x2a85 correct     over the header alone
    source            192.168.1.10       private (RFC 1918)
    destination       203.0.113.80       for documentation (RFC 5737)
  TCP, from program to program, a reliable stream of bytes
    source port       40000              probably picked for this connection
    destination port  443                by convention https
    sequence number   100                the SYN's own; data begins one later
      relative        0                  counting starts here
    acknowledgment    0                  means nothing without the ACK flag
    data offset       40 bytes           this header, 20 bytes of it options
    flags             0x002              SYN
      SYN             synchronize        asks to open; its sequence number is
                                         where the sender will begin
      not set         FIN RST PSH ACK URG ECE CWR AE
    window            64240              bytes it can take; not scaled on a SYN
    checksum          0xfe31 not computed
                                         left to the network card (offload):
                                         only the addresses are summed so far
    urgent pointer    0                  not used
    options           20 bytes
      MSS             1,460 bytes        the most payload it takes in a segment
      SACK permitted  yes                tell it what arrives beyond a gap
      timestamp       100                the sender's clock (RFC 7323)
        echo          0                  means nothing without the ACK flag
      NOP             1 byte             padding: aligns what follows
      window scale    7                  its later windows count × 128

"""


def test_a_syn(talk: Talk) -> None:
    packet = talk(100, 0, SYN, options=SYN_OPTIONS, window=64240, offload=True, direction=r.DIRECTION_EGRESS)
    assert printed(batch_of(packet)) == SYN_TEXT


def handshake(talk: Talk) -> list[tuple[np.ndarray, np.ndarray, bytes]]:
    answer = SYN_OPTIONS.replace(bytes.fromhex("00000064 00000000"), bytes.fromhex("000001f4 00000064"))
    return [
        talk(100, 0, SYN, options=SYN_OPTIONS, window=64240, direction=r.DIRECTION_EGRESS),
        talk(500, 101, SYN | ACK, options=answer, window=65160, back=True, ttl=53),
        talk(101, 501, ACK, options=ACK_OPTIONS, finding=finding_of(rtt_us=12_345.0)),
    ]


def test_a_syn_ack(talk: Talk) -> None:
    assert (
        part_of(printed(batch_of(*handshake(talk)[:2])), "TCP")
        == """\
  TCP, from program to program, a reliable stream of bytes
    source port       443                by convention https
    destination port  40000              probably picked for this connection
    sequence number   500                the SYN's own; data begins one later
      relative        0                  counting starts here
    acknowledgment    101                waits for this byte; has all before it
      relative        1                  counted from the other side's SYN
    data offset       40 bytes           this header, 20 bytes of it options
    flags             0x012              SYN ACK
      SYN             synchronize        agrees to open; its sequence number is
                                         where this side begins
      ACK             acknowledgment     the acknowledgment number counts
      not set         FIN RST PSH URG ECE CWR AE
    window            65160              bytes it can take; not scaled on a SYN
    checksum          0xa8b7 correct     over addresses, header and payload
    urgent pointer    0                  not used
    options           20 bytes
      MSS             1,460 bytes        the most payload it takes in a segment
      SACK permitted  yes                tell it what arrives beyond a gap
      timestamp       500                the sender's clock (RFC 7323)
        echo          100                the other's, as last seen: tells it the
                                         round-trip time
      NOP             1 byte             padding: aligns what follows
      window scale    7                  its later windows count × 128
"""
    )


def test_the_ack_of_the_handshake_and_its_round_trip(talk: Talk) -> None:
    text = printed(batch_of(*handshake(talk)))
    assert "    window            502                times 128, as its SYN said\n" in text
    assert "      scaled          64,256 bytes       it can take beyond its acknowledgment\n" in text
    assert (
        part_of(text, "in this connection")
        == """\
  in this connection, by all its packets so far
    round trip        12.3 ms            from the sending of what this
                                         acknowledges until now
"""
    )


def test_a_retransmission_of_data(talk: Talk) -> None:
    finding = finding_of(analysis=("retransmission", "fast_retransmission"), in_flight_bytes=2_896)
    data = b"GET / HTTP/1.1\r\n" + bytes(range(0xF0, 0x100)) + b"x" * 40
    packets = [*handshake(talk), talk(101, 501, ACK | r.FLAG_PSH, data, ACK_OPTIONS, finding=finding)]
    text = printed(batch_of(*packets))
    assert "      relative        1                  counted from the SYN; ends with byte 72\n" in text
    assert (
        part_of(text, "payload") + part_of(text, "in this connection")
        == """\
  payload, the application's bytes
    length            72 bytes           the first 64:
    0000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..
    0010  f0 f1 f2 f3 f4 f5 f6 f7  f8 f9 fa fb fc fd fe ff  ................
    0020  78 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  xxxxxxxxxxxxxxxx
    0030  78 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  xxxxxxxxxxxxxxxx
  in this connection, by all its packets so far
    retransmission    bytes that were sent before, sent again
    fast retransmission  sent again because duplicate ACKs asked for it, without
                      waiting for a timer
    in flight         2,896 bytes        sent this way and not yet acknowledged,
                                         this segment included
"""
    )


def test_a_reset(talk: Talk) -> None:
    text = printed(batch_of(talk(0, 101, r.FLAG_RST | ACK, back=True, window=0)))
    assert (
        part_of(text, "TCP")
        == """\
  TCP, from program to program, a reliable stream of bytes
    source port       443                by convention https
    destination port  40000              probably picked for this connection
    sequence number   0                  of the byte that it will send next
    acknowledgment    101                waits for this byte; has all before it
    data offset       20 bytes           this header, without options
    flags             0x014              RST ACK
      RST             reset              refuses or breaks off: no more in
                                         either direction
      ACK             acknowledgment     the acknowledgment number counts
      not set         FIN SYN PSH URG ECE CWR AE
    window            0                  means nothing in a reset
    checksum          0x136d correct     over addresses, header and payload
    urgent pointer    0                  not used
"""
    )


def test_ipv6_with_an_extension_header(make_packet: Callable[..., np.ndarray]) -> None:
    segment = tcp(7, 9, ACK, ends=(CLIENT6, SERVER6))
    hop_by_hop = bytes.fromhex("0600 0502 0000 0100")
    frame = ipv6(hop_by_hop + segment, next_header=0, hop_limit=52, traffic_class=0xBB)
    text = printed(batch_of((record_of(make_packet, frame, segment), finding_of(), frame)), info=info_of(RAW))
    block = text.split("  TCP,")[0].split("\n", 2)[2]
    assert (
        block
        == """\
  IPv6, from host to host across networks
    version           6
    DSCP              EF (46)            expedited forwarding: for voice and the
                                         like
    ECN               CE (3)             marked: a queue on the way is building
                                         up
    flow label        0xabcde            keeps packets of one flow on one path
    payload length    28 bytes           all that comes after this header
    next header       0                  hop-by-hop options comes next
    hop limit         52                 probably 64 at first, so 12 hops
    source            2001:db8::2        for documentation (RFC 3849)
    destination       2001:db8::80       for documentation (RFC 3849)
  IPv6 hop-by-hop options, for every router on the way
    next header       6                  TCP comes next
    length            8 bytes            of this extension header
      router alert    4 bytes            routers are to look into it (RFC 2711)
      padding         2 bytes            fills the header up to a multiple of 8
"""
    )
    assert "correct     over addresses, header and payload" in part_of(text, "TCP")


def test_a_vlan_tag(make_packet: Callable[..., np.ndarray]) -> None:
    segment = tcp(7, 9, ACK)
    frame = ethernet(struct.pack("!HH", 0xB064, IPV4_TYPE) + ipv4(segment), VLAN_TYPE)
    text = printed(batch_of((record_of(make_packet, frame, segment), finding_of(), frame)))
    assert (
        part_of(text, "VLAN")
        == """\
  VLAN tag, keeps networks that share a cable apart
    priority          5                  PCP: voice
    drop eligible     1                  DEI: may be dropped first
    VLAN              100                VID: which virtual network
    ethertype         0x0800             IPv4 comes next
"""
    )


def test_a_vlan_tag_that_the_card_took_off(talk: Talk) -> None:
    text = printed(batch_of(talk(7, 9, ACK, vlan_outer=0x2064, vlan_count=1, note=r.NOTE_TAG_ASIDE)))
    assert (
        part_of(text, "VLAN")
        == """\
  VLAN tag, kept beside the frame by the network card or the kernel
    ethertype         0x8100             not among the frame's bytes here
    priority          1                  PCP: background: lowest
    drop eligible     0                  DEI: no
    VLAN              100                VID: which virtual network
"""
    )


@pytest.mark.parametrize(
    ("kept", "layer", "last"),
    [
        (60, "TCP", "    cut off here      the capture kept 60 of 166 bytes"),
        (70, "payload", "    0000  61 61 61 61                                       aaaa"),
        (
            10,
            "Ethernet",
            "    cut off here      the capture kept 10 of 166 bytes",
        ),
    ],
)
def test_what_the_capture_cut_off(talk: Talk, kept: int, layer: str, last: str) -> None:
    packet = talk(101, 501, ACK, b"a" * 100, ACK_OPTIONS)
    text = printed(batch_of(packet, kept=kept))
    assert part_of(text, layer).splitlines()[-1] == last
    if layer != "Ethernet":
        cut = " ".join(part_of(text, "TCP").split())
        assert f"not verified cannot be verified: the capture kept only {kept - 34} of 132 bytes" in cut


def test_narrow_terminals_drop_meanings_but_not_trouble(talk: Talk) -> None:
    packet = talk(101, 501, ACK, b"abcdefgh", ACK_OPTIONS)
    record, finding, frame = packet
    broken = frame[:50] + b"\0\0" + frame[52:]
    text = printed(batch_of((record, finding, broken)), width=60)
    assert "    TTL               64\n" in text
    assert "    checksum          0x0000 wrong\n                      should be 0x" in text
    assert "    0000  61 62 63 64 65 66 67 68  abcdefgh\n" in text


def test_a_hostile_interface_name_and_no_frames(talk: Talk) -> None:
    record, finding, frame = talk(101, 501, ACK)
    text = printed(batch_of((record, finding, frame)), info=info_of(name="e\x1b[31mth\n" + "0" * 50))
    assert "\x1b" not in text
    assert "  e?[31mth?000000…" in text
    none = PacketBatch(record, finding, None)
    assert printed(none, info=info_of()).endswith("""\
  TCP, as read for the analysis
    sequence number   101
    acknowledgment    501
    flags             ACK
    window            502
    payload           0 bytes

""")


def test_colour_and_the_summary_at_the_end(
    talk: Talk, make_view: Any, sample_rows: Rows, sample_totals: Totals, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    outputs = []
    for color in (True, False):
        stream = Terminal()
        log = LayerLog(stream, color=color, width=80)
        assert log.wants_packets
        assert log.wants_frames
        log.open(info_of())
        log.packets(batch_of(talk(100, 0, SYN)))
        outputs.append(stream.getvalue())
        log.close(make_view(sample_rows, sample_totals))
        log.close(make_view(sample_rows, sample_totals))
        after = stream.getvalue()[len(outputs[-1]) :]
        assert after.count("source") == 1
        assert "tcptrace" in after.splitlines()[0]
    assert outputs[0].startswith("\x1b[1;32mpacket 1")
    assert "\x1b[1;36mTCP\x1b[0m" in outputs[0]
    assert "\x1b" not in outputs[1]


# --- Single layers.


def layers_of(frame: bytes, link_type: int = ETHERNET, **scene: Any) -> list[Layer]:
    return dissect(frame, link_type, Scene(original_bytes=len(frame), **scene))


def values(layer: Layer) -> dict[str, str]:
    return {field.name.strip(): field.value for field in layer.fields}


def meanings(layer: Layer) -> dict[str, str]:
    return {field.name.strip(): field.meaning for field in layer.fields}


def test_every_finding_is_in_the_glossary() -> None:
    assert set(ANALYSIS) < set(GLOSSARY)
    layer = findings_layer(finding_of(analysis=ANALYSIS, duplicate_ack_number=3)[0])
    assert layer is not None
    assert [field.name.replace(" ", "_") for field in layer.fields] == list(ANALYSIS)
    assert all(field.meaning for field in layer.fields)
    duplicate = layer.fields[ANALYSIS.index("duplicate_ack")]
    assert duplicate.value == "number 3"
    assert duplicate.meaning.endswith("with this third one the other end sends again (RFC 5681)")
    assert findings_layer(finding_of()[0]) is None


@pytest.mark.parametrize(
    ("ttl", "words"),
    [
        (64, "a usual start value: no router yet"),
        (63, "probably 64 at first, so 1 hop"),
        (53, "probably 64 at first, so 11 hops"),
        (117, "probably 128 at first, so 11 hops"),
        (240, "probably 255 at first, so 15 hops"),
        (66, "hops it may still take"),
        (1, "hops it may still take"),
        (0, "used up: no router may pass it on"),
    ],
)
def test_how_far_a_packet_came(ttl: int, words: str) -> None:
    assert ip.hops(ttl) == words


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("0a000001", "private (RFC 1918)"),
        ("ac1fffff", "private (RFC 1918)"),
        ("ac200000", "public"),
        ("7f000001", "loopback: this host itself"),
        ("a9fe0101", "link-local: made up without a server (RFC 3927)"),
        ("64400001", "shared: behind a provider's NAT (RFC 6598)"),
        ("e0000001", "multicast: a group of hosts"),
        ("ffffffff", "broadcast: all hosts of the link"),
        ("f0000001", "reserved (RFC 1112)"),
        ("08080808", "public"),
        ("00000000000000000000000000000001", "loopback: this host itself"),
        ("fe800000000000000000000000000001", "link-local: valid on this link only"),
        ("fd000000000000000000000000000001", "unique local: private (RFC 4193)"),
        ("ff020000000000000000000000000001", "multicast: a group of hosts"),
        ("2a000000000000000000000000000001", "public (global unicast)"),
        ("00000000000000000000ffff01020304", "an IPv4 address in IPv6 form"),
    ],
)
def test_what_an_address_is(raw: str, words: str) -> None:
    assert addresses.ip(bytes.fromhex(raw))[1] == words


OPTIONS = [
    ("02040218", "MSS", "536 bytes"),
    ("030e0f", None, None),
    ("03030f", "window scale", "15"),
    ("0402", "SACK permitted", "yes"),
    ("050a0000006500000070", "SACK", "101–112"),
    ("22020000", "fast open", "no cookie"),
    ("220a0102030405060708", "fast open", "cookie 0102030405060708"),
    ("1e0c01810000000000000000", "MPTCP", "MP_CAPABLE"),
    ("1e0410200000", "MPTCP", "MP_JOIN"),
    ("1312" + "ab" * 16, "MD5 signature", "abababababababab…"),
    ("1c048005", "user timeout", "5 minutes"),
    ("1c040005", "user timeout", "5 seconds"),
    ("ac0b000001000002000003", "AccECN", "ECT(0) 1 CE 2 ECT(1) 3"),
    ("ae08000001000002", "AccECN", "ECT(1) 1 CE 2"),
    ("fd04f989", "experiment", "0xf989"),
    ("c8040102", "option 200", "0102"),
    ("00000000", "end", "4 bytes"),
    ("01010101", "NOP", "4 bytes"),
]


@pytest.mark.parametrize(("raw", "name", "value"), OPTIONS, ids=[raw for raw, _, _ in OPTIONS])
def test_tcp_options(raw: str, name: str | None, value: str | None) -> None:
    body = bytes.fromhex(raw)
    layer = layers_of(ethernet(ipv4(tcp(1, 1, ACK, options=body + bytes(-len(body) % 4)))))[2]
    if name is None:
        assert meanings(layer)["malformed"] == "option 3 says it has 14 bytes, 4 are left"
    else:
        assert values(layer)[name] == value
    assert "AccECN" not in values(layer) or "RFC 9768" in meanings(layer)["AccECN"]


@pytest.mark.parametrize(
    ("flags", "flag", "meaning"),
    [
        (SYN | 0x0C0, "ECE", "offers ECN (RFC 3168)"),
        (SYN | 0x1C0, "ECE", "offers Accurate ECN (RFC 9768)"),
        (SYN | 0x1C0, "AE", "one signal with the flag before"),
        (SYN | ACK | 0x040, "ECE", "agrees to ECN (RFC 3168)"),
        (SYN | ACK | 0x100, "AE", "agrees to Accurate ECN; the SYN came as ECT(0)"),
        (ACK | 0x040, "ECE", "packets came marked “congestion experienced”: please slow down"),
        (ACK | 0x080, "CWR", "understood: the sender has slowed down"),
        (ACK | 0x001, "FIN", "this side has nothing more to send; it still receives"),
        (0x003, "SYN", "to open and to end at once: no sound TCP sends this"),
        (0x000, "flags", "none: no segment of a sound TCP has none"),
    ],
)
def test_flags(flags: int, flag: str, meaning: str) -> None:
    assert meanings(layers_of(ethernet(ipv4(tcp(1, 1, flags))))[2])[flag] == meaning


def checksum_field(frame: bytes, **scene: Any) -> tuple[str, str]:
    layer = layers_of(frame, **scene)[2]
    return values(layer)["checksum"].split(" ", 1)[1], meanings(layer)["checksum"]


def test_checksums_of_outgoing_and_of_super_packets() -> None:
    good, offloaded = (ethernet(ipv4(tcp(1, 1, ACK, b"x" * 3000, offload=offload))) for offload in (False, True))
    empty, wrong = (good[:50] + raw + good[52:] for raw in (b"\0\0", b"\x12\x34"))
    out, many = {"direction": r.DIRECTION_EGRESS}, {"segments": 3}
    assert checksum_field(good)[0] == checksum_field(good, **out)[0] == checksum_field(good, **many)[0] == "correct"
    assert checksum_field(offloaded)[0] == checksum_field(offloaded, **out)[0] == "not computed"
    assert checksum_field(empty)[0] == "wrong"
    assert checksum_field(empty, **out)[0] == checksum_field(empty, **many)[0] == "not computed"
    assert checksum_field(wrong)[0] == checksum_field(wrong, **out)[0] == "wrong"
    assert checksum_field(wrong, **many) == (
        "not verified",
        "cannot be verified: one frame here stands for 3 packets, each with its own",
    )
    should_be = struct.unpack("!H", good[50:52])[0]
    assert checksum_field(wrong)[1] == f"should be 0x{should_be:04x}: damaged on the way or changed"


def test_a_fragment_s_checksum_cannot_be_verified() -> None:
    first = ethernet(ipv4(tcp(1, 1, ACK, b"x" * 12), fragment=0x2000))
    assert checksum_field(first)[0] == "not verified"
    later = layers_of(ethernet(ipv4(b"x" * 16, fragment=0x0010)))
    assert [layer.name for layer in later] == ["Ethernet II", "IPv4", "a later fragment of TCP"]


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (ethernet(b"\x65" + bytes(30)), "version 6 where 4 is meant"),
        (ethernet(b"\x44" + bytes(30)), "header length 16, at least 20 are needed"),
        (ethernet(ipv4(b"", length=12)), "total length 12, less than the header's 20"),
        (ethernet(ipv4(b"123456")), "acknowledgment number: 4 bytes needed"),
        (ethernet(ipv4(tcp(1, 1, 0)[:12] + b"\x40" + tcp(1, 1, 0)[13:])), "data offset says 16 bytes"),
        (ethernet(ipv4(tcp(1, 1, 0)[:12] + b"\xf0" + tcp(1, 1, 0)[13:])), "data offset says 60 bytes, 20 are there"),
        (ethernet(b"\x11\x00\x00\x01\x00\xff", 0x8864), "length says 255 bytes, the frame has 0 left"),
        (b"12345", "destination address: 6 bytes needed, 5 left"),
        (ethernet(ipv6(b"")[:1], IPV6_TYPE), "version, traffic class and flow label: 4 bytes needed, 1 left"),
    ],
)
def test_lies_are_told(frame: bytes, problem: str) -> None:
    last = layers_of(frame)[-1].fields[-1]
    assert last.tone == "bad"
    if "acknowledgment" in problem:
        problem = "sequence number: 4 bytes needed, 2 left"
    assert last.name == "malformed"
    assert last.meaning.startswith(problem)


def test_malformed_options_do_not_hide_the_payload() -> None:
    frame = ethernet(ipv4(tcp(1, 1, ACK, b"hello", bytes.fromhex("02ff0000")), options=bytes.fromhex("07ff0000")))
    layers = layers_of(frame)
    assert [layer.name for layer in layers] == ["Ethernet II", "IPv4", "TCP", "payload"]
    assert meanings(layers[1])["malformed"] == "option 7: 253 bytes needed, 2 left"
    assert meanings(layers[2])["malformed"] == "option 2 says it has 255 bytes, 4 are left"


def test_a_total_length_beyond_the_frame_is_told_and_read_on() -> None:
    layers = layers_of(ethernet(ipv4(tcp(1, 1, ACK), length=1500)))
    assert meanings(layers[1])["total length"] == "malformed: only 40 are there"
    assert [layer.name for layer in layers] == ["Ethernet II", "IPv4", "TCP"]


def test_labels_without_end_come_to_one() -> None:
    layers = layers_of(ethernet(bytes.fromhex("00010040") * 100, 0x8847))
    assert len(layers) == MOST_LAYERS + 1
    assert layers[-1].fields[0].meaning == "not decoded: more than 32 layers"


def test_tunnels() -> None:
    inner = ipv4(tcp(1, 1, ACK, b"hello"))
    gre = ipv4(struct.pack("!HHI", 0x2000, IPV4_TYPE, 77) + inner, 47)
    vxlan_payload = struct.pack("!II", 8 << 24, 99 << 8) + ethernet(inner)
    vxlan = ipv4(struct.pack("!HHHH", 50000, 4789, 8 + len(vxlan_payload), 0) + vxlan_payload, 17)
    six_in_four = ipv4(ipv6(tcp(1, 1, ACK, ends=(CLIENT6, SERVER6))), 41)
    for frame, names in (
        (gre, "IPv4 GRE IPv4 TCP payload"),
        (vxlan, "IPv4 UDP VXLAN Ethernet II IPv4 TCP payload"),
        (ipv4(inner, 4), "IPv4 IPv4 TCP payload"),
        (six_in_four, "IPv4 IPv6 TCP"),
        (ipv4(bytes(8) + b"x", 132), "IPv4 SCTP"),
    ):
        layers = layers_of(frame, RAW)
        assert " ".join(layer.name for layer in layers) == names
        if "TCP" in names:
            assert values(next(layer for layer in layers if layer.name == "TCP"))["checksum"].endswith("correct")


def test_links_that_are_not_read() -> None:
    (layer,) = layers_of(b"x" * 40, 127)
    assert layer.name == "IEEE 802.11 with radiotap"
    assert values(layer)["length"] == "40 bytes"
    assert layers_of(b"x" * 40, 9999)[0].name == "link type 9999"


def test_a_routing_header_says_whom_the_checksum_is_about() -> None:
    final = bytes.fromhex("20010db80000000000000000000000ff")
    routing = bytes([TCP, 2, 4, 1, 0, 0, 0, 0]) + final
    segment = tcp(1, 1, ACK, ends=(CLIENT6, final))
    layers = layers_of(ipv6(routing + segment, 43), RAW)
    assert values(layers[-1])["checksum"].endswith("correct")


# --- What is remembered of a connection.


def test_memory_forgets_who_was_quiet_longest(make_packet: Callable[..., np.ndarray]) -> None:
    memory = Memory(most=2)

    def stream(number: int, seq: int, flags: int) -> int | None:
        record = make_packet(("10.0.0.1", 1), ("10.0.0.2", 2), seq=seq, flags=flags)[0]
        return memory.stream(record, finding_of(number)[0]).first_seq

    assert stream(1, 100, SYN) == 100
    assert stream(2, 200, SYN) == 200
    assert stream(1, 101, ACK) == 100
    assert stream(3, 300, SYN) == 300
    assert stream(2, 201, ACK) is None
    assert stream(1, 102, ACK) == 100
    assert stream(4, 1, ACK) is None


def test_windows_scale_only_if_both_ends_said_so(talk: Talk) -> None:
    with_scale, without = SYN_OPTIONS, SYN_OPTIONS[:16] + b"\x01\x01\x01\x00"
    for first, second, line in (
        (with_scale, with_scale, "times 128, as its SYN said"),
        (with_scale, without, "bytes it can take: there is no scale"),
        (without, with_scale, "bytes it can take: there is no scale"),
    ):
        packets = [talk(1, 0, SYN, options=first), talk(5, 2, SYN | ACK, options=second, back=True), talk(2, 6, ACK)]
        assert f"    window            502                {line}\n" in printed(batch_of(*packets))
        assert "the SYNs were not seen" in " ".join(printed(batch_of(packets[2])).split())


def test_relative_numbers_wrap(talk: Talk) -> None:
    packets = [talk(2**32 - 10, 0, SYN), talk(20, 1, ACK, b"x" * 10)]
    assert "      relative        30                 counted from the SYN; ends with byte 39\n" in printed(
        batch_of(*packets)
    )


def test_accurate_ecn(talk: Talk) -> None:
    packets = [
        talk(1, 0, SYN | 0x1C0),
        talk(5, 2, SYN | ACK | 0x080, back=True),
        talk(2, 6, ACK | 0x100),
        talk(2, 6, ACK | 0x140, b"data"),
    ]
    words = " ".join(printed(batch_of(*packets)).split())
    assert "agrees to Accurate ECN; the SYN came as Not-ECT" in words
    assert "of ACE = 4: how the SYN-ACK came, as ECT(0)" in words
    assert "of ACE = 5: packets that came marked, counted modulo 8 from 5" in words
    assert "one number with the flag before" in words


def test_dumps_on_narrow_lines() -> None:
    layer = Layer("payload", "", 0, [], bytes(range(0x30, 0x3C)))
    lines = layer_lines(layer, 40, lambda text, style: text)
    assert lines[1:] == ["    0000  30 31 32 33  0123", "    0004  34 35 36 37  4567",
                         "    0008  38 39 3a 3b  89:;"]  # fmt: skip


def test_the_pseudo_header_of_a_scene_is_the_innermost() -> None:
    scene = Scene(original_bytes=1000)
    dissect(ipv4(ipv6(tcp(1, 1, ACK)), 41), RAW, scene)
    assert scene.pseudo == PseudoHeader(CLIENT6, SERVER6, fragment=False)
