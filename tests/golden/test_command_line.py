"""The command line on a capture file: what it says, and where, whatever it is given."""

import os
import pty
import struct
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("tcptrace"))
# pcap in this machine's byte order, microseconds, Ethernet.
PCAP_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
SYN = bytes.fromhex(
    "0200000000020200000000010800450000280001000040060000c0000201c00002029c40005000000001000000005002ffff00000000"
)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Two SYNs of one connection, two seconds apart."""
    path = tmp_path / "two.pcap"
    packets = [struct.pack("=IIII", second, 0, len(SYN), len(SYN)) + SYN for second in (1_000_000_000, 1_000_000_002)]
    path.write_bytes(PCAP_HEADER + b"".join(packets))
    return path


def run(*arguments: str | bytes | Path, redirect: str = "") -> subprocess.CompletedProcess[bytes]:
    """Through a shell, with its redirections."""
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def test_an_error_is_one_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/two\nlines \x1b[31m\xff.pcap"
    Path(os.fsdecode(name)).write_bytes(b"neither a capture nor compressed")
    done = run("-f", name)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"two?lines ?[31m?.pcap: not a capture file" in done.stderr


def test_files_that_the_shell_put_behind_f_are_named(capture: Path) -> None:
    second = capture.with_name("another.pcap")
    second.write_bytes(capture.read_bytes())
    done = run("-f", capture, second)
    assert done.returncode == 2
    assert done.stderr.decode().endswith(f"{second} is a file: each needs a -f of its own\n")


def test_an_interface_beside_a_file_is_named(capture: Path) -> None:
    done = run("lo", "-f", capture)
    assert done.returncode == 2
    assert done.stderr.endswith(b"lo is an interface, and -f reads a file instead\n")


def test_stdout_and_stderr_may_be_closed(capture: Path, tmp_path: Path) -> None:
    written = tmp_path / "out.pcap"
    closed = run("-f", capture, "-o", written, redirect=">&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
    assert written.read_bytes().count(SYN) == 2
    deaf = run("-f", capture, redirect="2>&-")
    assert deaf.returncode == 0
    assert b"2 packets" in deaf.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_an_output_is_not_permitted_the_exit_code_says_so(capture: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run("-f", capture, "-o", tmp_path / "out.pcap")
    tmp_path.chmod(0o700)
    assert done.returncode == 3
    assert done.stderr.endswith(b"out.pcap: Permission denied\n")


def test_an_interval_adds_tables_to_the_summary(capture: Path) -> None:
    without, with_interval = run("-f", capture), run("-f", capture, "--interval", "1")
    assert without.stdout.count(b"192.0.2.1:40000") == 1
    assert with_interval.stdout.count(b"192.0.2.1:40000") == 3
    assert with_interval.stdout.count(b"\n1 packet ") == 2  # when the first second was over, and the next
    assert with_interval.stdout.endswith(b"\n" + without.stdout)


def test_packets_and_a_drawing_are_both_printed(capture: Path) -> None:
    packets, ladder = run("-f", capture, "--packets"), run("-f", capture, "--ladder")
    assert packets.stdout.count(b"192.0.2.1:40000 >") == 2
    assert ladder.stdout.count(b"SYN seq 0") == 2
    assert run("-f", capture, "--packets", "--ladder").stdout == packets.stdout + ladder.stdout


def on_terminal(*arguments: str | Path) -> bytes:
    """What the command writes to a terminal that is its stdout and stderr."""
    controller, terminal = pty.openpty()
    with subprocess.Popen([COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        written = b""
        try:
            while part := os.read(controller, 65536):
                written += part
        except OSError:  # EIO: nobody has it open any more
            pass
        finally:
            os.close(controller)
        assert child.wait(60) == 0
    return written


@pytest.fixture
def long_capture(tmp_path: Path) -> Path:
    """Half a million SYNs: longer to read than a progress bar waits, with a line for each."""
    path = tmp_path / "long.pcap"
    packet = struct.pack("=IIII", 1_000_000_000, 0, len(SYN), len(SYN)) + SYN
    path.write_bytes(PCAP_HEADER + packet * 500_000)
    return path


def test_a_progress_bar_does_not_come_between_the_lines_of_packets(long_capture: Path) -> None:
    shown = on_terminal("-f", long_capture, "--packets", "-c", "100000")
    assert shown.count(b"192.0.2.1:40000 >") == 100_000
    assert b"reading" not in shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--ladder --json", "--json takes stdout for itself: draw with --picture FILE"),
        ("--picture x.png", "--picture needs --sequence or --graph"),
        ("--connection 1", "--connection needs --sequence, --graph or --ladder"),
        ("-o - --json", "-o - takes stdout for itself: no --json, --packets or drawing beside it"),
        ("-o x.txt", "x.txt: the name must end in .pcapng or .pcap, and .gz or .zst after it if wanted"),
        (
            "-o x.pcap --rotate-files 2",
            "a number of files to keep needs a size or a time after which the next one begins",
        ),
        ("--snaplen 64", "--snaplen is for --output"),
        ("--hook xdp", "--hook is for an interface, not for a file"),
    ],
)
def test_options_that_contradict_each_other_are_refused(capture: Path, options: str, told: str) -> None:
    done = run("-f", capture, *options.split())
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"tcptrace: {told}\n")
    assert [path.name for path in capture.parent.iterdir()] == ["two.pcap"]
