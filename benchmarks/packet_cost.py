"""What a packet costs in the kernel: our TC program, an empty one, one record at a time with and without wake-ups."""

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from measure import Question, paired
from programs.offered import BPF_HEADERS, Offering

from tcptrace.records import PACKET_RECORD
from tcptrace.sources.live import pcap_filter
from tcptrace.sources.live.bcc_loader import import_bcc
from tcptrace.sources.live.interface import find_interface
from tcptrace.sources.live.packet_programs import PacketPrograms
from tcptrace.sources.live.ring import Ring
from tcptrace.sources.live.source import online_cpus

PACKETS = 100_000
ROUNDS = 11
RING_BYTES = 1 << 26
PAGE_BYTES = 4096
NEVER = 1 << 30
FLOWS = (1, 1_000, 100_000)

EMPTY = b"int empty(struct __sk_buff *skb) { return -1; }"
# What is written most often: a record of the same size for each packet, with whatever wakes its reader.
PLAIN = b"""
struct record { __u64 words[20]; };
BPF_PERF_OUTPUT(records);
int plain(struct __sk_buff *skb)
{
	struct record r = {};

	r.words[0] = bpf_ktime_get_ns();
	bpf_skb_load_bytes(skb, 14, &r.words[1], 40);
	records.perf_submit(skb, &r, sizeof(r));
	return -1;
}
"""


class Ours:
    """The packet programs with their rings, attached to nothing."""

    def __init__(self) -> None:
        self.programs = PacketPrograms(find_interface("lo"), pcap_filter.filter_source(None, ethernet=True), xdp=False)
        self.ring = Ring(online_cpus(), RING_BYTES, time.monotonic_ns())
        self.programs.connect(self.ring.fds)
        self.out = np.zeros(4096, PACKET_RECORD)

    def drain(self) -> int:
        """How many records there were."""
        return sum(map(len, self.batches()))

    def batches(self) -> Iterator[npt.NDArray[Any]]:
        """The records, in order; each array is valid until the next."""
        while (count := self.ring.read(self.out, time.monotonic_ns())) or self.ring.has_more:
            yield self.out[:count]

    def close(self) -> None:
        self.programs.close()
        self.ring.close()


class Plain:
    """bcc's own ring and reader, which is woken after so many records."""

    def __init__(self, wakeup_events: int = 1) -> None:
        bcc = import_bcc()
        self.programs = bcc.BPF(text=PLAIN, cflags=["-g0", f"-I{BPF_HEADERS}"])
        self.fd = self.programs.load_func(b"plain", bcc.BPF.SCHED_CLS).fd
        self.count = 0
        self.programs[b"records"].open_perf_buffer(
            self.take, page_cnt=RING_BYTES // PAGE_BYTES, wakeup_events=wakeup_events
        )

    def take(self, cpu: int, data: int, size: int) -> None:
        self.count += 1

    def drain(self) -> int:
        """How many records there were."""
        before = -1
        start = self.count
        while self.count != before:
            before = self.count
            self.programs.perf_buffer_consume()
        return self.count - start

    def close(self) -> None:
        self.programs.cleanup()


def empty_program() -> tuple[object, int]:
    bcc = import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_HEADERS)  # else bcc looks for the kernel's own headers
    programs = bcc.BPF(text=EMPTY, cflags=["-g0", f"-I{BPF_HEADERS}"])
    return programs, int(programs.load_func(b"empty", bcc.BPF.SCHED_CLS).fd)


def ask() -> list[Question]:
    ours, plain, quiet = Ours(), Plain(), Plain(NEVER)
    kept, empty = empty_program()
    questions = []
    for flows in FLOWS:
        with Offering(flows) as offering:

            def over_empty(fd: int, reader: Ours | Plain, offering: Offering = offering) -> float:
                offering.direct(empty)
                least = offering.offer(PACKETS)
                offering.direct(fd)
                cost = offering.offer(PACKETS) - least
                reader.drain()
                return cost

            figures = paired(
                {
                    "tcptrace": lambda: over_empty(ours.programs.tc_fds["ingress"], ours),
                    "a record a packet, nothing else": lambda: over_empty(quiet.fd, quiet),
                    "a record and a wake-up a packet, nothing else": lambda: over_empty(plain.fd, plain),
                },
                ROUNDS,
            )
        name = f"In the kernel, {flows:,} connection{'s' if flows > 1 else ''}, more than an empty program"
        questions.append(Question(name, "ns a packet", figures))
    assert ours.ring.lost() == 0
    ours.close()
    plain.close()
    quiet.close()
    del kept
    return questions
