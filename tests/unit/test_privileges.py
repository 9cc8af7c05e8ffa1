"""Who a tracer becomes, and who may trace at all; what becoming does to a process is judged in tests/netns."""

import pwd
from typing import NoReturn

import pytest

from tcptrace.errors import NotPermittedError
from tcptrace.sources.live import privileges
from tcptrace.sources.live.privileges import OVERFLOW_ID, User, choose_user, read_capabilities, require_root

NET_ADMIN, SYS_ADMIN, PERFMON, BPF = 1 << 12, 1 << 21, 1 << 38, 1 << 39


class Entry:
    pw_uid = 1234
    pw_gid = 2345


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: Entry if name == "nobody" else None)
    return User(1234, 2345)


def set_process(monkeypatch: pytest.MonkeyPatch, *, capabilities: int, uid: int) -> None:
    monkeypatch.setattr(privileges, "read_capabilities", lambda _task: {"CapEff": capabilities})
    monkeypatch.setattr("os.geteuid", lambda: uid)


@pytest.mark.usefixtures("nobody")
def test_who_called_sudo() -> None:
    assert choose_user("1000", "1001") == User(1000, 1001)


@pytest.mark.parametrize("gid", [None, "", "0", "staff", "-1", "4294967295", "²"])
def test_who_called_sudo_without_a_group_of_its_own(nobody: User, gid: str | None) -> None:
    assert choose_user("1000", gid) == User(1000, nobody.gid)


@pytest.mark.parametrize("uid", [None, "", "0", "root", "-1", "4294967295", "²"])
def test_nobody_where_sudo_names_no_ordinary_user(nobody: User, uid: str | None) -> None:
    assert choose_user(uid, "1001") == nobody


def test_nobody_without_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> NoReturn:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    assert choose_user(None, None) == User(OVERFLOW_ID, OVERFLOW_ID)


def test_own_capabilities_are_read() -> None:
    sets = read_capabilities("self")
    assert sets.keys() == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert sets["CapEff"] & ~sets["CapPrm"] == 0


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("capabilities", [NET_ADMIN | SYS_ADMIN, NET_ADMIN | PERFMON | BPF, (1 << 41) - 1])
def test_enough_to_trace(monkeypatch: pytest.MonkeyPatch, capabilities: int, uid: int) -> None:
    set_process(monkeypatch, capabilities=capabilities, uid=uid)
    assert require_root() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("capabilities", [0, NET_ADMIN, SYS_ADMIN, PERFMON | BPF, NET_ADMIN | BPF, NET_ADMIN | PERFMON])
@pytest.mark.parametrize(("uid", "advice"), [(1000, "try: sudo tcptrace"), (0, "this root lacks capabilities")])
def test_not_enough_to_trace(monkeypatch: pytest.MonkeyPatch, capabilities: int, uid: int, advice: str) -> None:
    set_process(monkeypatch, capabilities=capabilities, uid=uid)
    with pytest.raises(NotPermittedError, match=advice) as caught:
        require_root()
    assert "\n" not in str(caught.value)
    assert "CAP_NET_ADMIN" in str(caught.value)
