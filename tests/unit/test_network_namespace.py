"""Network namespaces that are none; going into real ones is in tests/netns."""

import os
from pathlib import Path

import pytest

from tcptrace.errors import TcptraceError
from tcptrace.sources.live import network_namespace
from tcptrace.sources.live.network_namespace import enter, find, inode


def test_the_current_one() -> None:
    assert os.readlink("/proc/self/ns/net") == f"net:[{inode()}]"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(network_namespace, "FOLDERS", (str(tmp_path), str(tmp_path / "none")))
    return tmp_path


def test_names_processes_and_paths(folder: Path) -> None:
    (folder / "blue").touch()
    pid = str(os.getpid())
    assert find("blue") == f"{folder}/blue"
    assert find(pid) == f"/proc/{pid}/ns/net"
    assert find("/some/path") == "/some/path"
    (folder / pid).touch()
    assert find(pid) == f"{folder}/{pid}"


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("red", r"no such network namespace: red \(there are: blue\)"),
        ("999999999", "there is no process 999999999, and none of that name"),
        ("/no/such/path", "no such network namespace: /no/such/path"),
        ("/proc/self/ns/uts", "not a network namespace: /proc/self/ns/uts|needs root"),
        ("/dev/null", "not a network namespace: /dev/null|needs root"),
        ("blue", "not a network namespace: blue|needs root"),
        ("", "no such network namespace: ''"),
        ("..", "no such network namespace: '..'"),
        ("a\0b", "no such network namespace"),
    ],
)
def test_no_namespace(folder: Path, which: str, said: str) -> None:
    (folder / "blue").touch()
    before = inode()
    with pytest.raises(TcptraceError, match=said) as caught:
        enter(which)
    assert "\n" not in str(caught.value)
    assert inode() == before


def test_without_any_name(folder: Path) -> None:
    with pytest.raises(TcptraceError, match="ip netns knows none; a process id or a path will do"):
        enter("red")
