"""What the chart's tests have: their programs, built before the first test's clock runs."""

import pytest

from apiserver import programs
from chartfiles.helm import program
from gobuild import MissingError, build
from tests.chart.others import GITOPS


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            program("helm")
            programs()
            build(GITOPS)
        except MissingError as error:
            raise pytest.UsageError(str(error)) from None
