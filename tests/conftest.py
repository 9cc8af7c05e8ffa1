"""What every tier shares: the installed wheel is what gets tested, and no test is skipped unseen."""

import os
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import tcptrace

NETNS = Path(__file__).parent / "netns"
TIERS = {"bpf", "vm"}
REQUIRED = set(filter(None, os.environ.get("TCPTRACE_REQUIRE", "").split(",")))
"""Tiers of which no test may be skipped, as CI sets them: TCPTRACE_REQUIRE=bpf,vm."""

# A busy machine makes any example slow; that is not what these tests look for.
hypothesis.settings.register_profile("tcptrace", deadline=None)
hypothesis.settings.load_profile("tcptrace")


def pytest_configure() -> None:
    package = Path(tcptrace.__file__).resolve()
    if not package.is_relative_to(Path(sysconfig.get_path("platlib")).resolve()):
        raise pytest.UsageError(f"these tests are for the installed wheel, not for {package.parent}: use `make test`")
    if unknown := REQUIRED - TIERS:
        raise pytest.UsageError(f"TCPTRACE_REQUIRE knows {', '.join(sorted(TIERS))}, not {', '.join(sorted(unknown))}")


def pytest_report_header() -> str:
    return f"tcptrace {tcptrace.__version__} from {Path(tcptrace.__file__).parent}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NETNS in item.path.parents:
            item.add_marker("bpf")
        if os.geteuid() != 0 and item.get_closest_marker("bpf"):
            item.add_marker(pytest.mark.skip(reason="needs root: sudo make test"))


# --- A skip that may not be is a failure.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        # What this kernel may lack, those of tests/kernels have: there it must run.
        exempt = {"bpf"} if item.get_closest_marker("matrix") else set()
        refuse_skip(report, [tier for tier in sorted(REQUIRED - exempt) if item.get_closest_marker(tier)])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if report.skipped and NETNS in collector.path.parents:
        refuse_skip(report, REQUIRED & {"bpf"})
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, tiers: list[str] | set[str]) -> None:
    if tiers:
        report.outcome = "failed"
        report.longrepr = f"skipped, and TCPTRACE_REQUIRE asks for {', '.join(tiers)}: {skip_reason(report)}"


# --- What was skipped, and why, is told at the end.


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(
        ("/".join(report.nodeid.split("/")[:2]).split("::")[0], skip_reason(report))
        for report in terminalreporter.stats.get("skipped", [])
    )
    if skipped:
        terminalreporter.section("not run")
        for (folder, reason), count in sorted(skipped.items()):
            terminalreporter.line(f"{count} of {folder}: {reason}")
