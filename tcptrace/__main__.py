"""Entry point, also of python -m tcptrace."""

import os
import signal
import sys
from typing import TextIO


def main() -> None:
    """Run the command line.  Until it handles signals itself, Ctrl-C ends the program as it would any other."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    stand_on_firm_ground()
    from tcptrace.cli import entry

    entry.main()


def stand_on_firm_ground() -> None:
    """Make up for what a caller may have taken away: the folder, or stdin, stdout or stderr and their numbers."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")  # the folder we were started in is gone, and the compiler asks for it
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    # Python made no object of what was closed when it started.  No stdin stays none: it is not an empty one.
    sys.stdout, sys.stderr = sys.stdout or writer_to(1), sys.stderr or writer_to(2)


def writer_to(number: int) -> TextIO:
    """A text file on a descriptor that stays open."""
    return open(number, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    main()
