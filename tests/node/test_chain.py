"""The whole chain on a real node: what an administrator types, and what the kernel has then.

`helm install`, VMs in pods, `kubectl apply` of a policy, a resize, upgrades, `helm uninstall`; the
images are built from this checkout. The tests share one installation and are in the order of its
life, but each can be run alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chartfiles.helm import HelmError
from node import Node, Vm, cpu_shares, pin
from tests.node.release import AGENTS, NAMESPACE, Document, Release
from tests.node.scene import Scene, applied, nices, put

# A build of the images takes minutes, and it is a fixture's.
pytestmark = pytest.mark.timeout(func_only=True)

LEVEL = "pod-security.kubernetes.io/enforce"
TEN = 110 / 1024
"""The weight at nice 10, of that at nice 0 (kernel/sched/core.c, sched_prio_to_weight)."""


def test_all_that_runs_is_confined_as_the_chart_says(release: Release) -> None:
    """As the kernel has it: the container runtime did what the pods ask for."""
    pod = release.agent()
    status = process_status(release, pod)
    assert status["Uid"].split() == ["0"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 23  # SYS_NICE
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    (container,) = pod["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert len(release.operators()) == 2


def process_status(release: Release, pod: Document) -> dict[str, str]:
    """/proc/PID/status of a pod's only container."""
    script = "print(open('/proc/self/status').read())"
    said = release.kubectl(
        "exec", pod["metadata"]["name"], "--", "/opt/peacemaker/bin/python", "-c", script
    )
    return dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)


def test_helm_test_says_that_all_is_well(release: Release) -> None:
    said = release.helm("test", "peacemaker", "--logs")
    assert "Succeeded" in said


def test_a_policy_moves_the_cpu_between_pods_and_its_end_gives_it_back(
    node: Node, release: Release, scene: Scene
) -> None:
    calm, noisy = scene.vm("calm"), scene.vm("noisy")
    for vm in (calm, noisy):
        pin(vm, {0})
    baseline = noisy.own.weight()
    assert cpu_shares([calm, noisy], seconds=2.0)["noisy"] == pytest.approx(0.5, abs=0.05)
    with applied(node, put(10, "noisy")):
        release.wait_told("noisy", state="Managed", nice=10, baseline=baseline)
        assert noisy.own.weight() == pytest.approx(baseline * TEN, abs=1)
        assert (nices(noisy), nices(calm)) == ({10}, {0})
        assert calm.own.weight() == baseline
        expected = TEN / (1 + TEN)
        assert cpu_shares([calm, noisy], seconds=2.0)["noisy"] == pytest.approx(expected, abs=0.05)
    release.wait_weight(noisy, baseline)
    assert nices(noisy) == {0}
    assert cpu_shares([calm, noisy], seconds=2.0)["noisy"] == pytest.approx(0.5, abs=0.05)


def test_a_resize_in_place_is_the_new_baseline(node: Node, release: Release, scene: Scene) -> None:
    vm = scene.vm("resized", cpu="100m")
    with applied(node, put(10, "resized")):
        release.wait_told("resized", state="Managed", nice=10, baseline=108)
        scene.resize(vm, "900m")
        release.wait_told("resized", state="Managed", nice=10, baseline=927)
        assert vm.own.weight() == pytest.approx(927 * TEN, abs=1)
    release.wait_weight(vm, 927)
    assert nices(vm) == {0}


def test_an_upgrade_and_a_rollback_replace_the_programs_and_move_no_vm(
    node: Node, release: Release, scene: Scene
) -> None:
    vm = scene.vm("steady")
    with applied(node, put(10, "steady")):
        release.wait_told("steady", state="Managed", nice=10)
        before = release.pods()
        with watched(vm) as seen:
            release.upgrade("--set=agent.podAnnotations.a=b", "--set=operator.podAnnotations.a=b")
            release.wait_rolled_out()
            upgraded = release.pods()
            release.rollback()
            release.wait_rolled_out()
            # The last agent has taken the VM over as it is.
            release.wait_told("steady", state="Managed", nice=10, baseline=108)
        assert not before & upgraded
        assert not upgraded & release.pods()
        assert seen == {(12, (10,))}
    release.wait_weight(vm, 108)
    assert nices(vm) == {0}


@contextmanager
def watched(vm: Vm) -> Iterator[set[tuple[int, tuple[int, ...]]]]:
    """What weight a VM had, and what nices, at any time inside of the context."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            seen.add((vm.own.weight(), tuple(sorted(nices(vm)))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def test_where_pod_security_is_enforced_helm_test_says_what_to_label(
    node: Node, release: Release
) -> None:
    namespace = f"namespace/{NAMESPACE}"
    node.kubectl("label", namespace, f"{LEVEL}=baseline")
    try:
        release.kubectl("delete", "pod", release.agent()["metadata"]["name"])
        with pytest.raises(HelmError, match=f"kubectl label .*{NAMESPACE} {LEVEL}=privileged"):
            release.helm("test", "peacemaker", "--logs")
        assert not release.agents()
        node.kubectl("label", "--overwrite", namespace, f"{LEVEL}=privileged")
        # The DaemonSet controller tries again, later and later.
        release.kubectl("rollout", "restart", AGENTS)
        release.wait_rolled_out()
        assert "Succeeded" in release.helm("test", "peacemaker")
    finally:
        node.kubectl("label", "--overwrite", namespace, f"{LEVEL}=privileged")


def test_uninstalling_restores_every_vm_and_a_dead_node_keeps_nobody_from_it(
    node: Node, release: Release, scene: Scene
) -> None:
    vm = scene.vm("adjusted")
    with applied(node, put(10, "adjusted")), dead_node(node):
        release.wait_told("adjusted", state="Managed", nice=10)
        assert vm.own.weight() == 12
        release.eventually(
            lambda: {each["metadata"]["name"] for each in peace_lists(node)},
            lambda found: "dead" in found,
            "the dead node to have a PeaceList",
        )
        release.uninstall()
        assert (vm.own.weight(), nices(vm)) == (108, {0})
        said = release.log("job/peacemaker-uninstall")
        assert "1 of 2 nodes restored" in said
        # How to restore the other one by hand.
        assert "kubectl debug node/dead --image localhost/peacemaker-agent:" in said
        # Data stays, by Helm's convention; what ran does not.
        assert {each["metadata"]["name"] for each in peace_lists(node)} >= {node.name}
        left = release.kubectl("get", "deployments,daemonsets,serviceaccounts,roles", "-o", "name")
        assert "peacemaker" not in left
        release.install()
        release.wait_told("adjusted", state="Managed", nice=10, baseline=108)
    release.wait_weight(vm, 108)


@contextmanager
def dead_node(node: Node) -> Iterator[None]:
    """A node of the cluster whose kubelet never says a word."""
    labels = {"kubevirt.io/schedulable": "true", "kubernetes.io/hostname": "dead"}
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "dead", "labels": labels}}
    node.apply(document)
    try:
        yield
    finally:
        node.kubectl("delete", "node", "dead")


def peace_lists(node: Node) -> list[Document]:
    found: list[Document] = node.json("get", "peacelists")["items"]
    return found
