"""The Vagrantfile is one that vagrant accepts, and the machines in it are those that the README promises."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MACHINES = {"debian-11", "debian-12", "debian-13", "ubuntu-24.04"}

needs_vagrant = pytest.mark.skipif(not shutil.which("vagrant"), reason="needs vagrant: on Debian, sudo make test")


def validate(folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The providers' settings are left out: no provider is installed, and vagrant-libvirt is a plugin."""
    state = {"HOME": "home", "VAGRANT_HOME": "home/vagrant", "VAGRANT_DOTFILE_PATH": "dot"}
    for name in state.values():
        (tmp_path / name).mkdir()
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "VAGRANT_CHECKPOINT_DISABLE": "1"}
        | {variable: str(tmp_path / name) for variable, name in state.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.vm
@needs_vagrant
def test_vagrant_accepts_it_with_exactly_the_machines_that_are_promised(tmp_path: Path) -> None:
    done = validate(CHECKOUT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(re.findall(r"^==> (\S+):", done.stdout, re.MULTILINE)) == sorted(MACHINES)


@pytest.mark.vm
@needs_vagrant
def test_vagrant_refuses_a_setting_that_it_does_not_know(tmp_path: Path) -> None:
    """So that the test before this one can fail."""
    (tmp_path / "broken").mkdir()
    text = (CHECKOUT / "Vagrantfile").read_text().replace("vm.hostname", "vm.hostnam")
    (tmp_path / "broken/Vagrantfile").write_text(text)
    (tmp_path / "broken/.gitignore").touch()
    done = validate(tmp_path / "broken", tmp_path)
    assert done.returncode == 1
    assert "hostnam" in done.stdout + done.stderr


def test_the_readme_names_the_machines() -> None:
    assert set(re.findall(r"debian-\d+|ubuntu-[\d.]+\d", (CHECKOUT / "README.md").read_text())) >= MACHINES
