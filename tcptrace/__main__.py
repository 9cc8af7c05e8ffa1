"""Entry point, also of python -m tcptrace."""

import os
import signal


def main() -> None:
    """Run the command line.  Until it handles signals itself, Ctrl-C ends the program as it would any other."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    open_standard_files()
    from tcptrace import cli

    cli.main()


def open_standard_files() -> None:
    """A caller may have closed stdin, stdout or stderr: their numbers must not go to files that we open."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


if __name__ == "__main__":
    main()
