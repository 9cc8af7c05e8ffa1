"""What the way from the rings into the table takes part by part: beside our engine one that finds and counts, no more.

That one is built for it, from the checkout's sources without the call of the analysis; each works in a process of its
own: `ring_parts.py`, which runs once what each line that it reads names.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from made_capture import FOLDER
from measure import Question, paired
from packet_cost import NEVER, Plain
from programs.offered import Offering
from ring_to_table import FromRings, counted_by_bcc

CHECKOUT = Path(__file__).parent.parent
FLOWS = 1_000
ROUNDS = 11
ANALYSIS = re.compile(r"^        if not take_in_step\(.*?(?=^        note_packet\()", re.MULTILINE | re.DOTALL)
"""Of _packet() in engine/table.pyx: what is between counting a packet and noting it."""


def ask() -> list[Question]:
    with Offering(FLOWS) as offering, rates() as whole, rates(without_analysis()) as counting:
        plain = Plain(NEVER)
        runs = {
            "tcptrace, into the table": partial(whole, "into_table"),
            "… the connection found and counted, nothing analysed": partial(counting, "into_table"),
            "… out of the rings in order, no more": partial(whole, "out_of_rings"),
            "bcc's callback reader, which only counts": partial(counted_by_bcc, offering, plain),
        }
        figures = paired(runs, ROUNDS)
        plain.close()
    return [Question(f"From the ring, part by part, {FLOWS:,} connections", "records a CPU-second", figures)]


def without_analysis() -> Path:
    """A folder with a tcptrace that only finds and counts."""
    folder = FOLDER / "without_analysis"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tcptrace", "bpf"):
        shutil.copytree(CHECKOUT / name, folder / "sources" / name)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, folder / "sources")
    table = folder / "sources" / "tcptrace" / "engine" / "table.pyx"
    text, found = ANALYSIS.subn("", table.read_text())
    if found != 1:
        raise SystemExit(f"{table}: where is the analysis?")
    table.write_text(text)
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(folder / "built")]
    subprocess.run(command, cwd=folder / "sources", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "built"


@contextmanager
def rates(package: Path | None = None) -> Iterator[Callable[[str], float]]:
    """Runs of FromRings' methods by a process that has tcptrace from this folder; None: the installed one."""
    path = [*([str(package)] if package else []), *sys.path]
    environment = os.environ | {"PYTHONPATH": ":".join(path)}
    command = [sys.executable, "-P", __file__]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def rate(name: str) -> float:
        print(name, file=stdin)
        return float(stdout.readline())

    try:
        yield rate
        stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)


def serve() -> None:
    with Offering(FLOWS) as offering:
        rings = FromRings(offering, FLOWS)
        for line in sys.stdin:
            print(getattr(rings, line.strip())(), flush=True)
        rings.close()


if __name__ == "__main__":
    serve()
