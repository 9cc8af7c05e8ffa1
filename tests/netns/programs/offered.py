"""Packets made in the kernel and given straight to a packet program: millions a second, and what they were is known.

    with Offering(flows=1_000) as offering:
        offering.offer(program_fd, 1_000_000)
    offering.expected()

A program of our own writes the next segment into a frame and goes on in the one that is to see it; BPF_PROG_TEST_RUN
repeats that.  The connections are undisturbed: both ends send data in turn, each segment acknowledges all before it.
"""

import ctypes
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tcptrace.sources.live.bcc_loader import import_bcc

BPF_HEADERS = Path(__file__).parents[3] / "bpf"

# Of linux/bpf.h.
BPF_PROG_TEST_RUN, BPF_PROG_GET_FD_BY_ID = 10, 13
SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]

PAYLOAD_BYTES = 100
FRAME_BYTES = 14 + 20 + 20 + PAYLOAD_BYTES
CLIENT_PORT, SERVER_PORT = 40_000, 443
SERVER = "10.255.0.1"
RUN = 4
"""Segments of one connection in a row: as a sender sends them, and a network card's queue holds them."""

TEXT = """
struct eth_ip_tcp {
	__u8 macs[12];
	__u16 type;
	__u32 ip[3];
	__u32 src, dst;
	__u16 src_port, dst_port;
	__u32 seq, ack;
	__u16 flags, window;
	__u32 checksum;
} __attribute__((packed));

BPF_ARRAY(offered, __u64, 1);
BPF_PROG_ARRAY(next, 1);

int offer(struct __sk_buff *skb)
{
	struct eth_ip_tcp *p = (void *)(long)skb->data;
	__u64 *count, at, place, half;
	__u32 client;
	int zero = 0;

	count = offered.lookup(&zero);
	if (!count || (void *)(p + 1) > (void *)(long)skb->data_end)
		return -1;
	at = (*count)++;
	client = __builtin_bswap32(0x0a000000 + at / RUN % FLOWS);
	place = at / (RUN * FLOWS) * RUN + at % RUN;
	half = place / 2 * PAYLOAD;
	p->seq = __builtin_bswap32(half);
	if (place % 2) {
		p->src = SERVER;
		p->src_port = __builtin_bswap16(SERVER_PORT);
		p->dst = client;
		p->dst_port = __builtin_bswap16(CLIENT_PORT);
		p->ack = __builtin_bswap32(half + PAYLOAD);
	} else {
		p->src = client;
		p->src_port = __builtin_bswap16(CLIENT_PORT);
		p->dst = SERVER;
		p->dst_port = __builtin_bswap16(SERVER_PORT);
		p->ack = __builtin_bswap32(half);
	}
	next.call(skb, 0);
	return -1;
}
"""


@dataclass(frozen=True)
class Sent:
    """Of one direction."""

    packets: int

    @property
    def payload_bytes(self) -> int:
        return self.packets * PAYLOAD_BYTES

    @property
    def bytes(self) -> int:
        return self.packets * FRAME_BYTES


def bpf(command: int, attributes: bytearray) -> int:
    """bpf(2).  Raises OSError."""
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(SYSCALL_BPF, command, buffer, len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def fd_of_program(number: int) -> int:
    """A file descriptor for a program of another process, by its id."""
    return bpf(BPF_PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", number, 0, 0)))


class Offering:
    """Of `flows` connections, in turn."""

    def __init__(self, flows: int) -> None:
        self.flows = flows
        self.offered = 0
        self.bcc = import_bcc()
        server = int.from_bytes(bytes(map(int, SERVER.split("."))), "little")
        values = {"FLOWS": f"{flows}ull", "RUN": f"{RUN}ull", "PAYLOAD": PAYLOAD_BYTES, "SERVER": server}
        values |= {"SERVER_PORT": SERVER_PORT, "CLIENT_PORT": CLIENT_PORT}
        flags = ["-g0", f"-I{BPF_HEADERS}", *(f"-D{name}={value}" for name, value in values.items())]
        os.environ["BCC_KERNEL_SOURCE"] = str(BPF_HEADERS)
        self.programs = self.bcc.BPF(text=TEXT.encode(), cflags=flags)
        self.fd = self.programs.load_func(b"offer", self.bcc.BPF.SCHED_CLS).fd
        self.frame = frame()

    def __enter__(self) -> "Offering":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.programs.cleanup()

    def direct(self, program_fd: int) -> None:
        """Which program sees the packets from now on."""
        self.programs[b"next"][ctypes.c_int(0)] = ctypes.c_int(program_fd)

    def offer(self, count: int) -> int:
        """The next `count` packets, as fast as that goes; ns a packet, as the kernel measures it."""
        data = ctypes.create_string_buffer(self.frame, len(self.frame))
        # prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration
        attributes = bytearray(
            struct.pack("=IIIIQQII", self.fd, 0, len(self.frame), 0, ctypes.addressof(data), 0, count, 0)
        )
        attributes.extend(bytes(40))
        bpf(BPF_PROG_TEST_RUN, attributes)
        self.offered += count
        return int(struct.unpack_from("=I", attributes, 36)[0])

    def expected(self) -> dict[str, tuple[Sent, Sent]]:
        """Of each connection, by the client's address: what client and server have sent."""
        return {address(flow): self._sent(flow) for flow in range(min(self.flows, -(-self.offered // RUN)))}

    def _sent(self, flow: int) -> tuple[Sent, Sent]:
        whole, rest = divmod(self.offered, RUN * self.flows)
        packets = whole * RUN + min(RUN, max(0, rest - flow * RUN))
        return Sent(-(-packets // 2)), Sent(packets // 2)


def address(flow: int) -> str:
    """Of the client of that connection."""
    return f"10.{flow >> 16 & 255}.{flow >> 8 & 255}.{flow & 255}"


def frame() -> bytes:
    """What the program completes."""
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, FRAME_BYTES - 14, 0, 0, 64, 6, 0, 0, 0)
    tcp = struct.pack(">HHIIHHHH", 0, 0, 0, 0, 0x5018, 64_000, 0, 0)
    return bytes(12) + b"\x08\x00" + ip + tcp + bytes(PAYLOAD_BYTES)
