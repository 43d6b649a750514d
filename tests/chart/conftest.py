"""What the chart's tests have: their programs, built before the first test's clock runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import programs
from chartfiles.helm import program
from gobuild import MissingError, build
from tests.chart.hooks import Installation
from tests.chart.others import GITOPS
from tests.cluster.program import ready


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


@pytest.fixture
def idle(installation: Installation) -> Installation:
    """The module's `installation`: no operator runs, nothing of another test is left."""
    installation.clear()
    return installation


@pytest.fixture
def scene(idle: Installation, tmp_path: Path) -> Iterator[Installation]:
    """An operator that leads."""
    with ready(idle.cluster, idle.api, tmp_path, "--no-webhook"):
        yield idle
