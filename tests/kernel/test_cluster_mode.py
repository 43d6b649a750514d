"""Cluster mode without an API server: the last known PeaceList is joined with the QEMUs in pods,
and each state of a VM means something to the kernel.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Fleet, PodTree, start
from lab.policy import policy, put, rule
from lab.qemu import MONITOR
from tests.kernel.cluster_scene import (
    ClusterAgent,
    Document,
    PodVm,
    listed_policy,
    pod_vm,
    relisted,
    spec,
)
from tests.kernel.scene import is_untouched, journal, nices, record

BASELINE = 1000
AT_5 = round(BASELINE * 335 / 1024)
"""The weight at nice 5 (kernel/sched/core.c: 335)."""

AT_5_POLICY = listed_policy(put(5, interval="1h"))
STEPS = listed_policy(policy(rule({"add": 1}), interval="1h"))
"""Acts once each time that the agent starts."""


@pytest.fixture
def agent(tree: PodTree, fleet: Fleet, tmp_path: Path) -> Iterator[ClusterAgent]:  # noqa: ARG001
    with ClusterAgent(tmp_path, tree.root) as agent:
        yield agent
        if agent.is_started:
            agent.must_run()


@pytest.fixture
def vm(tree: PodTree, fleet: Fleet) -> PodVm:
    return pod_vm(tree, fleet, "a")


@pytest.fixture
def moved(vm: PodVm, agent: ClusterAgent) -> PodVm:
    """A VM that the running agent has put at nice 5."""
    agent.remember(spec(vm, policies=(AT_5_POLICY,)))
    agent.launch()
    agent.wait_vm("a", nice=5)
    assert vm.values() == (AT_5, {5})
    return vm


def test_a_qemu_is_joined_with_its_vm_by_the_pod_that_it_is_in(
    tree: PodTree, fleet: Fleet, agent: ClusterAgent
) -> None:
    """All have one forged name on their command lines. The older VMI of two alike is picked."""
    gold: Document = {"labels": {"tier": "gold"}, "priorityClassValue": 7, "vcpus": 1}
    young = pod_vm(tree, fleet, "young", creationTimestamp="2026-01-02T00:00:00Z", **gold)
    old = pod_vm(tree, fleet, "old", creationTimestamp="2026-01-01T00:00:00Z", **gold)
    other = pod_vm(tree, fleet, "other", creationTimestamp="2025-01-01T00:00:00Z")
    pick = {
        "where": 'vm.labels.tier == "gold" && vm.priorityClass == 7 && vm.namespace == "shop"'
        " && vm.age > 3600.0",
        "lowest": "vm.nice",
        "count": 1,
    }
    once = listed_policy(policy(rule({"set": 5}, pick), interval="1h"))
    agent.remember(spec(young, old, other, policies=(once,)))
    agent.launch()
    row = agent.wait_vm("old", nice=5)
    assert (row["pid"], row["state"], row["policy"]) == (old.guest.pid, "Managed", "test")
    assert old.values() == (AT_5, {5})
    for vm in (young, other):
        assert is_untouched(vm.guest, vm.own, BASELINE)
    assert set(agent.rows()) == {"shop/young", "shop/old", "shop/other"}
    assert "picked and adjusted" in agent.call("explain", "shop/old").stdout


def test_a_vm_that_starts_later_is_joined_as_well(
    tree: PodTree, fleet: Fleet, vm: PodVm, agent: ClusterAgent
) -> None:
    late = tree.pod("0d4ff3f2-6a51-4d34-8b0c-5f3f1f0a9d01", weight=BASELINE)
    listed = relisted(vm, uid="later", podUID="0d4ff3f2-6a51-4d34-8b0c-5f3f1f0a9d01", name="b")
    every_second = listed_policy(put(5))
    agent.remember(spec(vm, listed, policies=(every_second,)))
    agent.launch()
    assert set(agent.rows()) == {"shop/a"}
    guest = fleet.keep(start("x", cgroup=late.leaf, paused=True, parent_comm=MONITOR))
    agent.wait_vm("b", nice=5, pid=guest.pid)
    assert (late.own.weight(), nices(guest)) == (AT_5, {5})
    guest.stop()
    agent.wait(lambda: set(agent.rows()) == {"shop/a"}, "it to be gone")
    assert late.own.weight() == BASELINE, "its pod may live on, with another QEMU"
    again = fleet.keep(start("x", cgroup=late.leaf, paused=True, parent_comm=MONITOR))
    agent.wait_vm("b", nice=5, pid=again.pid)


KEPT, RESTORED = (5, AT_5, {5}), (0, BASELINE, {0})
"""nice, weight and threads' nices of a VM that was at nice 5."""


@pytest.mark.parametrize(
    ("fields", "shown", "values"),
    [
        ({}, ("Managed", "adopted as an earlier run left it"), KEPT),
        (
            {"state": "Deferred", "reason": "Paused", "message": "by its user"},
            ("Deferred", "Paused: by its user"),
            KEPT,
        ),
        (
            {"state": "Deferred", "reason": "MigrationTarget"},
            ("Deferred", "MigrationTarget"),
            KEPT,
        ),
        ({"state": "Deferred", "reason": "Migrating"}, ("Deferred", "Migrating"), RESTORED),
        (
            {"state": "Evacuated", "reason": "OfALaterVersion"},
            ("Deferred", "UnknownState: this version does not know the state 'Evacuated'"),
            KEPT,
        ),
        (
            {"state": "Excluded", "reason": "NamespaceExcluded"},
            ("Excluded", "NamespaceExcluded"),
            RESTORED,
        ),
        (
            {"policy": "of-nobody"},
            ("Deferred", "PolicyNotListed: the PeaceList has no Enforce policy of-nobody"),
            KEPT,
        ),
        ({"policy": None}, ("Unmanaged", "restored: no policy governs it"), RESTORED),
        (
            {"policy": None, "state": "Deferred", "reason": "Paused"},
            ("Deferred", "Paused"),
            RESTORED,
        ),
        (
            {"podUID": None},
            ("Unmanaged", "NotInPeaceList: its pod is not in the PeaceList of this node"),
            RESTORED,
        ),
    ],
    ids=str,
)
def test_what_becomes_of_a_vm_that_was_moved_and_is_now_listed_so(
    fields: Document,
    shown: tuple[str, str],
    values: tuple[int, int, set[int]],
    moved: PodVm,
    agent: ClusterAgent,
) -> None:
    unmoving = listed_policy(policy(rule({"set": 9}, when="false")))
    agent.relaunch(spec(relisted(moved, **fields), policies=(unmoving,)))
    [row] = agent.rows().values()
    assert (row["state"], row["reason"]) == shown
    assert (row["nice"], *moved.values()) == values
    assert row["baseline"] == BASELINE
    keeps_records = values == KEPT or fields.get("reason") == "Migrating"
    assert bool(journal(agent)) is keeps_records
    assert (record(moved.own) is not None) is keeps_records


def test_a_policy_that_is_not_understood_freezes_its_vms(moved: PodVm, agent: ClusterAgent) -> None:
    later = {**AT_5_POLICY["spec"], "rules": [{"name": "r", "nice": {"ioWeight": 7}}]}
    agent.relaunch(spec(moved, policies=({**AT_5_POLICY, "generation": 2, "spec": later},)))
    [row] = agent.rows().values()
    assert (row["state"], row["policy"], row["nice"]) == ("Deferred", None, 5)
    assert row["reason"] == "NotUnderstood: this agent does not understand policy test"
    assert moved.values() == (AT_5, {5})
    assert agent.wait_event("policy not understood", policy="test")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"v": 9}', '{"v": 1, "node": "another", "uid": "u", "generation": 1}'],
    ids=["empty", "torn", "no object", "of a later format", "of another node"],
)
def test_without_orders_that_can_be_used_everything_stays_as_it_is(
    text: str, moved: PodVm, agent: ClusterAgent
) -> None:
    agent.kill()
    agent.remembered.write_text(text)
    agent.launch()
    [row] = agent.rows().values()
    assert (row["state"], row["nice"], row["baseline"]) == ("Deferred", 5, BASELINE)
    assert row["reason"].startswith("NoPeaceListYet")
    assert moved.values() == (AT_5, {5})
    assert agent.events("last known PeaceList ignored")


def test_a_frozen_vm_is_seen_by_no_rule_and_goes_on_from_the_nice_that_it_has(
    vm: PodVm, agent: ClusterAgent
) -> None:
    agent.remember(spec(vm, policies=(STEPS,)))
    agent.launch()
    agent.wait_vm("a", nice=1)
    frozen = relisted(vm, state="Deferred", reason="Paused")
    lonely = listed_policy(
        policy(rule({"add": 1}, when="size(vms) > 0 || node.vmCount != 1"), interval="1h")
    )
    agent.relaunch(spec(frozen, policies=(lonely,)))
    agent.wait(lambda: agent.status()["policies"][0]["passes"] > 0, "a pass")
    assert not agent.status()["policies"][0]["activeRules"]
    row = agent.wait_vm("a", nice=1, state="Deferred")
    agent.relaunch(spec(vm, policies=(STEPS,)))
    row = agent.wait_vm("a", nice=2, state="Managed")
    assert vm.values() == (row["weight"], {2})


def test_a_vm_that_drains_gains_nothing_and_loses_no_time_and_goes_on_if_it_stays(
    tree: PodTree, fleet: Fleet, agent: ClusterAgent
) -> None:
    """Who is favoured keeps that while it migrates: only what holds it back is taken away."""
    low, high = pod_vm(tree, fleet, "low"), pod_vm(tree, fleet, "high")
    apart = listed_policy(
        policy(
            rule({"set": 5}, {"where": 'vm.name == "low"'}, name="low"),
            rule({"set": -5}, {"where": 'vm.name == "high"'}, name="high"),
            interval="1h",
        )
    )
    agent.remember(spec(low, high, policies=(apart,)))
    agent.launch()
    agent.wait_vm("low", nice=5)
    favoured = agent.wait_vm("high", nice=-5)["weight"]
    assert favoured > BASELINE
    still = listed_policy(policy(rule({"set": 5}, when="false")))
    leaving = [relisted(vm, state="Deferred", reason="Migrating") for vm in (low, high)]
    agent.relaunch(spec(*leaving, policies=(still,)))
    assert agent.wait_vm("low")["reason"] == "Migrating"
    assert (low.values(), high.values()) == ((BASELINE, {0}), (favoured, {0}))
    assert agent.wait_vm("low")["effectiveNice"] == 0
    agent.relaunch(spec(low, high, policies=(STEPS,)))
    agent.wait_vm("low", nice=1, state="Managed")
    agent.wait_vm("high", nice=-4)


def test_the_weight_of_a_frozen_vm_stays_in_the_claim(
    tree: PodTree, fleet: Fleet, moved: PodVm, agent: ClusterAgent
) -> None:
    """Two came with 1000 each: one that is frozen at nice 5 leaves the rest to the other."""
    other = pod_vm(tree, fleet, "b")
    frozen = relisted(moved, state="Deferred", reason="Paused")
    favour = listed_policy(put(-15))
    agent.relaunch(spec(frozen, other, policies=(favour,)))
    agent.wait_vm("b", nice=-15, weight=2 * BASELINE - AT_5)
    assert moved.values() == (AT_5, {5})
    agent.relaunch(spec(frozen, other, policies=(favour,), maxClaimPercent=200))
    agent.wait_vm("b", nice=-15, weight=4 * BASELINE - AT_5)


def test_every_qemu_in_a_pod_counts_and_the_second_one_shares_the_weight_of_the_first(
    fleet: Fleet, moved: PodVm, agent: ClusterAgent
) -> None:
    second = fleet.keep(start("x", cgroup=moved.place.leaf, paused=True, parent_comm=MONITOR))
    seen = listed_policy(policy(rule({"set": 7}, when="node.vmCount == 2")))
    agent.relaunch(spec(moved, policies=(seen,)))
    agent.wait(lambda: len(agent.call("list", "-o", "json").json()) == 2, "both")
    rows = {row["pid"]: row for row in agent.call("list", "-o", "json").json()}
    first = rows[moved.guest.pid]
    assert (first["uid"], first["state"]) == (moved.pod_uid, "Managed")
    assert rows[second.pid]["uid"] == f"{moved.pod_uid}#{second.pid}"
    assert rows[second.pid]["state"] == "Excluded"
    agent.wait(lambda: nices(moved.guest) == {7}, "the rule that counts two")
    assert nices(second) == {0}


def test_suspended_by_the_last_known_orders_restores(moved: PodVm, agent: ClusterAgent) -> None:
    suspended = {"reason": "NodeExcluded", "message": "by its label"}
    agent.relaunch(spec(moved, policies=(AT_5_POLICY,), suspended=suspended))
    row = agent.wait_vm("a", state="Unmanaged")
    assert row["reason"] == "restored: NodeExcluded"
    assert is_untouched(moved.guest, moved.own, BASELINE)
    assert agent.status()["suspended"] == "NodeExcluded: by its label"
    assert "resting: NodeExcluded: by its label" in agent.call("status").stdout


def test_the_stop_file_and_the_restore_command_need_no_api_server(
    moved: PodVm, agent: ClusterAgent
) -> None:
    agent.kill()
    assert agent.call("restore").status == 0
    assert is_untouched(moved.guest, moved.own, BASELINE)
    agent.launch()
    agent.wait_vm("a", nice=5)
    Path(agent.run_dir.stop_file).touch()
    agent.wait_vm("a", state="Unmanaged", reason="restored: Stopped")
    assert is_untouched(moved.guest, moved.own, BASELINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "what to do? --policy FILE without a cluster, --node NAME in one"),
        (("--policy", ".", "--kubeconfig", "x"), "--kubeconfig needs a cluster"),
        (("--policy", ".", "--status-interval", "9"), "--status-interval needs a cluster"),
        (("--node", "n", "--labels", "x"), "--labels needs --policy"),
        (("--node", "n", "--max-claim-percent", "120"), "--max-claim-percent needs --policy"),
        (("--node", "n", "--check"), "--check needs --policy"),
        (("--node", "n", "--kubeconfig", "/no/such"), "no API server is configured in /no/such"),
    ],
    ids=str,
)
def test_wrong_combinations_of_options_are_told(
    words: tuple[str, ...], said: str, agent: ClusterAgent
) -> None:
    done = agent.call("run", *words, "--below", agent.below)
    assert (done.status, done.stdout) == (2, "")
    assert said in done.stderr
