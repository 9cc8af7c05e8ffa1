"""capture_file/decapsulate.h compiled for the tests, and tshark to judge it.

Every frame goes through two decapsulators, with different bytes in the record before: who leaves a field
as it was gives two answers.  The frame's bytes are alone on the heap, where the sanitizers watch both ends.
"""

import importlib.resources
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tcptrace.records import COUNTERS, PACKET_RECORD

from .test_parse import told

CAPTURE_FILE = Path(__file__).parents[2] / "tcptrace/sources/capture_file"
VERDICTS = (*COUNTERS, "need_more", "unsupported_link")

PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "decapsulate.h"

struct request { __u32 link, captured, original, unused; __u64 time_ns; };

int main(void)
{
	struct decapsulator *d[2] = { decapsulator_new(), decapsulator_new() };
	struct request q;
	int i;

	while (fread(&q, sizeof(q), 1, stdin) == 1) {
		__u8 *frame = malloc(q.captured);

		if (fread(frame, 1, q.captured, stdin) != q.captured)
			return 1;
		for (i = 0; i < 2; i++) {
			struct packet_record *r = malloc(sizeof(*r));
			struct carried where = { 0 };
			__u64 dropped;
			int verdict;

			memset(r, i ? 0xff : 0, sizeof(*r));
			verdict = parse_captured(d[i], frame, q.captured, q.original, q.link, q.time_ns, r, &where);
			if (verdict != COUNT_TCP)
				where.ip_bytes = 0;
			dropped = decapsulator_dropped(d[i]);
			fwrite(&verdict, sizeof(verdict), 1, stdout);
			fwrite(r, sizeof(*r), 1, stdout);
			fwrite(&dropped, sizeof(dropped), 1, stdout);
			fwrite(&where.ip_original_bytes, 4, 1, stdout);
			fwrite(&where.ip_bytes, 4, 1, stdout);
			if (where.ip_bytes)
				fwrite(where.ip, 1, where.ip_bytes, stdout);
			free(r);
		}
		fflush(stdout);
		free(frame);
	}
	decapsulator_free(d[0]);
	decapsulator_free(d[1]);
	return 0;
}
"""


class Answer(NamedTuple):
    """What is known of a frame."""

    verdict: str
    record: dict[str, Any]
    dropped: int
    """Datagrams given up so far."""
    ip_original_bytes: int
    ip: bytes


class Decapsulator:
    """The compiled header: frames in, verdict, record and IP packet out."""

    def __init__(self, folder: Path) -> None:
        source, self.errors, program = folder / "decapsulate.c", folder / "errors", folder / "decapsulate"
        source.write_text(PROGRAM)
        if not program.exists():
            headers = Path(str(importlib.resources.files("tcptrace.bpf") / "parse.h")).parent
            compiler = ["gcc", "-O1", "-g", "-Wall", "-Wno-unknown-pragmas", "-Werror"]
            compiler += [f"-I{headers}", f"-I{CAPTURE_FILE}", str(source), "-o", str(program)]
            sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
            if subprocess.run([*compiler, *sanitizers], capture_output=True).returncode:
                # Not every gcc comes with the sanitizers' libraries; the answers are the same.
                subprocess.run(compiler, check=True)
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0, self.errors.read_text()

    def read(self, count: int) -> bytes:
        assert self.process.stdout is not None
        answer = self.process.stdout.read(count)
        assert len(answer) == count, self.errors.read_text()
        return answer

    def answer(self) -> Answer:
        (verdict,) = struct.unpack("=i", self.read(4))
        record = np.frombuffer(self.read(PACKET_RECORD.itemsize), PACKET_RECORD)[0]
        dropped, original, count = struct.unpack("=QII", self.read(16))
        ip = self.read(count)
        if VERDICTS[verdict] != "tcp":
            return Answer(VERDICTS[verdict], {}, dropped, 0, b"")
        return Answer("tcp", told(record), dropped, original, ip)

    def __call__(self, frame: bytes, link: int = 1, *, original: int | None = None, time_ns: int = 0) -> Answer:
        assert self.process.stdin is not None
        original = len(frame) if original is None else original
        self.process.stdin.write(struct.pack("=4IQ", link, len(frame), original, 0, time_ns) + frame)
        self.process.stdin.flush()
        first, second = self.answer(), self.answer()
        assert first == second
        return first


@pytest.fixture(scope="session")
def decapsulator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program is compiled once."""
    return tmp_path_factory.mktemp("decapsulate")


@pytest.fixture
def decapsulate(decapsulator_folder: Path) -> Iterator[Decapsulator]:
    decapsulator = Decapsulator(decapsulator_folder)
    yield decapsulator
    decapsulator.close()


# --- The judge.

Frame = tuple[bytes, int]
"""What was captured, and how many bytes there were."""
Seen = tuple[int, int, int, int]
"""Ports, sequence number, payload bytes."""


def tshark_sees(path: Path, link: int, frames: Sequence[Frame]) -> dict[int, Seen]:
    """The frames, by number from 0, that tshark puts into a TCP stream by a header of their own."""
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    records = (
        struct.pack("=4I", *divmod(at * 1000, 10**6), len(frame), original) + frame
        for at, (frame, original) in enumerate(frames)
    )
    path.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, link) + b"".join(records))
    fields = ("frame.number", "frame.protocols", "tcp.stream", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.len")
    command = ["tshark", "-n", "-r", str(path), "-d", "tcp.port==0-65535,data", "-Y", "tcp", "-T", "fields"]
    command += ["-E", "occurrence=f", *(word for field in fields for word in ("-e", field))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    seen = {}
    for number, protocols, stream, *values in (line.split("\t") for line in lines):
        layers = protocols.split(":")
        if stream and not {"icmp", "icmpv6", "sflow"} & set(layers[: layers.index("tcp")]):
            src, dst, seq, payload = (int(value or 0) for value in values)
            seen[int(number) - 1] = (src, dst, seq, payload)
    return seen


def we_see(decapsulate: Decapsulator, link: int, frames: Sequence[Frame]) -> dict[int, Seen]:
    seen = {}
    for at, (frame, original) in enumerate(frames):
        answer = decapsulate(frame, link, original=original, time_ns=at * 10**6)
        if answer.verdict == "tcp":
            names = ("src_port", "dst_port", "seq", "payload_bytes")
            src, dst, seq, payload = (answer.record[name] for name in names)
            seen[at] = (src, dst, seq, payload)
    return seen


def cut_everywhere(frames: Sequence[bytes]) -> list[Frame]:
    """Each of them at every snap length, and as if it ended there."""
    lengths = [(frame, length) for frame in frames for length in range(1, len(frame) + 1)]
    return [(frame[:n], len(frame)) for frame, n in lengths] + [(frame[:n], n) for frame, n in lengths]
