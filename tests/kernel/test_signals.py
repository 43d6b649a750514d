"""What the agent reads of the machine and of VMs, beside what the kernel says of them elsewhere."""

import os
from pathlib import Path

import pytest

from lab import Fleet, Group, Image, Place, PodTree, cgroup_version, start
from lab.agent import Agent, Row
from lab.policy import policy, rule

CPU = max(os.sched_getaffinity(0))


def test_usage_and_wait_of_two_vms_that_want_one_cpu(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    for name in ("a", "b"):
        fleet.keep(start(name, cgroup=tree.pod(weight=1000).leaf, cpus={CPU}))
    fleet.keep(start("asleep", cgroup=tree.pod().leaf, image=Image.IDLE, vcpus=2))
    agent.start()

    def is_starved(row: Row) -> bool:
        # A vCPU that always wants to run either runs or waits. Beside it there are only QEMU's own
        # threads, and what else the machine does on this CPU.
        usage: float = row["usage"] or 0.0
        wait: float = row["wait"] or 0.0
        return 0.1 < usage < 0.6 and 0.4 < wait < 0.9 and 0.9 < usage + wait < 1.1

    def is_asleep(row: Row) -> bool:
        usage: float = row["usage"] or 0.0
        wait: float = row["wait"] or 0.0
        return usage < 0.1 and wait < 0.1

    agent.wait(
        lambda: (
            is_starved(agent.row("a"))
            and is_starved(agent.row("b"))
            and is_asleep(agent.row("asleep"))
        ),
        "two to run or to wait all of the time, and one to do neither",
    )
    assert agent.row("asleep")["vcpus"] == 2


def test_a_policy_sees_who_waits_and_who_uses_most(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    spinning = fleet.keep(start("spins", cgroup=tree.pod().leaf, cpus={CPU}))
    fleet.keep(start("rival", cgroup=tree.pod().leaf, cpus={CPU}))
    fleet.keep(start("asleep", cgroup=tree.group("plain"), image=Image.IDLE))
    rules = [
        rule({"set": 2}, {"where": "vm.wait > 0.3 && vm.name == 'spins'"}, name="waits"),
        rule({"set": 3}, {"where": "vm.wait < 0.1 && vm.usagePerVcpu < 0.1"}, name="sleeps"),
        rule({"set": 4}, {"highest": "vm.usage", "where": "vm.name == 'rival'"}, name="uses"),
    ]
    agent.write_policy(policy(*rules))
    agent.start()
    agent.wait_row("spins", nice=2, pid=spinning.pid)
    agent.wait_row("asleep", nice=3)
    agent.wait_row("rival", nice=4)
    # The first pass had one reading only: no news, and nothing to report.
    assert not agent.events("signals are missing")


def _set_quota(group: Group, percent: int) -> None:
    """What a CPU limit of a container becomes: a part of each period of 100 ms."""
    directory = group.directories[0]
    if cgroup_version() == 2:
        (directory / "cpu.max").write_text(f"{percent * 1000} 100000")
    else:
        (directory / "cpu.cfs_quota_us").write_text(str(percent * 1000))


def _throttled(group: Group) -> int:
    """The periods in which the group was throttled itself."""
    text = (group.directories[0] / "cpu.stat").read_text()
    return dict(map(_pair, text.splitlines()))["nr_throttled"]


def _pair(line: str) -> tuple[str, int]:
    name, value = line.split()
    return name, int(value)


def test_throttled_is_that_of_the_container_though_the_pod_itself_is_not(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    limited, free = tree.pod(), tree.pod()
    _set_quota(limited.leaf, 20)
    for name, place in (("limited", limited), ("free", free)):
        fleet.keep(start(name, cgroup=place.leaf, cpus={CPU}))
    agent.write_policy(
        policy(
            rule({"set": 1}, {"where": "vm.throttled > 0.8"}, name="throttled"),
            rule({"set": 2}, {"where": "vm.throttled < 0.1"}, name="free"),
        )
    )
    agent.start()
    agent.wait_row("limited", nice=1)
    agent.wait_row("free", nice=2)
    assert _throttled(limited.leaf) > 5
    assert _throttled(limited.own) == 0


def _pressure_is_readable() -> bool:
    try:
        return Path("/proc/pressure/cpu").read_text().startswith("some ")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("signal", "present"),
    [("vm.psi.some10", cgroup_version() == 2), ("node.psi.some10", _pressure_is_readable())],
)
def test_pressure_is_there_or_is_missing_and_told(
    signal: str, present: bool, tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place: Place = tree.pod()
    # Two threads that want one CPU are under pressure.
    fleet.keep(start("a", cgroup=place.leaf, cpus={CPU}, vcpus=2))
    for_vm = signal.startswith("vm.")
    rules = [
        rule({"set": 1}, {"where": f"{signal} > 0.01"})
        if for_vm
        else rule({"set": 1}, when=f"{signal} > 0.01 && {signal} <= 1.0"),
        # Missing is not zero, and the rest of a policy works on.
        rule({"set": 7}, {"where": f"{signal} <= 0.0"}, name="zero")
        if for_vm
        else rule({"set": 7}, when=f"{signal} <= 0.0", name="zero"),
    ]
    if present:
        rules.pop()
    else:
        rules.append(rule({"set": 2}, name="last"))
    agent.write_policy(policy(*rules))
    agent.start()
    agent.wait_row("a", nice=1 if present else 2)
    missing = agent.status()["policies"][0]["missingSignals"]
    told = [event["signals"] for event in agent.events("signals are missing")]
    if present:
        assert (missing, told) == ([], [])
    else:
        assert [signal in each for each in (" ".join(missing), told[0])] == [True, True]
        assert len(told) == 1, "once, not at every pass"


def test_the_nodes_load_is_that_of_proc_for_each_cpu(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")

    def load() -> list[float]:
        return [float(word) / cpus for word in Path("/proc/loadavg").read_text().split()[:3]]

    fleet.keep(start("a", cgroup=tree.pod().leaf, cpus={CPU}))
    agent.start()
    before, status, after = load(), agent.status(), load()
    assert status["cpus"] == cpus
    assert status["load"] in (before, after)

    # As an expression of a policy, in the same unit; and a CPU that is busy shows in node.busy.
    low, high = after[0] * 0.5, after[0] * 2 + 1
    agent.write_policy(
        policy(
            rule({"set": 1}, when=f"node.load1 > {low} && node.load1 < {high}", name="load"),
            rule({"set": 2}, when=f"node.busy > {0.8 / cpus} && node.busy <= 1.0", name="busy"),
        ).replace('"set": 1', '"set": 0')
    )
    agent.wait_row("a", nice=2)
    active = agent.status()["policies"][0]["activeRules"]
    assert active == ["load", "busy"]


def test_the_nodes_signals_count_all_vms_governed_or_not(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    for name, namespace in (("a", "team"), ("b", "other"), ("c", "other")):
        fleet.keep(start(name, namespace, cgroup=tree.pod().leaf, paused=True))
    text = policy(
        rule({"set": 1}, when="node.vmCount == 3 && vms.size() == 1"),
        selector={"matchLabels": {"peace": "wanted"}},
    )
    agent.labels.write_text("team/a: {peace: wanted}\n")
    agent.write_policy(text)
    agent.start("--labels", str(agent.labels))
    agent.wait_event("write", vm="team/a", what="threads", new="1")
    assert {row["nice"] for row in agent.rows().values()} == {0, 1}
