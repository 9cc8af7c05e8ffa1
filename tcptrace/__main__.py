"""Entry point, also of python -m tcptrace."""

import os
import signal


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


if __name__ == "__main__":
    main()
