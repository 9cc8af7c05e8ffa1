"""Cgroups in a folder that stands for the cgroup2 file system: an inode is an inode."""

import os
from pathlib import Path

import pytest

from tcptrace.errors import MissingFeatureError, TcptraceError
from tcptrace.sources.live import containers
from tcptrace.sources.live.containers import Cgroup, Cgroups, Mount, container_of_path, find_mount

ONE, TWO, THREE = "1a2b" * 16, "1a2c" * 16, "ff00" * 16
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b2c_11.slice"


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/system.slice/docker-{ONE}.scope", ONE),
        (f"/docker/{ONE}", ONE),
        (f"/docker/{ONE}/docker/{TWO}", TWO),  # Docker in Docker
        (f"/docker/{ONE}/init.scope", ONE),
        (f"{POD}/cri-containerd-{ONE}.scope", ONE),
        (f"/kubepods/burstable/pod0b2c-11/{ONE}", ONE),
        (f"{POD}/crio-{ONE}.scope", ONE),
        (f"{POD}/crio-{ONE}.scope/container", ONE),
        (f"{POD}/crio-conmon-{ONE}.scope", None),
        (f"/machine.slice/libpod-{ONE}.scope/container", ONE),
        (f"/machine.slice/libpod-conmon-{ONE}.scope", None),
        (f"/libpod_parent/libpod-{ONE}", ONE),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ONE}.scope/container", ONE),
        (f"/system.slice/docker-{ONE}.scope/system.slice/docker-{TWO}.scope", TWO),
        (f"/system.slice/docker-{ONE.upper()}.scope", None),
        (f"/docker/{ONE[:-1]}", None),
        (f"/docker/{ONE}0", None),
        ("/system.slice/ssh.service", None),
        ("/", None),
    ],
)
def test_names_of_runtimes(path: str, container: str | None) -> None:
    assert container_of_path(path) == container


# --- Where the file system is

HYBRID = "38 31 0:35 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        (V1 + HYBRID, Mount("/sys/fs/cgroup/unified", "/")),
        ("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", Mount("/sys/fs/cgroup", "/")),
        ("30 23 0:26 /a /mnt/with\\040blank rw - cgroup2 none rw\n", Mount("/mnt/with blank", "/a")),
        ("30 23 0:26 /a /one rw - cgroup2 none rw\n31 23 0:26 / /two rw - cgroup2 none rw\n", Mount("/two", "/")),
        (V1, None),
    ],
)
def test_the_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, mount: Mount | None) -> None:
    (tmp_path / "mountinfo").write_text(text)
    monkeypatch.setattr(containers, "MOUNTINFO", str(tmp_path / "mountinfo"))
    assert find_mount() == mount


# --- Ids


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    monkeypatch.setattr(containers, "find_mount", lambda: Mount(str(folder), "/"))
    return folder


def add(root: Path, path: str) -> int:
    (root / path).mkdir(parents=True)
    return os.stat(root / path).st_ino


def test_id_to_container(root: Path) -> None:
    inside = add(root, f"system.slice/docker-{ONE}.scope/init")
    other = add(root, "user.slice")
    cgroups = Cgroups()
    assert cgroups.path(inside, 1.0) == f"/system.slice/docker-{ONE}.scope/init"
    assert cgroups.container(inside, 1.0) == ONE
    assert (cgroups.path(other, 1.0), cgroups.container(other, 1.0)) == ("/user.slice", None)
    assert cgroups.path(os.stat(root).st_ino, 1.0) == "/"
    assert cgroups.path(-1, 1.0) is None


def test_new_ones_are_looked_for_once_a_second(root: Path) -> None:
    cgroups = Cgroups()
    assert cgroups.path(2**40, 10.0) is None
    new = add(root, "new")
    assert cgroups.path(new, 10.9) is None
    assert cgroups.path(new, 11.0) == "/new"
    newer = add(root, "newer")
    (root / "new").rmdir()
    assert cgroups.path(newer, 12.0) == "/newer"
    assert cgroups.path(new, 13.0) == "/new"


def test_what_was_gone_is_not_looked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups = Cgroups()
    assert cgroups.path(2**40, 10.0) is None
    monkeypatch.setattr(cgroups, "_walk", lambda: pytest.fail("looked for again"))
    assert cgroups.path(2**40, 20.0) is None


def test_a_containers_cgroup(root: Path) -> None:
    outer = add(root, f"system.slice/docker-{ONE}.scope")
    inner = add(root, f"system.slice/docker-{ONE}.scope/docker/{THREE}")
    add(root, f"system.slice/docker-{TWO}.scope")
    add(root, f"machine.slice/libpod-conmon-{THREE}.scope")
    cgroups = Cgroups()
    assert cgroups.find_cgroup(ONE[:6]) == Cgroup(outer, f"{root}/system.slice/docker-{ONE}.scope")
    assert cgroups.find_cgroup("FF00") == Cgroup(inner, f"{root}/system.slice/docker-{ONE}.scope/docker/{THREE}")
    assert cgroups.find_cgroup(TWO).folder == f"{root}/system.slice/docker-{TWO}.scope"


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("1a2", "at least 4 hex digits"),
        ("my-web", "at least 4 hex digits"),
        ("", "at least 4 hex digits"),
        ("beef", "no running container has an id that begins with beef"),
        ("abcd", "several containers have ids that begin with abcd: abcd00000000, abcd11111111"),
    ],
)
def test_no_such_container_or_too_many(root: Path, prefix: str, said: str) -> None:
    for digit in "01":
        add(root, f"docker/abcd{digit * 60}")
    with pytest.raises(TcptraceError, match=said):
        Cgroups().find_cgroup(prefix)


def test_a_cgroup_by_its_path(root: Path) -> None:
    number = add(root, "system.slice/ssh.service")
    for path in ("system.slice/ssh.service", "/system.slice/ssh.service/", str(root / "system.slice/ssh.service")):
        assert Cgroups().cgroup_of_path(path) == Cgroup(number, f"{root}/system.slice/ssh.service")
    for path in ("/", ".", str(root)):
        assert Cgroups().cgroup_of_path(path) == Cgroup(os.stat(root).st_ino, str(root))


@pytest.mark.parametrize("path", ["nothing", "/etc", "../..", "system.slice/\0", ""])
def test_no_such_path(root: Path, path: str) -> None:
    with pytest.raises(TcptraceError, match="no such cgroup"):
        Cgroups().cgroup_of_path(path)


def test_the_cgroup_of_a_process(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    number = add(root, "user.slice/with blank")
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "cgroup").write_text("1:cpu:/elsewhere\n0::/user.slice/with blank\n")
    (tmp_path / "13").mkdir()
    (tmp_path / "13" / "cgroup").write_text("0::/gone (deleted)\n")
    monkeypatch.setattr(containers, "PROC", str(tmp_path))
    assert [Cgroups().of_process(pid) for pid in (12, 13, 14)] == [number, -1, -1]


def test_without_cgroup2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "find_mount", lambda: None)
    cgroups = Cgroups()
    assert cgroups.path(5, 1.0) is None
    assert cgroups.of_process(os.getpid()) == -1
    with pytest.raises(MissingFeatureError, match="no cgroup2 file system"):
        cgroups.find_cgroup("1234")
