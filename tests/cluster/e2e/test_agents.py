"""Agents that are silent, and agents that are older than the operator."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.e2e.scene import Scene, weight_at


@pytest.fixture
def scene(scene: Scene) -> Iterator[Scene]:
    """The operator that comes after is an ordinary one again."""
    try:
        yield scene
    finally:
        if scene.operator.is_started:
            scene.operator.end()


def test_an_agent_without_a_ready_pod_is_called_silent_until_it_is_back(scene: Scene) -> None:
    vm, node = scene.vm(), scene.node
    scene.operator.end()
    scene.operator.start("--agent-silent-after", "2s")
    node.start_agent()
    policy = scene.apply(scene.put(5))
    node.wait_told(vm, nice=5)
    scene.wait_condition(policy, "True", "InForce")
    node.agent.kill()
    node.say_ready(False)
    node.wait_ready("Unknown", "AgentSilent")
    found = scene.wait_condition(policy, "Unknown", "AgentSilent")
    worst = [(each["name"], each["reason"]) for each in found["status"]["worstNodes"]]
    assert worst == [(node.name, "AgentSilent")]
    assert vm.values() == (weight_at(5), {5})
    node.start_agent()
    node.say_ready(True)
    node.wait_ready("True", "InForce")
    scene.wait_condition(policy, "True", "InForce")
    scene.apply(scene.put(7))
    vm.wait_values(weight_at(7), 7)


def test_a_policy_of_a_newer_operator_is_not_understood_and_vms_keep_their_values(
    scene: Scene,
) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    scene.apply(scene.put(5))
    node.wait_told(vm, nice=5)
    scene.operator.kill()
    policies = node.peace_list()["spec"]["policies"]
    policies[0]["generation"] = 2
    newer = json.loads(policies[0]["spec"])
    newer["rules"][0] |= {"nice": {"set": 7}, "ioWeight": {"set": 50}}
    policies[0]["spec"] = json.dumps(newer)
    scene.kubectl(
        "patch",
        "peacelist",
        node.name,
        "--type=merge",
        "-p",
        json.dumps({"spec": {"policies": policies}}),
    )
    found = node.wait_ready("False", "NotUnderstood")
    assert "spec.rules[0].ioWeight" in found["status"]["conditions"][0]["message"]
    node.wait_told(vm, state="Deferred", reason="NotUnderstood", nice=5)
    [told] = node.peace_list()["status"]["policies"]
    assert (told["reason"], told.get("generation")) == ("NotUnderstood", None)
    assert vm.values() == (weight_at(5), {5})
    scene.operator.start()
    node.wait_told(vm, state="Managed", nice=5)
    node.wait_ready("True", "InForce")
