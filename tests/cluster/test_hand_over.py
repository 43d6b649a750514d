"""Several replicas: one writes, and another goes on where it stopped, however that came."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from apiserver import Cluster
from lab import Process
from lab.processes import launch
from peacemaker_kube import paths
from peacemaker_kube.api import Document
from peacemaker_kube.watch import Change, Watch
from peacemaker_operator.controller import Controller
from tests.cluster.operator_scene import Scene

PROGRAM = Path(__file__).parent / "controller_program.py"


@pytest.fixture
def scene(cluster: Cluster, api: ApiClient) -> Iterator[Scene]:  # noqa: ARG001 (brings the CRDs)
    with Scene(cluster) as scene:
        yield scene


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def launched(scene: Scene, stack: ExitStack, identity: str) -> Process:
    kubeconfig = str(scene.cluster.kubeconfig)
    process = launch([sys.executable, str(PROGRAM), kubeconfig, scene.namespace, identity])
    stack.callback(process.stop)
    return process


def leader(scene: Scene) -> str:
    collection = f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases"
    found = scene.find(paths.item(collection, "peacemaker-operator"))
    return found["spec"]["holderIdentity"] if found else ""


def written(controller: Controller) -> int:
    return controller.writer.counts.total()


def test_of_two_replicas_one_writes(scene: Scene) -> None:
    tenant = scene.new_namespace()
    scene.node("node-1")
    first = scene.start("a", leader_elect=True)
    scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    second = scene.start("b", leader_elect=True)
    for number in range(5):
        scene.vmi(tenant, f"vm-{number}", "node-1")
    scene.wait_until(lambda: len(scene.spec("node-1")["vms"]) == 5, "5 VMs")
    assert written(first) > 0
    assert written(second) == 0
    first.stop()
    scene.wait_until(second.is_leading, "b to lead")
    scene.wait_idle(second)
    assert written(second) == 0  # it found nothing to do
    scene.vmi(tenant, "late", "node-1")
    scene.wait_listed("node-1", "late")


def test_replicas_without_an_election_do_not_fight(scene: Scene) -> None:
    tenant = scene.new_namespace()
    scene.node("node-1")
    scene.policy("p")
    replicas = [scene.start(identity) for identity in ("a", "b", "c")]
    for number in range(20):
        scene.vmi(tenant, f"vm-{number}", "node-1")
    scene.wait_until(lambda: len(scene.spec("node-1").get("vms", ())) == 20, "20 VMs")
    for replica in replicas:
        scene.wait_idle(replica)
    before = scene.writes()
    vmi = scene.vmi(tenant, "late", "nowhere")
    scene.change(vmi, metadata={"annotations": {"a": "b"}})
    for replica in replicas:
        scene.wait_idle(replica)
    assert scene.writes() - before == 2  # both of ours


def test_a_leader_that_is_killed_is_followed_by_the_other(scene: Scene, stack: ExitStack) -> None:
    tenant = scene.new_namespace()
    scene.node("node-1")
    scene.policy("p")
    first = launched(scene, stack, "a")
    scene.wait_until(lambda: leader(scene) == "a", "a to lead")
    second = scene.start("b", leader_elect=True)
    for number in range(10):
        scene.vmi(tenant, f"vm-{number}", "node-1")
    first.stop()  # SIGKILL, in the midst of it
    assert not second.is_leading()
    scene.wait_until(second.is_leading, "b to lead")
    scene.wait_until(lambda: len(scene.spec("node-1").get("vms", ())) == 10, "10 VMs")
    scene.wait_condition("p", "Accepted", status="True")


def test_an_operator_that_is_killed_in_its_first_sync_is_no_harm(
    scene: Scene, stack: ExitStack
) -> None:
    tenant = scene.new_namespace()
    nodes = [f"node-{number}" for number in range(60)]
    for node in nodes:
        scene.node(node)
        scene.vmi(tenant, f"vm-{node}", node)
    scene.policy("p")
    first = launched(scene, stack, "a")

    def made() -> int:
        return len(scene.api.get(paths.PEACE_LISTS)["items"])

    scene.wait_until(lambda: made() > 0, "the first PeaceList")
    first.stop()
    before = made()
    second = scene.start("b", leader_elect=True)
    scene.wait_until(second.is_leading, "b to lead")
    scene.wait_until(lambda: made() == len(nodes), "all PeaceLists")
    for node in nodes:
        scene.wait_listed(node, f"vm-{node}", policy="p")
    assert second.writer.counts["peacelists create", "written"] == len(nodes) - before


def test_a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes(
    scene: Scene, stack: ExitStack
) -> None:
    tenant = scene.new_namespace()
    scene.node("node-1")
    first = launched(scene, stack, "a")
    scene.wait_until(lambda: leader(scene) == "a", "a to lead")
    scene.wait_until(lambda: scene.peace_list("node-1"), "the PeaceList")
    launched(scene, stack, "b")
    writers: list[str] = []

    def seen(change: Change[str]) -> None:
        if change.new is not None:
            writers.append(change.new)

    watch = Watch(scene.api, paths.PEACE_LISTS, last_writer, seen)
    watch.start()
    stack.callback(watch.stop)
    os.kill(first.pid, signal.SIGSTOP)
    stack.callback(os.kill, first.pid, signal.SIGCONT)
    scene.wait_until(lambda: leader(scene) == "b", "b to lead")
    for number in range(5):
        scene.vmi(tenant, f"vm-{number}", "node-1")
    scene.wait_until(lambda: len(scene.spec("node-1")["vms"]) == 5, "5 VMs")
    assert [name.split()[0] for name in writers[:1]] == ["a"]
    before = len(writers)
    os.kill(first.pid, signal.SIGCONT)
    for number in range(5, 30):
        scene.vmi(tenant, f"vm-{number}", "node-1")
    scene.wait_until(lambda: len(scene.spec("node-1")["vms"]) == 30, "30 VMs")
    scene.wait_until(lambda: b"no longer leading" in said(first), "a to notice")
    assert {name.split()[0] for name in writers[before:]} == {"b"}


def said(process: Process) -> bytes:
    return os.pread(process.output.fileno(), 1_000_000, 0)


def last_writer(document: Document) -> str:
    """Who wrote a PeaceList last, and which version that was."""
    metadata = document["metadata"]
    owners = [
        entry["manager"]
        for entry in metadata["managedFields"]
        if "f:vms" in entry.get("fieldsV1", {}).get("f:spec", {})
    ]
    return f"{' '.join(owners)} {metadata['resourceVersion']}"
