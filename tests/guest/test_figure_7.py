"""The paper's Figure 7, in a machine just booted, with the load average that the machine has.

`policies/seed-figure-7.yaml` as it is shipped, but for its interval: 15 steps of 15 s would take
longer than load15 needs to rise. The load comes from many busy processes at once, which the load
average counts whatever share of the CPUs they get: 100 of them bring load15 from 0 to 0.9 per CPU
in about 20 seconds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import Fleet, Group, Image, PodTree, start, wait_for
from lab.agent import Agent
from lab.processes import TIMEOUT, launch

POLICY = Path(__file__).parents[2] / "policies/seed-figure-7.yaml"
BUSY_PROCESSES = 100
PASSES_AT_THE_BOUND = 3

Nices = dict[str, int]
"""Nice by the name of the VM."""


@pytest.mark.timeout(300)
def test_figure_7_moves_one_vm_a_step_each_pass_as_the_load_of_the_machine_says(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    assert load15_per_cpu() < 0.1, "the machine was not booted just now"
    # In this order, which is not that of their names: of two equals the older one is picked.
    names = ["oldest", "middle", "latest"]
    pods = [tree.pod(weight=1000) for _ in names]
    guests = [
        fleet.keep(start(name, cgroup=pod.leaf, image=Image.IDLE))
        for name, pod in zip(names, pods, strict=True)
    ]
    load = tree.group("load")
    agent.write_policy(at_an_interval_of_one_second(POLICY.read_text()), "seed-figure-7")
    agent.start()

    assert steps(agent, dict.fromkeys(names, 0), 15) == [("oldest", -n) for n in range(1, 16)]
    assert load15_per_cpu() < 0.1
    see_nothing_move(agent)
    weights = [pod.own.weight() for pod in pods]
    assert weights[0] > 2600
    assert weights[1] == weights[2] < 200
    bound = nices(agent)
    with busy(load):
        quiet: list[float] = []
        now = wait_for(lambda: moved(agent, bound, quiet), TIMEOUT, "the load to move a VM")
        assert now is not None
        assert load15_per_cpu() > 0.9
        assert any(0.1 < load < 0.9 for load in quiet)
        assert now == {**bound, "middle": 1}
        assert steps(agent, now, 14) == [("middle", n) for n in range(2, 16)]
        see_nothing_move(agent)
    assert nices(agent) == {"oldest": -15, "middle": 15, "latest": 0}
    threads = {os.getpriority(os.PRIO_PROCESS, tid) for tid in guests[1].threads()}
    assert threads == {15}


def at_an_interval_of_one_second(text: str) -> str:
    assert text.count("\n  interval: 15s\n") == 1
    return text.replace("\n  interval: 15s\n", "\n  interval: 1s\n")


def load15_per_cpu() -> float:
    return os.getloadavg()[2] / (os.cpu_count() or 1)


def nices(agent: Agent) -> Nices:
    return {row["name"]: row["nice"] for row in agent.rows().values()}


def moved(agent: Agent, before: Nices, quiet: list[float]) -> Nices | None:
    """The nices if they are others than before; else the load at which they were not goes to
    `quiet`.
    """
    agent.must_run()
    load = load15_per_cpu()
    now = nices(agent)
    if now != before:
        return now
    quiet.append(load)
    return None


def steps(agent: Agent, before: Nices, count: int) -> list[tuple[str, int]]:
    """The next steps, as the agent's list shows them: each the VM that moved, and its nice."""
    seen: list[tuple[str, int]] = []

    def look() -> bool:
        nonlocal before
        now = nices(agent)
        moved = [name for name in now if now[name] != before[name]]
        assert len(moved) <= 1, f"{moved} moved together after {seen}"
        seen.extend((name, now[name]) for name in moved)
        before = now
        return len(seen) >= count

    agent.wait(look, f"{count} steps", timeout=count * 4 + TIMEOUT)
    return seen


def see_nothing_move(agent: Agent) -> None:
    """For some more passes, in which the picked VM is at its bound."""
    before = nices(agent)
    passes = agent.status()["policies"][0]["passes"]

    def look() -> bool:
        assert nices(agent) == before
        return bool(agent.status()["policies"][0]["passes"] >= passes + PASSES_AT_THE_BOUND)

    agent.wait(look, "more passes")


@contextmanager
def busy(group: Group) -> Iterator[None]:
    """Processes in a cgroup that all want a CPU all the time."""
    spin = f"for i in $(seq {BUSY_PROCESSES}); do while :; do :; done & done; wait"
    shell = launch(["sh", "-c", spin], cgroup=group)
    try:
        yield
    finally:
        (group.directories[0] / "cgroup.kill").write_text("1")
        shell.stop()
