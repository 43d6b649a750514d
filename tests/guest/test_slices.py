"""Pods as a kubelet with the systemd driver makes them: slices of which systemd owns the weight."""

import signal
import time
from collections.abc import Callable

import pytest

from lab import Fleet, Image, Place, start, wait_for
from lab.agent import Agent
from lab.policy import put
from peacemaker.nice import k
from tests.guest.systemd import Units, call

BASELINE = 1000
NICE = 5
OURS = round(BASELINE * k(NICE) / k(0))
HOUSEKEEPING = 15.0
REASSERT_EVERY = 60.0
SLACK = 5.0
"""Seconds that an emulated machine may be late."""


@pytest.fixture
def pods(units: Units, fleet: Fleet, machine_agent: Agent) -> list[Place]:
    """Two pods with an idle VM in each, `a` and `b`, which the running agent has put at NICE."""
    pods = [units.pod(BASELINE) for _ in "ab"]
    for name, pod in zip("ab", pods, strict=True):
        fleet.keep(start(name, cgroup=pod.leaf, image=Image.IDLE))
    machine_agent.write_policy(put(NICE))
    machine_agent.start()
    for name, pod in zip("ab", pods, strict=True):
        row = machine_agent.wait_row(name, nice=NICE, weight=OURS, baseline=BASELINE)
        assert row["cgroup"] == pod.own.path
    return pods


def reset(agent: Agent, event: Callable[[], object], weights: list[Callable[[], int]]) -> None:
    """An event that makes systemd write its own weights: seen while the agent cannot answer it."""
    agent.send(signal.SIGSTOP)
    try:
        assert [weight() for weight in weights] == [OURS] * len(weights)
        event()
        assert [weight() for weight in weights] == [BASELINE] * len(weights)
    finally:
        agent.send(signal.SIGCONT)


@pytest.mark.timeout(240)
def test_what_systemd_resets_is_put_back_within_one_housekeeping_but_once_a_minute(
    pods: list[Place], machine_agent: Agent
) -> None:
    a, b = pods
    reset(machine_agent, daemon_reload, [a.own.weight, b.own.weight])
    wait_for(lambda: a.own.weight() == OURS, HOUSEKEEPING + SLACK, "a's weight to be put back")
    first = time.monotonic()
    machine_agent.wait_row("a", reasserts=1, rebases=0, weight=OURS, baseline=BASELINE)
    machine_agent.wait_row("b", reasserts=1, rebases=0, weight=OURS, baseline=BASELINE)

    reset(machine_agent, lambda: resize_memory(a), [a.own.weight])
    wait_for(
        lambda: a.own.weight() == OURS,
        REASSERT_EVERY + HOUSEKEEPING + SLACK,
        "a's weight to be put back again",
    )
    # The agent's clock began a moment before the weight was seen.
    assert time.monotonic() - first > REASSERT_EVERY - 1.0
    machine_agent.wait_row("a", reasserts=2, rebases=0)
    assert machine_agent.row("b")["reasserts"] == 1
    assert len(machine_agent.events("reassert")) == 3


def test_a_resize_of_the_pods_cpu_is_the_new_baseline(
    pods: list[Place], machine_agent: Agent
) -> None:
    a, b = pods
    # What an in-place resize does: the pod's slice gets the weight of the new request.
    call("systemctl", "set-property", "--runtime", unit_of(a), "CPUWeight=2000")
    row = machine_agent.wait_row(
        "a", timeout=HOUSEKEEPING + SLACK, baseline=2000, weight=round(2000 * k(NICE) / k(0))
    )
    assert (row["rebases"], row["reasserts"], row["nice"]) == (1, 0, NICE)
    assert machine_agent.stop() == 0
    assert machine_agent.call("restore").status == 0
    assert (a.own.weight(), b.own.weight()) == (2000, BASELINE)


def daemon_reload() -> None:
    call("systemctl", "daemon-reload")


def resize_memory(pod: Place) -> None:
    call("systemctl", "set-property", "--runtime", unit_of(pod), "MemoryMax=512M")


def unit_of(pod: Place) -> str:
    return pod.own.path.rpartition("/")[2]
