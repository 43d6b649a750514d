"""What every test of this project is held to: it runs, and it runs the same way each time."""

from collections.abc import Generator

import hypothesis
import pytest

# Properties are tried on the same examples in every run, and without a deadline: the machine may be
# busy with something else. `pytest --hypothesis-profile=default` looks for new examples.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")

NO_SKIPS = "no test of this project is skipped or expected to fail: make it run, or remove it"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test (or one marked xfail) into a failed one that says so."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {NO_SKIPS}\n{report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped test file (importorskip) into a collection error that says so."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {NO_SKIPS}\n{report.longrepr}"
    return report
