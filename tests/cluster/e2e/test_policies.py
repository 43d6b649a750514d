"""From `kubectl apply` to the kernel and back into the status: a policy's life with a real VM."""

import copy

import pytest

from lab.policy import rule
from peacemaker_kube.api import Document
from tests.cluster.e2e.scene import Scene, Vm, find, policy_path, weight_at
from tests.cluster.e2e.site import condition, eventually

WRONG = "node.load1 > 1.0 && node.laod15 > 0.9"
POSITION = "spec.rules[0].when: line 1, column 26: unknown signal node.laod15"


@pytest.fixture
def vm(scene: Scene) -> Vm:
    """A VM on a node whose agent runs."""
    vm = scene.vm(tier="bronze")
    scene.node.start_agent()
    return vm


def wrong(policy: Document, nice: int) -> Document:
    """The same policy with another nice and a mistake."""
    document = copy.deepcopy(policy)
    document["spec"]["rules"][0] |= {"when": WRONG, "nice": {"set": nice}}
    return document


def test_an_applied_policy_moves_the_vm_and_list_policy_and_owner_are_told(
    scene: Scene, vm: Vm
) -> None:
    policy = scene.apply(scene.put(5))
    name = policy["metadata"]["name"]
    vm.wait_values(weight_at(5), 5)
    told = scene.node.wait_told(vm, state="Managed", nice=5, effectiveNice=5)
    assert (told["weight"], told["baseline"]) == (weight_at(5), 1000)
    assert told["message"] == f"{name}/adjust: nice 0 to 5"
    listed = scene.node.listed(vm)
    assert (listed["state"], listed["policy"], listed["podUID"]) == ("Managed", name, vm.pod)
    assert listed["labels"]["tier"] == "bronze"
    scene.node.wait_ready("True", "InForce")
    scene.wait_condition(policy, "True", "Valid", "Accepted")
    scene.wait_condition(policy, "True", "InForce")
    scene.wait_status(policy, nodes=1, vms=1, adjusted=1, worstNodes=[])
    eventually(
        lambda: scene.events(vm.namespace, vm.name),
        lambda found: [each[:2] for each in found] == [("Normal", "Adjusted")],
        "the owner to be told once",
    )


def test_an_edit_is_taken_over_and_a_deletion_restores(scene: Scene, vm: Vm) -> None:
    policy = scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    scene.apply(scene.put(7))
    vm.wait_values(weight_at(7), 7)
    found = scene.wait_condition(policy, "True", "InForce")
    assert found["status"]["accepted"]["generation"] == found["metadata"]["generation"] == 2
    scene.kubectl("delete", "peacepolicy", policy["metadata"]["name"])
    vm.wait_untouched()
    scene.node.wait_told(vm, state="Unmanaged", reason="NoPolicy", nice=0)
    assert "policy" not in scene.node.listed(vm)


def test_from_enforce_to_observe_restores_and_shows_what_would_be(scene: Scene, vm: Vm) -> None:
    scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    policy = scene.apply(scene.put(7, mode="Observe"))
    vm.wait_untouched()
    would_be = [{"namespace": vm.namespace, "name": vm.name, "nice": 7}]
    eventually(
        lambda: scene.node.peace_list()["status"].get("policies", []),
        lambda found: [each.get("wouldBe") for each in found] == [would_be],
        "the node to tell what would be",
    )
    scene.wait_condition(policy, "True", "InForce")
    scene.wait_status(policy, vms=1, adjusted=1)
    assert vm.is_untouched()


def test_a_vm_whose_label_changes_is_restored_and_governed_again(scene: Scene, vm: Vm) -> None:
    scene.apply(scene.put(5, selector={"matchLabels": {"tier": "bronze"}}))
    vm.wait_values(weight_at(5), 5)
    vmi = ("label", "virtualmachineinstance", vm.name, "-n", vm.namespace, "--overwrite")
    scene.kubectl(*vmi, "tier=gold")
    vm.wait_untouched()
    eventually(
        lambda: scene.events(vm.namespace, vm.name),
        lambda found: {each[1] for each in found} == {"Adjusted", "Restored"},
        "the owner to be told",
    )
    scene.kubectl(*vmi, "tier=bronze")
    vm.wait_values(weight_at(5), 5)


def test_the_policy_of_higher_priority_governs_and_the_other_says_so(scene: Scene, vm: Vm) -> None:
    low = scene.apply(scene.put(3, name="low"))
    vm.wait_values(weight_at(3), 3)
    high = scene.apply(scene.put(7, name="high", priority=1))
    vm.wait_values(weight_at(7), 7)
    governor = high["metadata"]["name"]
    scene.wait_status(low, vms=0, outranked=1, outrankedBy=[{"name": governor, "vms": 1}])
    scene.kubectl("delete", "peacepolicy", governor)
    vm.wait_values(weight_at(3), 3)


def test_a_bad_expression_is_refused_at_once_with_its_position(scene: Scene) -> None:
    bad = wrong(scene.put(5), 5)
    trial = ("apply", "--dry-run=server", "-f", "-")
    eventually(
        lambda: scene.kubectl.run(*trial, documents=(bad,)).status, bool, "the webhook to be asked"
    )
    said = scene.kubectl.run("apply", "-f", "-", documents=(bad,))
    assert said.status == 1
    assert f"denied the request: {POSITION}" in said.stderr
    assert not find(scene.site, policy_path(bad))


def test_a_bad_edit_made_while_no_operator_runs_is_told_and_the_old_spec_stays_in_force(
    scene: Scene, vm: Vm
) -> None:
    policy = scene.apply(scene.put(5))
    name = policy["metadata"]["name"]
    scene.node.wait_told(vm, nice=5)
    scene.operator.end()
    scene.apply(wrong(policy, 7))
    scene.operator.start()
    found = scene.wait_condition(policy, "False", "Invalid", "Accepted")
    accepted = found["status"]["conditions"][0]
    assert accepted["message"].startswith(POSITION)
    scene.wait_condition(policy, "False", "NotAccepted")
    assert found["status"]["accepted"]["generation"] == 1
    assert found["status"]["accepted"]["spec"]["rules"][0]["nice"] == {"set": 5}
    eventually(
        lambda: scene.events("default", name)[-1],
        lambda event: event[:2] == ("Warning", "NotAccepted") and event[2].startswith(POSITION),
        "an Event about the policy",
    )
    listed = scene.node.peace_list()["spec"]["policies"]
    assert [(each["name"], each["generation"]) for each in listed] == [(name, 1)]
    assert vm.values() == (weight_at(5), {5})
    late = scene.vm("late")
    late.wait_values(weight_at(5), 5)

    scene.apply(scene.policy(rule({"set": 7})))
    for each in (vm, late):
        each.wait_values(weight_at(7), 7)
    eventually(
        lambda: scene.read(policy),
        lambda found: condition(found, "Accepted") == ("True", "Valid"),
        "the mistake to be forgotten",
    )
    scene.wait_condition(policy, "True", "InForce")
