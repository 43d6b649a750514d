"""What the guest's tests have: pods and machines that systemd made, and those of the kernel tests.

They write to systemd and load the whole machine, so they run in the throw-away guest only.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.agent import Agent
from tests.guest.systemd import Units
from tests.kernel.conftest import agent, fleet, tree

__all__ = ["agent", "fleet", "tree"]

if not Path("/run/guest/command").exists():
    raise pytest.UsageError(
        "these tests run in the guest only: "
        "PYTHONPATH=tools .venv/bin/python -m guest run -- python3 -m pytest tests/guest"
    )

# Without PSI the machine is another one, and only these tests are about it.
collect_ignore = ["psi_off"] if Path("/proc/pressure/cpu").exists() else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Figure 7 needs a load average of 15 minutes that nothing has raised yet: it goes first."""
    items.sort(key=lambda item: item.path.name != "test_figure_7.py")


@pytest.fixture
def units() -> Iterator[Units]:
    """Slices and scopes of the test's own, stopped at its end."""
    with Units() as units:
        yield units


@pytest.fixture
def machine_agent(units: Units, tmp_path: Path) -> Iterator[Agent]:  # noqa: ARG001
    """An agent that sees every VM of the machine, those in systemd's units too; not started."""
    with Agent(tmp_path, "/") as agent:
        yield agent
        if agent.is_started:
            agent.must_run()
