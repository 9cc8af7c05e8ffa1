"""What the way from the rings into the table takes part by part: beside our engine one that finds and counts, no more.

Both are built for it from the checkout's sources, one without the call of the analysis; each works in a process of its
own: `ring_parts.py PACKAGE`, which runs once what each line that it reads names.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from made_capture import FOLDER
from measure import Question, paired
from packet_cost import NEVER, Plain
from programs.offered import Offering
from ring_to_table import FromRings, counted_by_bcc

import tcptrace

CHECKOUT = Path(__file__).parent.parent
FLOWS = 1_000
ROUNDS = 11
ANALYSIS = re.compile(r"^        if not take_in_step\(.*?(?=^        note_packet\()", re.MULTILINE | re.DOTALL)
"""Of _packet() in engine/table.pyx: what is between counting a packet and noting it."""


def ask() -> list[Question]:
    with (
        rates(built(analysing=True)) as whole,
        rates(built(analysing=False)) as counting,
        Offering(FLOWS) as offering,
        closing(Plain(NEVER)) as plain,
    ):
        runs = {
            "tcptrace, into the table": partial(whole, "into_table"),
            "… the connection found and counted, nothing analysed": partial(counting, "into_table"),
            "… out of the rings in order, no more": partial(whole, "out_of_rings"),
            "bcc's callback reader, which only counts": partial(counted_by_bcc, offering, plain),
        }
        figures = paired(runs, ROUNDS)
    return [Question(f"From the ring, part by part, {FLOWS:,} connections", "records a CPU-second", figures)]


def built(*, analysing: bool) -> Path:
    """A folder with the checkout's tcptrace, which finds and counts alone unless it is `analysing`."""
    folder = FOLDER / ("analysing" if analysing else "counting")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tcptrace", "bpf"):
        shutil.copytree(CHECKOUT / name, folder / "sources" / name)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, folder / "sources")
    table = folder / "sources" / "tcptrace" / "engine" / "table.pyx"
    text, found = ANALYSIS.subn("", table.read_text())
    if found != 1:
        raise SystemExit(f"{table}: where is the analysis?")
    if not analysing:
        table.write_text(text)
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(folder / "built")]
    run = subprocess.run(command, cwd=folder / "sources", capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{folder} cannot be built: {run.stderr}")
    return folder / "built"


@contextmanager
def rates(package: Path) -> Iterator[Callable[[str], float]]:
    """Runs of FromRings' methods by a process that has tcptrace from this folder."""
    environment = os.environ | {"PYTHONPATH": ":".join([str(package), *sys.path])}
    command = [sys.executable, "-P", __file__, str(package)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def rate(name: str) -> float:
            print(name, file=stdin)
            line = stdout.readline()
            if not line:
                raise SystemExit(f"{command} has ended: {process.wait(30)}")
            return float(line)

        try:
            yield rate
            stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()


def serve(package: Path) -> None:
    assert Path(tcptrace.__file__).is_relative_to(package), tcptrace.__file__
    with FromRings(FLOWS) as rings:
        for line in sys.stdin:
            print(getattr(rings, line.strip())(), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
