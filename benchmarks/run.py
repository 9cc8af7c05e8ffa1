"""make bench: tables of what tcptrace costs and does beside the tools people use, and a JSON file of all figures.

Run as root: .venv/bin/python benchmarks/run.py [QUESTION …].  Load comes from network namespaces of its own and from
BPF_PROG_TEST_RUN.
"""

import importlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Namespaces, tcpdump as a witness, packets made in the kernel: the live tests have them.
sys.path.append(str(HERE.parent / "tests" / "netns"))

from measure import Question, machine, show, write  # noqa: E402

QUESTIONS = (
    "packet_cost",
    "ring_to_table",
    "overload",
    "host_cost",
    "scale",
    "captures",
    "start_up",
    "idle",
)
# For whoever wants to know why: up to a quarter of an hour, and hardly another tool is in it.
ON_REQUEST = ("ring_parts", "host_parts", "capture_memory")
RESULTS = HERE.parent / "build" / "bench.json"


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("benchmarks load BPF programs and make network namespaces: they need root")
    asked = sys.argv[1:] or list(QUESTIONS)
    known = QUESTIONS + ON_REQUEST
    if unknown := set(asked) - set(known):
        sys.exit(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    os.environ.pop("PYTHONUNBUFFERED", None)  # containers have it, users' shells do not: a system call a line
    print(", ".join(machine().values()))
    answers: list[Question] = []
    for name in asked:
        for question in importlib.import_module(name).ask():
            show(question)
            answers.append(question)
    write(answers, RESULTS)
    print(f"all figures: {RESULTS}")


if __name__ == "__main__":
    main()
