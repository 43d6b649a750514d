"""Whoever dies, and when: VMs keep their values, and what is left goes on."""

from pathlib import Path

import pytest

from lab.policy import rule
from peacemaker_kube import paths
from peacemaker_kube.api import Document
from tests.cluster.e2e.scene import Scene, Vm, find, remove, weight_at
from tests.cluster.e2e.site import eventually
from tests.kernel.scene import Qmp

MANY = 300
"""Nodes whose PeaceLists take the operator a while to write."""


def test_an_operator_killed_amid_its_writes_is_followed_by_one_that_completes_them(
    scene: Scene,
) -> None:
    vm = scene.vm()
    scene.node.start_agent()
    policy = scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    scene.operator.end()
    nodes = [scene.named(f"a-{number:03d}") for number in range(MANY)]
    everywhere = scene.put(7, name="p")
    everywhere["spec"]["nodeSelector"] = {}
    try:
        for node in nodes:
            labels = {"kubevirt.io/schedulable": "true"}
            scene.api.create(paths.NODES, {"metadata": {"name": node, "labels": labels}})
        scene.apply(everywhere)
        scene.operator.start(wait=False)
        eventually(lambda: peace_list(scene, nodes[0]), bool, "the first PeaceList")
        scene.operator.kill()
        written = [node for node in nodes if node in peace_lists(scene)]
        assert 0 < len(written) < MANY, "it was killed in the middle"

        scene.operator.start()
        name = policy["metadata"]["name"]
        eventually(
            lambda: peace_lists(scene),
            lambda found: (
                all(
                    [(each["name"], each["generation"]) for each in found[node]["spec"]["policies"]]
                    == [(name, 2)]
                    for node in [*nodes, scene.node.name]
                    if node in found
                )
                and found.keys() >= set(nodes)
            ),
            "all PeaceLists",
        )
        vm.wait_values(weight_at(7), 7)
    finally:
        for node in nodes:
            remove(scene.site, paths.item(paths.NODES, node))
    eventually(
        lambda: peace_lists(scene).keys() & set(nodes),
        lambda left: not left,
        "the PeaceLists of nodes that are gone to go",
    )


def test_the_agent_enforces_on_while_the_api_server_is_away_and_all_catch_up_afterwards(
    scene: Scene, tmp_path: Path
) -> None:
    """What happens to the VM meanwhile is met too: threads, a new baseline, the agent's restart."""
    node, socket = scene.node, tmp_path / "qmp"
    vm = scene.vm(qmp=socket)
    node.start_agent()
    scene.apply(scene.policy(rule({"add": 1}), bounds=(0, 19)))
    wait_steps(2, scene, vm)
    scene.site.cluster.stop_server()
    try:
        qmp = Qmp(socket)
        try:
            before = len(vm.qemu.threads())
            qmp.start_thread("late")
            eventually(lambda: len(vm.qemu.threads()), lambda n: n > before, "a thread more")
            wait_steps(node_nice(scene, vm) + 2, scene, vm)
        finally:
            qmp.close()
        vm.own.set_weight(2000)  # what a kubelet does to a pod that is resized
        eventually(lambda: row(scene, vm)["baseline"], lambda b: b == 2000, "the new baseline")
        node.agent.stop()
        reached = next(iter(vm.values()[1]))
        node.start_agent()
        wait_steps(reached + 2, scene, vm)
    finally:
        scene.site.cluster.start_server()
    node.wait_told(vm, baseline=2000)
    policy = scene.apply(scene.put(3))
    vm.wait_values(weight_at(3, 2000), 3)
    node.wait_ready("True", "InForce")
    scene.wait_condition(policy, "True", "InForce")


@pytest.mark.parametrize(
    "edit",
    ['{"spec":{"suspended":{"reason":"ByHand"}}}', '{"spec":{"vms":[]}}'],
    ids=["suspended", "without VMs"],
)
def test_a_peace_list_edited_by_hand_is_put_back_and_the_agent_follows(
    scene: Scene, edit: str
) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    scene.apply(scene.put(5))
    node.wait_told(vm, nice=5)
    right = node.wait_ready("True", "InForce")
    least = right["metadata"]["generation"] + 2
    scene.kubectl("patch", "peacelist", node.name, "--type=merge", "-p", edit)
    eventually(
        node.peace_list,
        lambda found: found["spec"] == right["spec"] and found["metadata"]["generation"] >= least,
        "it to be put back",
    )
    vm.wait_values(weight_at(5), 5)
    node.wait_ready("True", "InForce")


def test_a_peace_list_deleted_by_hand_is_made_anew(scene: Scene) -> None:
    vm, node = scene.vm(), scene.node
    node.start_agent()
    scene.apply(scene.put(5))
    node.wait_told(vm, nice=5)
    uid = node.peace_list()["metadata"]["uid"]
    scene.kubectl("delete", "peacelist", node.name)
    eventually(
        node.peace_list,
        lambda found: bool(found) and found["metadata"]["uid"] != uid,
        "another one",
    )
    node.wait_told(vm, state="Managed", nice=5)
    vm.wait_values(weight_at(5), 5)


def test_when_the_leader_is_killed_the_other_replica_goes_on(scene: Scene) -> None:
    vm = scene.vm()
    scene.node.start_agent()
    scene.apply(scene.put(5))
    vm.wait_values(weight_at(5), 5)
    heard = len(scene.operator.said())
    other = scene.site.another_operator()
    other.start()
    scene.operator.kill()
    policy = scene.apply(scene.put(7))
    vm.wait_values(weight_at(7), 7)
    scene.wait_condition(policy, "True", "InForce")

    scene.operator.start()
    other.end()
    scene.apply(scene.put(3))
    vm.wait_values(weight_at(3), 3)
    assert "level=error" not in other.said() + scene.operator.said()[heard:]


def row(scene: Scene, vm: Vm) -> Document:
    """The VM as its node's agent sees it, with no API server between."""
    return dict(scene.node.agent.rows()[vm.full_name])


def node_nice(scene: Scene, vm: Vm) -> int:
    return int(row(scene, vm)["nice"])


def wait_steps(nice: int, scene: Scene, vm: Vm) -> None:
    """Until all threads have come so far."""
    eventually(
        lambda: (node_nice(scene, vm), vm.values()[1]),
        lambda found: found[0] >= nice and found[1] == {found[0]},
        f"all threads to reach nice {nice}",
    )


def peace_list(scene: Scene, node: str) -> Document:
    return find(scene.site, paths.item(paths.PEACE_LISTS, node))


def peace_lists(scene: Scene) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in scene.api.get(paths.PEACE_LISTS)["items"]}
