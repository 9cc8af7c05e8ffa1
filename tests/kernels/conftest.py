"""The table of kernels, printed when all of them are through."""

from pathlib import Path

import pytest
from matrix import Row, remarks, table

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def rows(pytestconfig: pytest.Config) -> list[Row]:
    """A test adds its kernel's to them."""
    return pytestconfig.stash.setdefault(ROWS, [])


@pytest.fixture
def results_folder(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Path:
    """Stays after the test: console, output and outcomes of the last run of a kernel."""
    return pytestconfig.rootpath / "build" / "kernels" / request.getfixturevalue("name")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("kernels")
        for line in (*table(rows).splitlines(), *remarks(rows)):
            terminalreporter.line(line)
