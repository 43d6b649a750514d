"""What happens to VMs: the real course of one, live migrations, exclusion."""

import json

import pytest

from peacemaker_kube import paths
from peacemaker_kube.api import Document
from tests import kubevirt
from tests.cluster.e2e.scene import BASELINE, Node, Scene, Vm, vmis, weight_at
from tests.cluster.e2e.site import eventually

AT_5 = (weight_at(5), {5})
EXCLUDE = "peacemaker.dev/exclude"
NODE = "kubevirt.io/nodeName"
TARGET = "kubevirt.io/migrationTargetNodeName"

COURSE = [
    ("Running", "Managed", ""),
    ("Running", "Deferred", "Paused"),
    ("Running", "Managed", ""),
    ("Running", "Deferred", "Deleting"),
    ("Failed", "Deferred", "Deleting"),
    ("gone", "", ""),
    ("Pending", "", ""),
    ("Scheduling", "Deferred", "NotRunning"),
    ("Scheduled", "Deferred", "NotRunning"),
    ("Running", "Managed", ""),
    ("Running", "Deferred", "Paused"),
    ("Running", "Managed", ""),
    ("Running", "Deferred", "Paused"),
    ("Running", "Managed", ""),
]


def test_the_real_course_of_a_vm_is_followed(scene: Scene) -> None:
    """Paused, unpaused, deleted; then the same name with a new uid in a new pod, paused twice."""
    scene.node.start_agent()
    scene.apply(scene.put(5))
    vm: Vm | None = None
    course: list[tuple[str, str, str]] = []
    for happened, recorded in kubevirt.course():
        text = json.dumps(recorded).replace(f'"{kubevirt.NODE}"', f'"{scene.node.name}"')
        document = json.loads(text)
        phase = document["status"]["phase"]
        if phase in ("Running", "Scheduled") and vm is None:
            [pod] = document["status"]["activePods"]
            vm = scene.qemu("vm-a", scene.node, pod)
        replay(scene, happened, document)
        if happened == "DELETED":
            assert vm is not None
            vm.qemu.stop()
            vm, phase = None, "gone"
        if (step := (phase, *expected(phase, document))) not in course[-1:]:
            course.append(step)
        wait_step(scene, vm, *step)
    assert course == COURSE


def replay(scene: Scene, happened: str, document: Document) -> None:
    """Do to the object what KubeVirt and the API server did to it."""
    collection = vmis(scene.tenant)
    path = paths.item(collection, "vm-a")
    metadata = document["metadata"]
    kept = ("name", "labels", "annotations", "finalizers")
    own = {key: metadata[key] for key in kept if key in metadata}
    if happened == "ADDED":
        scene.api.create(collection, {**document, "metadata": own})
    elif happened == "DELETED":
        scene.api.patch(path, {"metadata": {"finalizers": None}})
    else:
        if "deletionTimestamp" in metadata:
            scene.api.delete(path)
        own["resourceVersion"] = scene.api.get(path)["metadata"]["resourceVersion"]
        scene.api.replace(path, {**document, "metadata": own})


def expected(phase: str, document: Document) -> tuple[str, str]:
    """State and reason of a VM that is like this; empty if it is on no node."""
    if phase in ("gone", "Pending"):
        return "", ""
    if "deletionTimestamp" in document["metadata"]:
        return "Deferred", "Deleting"
    if any(each["type"] == "Paused" for each in document["status"]["conditions"]):
        return "Deferred", "Paused"
    return ("Managed", "") if phase == "Running" else ("Deferred", "NotRunning")


def wait_step(scene: Scene, vm: Vm | None, phase: str, state: str, reason: str) -> None:
    """Until operator, agent and kernel have followed."""
    node = scene.node
    if not state:
        eventually(lambda: node.peace_list()["spec"]["vms"], lambda vms: not vms, "no VM listed")
        return
    uid = scene.api.get(paths.item(vmis(scene.tenant), "vm-a"))["metadata"]["uid"]
    eventually(
        lambda: node.peace_list().get("status", {}).get("vms", []),
        lambda vms: (
            [(each["uid"], each["state"], each.get("reason", "")) for each in vms]
            == [(uid, state, reason)]
        ),
        f"the agent to say that it is {state} {reason}",
    )
    if vm is not None and state == "Managed":
        vm.wait_values(weight_at(5), 5)
    elif vm is not None:
        assert vm.values() == ((BASELINE, {0}) if phase == "Scheduled" else AT_5)


def test_a_policy_does_not_reach_a_paused_vm_until_it_goes_on(scene: Scene) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    paused = {"type": "Paused", "status": "True", "reason": "PausedByUser"}
    scene.change_vmi(vm, {"status": {"conditions": [paused]}})
    node.wait_told(vm, state="Deferred", reason="Paused", message="the guest is paused", nice=5)
    policy = scene.apply(scene.put(7))
    scene.wait_condition(policy, "True", "InForce")
    assert vm.values() == AT_5
    scene.change_vmi(vm, {"status": {"conditions": []}})
    vm.wait_values(weight_at(7), 7)


@pytest.fixture
def target(scene: Scene) -> Node:
    """A second node, whose agent runs."""
    target = scene.new_node("target")
    target.start_agent()
    return target


def migrate(scene: Scene, target: Node) -> tuple[Vm, Vm]:
    """A VM at nice 5 that begins to move to another node; its QEMUs here and there."""
    source = scene.vm()
    scene.node.start_agent()
    scene.apply(scene.put(5))
    source.wait_values(weight_at(5), 5)
    there = scene.qemu(source.name, target)
    scene.change_vmi(source, {"status": {"activePods": {there.pod: target.name}}})
    target.wait_told(there, state="Deferred", reason="MigrationTarget")
    assert scene.node.told(source)["state"] == "Managed"
    moves = {"sourceNode": scene.node.name, "targetNode": target.name, "migrationUid": "m"}
    scene.change_vmi(
        source,
        {"metadata": {"labels": {TARGET: target.name}}, "status": {"migrationState": moves}},
    )
    scene.node.wait_told(source, state="Deferred", reason="Migrating")
    source.wait_values(BASELINE, 0)
    assert there.is_untouched()
    return source, there


def test_a_migrating_vm_has_its_baseline_until_it_is_governed_on_its_new_node(
    scene: Scene, target: Node
) -> None:
    source, there = migrate(scene, target)
    scene.change_vmi(
        source,
        {"metadata": {"labels": {NODE: target.name}}, "status": {"nodeName": target.name}},
    )
    scene.node.wait_told(source, state="Deferred", reason="MigratedAway")
    target.wait_told(there, state="Deferred", reason="MigrationTarget")
    assert there.is_untouched()
    scene.change_vmi(
        source,
        {
            "metadata": {"labels": {TARGET: None}},
            "status": {"migrationState": {"completed": True}, "activePods": {source.pod: None}},
        },
    )
    there.wait_values(weight_at(5), 5)
    target.wait_told(there, state="Managed", nice=5)
    eventually(lambda: scene.node.listed(source), lambda vm: not vm, "the old node to forget it")


def test_after_a_failed_migration_the_vm_is_governed_where_it_stayed(
    scene: Scene, target: Node
) -> None:
    source, there = migrate(scene, target)
    there.qemu.stop()
    scene.change_vmi(
        source,
        {
            "metadata": {"labels": {TARGET: None}},
            "status": {
                "migrationState": {"completed": True, "failed": True},
                "activePods": {there.pod: None},
            },
        },
    )
    source.wait_values(weight_at(5), 5)
    scene.node.wait_told(source, state="Managed", nice=5)


def test_on_an_excluded_node_everything_is_restored_until_it_is_excluded_no_more(
    scene: Scene,
) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    policy = scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    node.label(f"{EXCLUDE}=true")
    found = node.wait_ready("True", "Suspended")
    assert vm.is_untouched()
    assert found["spec"]["suspended"]["reason"] == "NodeExcluded"
    node.wait_told(vm, state="Unmanaged", reason="NodeExcluded", nice=0)
    scene.wait_condition(policy, "False", "Suspended")
    node.label(f"{EXCLUDE}-")
    vm.wait_values(weight_at(5), 5)
    node.wait_ready("True", "InForce")
    scene.wait_condition(policy, "True", "InForce")


def test_the_vms_of_an_excluded_namespace_are_restored_and_left_alone(scene: Scene) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    scene.kubectl("label", "namespace", vm.namespace, f"{EXCLUDE}=true")
    told = node.wait_told(vm, state="Excluded", reason="NamespaceExcluded", nice=0)
    assert told["message"] == f"the namespace {vm.namespace} has the label {EXCLUDE}: true"
    vm.wait_untouched()
    scene.kubectl("label", "namespace", vm.namespace, f"{EXCLUDE}-")
    vm.wait_values(weight_at(5), 5)
