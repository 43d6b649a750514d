"""What every kernel test has: cgroups, VMs in them, and the agent with these VMs alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Fleet, PodTree
from lab.agent import Agent


@pytest.fixture
def tree() -> Iterator[PodTree]:
    """Cgroups of the test's own, removed at its end."""
    with PodTree() as tree:
        yield tree


@pytest.fixture
def fleet(tree: PodTree) -> Iterator[Fleet]:  # noqa: ARG001
    """Keeps the test's processes, which end before the tree: its cgroups are then empty."""
    with Fleet() as fleet:
        yield fleet


@pytest.fixture
def agent(tree: PodTree, fleet: Fleet, tmp_path: Path) -> Iterator[Agent]:  # noqa: ARG001
    """An agent that sees the tree's VMs only; not started. It is killed before they end."""
    with Agent(tmp_path, tree.root) as agent:
        yield agent
        if agent.is_started:
            agent.must_run()
