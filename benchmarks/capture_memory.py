"""Whether memory grows with a capture file's packets: also in one three times as large as captures.py has."""

from captures import LARGE, MEDIUM, Program, checked_connections, memory
from made_capture import made
from measure import Question
from tracer import COMMAND

SIZES = (MEDIUM, LARGE, 3 * LARGE)
RUNS = 4
"""The first of which does not count."""


def ask() -> list[Question]:
    programs = [
        Program("tcptrace -f", [str(COMMAND), "-f"], max(SIZES)),
        Program("tcptrace --json -f", [str(COMMAND), "--json", "-f"], max(SIZES)),
    ]
    connections = []
    try:
        for packets in SIZES:
            connections.append(checked_connections(packets))
            for program in programs * RUNS:
                program.rate(packets)
    finally:
        made(max(SIZES)).unlink()  # 3.4 GB
    return [memory(programs, connections)]
