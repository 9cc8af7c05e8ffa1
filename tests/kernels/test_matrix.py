"""Debian's kernels, each booted under qemu: the tests of tests/netns inside it.

TCPTRACE_KERNELS chooses the kernels ("5.10 6.1", or "all"), TCPTRACE_KERNEL_ARGS is for the pytest inside.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from abilities import CHECKOUT, selection
from matrix import Row, read_outcomes
from vm import inside
from vm.machine import SLOWNESS, MachineError, Run, accelerator, check_host, run_in, tail
from vm.packages import Kernel, kernel
from vm.suites import UnavailableError, chosen_kernels

VM_REQUIRED = "vm" in os.environ.get("TCPTRACE_REQUIRE", "").split(",")
RESULTS_INSIDE = Path("/run/tcptrace/results")


@pytest.mark.vm
@pytest.mark.parametrize("name", chosen_kernels())
def test_kernel(name: str, rows: list[Row], results_folder: Path) -> None:
    try:
        check_host()
        booted = kernel(name)
    except UnavailableError as error:
        rows.append(Row(name, [], None, None, trouble=f"not run: {error}"))
        pytest.skip(str(error))
    shutil.rmtree(results_folder, ignore_errors=True)
    results_folder.mkdir(parents=True)
    try:
        run = run_tests(booted, results_folder)
    except MachineError as error:
        rows.append(Row(booted.release, read_outcomes(results_folder / "outcomes"), None, None, trouble=str(error)))
        pytest.fail(f"{error}\n{tail(results_folder / 'output')}")
    row = Row(booted.release, read_outcomes(results_folder / "outcomes"), run.boot_s, run.seconds, boots=run.boots)
    rows.append(row)
    for one in row.failed():
        print(f"{one.test} failed inside, see {results_folder / 'output'}:\n{one.reason}\n")
    assert [one.test for one in row.failed()] == []
    assert run.status == 0, tail(results_folder / "output")
    assert any(one.outcome == "passed" for one in row.outcomes), "no test passed"
    if VM_REQUIRED:
        assert row.never_shown() == [], "abilities of which every test was skipped"


def run_tests(booted: Kernel, results: Path) -> Run:
    """The tests of the table, or what TCPTRACE_KERNEL_ARGS names instead; its other words are added."""
    more = shlex.split(os.environ.get("TCPTRACE_KERNEL_ARGS", ""))
    chosen = [] if any(word.startswith("tests/") for word in more) else selection()
    command = [sys.executable, "-P", inside.__file__, str(RESULTS_INSIDE / "outcomes")]
    command += ["-p", "no:cacheprovider", "--color=no", "-v", *more, *chosen]
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "TCPTRACE_TEST_SLOWNESS": str(SLOWNESS[accelerator()]),
    }
    return run_in(booted, command, CHECKOUT, environment, results)
