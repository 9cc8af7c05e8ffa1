"""The command on small captures: every output and option, as text.

The captures are made of made.Talk, whose docstrings say what is in them.  Long outputs are in expected/, as they were
read and found right; numbers in them follow from the talks.  What is written is read by tshark, too.
"""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from made import (
    CLIENT6,
    MS,
    SERVER6,
    SLL2,
    START_NS,
    Frame,
    Talk,
    interface,
    packet,
    pcap,
    pcapng,
    section,
)
from running import Run, all_at_once, tcptrace

from tcptrace import __version__
from tcptrace.sinks.ndjson import schema

EXPECTED = Path(__file__).with_name("expected")
LOSS = Talk().with_loss()


def two_interfaces() -> bytes:
    """eth0 counts nanoseconds, eth1 microseconds; a talk on each, the second 5 ms later."""
    eth0 = Talk(ports=(40002, 30443)).whole()
    eth1 = Talk(ports=(40003, 30080), start_ns=START_NS + 5 * MS, interface=1).whole()
    described = interface(name="eth0") + interface(name="eth1", resolution=6)
    frames = sorted(eth0 + eth1, key=lambda frame: frame.time_ns)
    return section() + described + b"".join(packet(f, units=f.time_ns // (1, 1000)[f.interface]) for f in frames)


CAPTURES = {
    "loss.pcap": pcap(LOSS),
    "ipv6.pcap": pcap(Talk(CLIENT6, SERVER6, (50000, 30443)).whole()),
    "vlan.pcap": pcap(Talk(vlan=42).with_loss()),
    "two.pcapng": two_interfaces(),
    "cooked.pcap": pcap(Talk(link_type=SLL2).whole(), SLL2),
    "later.pcapng.gz": gzip.compress(pcapng(Talk(ports=(40009, 30080), start_ns=START_NS + 200 * MS).whole()), mtime=0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


def filled(folder: Path) -> Path:
    for name, data in CAPTURES.items():
        (folder / name).write_bytes(data)
    return folder


def runs_of(options: Iterable[str], folder: Path) -> Mapping[str, Run]:
    """What the command makes of each, all at once."""
    return all_at_once({words: partial(tcptrace, *words.split(), folder=folder) for words in options})


def good(*arguments: str, folder: Path, **more: Any) -> Run:
    """Ended well, nothing said."""
    run = tcptrace(*arguments, folder=folder, **more)
    assert (run.code, run.err) == (0, "")
    return run


def expected(name: str) -> str:
    return (EXPECTED / f"{name}.txt").read_text()


# --- Text

TEXTS = {
    "table-loss": "-f loss.pcap",
    "table-ipv6": "-f ipv6.pcap",
    "table-vlan": "-f vlan.pcap",
    "table-two": "-f two.pcapng",
    "table-cooked": "-f cooked.pcap",
    "table-merged": "-f later.pcapng.gz -f loss.pcap -f ipv6.pcap --sort start",
    "sorted-by-port": "-f later.pcapng.gz -f loss.pcap -f ipv6.pcap --sort port",
    "filter": "-f two.pcapng port 30080 and host 192.0.2.1",
    "ports-and-addresses": "-f two.pcapng -p 30443 -p 9 -i 192.0.2.0/24",
    "filter-finds-nothing": "-f two.pcapng udp",
    "count": "-f two.pcapng -c 3",
    "duration": "-f loss.pcap -d 0.1",
    "packets": "-f loss.pcap --packets",
    "packets-two": "-f two.pcapng --packets -c 4",
    "layers": "-f vlan.pcap --packets -v -c 1",
    "ladder": "-f loss.pcap --ladder",
    "ladder-of-one": "-f two.pcapng --ladder --connection 2",
    "sequence": "-f loss.pcap --sequence",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Run]:
    return runs_of(TEXTS.values(), filled(tmp_path_factory.mktemp("texts")))


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str, texts: Mapping[str, Run]) -> None:
    run = texts[TEXTS[name]]
    said = f"tcptrace: {TEXTS[name].split()[1]}; filter: none\n" if "-v" in TEXTS[name].split() else ""
    assert (run.code, run.err) == (0, said)
    assert run.out == expected(name)


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, folder: Path) -> None:
    files = [word for name in CAPTURES for word in ("-f", name)]
    run = good(*files, folder=folder, environment={"COLUMNS": str(width)})
    lines = run.out.splitlines()
    assert len(lines) == 7 + 5  # three of the talks have the same ends
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_an_encoding_without_arrows_gets_question_marks(folder: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = good("-f", "loss.pcap", folder=folder, environment=environment)
    assert run.out == expected("table-loss").replace("→", "?").replace("←", "?")


def test_verbose_says_what_is_read(folder: Path) -> None:
    run = tcptrace("-f", "loss.pcap", "-v", "port", "30080", folder=folder)
    assert (run.code, run.err) == (0, "tcptrace: loss.pcap; filter: port 30080\n")


# --- JSON


def check_schema(run: Run) -> None:
    validator = jsonschema.validators.validator_for(schema())(schema())
    for event in run.events:
        validator.validate(event)


START = {
    "event": "start",
    "schema_version": 1,
    "time": None,
    "version": __version__,
    "interface": None,
    "netns": None,
    "hook": None,
    "probes": None,
    "filter": None,
    "files": ["loss.pcap"],
}
CONNECTION = {
    "time": "2023-11-14T22:13:20.241000000Z",
    "end_reason": "trace_end",
    "interface": None,
    "connection_id": 1,
    "src_ip": "192.0.2.1",
    "src_port": 40000,
    "dst_ip": "198.51.100.2",
    "dst_port": 30080,
    "ip_version": 4,
    "vlan_id": None,
    "initiator_known": True,
    "near_end": None,
    "state": "CLOSED",
    "src_state": "CLOSED",
    "dst_state": "TIME-WAIT",
    "start_time": "2023-11-14T22:13:20.000000000Z",
    "last_time": "2023-11-14T22:13:20.241000000Z",
    "duration_s": 0.241,
    "handshake": "complete",
    "handshake_rtt_us": 10_100.0,
    "initial_rtt_us": 10_100.0,
    "closed_by": "dst",
    "close_kind": "fin",
    "half_closed_us": 1000.0,
    "port_reuse": False,
    # Ethernet, IPv4 and TCP are 54 bytes, and the SYN has 4 of options.
    "sent_packets": 6,
    "sent_bytes": 6 * 54 + 4,
    "sent_payload_bytes": 0,
    "sent_mss_bytes": 1460,
    "sent_duplicate_acks": 2,
    "sent_retransmissions": 0,
    "sent_rtt_count": 2,  # the SYN, and the FIN
    "sent_rtt_min_us": 10_000.0,
    "sent_rtt_max_us": 10_000.0,
    "received_packets": 7,
    "received_bytes": 7 * 54 + 4 + 4 * 500,
    "received_payload_bytes": 2000,
    "received_retransmissions": 1,
    "received_retransmitted_bytes": 500,
    "received_spurious_retransmissions": 0,
    "received_rtt_count": 2,  # SYN-ACK and FIN: what waited for the lost segment gives none
    "received_rtt_min_us": 100.0,
    "received_rtt_max_us": 1000.0,
    "received_in_flight_max_bytes": 1500,
}
SUMMARY = {
    "duration_s": 0.241,
    "packets": 13,
    "bytes": 13 * 54 + 8 + 2000,
    "payload_bytes": 2000,
    "connections": 1,
    "connections_total": 1,
    "connections_closed": 1,
    "frames": 13,
    "records": 13,
    "filtered": 0,
    "unordered": 0,
    "cut_off": 0,
}


def test_json(folder: Path) -> None:
    run = good("-f", "loss.pcap", "--json", folder=folder)
    check_schema(run)
    assert [event["event"] for event in run.events] == ["start", "connection", "summary"]
    assert run.events[0] == START
    (connection,) = run.connections
    assert {name: connection[name] for name in CONNECTION} == CONNECTION
    assert {name: run.summary[name] for name in SUMMARY} == SUMMARY


def test_packets_as_json(folder: Path) -> None:
    run = good("-f", "loss.pcap", "--json", "--packets", folder=folder)
    check_schema(run)
    assert [event["event"] for event in run.events] == ["start", *["packet"] * 13, "connection", "summary"]
    packets = run.events[1:14]
    assert [p["analysis"] for p in packets] == [[]] * 6 + [["duplicate_ack"]] * 2 + [["retransmission"]] + [[]] * 4
    assert [p["rtt_us"] for p in packets if p["rtt_us"] is not None] == [10_000.0, 100.0, 1000.0, 10_000.0]
    assert packets[8] == {
        "event": "packet",
        "schema_version": 1,
        "time": "2023-11-14T22:13:20.220000000Z",
        "interface": None,
        "direction": None,
        "connection_id": 1,
        "from": "dst",
        "analysis": ["retransmission"],
        "duplicate_ack_number": None,
        "rtt_us": None,
        "in_flight_bytes": 1500,
        "src_ip": "198.51.100.2",
        "src_port": 30080,
        "dst_ip": "192.0.2.1",
        "dst_port": 40000,
        "ip_version": 4,
        "flags": "ACK",
        "dscp": 0,
        "ecn": 0,
        "ip_id": 0,
        "vlan_id": None,
        "vlan_inner_id": None,
        "seq": 9001,
        "ack": 1001,
        "window": 65535,
        "payload_bytes": 500,
        "frame_bytes": 554,
        "segments": 1,
        "ttl": 64,
        "mss_bytes": None,
        "window_scale": None,
        "sack_permitted": False,
        "sack_blocks": [],
        "ts_value": None,
        "ts_echo": None,
        "src_mac": "02:00:00:00:00:02",
        "dst_mac": "02:00:00:00:00:01",
    }


def test_a_file_as_a_time_series(folder: Path) -> None:
    """At each tenth of a second the connections that had packets in it; the last line is the end's."""
    run = good("-f", "loss.pcap", "--json", "--interval", "0.1", folder=folder)
    check_schema(run)
    series = [
        (event["time"][20:23], event["sent_packets"], event["received_packets"], event["final"])
        for event in run.events
        if event["event"] == "connection"
    ]
    assert series == [("100", 4, 4, False), ("241", 6, 7, True)]


def test_what_captures_say_besides(folder: Path) -> None:
    """Tags, and directions of cooked captures."""
    (tagged,) = good("-f", "vlan.pcap", "--json", folder=folder).connections
    assert (tagged["vlan_id"], tagged["sent_bytes"]) == (42, 6 * 58 + 4)
    (cooked,) = good("-f", "cooked.pcap", "--json", folder=folder).connections
    assert (cooked["near_end"], cooked["sent_bytes"]) == ("src", 5 * 60 + 4 + 100)
    (ipv6,) = good("-f", "ipv6.pcap", "--json", folder=folder).connections
    assert (ipv6["ip_version"], ipv6["src_ip"], ipv6["sent_bytes"]) == (6, CLIENT6, 5 * 74 + 4 + 100)


def test_times_of_interfaces_that_count_differently(folder: Path) -> None:
    run = good("-f", "two.pcapng", "--json", "--packets", folder=folder)
    packets = [event for event in run.events if event["event"] == "packet"]
    assert [(p["time"][20:29], p["connection_id"]) for p in packets] == [
        (f"{ms:03d}000000", 1 + ms % 10 // 5) for ms in range(0, 100, 5)
    ]
    assert run.summary["unordered"] == 0


def test_files_are_merged_by_time(folder: Path) -> None:
    run = good("-f", "later.pcapng.gz", "-f", "loss.pcap", "--json", "--packets", folder=folder)
    packets = [event for event in run.events if event["event"] == "packet"]
    # Of two at one time the file named first comes first.
    later = [(200 + 10 * i, 0, 2) for i in range(10)]
    loss = [((frame.time_ns - START_NS) / MS, 1, 1) for frame in LOSS]
    in_order = sorted(later + loss)
    assert [p["connection_id"] for p in packets] == [number for _, _, number in in_order]
    assert [f"20.{p['time'][20:29]}" for p in packets] == [f"{20 + ms / 1000:.9f}" for ms, _, _ in in_order]
    assert (run.summary["duration_s"], run.summary["unordered"]) == (0.29, 0)


def test_standard_input_is_a_file_like_others(folder: Path) -> None:
    from_file = good("-f", "loss.pcap", folder=folder).out
    from_stdin = good("-f", "-", stdin=CAPTURES["loss.pcap"], folder=folder).out
    assert from_stdin == from_file.replace("loss.pcap     ", "standard input")


# --- Writing

WRITTEN = ("out.pcap", "out.pcapng", "out.pcap.gz", "out.pcapng.zst")


def tshark(path: Path) -> list[list[str]]:
    fields = [word for name in ("frame.time_epoch", "tcp.srcport", "tcp.len", "frame.len") for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what was written of the second talk in two.pcapng."""
    folder = filled(tmp_path_factory.mktemp("written"))
    for run in runs_of([f"-f two.pcapng -o {name} port 30080" for name in WRITTEN], folder).values():
        assert (run.code, run.err) == (0, "")
        assert [line.split()[1] for line in run.out.splitlines() if ":30080" in line] == ["192.0.2.1:40003"]
    return folder


@pytest.mark.parametrize("name", WRITTEN)
def test_filtered_packets_are_written_as_they_were(name: str, written: Path) -> None:
    (connection,) = good("-f", name, "--json", folder=written).connections
    assert (connection["src_port"], connection["start_time"]) == (40003, "2023-11-14T22:13:20.005000000Z")
    assert (connection["sent_bytes"], connection["received_bytes"]) == (5 * 54 + 104, 5 * 54 + 1004)
    if shutil.which("tshark"):
        frames = Talk(ports=(40003, 30080), start_ns=START_NS + 5 * MS).whole()
        assert tshark(written / name) == [as_tshark_says(frame) for frame in frames]


def as_tshark_says(frame: Frame) -> list[str]:
    port = int.from_bytes(frame.data[34:36], "big")
    payload = len(frame.data) - 34 - (frame.data[46] >> 4) * 4
    return [f"{frame.time_ns // 10**9}.{frame.time_ns % 10**9:09d}", str(port), str(payload), str(len(frame.data))]


def test_a_capture_on_stdout_can_be_read_on(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    written = tcptrace("-f", "loss.pcap", "-o", "-", "--sequence", "--picture", "x.svg", folder=folder)
    assert (written.code, written.err) == (
        0,
        "x.svg: sequence numbers of connection 1, 192.0.2.1:40000 > 198.51.100.2:30080\n",
    )
    assert (folder / "x.svg").read_text().lstrip().startswith("<?xml")
    read = good("-f", "-", "--json", stdin=written.raw, folder=folder)
    assert {name: read.summary[name] for name in SUMMARY} == SUMMARY


def test_json_stays_json_beside_a_picture(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    run = tcptrace("-f", "loss.pcap", "--json", "--graph", "--picture", "x.svg", folder=folder)
    assert (run.code, run.err) == (0, "x.svg: graphs of connection 1, 192.0.2.1:40000 > 198.51.100.2:30080\n")
    assert [event["event"] for event in run.events] == ["start", "connection", "summary"]


def test_a_capture_is_not_written_onto_itself(folder: Path) -> None:
    (folder / "link.pcap").symlink_to("loss.pcap")
    for name in ("loss.pcap", "link.pcap"):
        run = tcptrace("-f", "loss.pcap", "-o", name, folder=folder)
        error = f"tcptrace: {name} is read from: writing to it would destroy it\n"
        assert (run.code, run.out, run.err) == (2, "", error)
    assert (folder / "loss.pcap").read_bytes() == CAPTURES["loss.pcap"]


# --- What cannot be

WRONG = {
    "-o - --json": "-o - takes stdout for itself: no --json, --packets or drawing beside it",
    "-o - --packets": "-o - takes stdout for itself: no --json, --packets or drawing beside it",
    "-o - --ladder": "-o - takes stdout for itself: no --json, --packets or drawing beside it",
    "--json --ladder": "--json takes stdout for itself: draw with --picture FILE",
    "--json --sequence": "--json takes stdout for itself: draw with --picture FILE",
    "--snaplen 96": "--snaplen is for --output",
    "--rotate-size 1M": "--rotate-size is for --output",
    "--rotate-seconds 60": "--rotate-seconds is for --output",
    "--rotate-files 3": "--rotate-files is for --output",
    "--rotate-files 3 -o x.pcap": "a number of files to keep needs a size or a time after which the next one begins",
    "--picture x.svg": "--picture needs --sequence or --graph",
    "--picture x.gif --graph": "x.gif: a picture's name ends in .png, .svg or .pdf",
    "--connection 1": "--connection needs --sequence, --graph or --ladder",
    "--hook xdp": "--hook is for an interface, not for a file",
    "--ring-size 4": "--ring-size is for an interface, not for a file",
    "--events": "--events is for an interface: a file has packets only",
    "-f - -f -": "standard input can be read only once",
    "-o x.txt": "x.txt: the name must end in .pcapng or .pcap, and .gz or .zst after it if wanted",
    "prot 80": "filter: can't parse filter expression: syntax error",
    "-i nonsense.invalid": "filter: unknown host 'nonsense.invalid'",
    "-p 65536": "Invalid value for '-p' / '--port': 65536 is not in the range 0<=x<=65535.",
    "-c 0": "Invalid value for '-c' / '--count': 0 is not in the range x>=1.",
    "-d nan": "Invalid value for '-d' / '--duration': nan is not a time of more than 0 and at most 1e+09 seconds",
    "--interval 0.01": "Invalid value for '--interval': 0.01 is not a time of at least 0.1 and at most 1e+09 seconds",
    "--rotate-size 5x -o x.pcap": "Invalid value for '--rotate-size': '5x' is not a size such as 500k, 100M or 2G",
    "--snaplen 0 -o x.pcap": "Invalid value for '--snaplen': 0 is not in the range 1<=x<=262144.",
    "--sort size": "Invalid value for '--sort': 'size' is not one of 'rate', 'bytes', 'packets', 'rtt', "
    "'retransmissions', 'duration', 'start', 'state', 'src', 'dst', 'port', 'process', "
    "'srtt', 'cwnd'.",
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Run]:
    folder = filled(tmp_path_factory.mktemp("wrong"))
    runs = runs_of([f"-f loss.pcap {options}" for options in WRONG], folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(CAPTURES)
    return runs


@pytest.mark.parametrize("options", WRONG)
def test_what_cannot_be_asked_for_is_one_line_and_exit_code_2(options: str, wrong: Mapping[str, Run]) -> None:
    run = wrong[f"-f loss.pcap {options}"]
    assert (run.code, run.out, run.err) == (2, "", f"tcptrace: {WRONG[options]}\n")


@pytest.mark.parametrize("drawing", ["--ladder", "--sequence", "--graph"])
def test_a_connection_that_there_is_not(drawing: str, folder: Path) -> None:
    run = tcptrace("-f", "loss.pcap", drawing, "--connection", "7", folder=folder)
    assert (run.code, run.out, run.err) == (1, "", "tcptrace: no connection 7: there was only 1\n")


def test_a_full_disk_is_one_line_and_exit_code_1(folder: Path) -> None:
    run = tcptrace("-f", "loss.pcap", "-o", "/dev/full", folder=folder)
    error = "tcptrace: /dev/full: No space left on device; 0 packets are in it\n"
    assert (run.code, run.out, run.err) == (1, "", error)


def test_a_file_where_an_interface_has_to_be(folder: Path) -> None:
    run = tcptrace("loss.pcap", folder=folder)
    error = "tcptrace: no such interface: loss.pcap; that file is read with: tcptrace -f loss.pcap\n"
    assert (run.code, run.out, run.err) == (1, "", error)


# --- Nothing but a file is needed


def test_files_need_neither_root_nor_bcc(open_folder: Path, nobody: Mapping[str, Any]) -> None:
    """All that only a live trace needs ends the program where it is imported."""
    (open_folder / "stubs").mkdir()
    for name in ("bcc", "pyroute2"):
        (open_folder / "stubs" / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    filled(open_folder)
    environment = {"PYTHONPATH": str(open_folder / "stubs"), "BCC_KERNEL_SOURCE": "/nowhere", "HOME": "/nowhere"}
    for name in ("table-merged", "filter", "layers", "sequence"):
        run = tcptrace(*TEXTS[name].split(), folder=open_folder, environment=environment, **nobody)
        assert (run.code, run.out) == (0, expected(name))
    for name in ("bcc", "pyroute2"):
        command = [sys.executable, "-c", f"import {name}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (1, f"{name} was imported\n")
