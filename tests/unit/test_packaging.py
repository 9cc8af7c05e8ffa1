"""The wheel holds what it should, the commands around it say what they should."""

import importlib
import importlib.metadata
import importlib.resources
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import tcptrace

CHECKOUT = Path(__file__).parents[2]
INSTALLED = Path(tcptrace.__file__).parent
COMPILED = sorted((CHECKOUT / "tcptrace").rglob("*.pyx"))


def files(folder: Path, *patterns: str) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for pattern in patterns for path in folder.rglob(pattern)}


def test_version_is_the_metadata_s() -> None:
    assert importlib.metadata.version("tcptrace") == tcptrace.__version__


def test_bpf_sources_are_in_the_wheel_as_they_are_in_the_checkout() -> None:
    sources = files(CHECKOUT / "bpf", "*.c", "*.h", "LICENSE")
    assert sources
    assert files(INSTALLED / "bpf", "*.c", "*.h", "LICENSE") == sources


def test_bpf_sources_are_found_as_resources() -> None:
    found = importlib.resources.files("tcptrace.bpf").joinpath("records.h")
    assert found.read_bytes() == (CHECKOUT / "bpf/records.h").read_bytes()


def test_the_wheel_has_every_module_and_no_other() -> None:
    patterns = ("*.py", "*.pyi", "*.pxd", "*.json", "py.typed")
    assert files(INSTALLED, *patterns) == files(CHECKOUT / "tcptrace", *patterns)
    assert not list(INSTALLED.rglob("*.pyx"))


@pytest.mark.parametrize("source", COMPILED, ids=lambda path: path.stem)
def test_compiled_modules_are_compiled(source: Path) -> None:
    module = importlib.import_module(".".join(source.relative_to(CHECKOUT).with_suffix("").parts))
    assert module.__file__
    assert module.__file__.endswith(".so")


def test_licences_are_in_the_wheel() -> None:
    names = {path.name for path in importlib.metadata.files("tcptrace") or () if "licenses" in path.parts}
    assert names == {"LICENSE"}
    licenses = [path for path in importlib.metadata.files("tcptrace") or () if "licenses" in path.parts]
    assert len(licenses) == 2


def test_the_command_is_installed() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="tcptrace")
    assert command.value == "tcptrace.__main__:main"
    assert os.access(Path(sys.executable).parent / "tcptrace", os.X_OK)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, tcptrace; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pyroute2", "rich", "click", "bcc"} & set(output.split())


def test_bcc_is_never_taken_from_pypi() -> None:
    requirements = importlib.metadata.requires("tcptrace") or []
    assert not [requirement for requirement in requirements if requirement.lower().startswith("bcc")]


@pytest.mark.parametrize(
    ("manager", "advice"),
    [
        ("dnf", "dnf install ethtool iproute iproute-tc procps-ng tcpdump wireshark-cli xz zstd"),
        ("pacman", "pacman -S ethtool iproute2 procps-ng tcpdump wireshark-cli xz zstd"),
        ("zypper", "zypper install ethtool iproute2 procps tcpdump wireshark xz zstd"),
    ],
)
def test_bootstrap_names_the_packages_of_other_distributions(tmp_path: Path, manager: str, advice: str) -> None:
    """A machine that has nothing but that package manager, and that one must not be run."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (tmp_path / "scripts").mkdir()
    for tool in ("bash", "dirname", "date", "id", "paste", "sort"):
        (bin_ / tool).symlink_to(shutil.which(tool) or tool)
    (bin_ / manager).write_text("#!/bin/sh\nexit 99\n")
    (bin_ / manager).chmod(stat.S_IRWXU)
    # Without its line about /usr/sbin, where this machine's own tools are.
    script = (CHECKOUT / "scripts/bootstrap.sh").read_text().replace(":/usr/sbin:/sbin", "")
    (tmp_path / "scripts/bootstrap.sh").write_text(script)

    done = subprocess.run(
        ["/bin/bash", tmp_path / "scripts/bootstrap.sh", "test-tools"],
        env={"PATH": str(bin_)},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().endswith(advice)


@pytest.mark.parametrize("offered", [False, True])
def test_bootstrap_installs_vagrant_only_where_the_distribution_has_it(tmp_path: Path, offered: bool) -> None:
    """A machine that has all other tools, and an apt that installs nothing."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (tmp_path / "scripts").mkdir()
    for tool in ("bash", "dirname", "date", "id", "paste", "sort", "env"):
        (bin_ / tool).symlink_to(shutil.which(tool) or tool)
    tools = "ip ss tc ps ethtool tcpdump tshark capinfos xz zstd sudo apt-get"
    stubs = dict.fromkeys(tools.split(), "") | {"apt-cache": "echo Package: $2" if offered else ""}
    for name, text in stubs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name).chmod(stat.S_IRWXU)
    shutil.copy(CHECKOUT / "scripts/bootstrap.sh", tmp_path / "scripts")

    done = subprocess.run(
        ["/bin/bash", tmp_path / "scripts/bootstrap.sh", "test-tools"],
        env={"PATH": str(bin_)},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == (1 if offered else 0)
    assert ("installing system packages: vagrant" in done.stderr) is offered
    assert offered or done.stderr == ""
