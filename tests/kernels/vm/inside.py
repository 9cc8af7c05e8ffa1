"""What runs inside: pytest, each test's outcome written down as a JSON line as soon as it is known.

python inside.py RESULTS [PYTEST'S ARGUMENTS]

Tests that RESULTS has an outcome of, from a boot that the emulator ended, are not run again.
"""

import json
import sys
from collections.abc import Collection
from typing import TextIO

import pytest

RANK = ("passed", "skipped", "failed")


class Recorder:
    """A plugin of pytest's."""

    def __init__(self, out: TextIO, done: Collection[str] = ()) -> None:
        self._out, self._done = out, done
        self._outcome, self._seconds, self._reason = "passed", 0.0, ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_runtest_logstart(self) -> None:
        self._outcome, self._seconds, self._reason = "passed", 0.0, ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of set-up, call and tear-down; the worst counts."""
        self._seconds += report.duration
        if RANK.index(report.outcome) > RANK.index(self._outcome):
            self._outcome, self._reason = report.outcome, _reason(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write(nodeid, self._outcome, self._seconds, self._reason)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write(report.nodeid, report.outcome, 0.0, _reason(report))

    def _write(self, test: str, outcome: str, seconds: float, reason: str) -> None:
        line = {"test": test, "outcome": outcome, "seconds": seconds, "reason": reason}
        print(json.dumps(line), file=self._out, flush=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext


def run(outcomes: str, arguments: list[str]) -> int:
    """Exit code as pytest's: 1 also where a test had failed before."""
    with open(outcomes, "a+") as file:
        file.seek(0)
        whole = [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
        file.truncate(sum(len(line.encode()) for line in whole))
        before = {line["test"]: line["outcome"] for line in map(json.loads, whole)}
        status = pytest.main(arguments, plugins=[Recorder(file, before)])
    if before and status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return int("failed" in before.values())
    return int(status)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
