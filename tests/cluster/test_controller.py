"""The operator against a real API server: PeaceLists say what policies, VMs and nodes are."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes.client import ApiClient

from apiserver import Cluster
from peacemaker_kube import paths
from peacemaker_kube.api import ApiError, Document
from peacemaker_operator.node_lists import REVERT_EVERY
from tests.cluster.operator_scene import KUBEVIRT, POLICY, Scene, vmis

BAD = {**POLICY, "rules": [{**POLICY["rules"][0], "when": "node.laod15 > 0.9"}]}


@pytest.fixture
def scene(cluster: Cluster, api: ApiClient) -> Iterator[Scene]:  # noqa: ARG001 (brings the CRDs)
    with Scene(cluster) as scene:
        yield scene


@pytest.fixture
def tenant(scene: Scene) -> str:
    return scene.new_namespace()


def test_a_policy_and_a_vm_become_a_peace_list(scene: Scene, tenant: str) -> None:
    node = scene.node("node-1")
    scene.policy("p")
    scene.vmi(tenant, "vm", "node-1", pod="pod-1", app="demo")
    scene.start()
    vm = scene.wait_listed("node-1", "vm", state="Managed", policy="p")
    assert (vm["podUID"], vm["labels"], vm["vcpus"]) == ("pod-1", {"app": "demo"}, 2)
    found = scene.peace_list("node-1")
    assert found is not None
    assert [policy["name"] for policy in found["spec"]["policies"]] == ["p"]
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": node["metadata"]["uid"]}
    ]


def test_only_nodes_that_kubevirt_knows_or_that_have_vms_get_one(scene: Scene, tenant: str) -> None:
    scene.api.create(paths.NODES, {"metadata": {"name": "plain"}})
    scene._made.append(paths.item(paths.NODES, "plain"))
    scene.node("known")
    scene.start()
    scene.wait_until(lambda: scene.peace_list("known"), "the PeaceList of known")
    assert scene.peace_list("plain") is None
    vmi = scene.vmi(tenant, "vm", "plain")
    scene.wait_listed("plain", "vm")
    scene.delete(scene.path(vmi))
    scene.wait_until(lambda: not scene.peace_list("plain"), "the PeaceList of plain to go")


STATUS: Document = {"phase": "Running", "nodeName": "node-1", "activePods": {"pod-1": "node-1"}}

EDITS: list[tuple[str, Document, Document]] = [
    ("its labels", {"metadata": {"labels": {"tier": "gold"}}}, {"labels": {"tier": "gold"}}),
    (
        "paused",
        {"status": {"conditions": [{"type": "Paused", "status": "True"}]}},
        {"state": "Deferred", "reason": "Paused"},
    ),
    ("not Running", {"status": {"phase": "Failed"}}, {"state": "Deferred", "reason": "NotRunning"}),
    (
        "migrating",
        {"status": {"migrationState": {"targetNode": "node-2", "sourceNode": "node-1"}}},
        {"state": "Deferred", "reason": "Migrating"},
    ),
    ("hotplugged", {"status": {"currentCPUTopology": {"sockets": 4, "cores": 2}}}, {"vcpus": 8}),
    ("another pod", {"status": {"activePods": {"pod-1": None, "pod-2": "node-1"}}},
     {"podUID": "pod-2"}),
    (
        "dedicated CPUs",
        {"spec": {"domain": {"cpu": {"dedicatedCpuPlacement": True}}}},
        {"state": "Excluded", "reason": "DedicatedCPU", "policy": None},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "listed"), [edit[1:] for edit in EDITS],
                         ids=[edit[0] for edit in EDITS])  # fmt: skip
def test_a_change_of_a_vm_is_listed(
    scene: Scene, tenant: str, fields: Document, listed: Document
) -> None:
    scene.node("node-1")
    scene.policy("p")
    vmi = scene.vmi(tenant, "vm", "node-1", pod="pod-1")
    scene.start()
    scene.wait_listed("node-1", "vm", state="Managed", policy="p")
    scene.change(vmi, **fields)
    scene.wait_listed("node-1", "vm", **listed)


def test_a_live_migration_is_listed_on_both_nodes_and_then_on_the_target(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    scene.node("node-2")
    scene.policy("p")
    vmi = scene.vmi(tenant, "vm", "node-1", pod="pod-1")
    scene.start()
    scene.wait_listed("node-1", "vm", state="Managed")
    migration = {"sourceNode": "node-1", "targetNode": "node-2"}
    pods = {"pod-1": "node-1", "pod-2": "node-2"}
    scene.change(vmi, status={"activePods": pods, "migrationState": migration})
    scene.wait_listed("node-1", "vm", state="Deferred", reason="Migrating", podUID="pod-1")
    scene.wait_listed("node-2", "vm", state="Deferred", reason="MigrationTarget", podUID="pod-2")
    done = {**migration, "completed": True}
    scene.change(vmi, status={"nodeName": "node-2", "migrationState": done})
    scene.wait_listed("node-2", "vm", state="Managed", podUID="pod-2")
    scene.change(vmi, status={"activePods": {"pod-1": None}})
    scene.wait_until(lambda: not scene.listed("node-1", "vm"), "vm to leave node-1")


def test_a_vm_of_the_same_name_with_another_uid_is_another_vm(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    vmi = scene.vmi(tenant, "vm", "node-1", pod="pod-1")
    scene.start()
    first = scene.wait_listed("node-1", "vm", podUID="pod-1")
    scene.delete(scene.path(vmi))
    scene.vmi(tenant, "vm", "node-1", pod="pod-2")
    second = scene.wait_listed("node-1", "vm", podUID="pod-2")
    assert first["uid"] != second["uid"]
    assert len(scene.spec("node-1")["vms"]) == 1


def test_the_end_of_a_vm_a_policy_and_a_node_is_taken_over(scene: Scene, tenant: str) -> None:
    node = scene.node("node-1")
    policy = scene.policy("p")
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.vmi(tenant, "other", "node-1")
    scene.start()
    scene.wait_listed("node-1", "vm", policy="p")
    scene.delete(scene.path(vmi))
    scene.wait_until(lambda: not scene.listed("node-1", "vm"), "vm to be listed no more")
    scene.delete(scene.path(policy))
    scene.wait_listed("node-1", "other", state="Managed", policy=None)
    assert scene.spec("node-1")["policies"] == []
    scene.delete(scene.path(node))
    scene.wait_until(lambda: not scene.peace_list("node-1"), "the PeaceList to go")
    back = scene.node("node-1")
    owner = scene.wait_until(lambda: scene.peace_list("node-1"), "a PeaceList")
    assert owner is not None
    assert owner["metadata"]["ownerReferences"][0]["uid"] == back["metadata"]["uid"]


def test_a_node_that_was_replaced_unseen_owns_the_peace_list(scene: Scene) -> None:
    node = scene.node("node-1")
    with scene.controller():
        scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    scene.delete(scene.path(node))
    uid = scene.node("node-1")["metadata"]["uid"]
    scene.start()

    def owner() -> str:
        found = scene.peace_list("node-1")
        assert found is not None
        return str(found["metadata"]["ownerReferences"][0]["uid"])

    scene.wait_until(lambda: owner() == uid, "the new node to own it")


def test_what_went_while_no_operator_ran_is_taken_over(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    gone = scene.node("node-2")
    policy = scene.policy("p")
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.vmi(tenant, "other", "node-1")
    with scene.controller():
        scene.wait_listed("node-1", "vm", policy="p")
        scene.wait_until(lambda: scene.peace_list("node-2"), "the PeaceList of node-2")
    for document in (vmi, policy, gone):
        scene.delete(scene.path(document))
    scene.start()
    scene.wait_listed("node-1", "other", policy=None)
    assert not scene.listed("node-1", "vm")
    scene.wait_until(lambda: not scene.peace_list("node-2"), "the PeaceList of node-2 to go")


def test_exclusion_priority_and_namespaces_follow_their_objects(scene: Scene, tenant: str) -> None:
    node = scene.node("node-1")
    scene.policy("p", namespaceSelector={"matchLabels": {"trusted": "yes"}})
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.start()
    scene.wait_listed("node-1", "vm", policy=None)
    namespace = paths.item(paths.NAMESPACES, tenant)
    scene.api.patch(namespace, {"metadata": {"labels": {"trusted": "yes"}}})
    scene.wait_listed("node-1", "vm", policy="p")
    scene.api.patch(namespace, {"metadata": {"labels": {"peacemaker.dev/exclude": "true"}}})
    scene.wait_listed("node-1", "vm", state="Excluded", reason="NamespaceExcluded")
    scene.change(node, metadata={"labels": {"peacemaker.dev/exclude": "true"}})
    scene.wait_until(
        lambda: scene.spec("node-1").get("suspended", {}).get("reason") == "NodeExcluded",
        "node-1 to be suspended",
    )
    scene.change(node, metadata={"labels": {"peacemaker.dev/exclude": None}})
    scene.wait_until(lambda: "suspended" not in scene.spec("node-1"), "node-1 to be in force")
    scene.change(vmi, spec={"priorityClassName": "critical"})
    document = {"metadata": {"name": "critical"}, "value": 7}
    scene._create(paths.PRIORITY_CLASSES, document)
    scene.wait_listed("node-1", "vm", priorityClassValue=7)


HAND_EDITS: dict[str, Document] = {
    "its VMs": {"spec": {"vms": []}},
    "its policies": {"spec": {"policies": []}},
    "maxClaimPercent": {"spec": {"maxClaimPercent": 500}},
    "suspended": {"spec": {"suspended": {"reason": "ByHand"}}},
    "its owner": {"metadata": {"ownerReferences": []}},
}


@pytest.mark.parametrize("edit", HAND_EDITS.values(), ids=HAND_EDITS)
def test_a_peace_list_edited_by_hand_is_written_back(
    scene: Scene, tenant: str, edit: Document
) -> None:
    scene.node("node-1")
    scene.policy("p")
    scene.vmi(tenant, "vm", "node-1")
    scene.start()
    scene.wait_listed("node-1", "vm", policy="p")
    before = scene.peace_list("node-1")
    assert before is not None
    scene.change(before, **edit)

    def part(document: Document | None) -> object:
        assert document is not None
        return document["spec"], document["metadata"].get("ownerReferences")

    scene.wait_until(
        lambda: part(scene.peace_list("node-1")) == part(before), "it to be written back"
    )


def test_a_deleted_peace_list_is_made_anew(scene: Scene) -> None:
    scene.node("node-1")
    scene.start()
    first = scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    assert first is not None
    scene.delete(scene.path(first))
    uid = first["metadata"]["uid"]
    scene.wait_until(
        lambda: (found := scene.peace_list("node-1")) and found["metadata"]["uid"] != uid,
        "a new PeaceList",
    )


def test_somebody_who_keeps_editing_is_answered_once_a_second(scene: Scene) -> None:
    scene.node("node-1")
    controller = scene.start()
    found = scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    assert found is not None
    patches = ("peacelists patch", "written")
    before = controller.writer.counts[patches]
    bursts = 4
    begin = time.monotonic()
    for burst in range(bursts):
        for edit in range(10):
            scene.change(found, spec={"maxClaimPercent": 101 + 10 * burst + edit})
        scene.wait_until(lambda: scene.spec("node-1")["maxClaimPercent"] == 100, "the answer")
    seconds = time.monotonic() - begin
    assert seconds >= (bursts - 1) * REVERT_EVERY
    assert controller.writer.counts[patches] - before <= seconds / REVERT_EVERY + 1


def test_a_bad_expression_keeps_the_accepted_spec_in_force_also_after_a_restart(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    policy = scene.policy("p", priority=3)
    scene.vmi(tenant, "vm", "node-1")

    def has_accepted_spec(node: str) -> None:
        listed = scene.spec(node)["policies"]
        assert [(each["name"], each["generation"]) for each in listed] == [("p", 1)]
        assert json.loads(listed[0]["spec"])["priority"] == 3

    with scene.controller():
        scene.wait_condition("p", "Accepted", status="True")
        scene.change(policy, spec={**BAD, "priority": 4})
        said = scene.wait_condition("p", "Accepted", status="False", observedGeneration=2)
        assert "spec.rules[0].when: line 1, column" in said["message"]
        has_accepted_spec("node-1")
    scene.node("node-2")
    scene.vmi(tenant, "vm-2", "node-2")
    with scene.controller():
        scene.wait_listed("node-2", "vm-2", policy="p")
        has_accepted_spec("node-1")
        has_accepted_spec("node-2")
        scene.change(policy, spec={**POLICY, "priority": 5})
        scene.wait_condition("p", "Accepted", status="True", observedGeneration=3)
        scene.wait_until(
            lambda: scene.spec("node-2")["policies"][0]["generation"] == 3, "the new spec"
        )


def test_settings_reach_all_nodes_and_wrong_or_gone_ones_change_nothing(scene: Scene) -> None:
    scene.node("node-1")
    scene.node("node-2")
    scene.start()

    def both(condition: Callable[[Document], Any]) -> Callable[[], bool]:
        return lambda: all(condition(scene.spec(node)) for node in ("node-1", "node-2"))

    scene.wait_until(both(lambda spec: spec.get("maxClaimPercent") == 100), "defaults")
    scene.settings(maxClaimPercent="150", suspended="true")
    scene.wait_until(both(lambda spec: spec["maxClaimPercent"] == 150), "150 %")
    scene.wait_until(
        both(lambda spec: spec.get("suspended", {}).get("reason") == "SystemSuspended"), "a rest"
    )
    scene.settings(maxClaimPercent="99", suspended="yes")
    events = scene.wait_until(lambda: scene.events(scene.namespace, "peacemaker"), "an Event")
    assert (events[0]["type"], events[0]["reason"]) == ("Warning", "WrongSetting")
    assert (
        "data.maxClaimPercent is '99': allowed a whole number 100..10000" in (events[0]["message"])
    )
    assert 'data.suspended is \'yes\': allowed "true" or "false"' in events[0]["message"]
    scene.delete(paths.item(paths.core(scene.namespace, "configmaps"), "peacemaker"))
    node = scene.node("node-3")  # whose PeaceList shows what is in force now
    scene.wait_until(lambda: scene.spec("node-3").get("maxClaimPercent") == 150, "node-3")
    assert scene.spec("node-3")["suspended"]["reason"] == "SystemSuspended"
    assert both(lambda spec: spec["maxClaimPercent"] == 150 and "suspended" in spec)()
    scene.delete(scene.path(node))
    scene.settings(maxClaimPercent="200")
    scene.wait_until(both(lambda spec: spec["maxClaimPercent"] == 200), "200 %")
    scene.wait_until(both(lambda spec: "suspended" not in spec), "an end of the rest")


MALFORMED: dict[str, Document] = {
    "no status": {},
    "an active pod without a node": {"status": {"activePods": {"pod-9": ""}}},
    "a phase of another version": {"status": {**STATUS, "phase": "Dreaming"}},
    "unicode": {"metadata": {"annotations": {"a": "ä\u202e🙂"}}, "status": STATUS},
    "41 labels": {
        "metadata": {"labels": {f"label-{number}": "x" for number in range(41)}},
        "status": STATUS,
    },
    "3 KiB of labels": {
        "metadata": {"labels": {f"{'k' * 50}-{number}": "v" * 60 for number in range(28)}},
        "status": STATUS,
    },
    "a node that does not exist": {
        "status": {**STATUS, "nodeName": "nowhere", "activePods": {"pod-9": "nowhere"}}
    },
}


def test_malformed_vms_stop_nobody(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    scene.policy("p")
    for number, part in enumerate(MALFORMED.values()):
        document: Document = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "spec": {"domain": {"devices": {}}},
            **copy.deepcopy(part),
        }
        document.setdefault("metadata", {})["name"] = f"odd-{number}"
        scene.create_vmi(tenant, document)
    scene.vmi(tenant, "sound", "node-1")
    scene.start()
    scene.wait_listed("node-1", "sound", state="Managed", policy="p")
    listed = {vm["name"]: vm for vm in scene.spec("node-1")["vms"]}
    names = dict(zip(MALFORMED, (f"odd-{number}" for number in range(len(MALFORMED))), strict=True))
    assert names["no status"] not in listed
    assert listed[names["41 labels"]]["labelsOmitted"] == "41 labels, allowed 32"
    assert "labels" not in listed[names["3 KiB of labels"]]
    assert listed[names["a phase of another version"]]["state"] == "Deferred"


def test_a_vm_as_kubevirt_writes_it_is_listed(scene: Scene, tenant: str) -> None:
    document = json.loads((KUBEVIRT / "vmi-running.json").read_text())
    for server_owned in ("uid", "resourceVersion", "creationTimestamp", "generation", "namespace"):
        document["metadata"].pop(server_owned)
    document["metadata"]["finalizers"] = []
    scene.node("node1")
    scene.policy("p", selector={"matchLabels": {"tier": "gold"}})
    scene.create_vmi(tenant, document)
    scene.start()
    vm = scene.wait_listed("node1", "vm-a", state="Managed", policy="p", vcpus=2)
    assert vm["podUID"] == "ceea7969-fe6d-458b-9e3d-ec0994ecc195"


def test_the_operator_writes_no_vm(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    scene.policy("p")
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.start()
    scene.wait_listed("node-1", "vm", policy="p")
    assert scene.find(scene.path(vmi)) == vmi


def test_at_rest_nothing_is_written(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    scene.node("node-2")
    scene.policy("p")
    scene.policy("q", mode="Observe")
    for number in range(5):
        scene.vmi(tenant, f"vm-{number}", f"node-{1 + number % 2}")
    scene.settings(maxClaimPercent="150")
    first = scene.start()
    scene.wait_listed("node-2", "vm-3", policy="p")
    for policy in ("p", "q"):
        scene.wait_condition(policy, "Ready", reason="Progressing")

    def versions() -> list[str]:
        collections = (paths.PEACE_LISTS, paths.PEACE_POLICIES, vmis(tenant), paths.NODES)
        return [
            item["metadata"]["resourceVersion"]
            for path in collections
            for item in scene.api.get(path)["items"]
        ]

    scene.wait_idle(first)
    before, writes = versions(), scene.writes()
    second = scene.start("b")  # which looks at everything anew
    vmi = scene.vmi(tenant, "late", "nowhere")  # which concerns no PeaceList
    scene.change(vmi, metadata={"annotations": {"a": "b"}})
    for controller in (first, second):
        scene.wait_idle(controller)
    assert scene.writes() - writes == 2  # both of ours
    assert set(before) <= set(versions())


def test_the_api_server_killed_and_started_again_loses_nothing(
    scene: Scene, tenant: str, cluster: Cluster
) -> None:
    scene.node("node-1")
    policy = scene.policy("p")
    scene.vmi(tenant, "vm", "node-1")
    controller = scene.start()
    scene.wait_listed("node-1", "vm", policy="p")
    cluster.stop_server()
    try:
        assert controller.is_alive()
    finally:
        cluster.start_server()
    scene.vmi(tenant, "late", "node-1")
    scene.wait_listed("node-1", "late", policy="p")
    scene.delete(scene.path(policy))
    scene.wait_listed("node-1", "late", policy=None)
    assert controller.is_alive()


def test_a_write_that_the_api_server_does_not_answer_is_made_later(
    scene: Scene, tenant: str, cluster: Cluster
) -> None:
    scene.node("node-1")
    controller = scene.start()
    scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.wait_listed("node-1", "vm")
    cluster.stop_server()
    try:
        # As if the watch had told it: its connection ended with the server.
        controller._post(controller._inventory._lists.clear)
        controller._post(lambda: controller._lists.mark(["node-1"]))
        lost = ("peacelists create", "unreachable")
        scene.wait_until(lambda: controller.writer.counts[lost] >= 2, "two tries")
    finally:
        cluster.start_server()
    scene.delete(scene.path(vmi))
    scene.wait_until(lambda: not scene.listed("node-1", "vm"), "vm to be listed no more")


def test_a_peace_list_that_somebody_else_writes_at_the_same_time_ends_right(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    controller = scene.start()
    scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    for number in range(40):
        scene.agent_says("node-1", observedGeneration=number)
        scene.vmi(tenant, f"vm-{number}", "node-1")
        scene.agent_says("node-1", summary={"managed": number})
    scene.wait_until(lambda: len(scene.spec("node-1")["vms"]) == 40, "40 VMs")
    counts = controller.writer.counts
    assert not any(counts[kind, "refused"] for kind, _ in counts)
    found = scene.peace_list("node-1")
    assert found is not None
    assert found["status"] == {"observedGeneration": 39, "summary": {"managed": 39}}


def test_a_peace_list_made_by_somebody_else_is_taken_over(scene: Scene) -> None:
    node = scene.node("node-1")
    scene.api.create(
        paths.PEACE_LISTS,
        {
            "apiVersion": paths.API_VERSION,
            "kind": "PeaceList",
            "metadata": {"name": "node-1"},
            "spec": {"maxClaimPercent": 500},
        },
    )
    scene.start()
    scene.wait_until(lambda: scene.spec("node-1")["maxClaimPercent"] == 100, "it to be right")
    found = scene.peace_list("node-1")
    assert found is not None
    assert found["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_refusals_hold_up_no_other_node_and_are_told_once_as_they_may_pass(
    scene: Scene, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    expression = "object.metadata.name != 'node-1' || size(object.spec.vms) == 0"
    admission = "/apis/admissionregistration.k8s.io/v1"
    policies = f"{admission}/validatingadmissionpolicies"
    bindings = f"{admission}/validatingadmissionpolicybindings"
    rule = {
        "apiGroups": ["peacemaker.dev"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["peacelists"],
    }
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression}],
    }
    scene._create(policies, {"metadata": {"name": "no-vms"}, "spec": spec})
    binding = {"policyName": "no-vms", "validationActions": ["Deny"]}
    scene._create(bindings, {"metadata": {"name": "no-vms"}, "spec": binding})
    scene.node("node-1")
    scene.node("node-2")
    controller = scene.start()
    scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList of node-1")
    probe = {"apiVersion": paths.API_VERSION, "kind": "PeaceList", "metadata": {"name": "node-1"}}

    def is_denied() -> bool:
        vm = {"uid": "u", "namespace": "n", "name": "n", "state": "Managed"}
        try:
            scene.api.patch(
                paths.item(paths.PEACE_LISTS, "node-1"),
                {**probe, "spec": {"vms": [vm]}},
                dryRun="All",
            )
        except ApiError as error:
            return error.status == 422
        return False

    scene.wait_until(is_denied, "the refusal to be in force")
    scene.vmi(tenant, "vm-1", "node-1")
    scene.vmi(tenant, "vm-2", "node-2")
    scene.wait_listed("node-2", "vm-2")
    refused = ("peacelists patch", "refused")
    scene.wait_until(lambda: controller.writer.counts[refused] >= 2, "two refusals")
    told = [each for each in caplog.records if "refused by the API server" in each.message]
    assert [(each.levelname, vars(each)["fields"]["node"]) for each in told] == [
        ("WARNING", "node-1")
    ]
    scene.delete(paths.item(bindings, "no-vms"))
    scene.wait_listed("node-1", "vm-1")
