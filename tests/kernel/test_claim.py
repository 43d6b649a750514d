"""The claim guard on real cgroups: VMs trade CPU time among themselves, and take it from nobody."""

import pytest

from lab import Fleet, PodTree, cgroup_version, start, start_many
from lab.agent import Agent
from lab.policy import put
from tests.kernel.scene import cgroups, is_untouched, record


def test_the_vms_keep_together_the_claim_that_they_came_with(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    baselines = [1000, 500, 250]
    places = [tree.pod(weight=baseline) for baseline in baselines]
    for guest in start_many([place.leaf for place in places], vcpus=1):
        fleet.keep(guest)
    agent.write_policy(put(-10, "vm-0"))
    agent.start()
    row = agent.wait_row("vm-0", nice=-10)
    weights = [place.own.weight() for place in places]
    wanted = [1000 * 9548 / 1024, 500, 250]
    assert weights == [round(each * 1750 / sum(wanted)) for each in wanted]
    assert sum(weights) <= 1750 + 1.5, "but for the rounding of three weights"
    # What the weights mean now, beside what they meant: both others lost.
    effective = {name: each["effectiveNice"] for name, each in agent.rows().items()}
    assert effective == {"default/vm-0": -2, "default/vm-1": 8, "default/vm-2": 8}
    assert {agent.row(name)["nice"] for name in ("vm-1", "vm-2")} == {0}
    assert row["wanted"] == pytest.approx(wanted[0] * 1750 / sum(wanted), abs=0.1)


def test_the_claim_is_that_of_vms_below_one_parent(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    burstable, besteffort = tree.pod(weight=1000), tree.pod(qos="besteffort", weight=1000)
    for guest in start_many([burstable.leaf, besteffort.leaf], vcpus=1):
        fleet.keep(guest)
    agent.write_policy(put(-10, "vm-0"))
    agent.start()
    agent.wait_row("vm-0", nice=-10)
    assert (burstable.own.weight(), besteffort.own.weight()) == (1000, 1000)


@pytest.mark.parametrize(
    ("options", "weight", "effective"),
    [((), 1000, 0), (("--max-claim-percent", "250"), 2500, -4)],
    ids=["by default", "unless it is allowed to"],
)
def test_a_lone_vm_cannot_gain(
    options: tuple[str, ...],
    weight: int,
    effective: int,
    tree: PodTree,
    fleet: Fleet,
    agent: Agent,
) -> None:
    place = tree.pod(weight=1000)
    fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(-10))
    agent.start(*options)
    row = agent.wait_row("a", nice=-10)
    assert (place.own.weight(), row["effectiveNice"]) == (weight, effective)
    assert record(place.own)["nice"] == -10


def test_a_weight_below_the_kernels_minimum_is_floored_and_said_so(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=4)
    fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(15))
    agent.start()
    row = agent.wait_row("a", nice=15)
    # The least that the kernel takes is half of 4 on v1 and a quarter on v2.
    least, effective = (2, 3) if cgroup_version() == 1 else (1, 6)
    assert row["floored"]
    assert row["wanted"] == pytest.approx(4 * 36 / 1024, abs=0.1)
    assert row["weight"] == place.own.weight() == least
    assert row["effectiveNice"] == effective


def test_an_idle_cgroup_is_left_alone(tree: PodTree, fleet: Fleet, agent: Agent) -> None:
    idle, other = tree.pod(weight=1000), tree.pod(weight=1000)
    (idle.own.directories[0] / "cpu.idle").write_text("1")
    guest = fleet.keep(start("idle", cgroup=idle.leaf, paused=True))
    fleet.keep(start("b", cgroup=other.leaf, paused=True))
    before = cgroups(tree)[idle.own.path]
    agent.write_policy(put(5))
    agent.start()
    row = agent.wait_row("idle", state="Excluded", nice=0)
    assert row["reason"] == "CpuIdle: cpu.idle is set on its cgroup, which then has no weight"
    agent.wait_event("write", vm="default/b", what="threads", new="5")
    assert is_untouched(guest, idle.own, before[0])
    assert not agent.events("write", vm="default/idle")
    # Somebody gives it a weight again: then it is a VM like the others.
    (idle.own.directories[0] / "cpu.idle").write_text("0")
    idle.own.set_weight(1000)
    agent.edit(put(6))
    agent.wait_row("idle", state="Managed", nice=6, baseline=1000, weight=266)
