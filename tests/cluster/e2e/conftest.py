"""What the end-to-end tests have: one site for all, and a node with a tenant for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.e2e.scene import Scene
from tests.cluster.e2e.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The operator is not started."""
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def scene(site: Site, tmp_path: Path) -> Iterator[Scene]:
    """The operator runs, the agent of `scene.node` does not; logs are shown if the test fails."""
    if not site.operator.is_started:
        site.operator.start()
    heard = len(site.operator.said())
    with Scene(site, tmp_path) as scene:
        yield scene
        print(scene.node.agent.log())
        print(site.operator.said()[heard:])
