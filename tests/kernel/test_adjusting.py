"""Adjusting: what a nice does to threads and weights, and what is never written."""

import os
import time
from pathlib import Path

import pytest

from lab import Fleet, Group, PodTree, start
from lab.agent import Agent
from lab.policy import policy, put, rule
from tests.kernel.scene import (
    Qmp,
    cgroups,
    is_untouched,
    journal,
    nices,
    raw_record,
    record,
    start_with_qmp,
    thread_nices,
)

# The kernel's weights of nice, kernel/sched/core.c, sched_prio_to_weight[].
K = {-10: 9548, -5: 3121, -1: 1277, 0: 1024, 1: 820, 2: 655, 3: 526, 5: 335, 10: 110, 15: 36}


def by_nice(**nice: int) -> str:
    """A policy that puts each VM, by name, at its nice."""
    rules = [
        rule({"set": value}, {"where": f'vm.name == "{name}"'}, name=name)
        for name, value in nice.items()
    ]
    return policy(*rules)


@pytest.mark.parametrize(
    ("nice", "threads", "weights"),
    [
        # A VM that yields gives its part to everybody: nobody's weight grows.
        ({"a": 10, "b": 0}, {"a": 10, "b": 0}, {"a": 1234 * K[10] / K[0], "b": 1000}),
        # In a cgroup of its own a VM is favoured by its weight alone, and only as far as the two
        # together keep the 2234 that they came with.
        (
            {"a": -5, "b": 5},
            {"a": 0, "b": 5},
            {
                "a": 2234 * 1234 * K[-5] / (1234 * K[-5] + 1000 * K[5]),
                "b": 2234 * 1000 * K[5] / (1234 * K[-5] + 1000 * K[5]),
            },
        ),
    ],
    ids=["one yields", "one gains what the other yields"],
)
def test_in_own_cgroups_nice_becomes_weights_and_only_yielding_is_written_to_threads(
    nice: dict[str, int],
    threads: dict[str, int],
    weights: dict[str, float],
    tree: PodTree,
    fleet: Fleet,
    agent: Agent,
) -> None:
    places = {"a": tree.pod(weight=1234), "b": tree.pod(weight=1000)}
    guests = {
        name: fleet.keep(start(name, cgroup=place.leaf, vcpus=2, paused=True))
        for name, place in places.items()
    }
    agent.write_policy(by_nice(**nice))
    agent.start()
    for name, value in nice.items():
        row = agent.wait_row(name, nice=value)
        assert row["weight"] == places[name].own.weight() == round(weights[name])
        assert nices(guests[name]) == {threads[name]}
        assert {row["policy"], row["state"]} == {"test", "Managed"}
    assert record(places["a"].own)["baseline"] == 1234
    assert (row["baseline"], places["a"].leaf.weight()) == (1000, 1024 if _is_v1() else 100)


def _is_v1() -> bool:
    return Group("/").weight_file.name == "cpu.shares"


def test_a_step_is_taken_at_each_pass_until_the_bound(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=1000)
    fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(policy(rule({"add": 1}, {"lowest": "vm.priority"}), bounds=(0, 3)))
    began = time.monotonic()
    agent.start()
    agent.wait_row("a", nice=3)
    agent.wait_event("write", what="threads", new="3")
    # The first pass comes at once, each other a second later.
    assert time.monotonic() - began >= 2.0
    steps = [(event["old"], event["new"]) for event in agent.events("write", what="weight")]
    assert steps == [
        ("1000", str(round(1000 * K[1] / K[0]))),
        (str(round(1000 * K[1] / K[0])), str(round(1000 * K[2] / K[0]))),
        (str(round(1000 * K[2] / K[0])), str(round(1000 * K[3] / K[0]))),
    ]
    passes = agent.status()["policies"][0]["passes"]
    agent.wait(
        lambda: agent.status()["policies"][0]["passes"] > passes + 1, "two passes at the bound"
    )
    assert len(agent.events("write", what="threads")) == 3
    why = agent.events("write", what="weight")[0]["why"]
    assert why == "test/adjust: nice 0 to 1"


def test_in_a_shared_cgroup_all_threads_get_the_nice_and_no_weight_is_written(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    shared = tree.group("shared", weight=700)
    favoured, restrained = (
        fleet.keep(start(name, cgroup=shared, vcpus=2, paused=True)) for name in ("a", "b")
    )
    agent.write_policy(by_nice(a=-5, b=5))
    agent.start()
    for guest, nice in ((favoured, -5), (restrained, 5)):
        assert agent.wait_row(guest.name, nice=nice)["weight"] is None
        assert os.getpriority(os.PRIO_PROCESS, guest.pid) == nice
        assert nices(guest) == {nice}
    assert (shared.weight(), raw_record(shared)) == (700, None)


def test_a_thread_that_starts_later_gets_the_nice_too(
    tree: PodTree, fleet: Fleet, agent: Agent, tmp_path: Path
) -> None:
    guest = fleet.keep(start_with_qmp("a", tree.pod().leaf, tmp_path / "qmp"))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_event("write", what="threads", new="5")
    # One of another nice: it does not inherit ours.
    qmp = Qmp(tmp_path / "qmp")
    os.setpriority(os.PRIO_PROCESS, guest.pid, 0)
    qmp.start_thread("late")
    os.setpriority(os.PRIO_PROCESS, guest.pid, 5)
    qmp.close()
    late = next(tid for tid, name in guest.threads().items() if name == "IO late")
    assert thread_nices(guest)[late] == 0
    agent.edit(put(5, name="other", interval="1h"), name="other")
    assert nices(guest) == {5}
    assert not agent.events("thread nice corrected")


def test_threads_that_are_not_sched_other_are_never_touched(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod()
    guest = fleet.keep(start("a", cgroup=place.leaf, vcpus=2, paused=True))
    realtime, batch = guest.vcpu_tids()
    _allow_realtime(place.leaf)
    os.sched_setscheduler(realtime, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(batch, os.SCHED_BATCH, os.sched_param(0))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_event("write", what="threads", new="5")
    agent.edit(put(10))
    agent.wait_event("write", what="threads", new="10")
    assert thread_nices(guest) == {
        tid: 0 if tid in (realtime, batch) else 10 for tid in guest.threads()
    }
    assert os.sched_getscheduler(realtime) == os.SCHED_FIFO
    assert os.sched_getparam(realtime).sched_priority == 1
    assert os.sched_getscheduler(batch) == os.SCHED_BATCH


def _allow_realtime(group: Group) -> None:
    """On v1 the kernel refuses a real-time thread to a cgroup that no run time is set aside for."""
    path = Path("/", *Path(group.path).parts[1:])
    for each in (*reversed(path.parents), path):
        budget = Group(str(each)).directories[0] / "cpu.rt_runtime_us"
        if str(each) != "/" and budget.exists():
            budget.write_text("1000")


def test_only_the_own_cgroup_of_a_governed_vm_is_written(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    governed, unselected, ordinary = (tree.pod(weight=1000) for _ in range(3))
    scope = tree.machine("libvirt", nested=True, weight=1000)
    fleet.keep(start("a", cgroup=governed.leaf, paused=True))
    fleet.keep(start("c", "libvirt", cgroup=scope.leaf, paused=True))
    bystander = fleet.keep(start("b", "other", cgroup=unselected.leaf, paused=True))
    before = cgroups(tree)
    outside = _siblings_of(tree)
    agent.labels.write_text("default/a: {peace: wanted}\nlibvirt/c: {peace: wanted}\n")
    agent.write_policy(policy(rule({"set": 5}), selector={"matchLabels": {"peace": "wanted"}}))
    agent.start("--labels", str(agent.labels))
    agent.wait_event("write", vm="default/a", what="threads")
    agent.wait_event("write", vm="libvirt/c", what="threads")
    after = cgroups(tree)
    changed = {path for path in before if before[path] != after[path]}
    assert after.keys() == before.keys()
    assert changed == {governed.own.path, scope.own.path}
    assert after[ordinary.own.path] == (1000, None)
    assert _siblings_of(tree) == outside
    assert is_untouched(bystander, unselected.own, 1000)
    assert agent.rows()["other/b"]["state"] == "Unmanaged"
    assert not [file for file in journal(agent) if file.name.startswith(f"{bystander.pid}-")]


def _siblings_of(tree: PodTree) -> dict[str, int]:
    """The weights of the tree's root and of the host's own cgroups beside it."""
    top = Group("/").directories[0]
    named = [each.name for each in top.iterdir() if each.is_dir()]
    groups = [Group(f"/{name}") for name in named if not name.startswith("peacelab-")]
    groups.append(Group(tree.root))
    return {each.path: each.weight() for each in groups if each.weight_file.exists()}


def test_an_observe_policy_writes_nothing_and_says_what_it_would_do(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=1000)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(policy(rule({"add": 1}), mode="Observe", bounds=(0, 2)))
    agent.start()
    agent.wait_event("would adjust", vm="default/a", old="0", new="1")
    agent.wait_event("would adjust", vm="default/a", old="1", new="2")
    status = agent.status()["policies"][0]
    assert (status["observes"], status["governs"]) == (1, 0)
    assert status["wouldAdjust"] == {"default/a": 2}
    assert is_untouched(guest, place.own, 1000)
    row = agent.row("a")
    assert (row["state"], row["nice"], row["policy"]) == ("Unmanaged", 0, None)
    assert not agent.events("write")
    assert not journal(agent)


def test_a_vm_whose_nice_was_somebody_elses_before_is_left_alone(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=1000)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    (vcpu,) = guest.vcpu_tids()
    os.setpriority(os.PRIO_PROCESS, vcpu, 3)
    before = thread_nices(guest)
    agent.write_policy(put(10))
    agent.start()
    agent.wait(lambda: agent.status()["policies"][0]["passes"], "a pass")
    row = agent.row("a")
    assert row["state"] == "Failed"
    assert f"thread {vcpu} has nice 3 and there is no record of it" in row["reason"]
    assert thread_nices(guest) == before
    assert (place.own.weight(), raw_record(place.own)) == (1000, None)
