"""Who runs the command, and where."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from running import tcptrace

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def nobody() -> Mapping[str, Any]:
    """What Popen needs to start a process without root, where that is what runs the tests."""
    if os.geteuid() != 0:
        return {}
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        if tcptrace("--version", folder=Path("/"), **user).code == 0:
            return user
    except PermissionError:
        pass
    pytest.skip("only root may read this checkout")
