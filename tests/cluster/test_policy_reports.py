"""What administrators and VM owners are told: policies' statuses, silent agents, Events."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from kubernetes.client import ApiClient

from apiserver import Cluster
from peacemaker_kube import paths
from peacemaker_kube.api import Document
from tests.cluster.operator_scene import LOUD, PACE, POLICY, Scene

BAD = {**POLICY, "rules": [{**POLICY["rules"][0], "when": "node.laod15 > 0.9"}]}
READY: Document = {
    "type": "Ready",
    "status": "True",
    "reason": "InForce",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def scene(cluster: Cluster, api: ApiClient) -> Iterator[Scene]:  # noqa: ARG001 (brings the CRDs)
    with Scene(cluster) as scene:
        yield scene


@pytest.fixture
def tenant(scene: Scene) -> str:
    return scene.new_namespace()


def status(scene: Scene, policy: str = "p") -> Document:
    found = scene.api.get(paths.item(paths.PEACE_POLICIES, policy))
    return found.get("status") or {}


def in_force(scene: Scene, node: str, policy: str = "p", **row: Any) -> None:
    """This node's agent says that it does what its PeaceList says now."""
    found = scene.peace_list(node)
    assert found is not None
    generation = found["metadata"]["generation"]
    listed = {each["name"]: each["generation"] for each in found["spec"]["policies"]}
    rows = [{"name": policy, "generation": listed[policy], **row}] if policy in listed else []
    scene.agent_says(node, observedGeneration=generation, conditions=[READY], policies=rows)


def has_generation_2(scene: Scene, node: str) -> bool:
    return bool(scene.spec(node)["policies"][0]["generation"] == 2)


def test_a_policy_is_ready_when_all_agents_have_taken_it_over(scene: Scene, tenant: str) -> None:
    for number in (1, 2):
        scene.node(f"node-{number}")
        scene.vmi(tenant, f"vm-{number}", f"node-{number}")
    policy = scene.policy("p")
    scene.start()
    scene.wait_condition("p", "Accepted", status="True", observedGeneration=1)
    said = scene.wait_condition("p", "Ready", status="False", reason="Progressing")
    assert "of 2 nodes" in said["message"]
    in_force(scene, "node-1")
    in_force(scene, "node-2")
    scene.wait_condition("p", "Ready", status="True", reason="InForce")
    scene.wait_until(lambda: (status(scene)["nodes"], status(scene)["vms"]) == (2, 2), "counts")
    assert status(scene)["accepted"] == {"generation": 1, "spec": policy["spec"]}
    scene.change(policy, spec={"priority": 5})
    scene.wait_condition("p", "Ready", status="False", observedGeneration=2)
    for node in ("node-1", "node-2"):
        scene.wait_until(partial(has_generation_2, scene, node), "generation 2")
        in_force(scene, node)
    scene.wait_condition("p", "Ready", status="True", observedGeneration=2)


def test_details_are_written_now_and_then_and_the_last_of_them_always(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    scene.vmi(tenant, "vm", "node-1")
    scene.policy("p")
    controller = scene.start()
    scene.wait_condition("p", "Ready", reason="Progressing")
    in_force(scene, "node-1")
    scene.wait_condition("p", "Ready", reason="InForce")
    patches = ("peacepolicies/status patch", "written")
    before = controller.writer.counts[patches]
    for adjusted in range(1, 30):
        in_force(scene, "node-1", adjusted=adjusted)
    scene.wait_until(lambda: status(scene)["adjusted"] == 29, "the last figure")
    assert controller.writer.counts[patches] - before <= 2
    scene.wait_idle(controller)
    assert controller.writer.counts[patches] - before <= 2


def test_who_outranks_a_policy_and_where_it_fares_worst_is_told(scene: Scene, tenant: str) -> None:
    scene.node("node-1")
    scene.vmi(tenant, "vm", "node-1")
    scene.policy("p")
    scene.policy("high", priority=9)
    scene.start()
    scene.wait_until(
        lambda: status(scene).get("outrankedBy") == [{"name": "high", "vms": 1}], "high to outrank"
    )
    in_force(scene, "node-1", "high", contested=1)
    worst = scene.wait_until(
        lambda: [
            (node["name"], node["reason"], node["vms"])
            for node in status(scene, "high").get("worstNodes", ())
            if node["reason"] == "Contested"
        ],
        "the worst node",
    )
    assert worst == [("node-1", "Contested", 1)]


def test_acceptance_is_told_by_an_event_when_it_changes_and_only_then(scene: Scene) -> None:
    policy = scene.policy("p-events")
    with scene.controller():
        scene.wait_condition("p-events", "Accepted", status="True")
        scene.change(policy, spec={"priority": 2})
        scene.wait_condition("p-events", "Accepted", status="True", observedGeneration=2)
        scene.change(policy, spec=BAD)
        scene.wait_condition("p-events", "Accepted", status="False")
    with scene.controller() as second:
        scene.change(policy, spec={**POLICY, "priority": 3})
        scene.wait_condition("p-events", "Accepted", status="True", observedGeneration=4)
        scene.wait_idle(second)
        scene.wait_until(lambda: len(scene.events("default", "p-events")) >= 3, "three Events")
    told = scene.events("default", "p-events")
    assert [(event["type"], event["reason"]) for event in told] == [
        ("Normal", "Accepted"),
        ("Warning", "NotAccepted"),
        ("Normal", "Accepted"),
    ]
    assert "spec.rules[0].when: line 1, column" in told[1]["message"]
    assert told[1]["involvedObject"]["uid"] == policy["metadata"]["uid"]


def test_an_agent_without_a_ready_pod_is_called_silent_until_it_answers(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    scene.vmi(tenant, "vm", "node-1")
    scene.policy("p")
    pod = scene.agent_pod("node-1", ready=True)
    controller = scene.start(pace=PACE)
    scene.wait_listed("node-1", "vm", policy="p")
    in_force(scene, "node-1")
    scene.wait_condition("p", "Ready", status="True")
    scene.set_ready(pod, False)

    def ready() -> Document:
        found = scene.peace_list("node-1")
        assert found is not None
        condition: Document = found["status"]["conditions"][0]
        return condition

    scene.wait_until(lambda: ready()["reason"] == "AgentSilent", "node-1 to be called silent")
    assert ready()["status"] == "Unknown"
    scene.wait_condition("p", "Ready", status="Unknown", reason="AgentSilent")
    found = scene.peace_list("node-1")
    assert found is not None
    assert found["status"]["policies"]  # what its agent said stays
    scene.set_ready(pod, True)
    in_force(scene, "node-1")
    scene.wait_condition("p", "Ready", status="True")
    scene.wait_idle(controller)
    assert ready()["status"] == "True"


def test_a_node_that_never_had_an_agent_is_called_silent(scene: Scene) -> None:
    scene.node("node-1")
    scene.policy("p")
    scene.start(pace=PACE)
    said = scene.wait_condition("p", "Ready", status="Unknown", reason="AgentSilent")
    assert said["observedGeneration"] == 1
    scene.node("node-2")
    scene.agent_pod("node-2", ready=True)
    scene.wait_until(lambda: scene.peace_list("node-2"), "the PeaceList of node-2")


def test_an_agent_that_answers_though_its_pod_is_not_ready_is_given_more_time(
    scene: Scene,
) -> None:
    scene.node("node-1")
    controller = scene.start(pace=PACE)
    written = ("peacelists/status patch", "written")
    scene.wait_until(lambda: controller.writer.counts[written] == 1, "node-1 to be called silent")
    scene.agent_says("node-1", conditions=[READY])
    scene.wait_until(lambda: controller.writer.counts[written] == 2, "it to be called so again")
    assert controller._silence._agents._patience == {"node-1": 2 * PACE.silent_after}


def test_owners_are_told_of_the_first_adjustment_contested_and_restored(
    scene: Scene, tenant: str
) -> None:
    scene.node("node-1")
    vmi = scene.vmi(tenant, "vm", "node-1")
    scene.policy("p")
    scene.start(pace=LOUD)
    scene.wait_listed("node-1", "vm", policy="p")
    since = "2026-01-01T00:00:00Z"

    def agent_says(state: str, nice: int, **fields: Any) -> None:
        uid = vmi["metadata"]["uid"]
        vm = {"uid": uid, "namespace": tenant, "name": "vm", "state": state, "nice": nice}
        scene.agent_says("node-1", vms=[{**vm, **fields}])

    def reasons() -> list[str]:
        return [event["reason"] for event in scene.events(tenant, "vm")]

    agent_says("Managed", 0)
    agent_says("Managed", 1, since=since)
    scene.wait_until(lambda: reasons() == ["Adjusted"], "the first adjustment")
    agent_says("Managed", 2, since=since)
    agent_says("Contested", 0, message="somebody")
    scene.wait_until(lambda: reasons() == ["Adjusted", "Contested"], "Contested")
    agent_says("Managed", 0)
    agent_says("Managed", 3, since=since)  # the same again within the hour
    agent_says("Unmanaged", 0)
    scene.wait_until(lambda: reasons()[2:] == ["Restored"], "Restored")
    told = scene.events(tenant, "vm")[0]
    assert (told["type"], told["involvedObject"]["uid"]) == ("Normal", vmi["metadata"]["uid"])
    assert told["involvedObject"]["kind"] == "VirtualMachineInstance"
