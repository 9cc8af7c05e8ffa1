"""The table of kernels counts what happened, and nothing as better than it was."""

from pathlib import Path

import pytest
from matrix import Outcome, Row, remarks, table
from vm.machine import OOPS_LINES, emulator_failed, last_words

ABILITIES = {"TC": ("test_one.py",), "XDP": ("test_two.py::test_native", "test_two.py::test_other[a b]"), "owners": ()}


def outcome(test: str, outcome: str = "passed", seconds: float = 1.0, reason: str = "") -> Outcome:
    return Outcome(f"tests/netns/{test}", outcome, seconds, reason)


FULL = Row(
    "6.1.0",
    [
        outcome("test_one.py::test_a"),
        outcome("test_one.py::test_b", "failed", 2.4, "assert 1 == 2"),
        outcome("test_one.py::test_c", "skipped", 0.0, "no netem"),
        outcome("test_two.py::test_native[1]", "skipped", 0.0, "no netem"),
        outcome("test_two.py::test_native_not", seconds=9.0),
        outcome("test_two.py::test_other[a b]", "skipped", 0.0, "no XDP"),
    ],
    boot_s=5.6,
    seconds=61.2,
)


def test_the_table() -> None:
    rows = [FULL, Row("7.2", [], None, None, trouble="not run: no qemu-system-x86_64 here")]
    assert table(rows, ABILITIES).splitlines() == [
        "| kernel | TC                                 | XDP            | owners     | boot | in all |",
        "| ------ | ---------------------------------- | -------------- | ---------- | ---- | ------ |",
        "| 6.1.0  | 1 passed, 1 failed, 1 skipped; 3 s | 2 skipped; 0 s | not tested | 6 s  | 61 s   |",
        "| 7.2    | not tested                         | not tested     | not tested | -    | -      |",
    ]
    assert remarks(rows) == [
        "6.1.0: 1 skipped: no XDP",
        "6.1.0: 2 skipped: no netem",
        "7.2: not run: no qemu-system-x86_64 here",
    ]


def test_skipped_is_not_shown() -> None:
    assert FULL.never_shown(ABILITIES) == ["XDP"]
    assert [one.test for one in FULL.failed()] == ["tests/netns/test_one.py::test_b"]


def test_another_boot_is_told() -> None:
    row = Row("6.12", FULL.outcomes[:1], boot_s=5.0, seconds=9.0, boots=2)
    assert remarks([row]) == ["6.12: booted 2 times, as the emulator failed; no finished test ran again"]


PANICS = {
    "[  113.921949] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI": True,  # Linux 6.12
    "[   87.125001] int3: 0000 [#1] SMP NOPTI": True,  # Linux 6.1
    "[   87.125001] BUG: kernel NULL pointer dereference, address: 0000000000000000": False,
}


@pytest.mark.parametrize("line", PANICS)
def test_a_panic_of_the_kernels_own_is_not_excused(line: str, tmp_path: Path) -> None:
    (tmp_path / "booted").write_text("5.1\n")
    (tmp_path / "console").write_text(f"{line}\n[  113.9] Kernel panic - not syncing: Fatal exception in interrupt\n")
    assert emulator_failed(tmp_path) == PANICS[line]
    (tmp_path / "status").write_text("1\n")
    assert not emulator_failed(tmp_path)


OOPSES = [*PANICS, "[    1.0] invalid opcode: 0000 [#1] PREEMPT SMP", "[    1.0] kernel BUG at mm/slub.c:451!"]


@pytest.mark.parametrize("line", OOPSES)
def test_an_oops_is_shown_from_its_first_line_on(line: str, tmp_path: Path) -> None:
    console = tmp_path / "console"
    said = ["[    0.9] DEBUG: well", line, *(f"[    2.{number}]  ? frame" for number in range(50)), "Kernel panic"]
    console.write_text("\n".join(said))
    assert last_words(console).splitlines() == said[1:]
    console.write_text("\n".join([*said, *map(str, range(157))]))
    whole = [*said[1:], *map(str, range(157))]
    assert last_words(console).splitlines() == whole[:OOPS_LINES] + whole[-40:]


def test_the_end_is_shown_where_there_was_no_oops(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text("\n".join(map(str, range(57))))
    assert last_words(console).splitlines() == list(map(str, range(17, 57)))
