"""bpf/thinning.h, compiled for user space: when packets are recorded and when only counted."""

import ctypes
import importlib.resources
import subprocess
from pathlib import Path

import pytest

from tcptrace.records import FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, NOTE_BEHIND, NOTE_SENT_BEFORE

MS = 1_000_000

PROGRAM = """
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#include "thinning.h"

static struct thinning t;

void begin(void) { t.shift = t.until_ns = 0; }
void lose(__u64 now) { thin_out(&t, now); }
int shift(void) { return t.shift; }
int take(__u64 now, __u64 number, unsigned flags, unsigned note)
{
	struct packet_record r = { .flags = flags, .note = note };

	return !is_thinning(&t, now) || is_worth_its_record(&t, &r, number);
}
"""


class Thinning:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.begin()

    def lose(self, now_ns: int) -> None:
        self._library.lose(ctypes.c_uint64(now_ns))

    def take(self, now_ns: int, number: int, flags: int = FLAG_ACK, note: int = 0) -> bool:
        """Of the `number`th packet of a direction."""
        return bool(self._library.take(ctypes.c_uint64(now_ns), ctypes.c_uint64(number), flags, note))

    @property
    def share(self) -> int:
        """One in so many."""
        return 1 << int(self._library.shift())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("thinning")
    (folder / "thinning.c").write_text(PROGRAM)
    headers = Path(str(importlib.resources.files("tcptrace") / "bpf"))
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{headers}", "-o", str(folder / "thinning.so")]
    subprocess.run([*command, str(folder / "thinning.c")], check=True)
    return ctypes.CDLL(str(folder / "thinning.so"))


@pytest.fixture
def thinning(library: ctypes.CDLL) -> Thinning:
    return Thinning(library)


def test_nothing_is_thinned_without_a_loss(thinning: Thinning) -> None:
    assert all(thinning.take(0, number) for number in range(1, 100))


def test_a_sample_of_each_direction(thinning: Thinning) -> None:
    thinning.lose(0)
    assert [number for number in range(1, 49) if thinning.take(1, number)] == [16, 32, 48]


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (FLAG_SYN, 0),
        (FLAG_SYN | FLAG_ACK, 0),
        (FLAG_FIN | FLAG_ACK, 0),
        (FLAG_RST, 0),
        (FLAG_ACK, NOTE_SENT_BEFORE),
        (FLAG_ACK, NOTE_BEHIND),
    ],
)
def test_what_tells_much_goes_on(thinning: Thinning, flags: int, note: int) -> None:
    thinning.lose(0)
    assert all(thinning.take(1, number, flags, note) for number in range(1, 49))


def test_further_losses_thin_more(thinning: Thinning) -> None:
    """But not what is lost in one go: that fills many batches."""
    shares = []
    for now_ms in (0, 1, 2, 13, 14, 26, 40, 53, 66, 79, 92, 105, 118):
        thinning.lose(now_ms * MS)
        shares.append(thinning.share)
    assert shares[:6] == [16, 16, 16, 64, 64, 256]
    assert max(shares) == shares[-1] == 65_536


def test_back_in_steps_when_there_is_room(thinning: Thinning) -> None:
    for now_ms in (0, 20, 40):
        thinning.lose(now_ms * MS)
    shares = []
    for now_ms in range(50, 600, 10):
        thinning.take(now_ms * MS, 1)
        if not shares or shares[-1][1] != thinning.share:
            shares.append((now_ms, thinning.share))
    assert shares == [(50, 256), (150, 64), (260, 16), (370, 1)]
    assert thinning.take(600 * MS, 1)
