"""What the adjusting is for: the CPU time that VMs really get, measured."""

import os

import pytest

from lab import Fleet, PodTree, shares, spinner, start
from lab.agent import Agent
from lab.policy import policy, rule

CPU = max(os.sched_getaffinity(0))
SECONDS = 5.0


def test_cpu_shares_follow_the_weights_and_an_ordinary_pod_loses_nothing(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    favoured, restrained, ordinary = (tree.pod(weight=1000) for _ in range(3))
    a = fleet.keep(start("a", cgroup=favoured.leaf, cpus={CPU}))
    b = fleet.keep(start("b", cgroup=restrained.leaf, cpus={CPU}))
    pod = fleet.keep(spinner(ordinary.leaf, cpus={CPU}))
    pids = (a.pid, b.pid, pod.pid)
    before = shares(pids, SECONDS)
    assert before == {pid: pytest.approx(1 / 3, rel=0.1) for pid in pids}

    rules = [
        rule({"set": nice}, {"where": f'vm.name == "{name}"'}, name=name)
        for name, nice in (("a", -4), ("b", 4))
    ]
    agent.write_policy(policy(*rules, interval="1h"))
    agent.start()
    agent.wait_row("a", nice=-4)
    agent.wait_event("write", vm="default/b", what="threads", new="4")
    weights = [group.weight() for group in (favoured.own, restrained.own, ordinary.own)]
    # kernel/sched/core.c: nice -4 weighs 2501 and nice 4 weighs 423.
    assert weights == [round(2000 * 2501 / 2924), round(2000 * 423 / 2924), 1000]
    after = shares(pids, SECONDS)
    assert [after[pid] for pid in pids] == [
        pytest.approx(weight / sum(weights), rel=0.1) for weight in weights
    ]
    assert after[pod.pid] > 1 / 3 * 0.95
