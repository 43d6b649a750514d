"""What holds for the whole system: suspended or not, and how much VMs may claim."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lab.policy import rule
from peacemaker_kube.api import Document
from tests.cluster.deployment import NAMESPACE
from tests.cluster.e2e.scene import Scene, weight_at
from tests.cluster.e2e.site import TIMEOUT

FEW_SECONDS = 5.0


@pytest.fixture
def scene(scene: Scene) -> Iterator[Scene]:
    """Settings are those of an installation again when it ends."""
    try:
        yield scene
    finally:
        scene.site.settings(maxClaimPercent="100", suspended="false")


def tell(scene: Scene, command: str) -> Document:
    """`peacemaker-operator suspend` or `resume`, as one runs it in the operator's pod."""
    words = [sys.executable, "-m", "peacemaker_operator", command, "-o", "json"]
    words += ["--kubeconfig", str(scene.operator.kubeconfig), "--namespace", NAMESPACE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    answer: Document = json.loads(done.stdout)
    return answer


def test_suspend_returns_when_every_vm_is_restored_and_resume_brings_them_back(
    scene: Scene,
) -> None:
    vms = [scene.vm(f"vm-{number}") for number in range(3)]
    scene.node.start_agent()
    policy = scene.apply(scene.put(5))
    for vm in vms:
        vm.wait_values(weight_at(5), 5)
    told = tell(scene, "suspend")
    assert (told["restored"], told["unanswered"]) == ([scene.node.name], [])
    for vm in vms:
        assert vm.is_untouched()
    scene.wait_condition(policy, "False", "Suspended")
    tell(scene, "resume")
    for vm in vms:
        vm.wait_values(weight_at(5), 5)
    scene.node.wait_ready("True", "InForce")
    scene.wait_condition(policy, "True", "InForce")


def test_the_claim_that_vms_may_make_reaches_the_weights_within_seconds(scene: Scene) -> None:
    favoured, other = scene.vm("favoured"), scene.vm("other")
    scene.node.start_agent()
    scene.apply(scene.policy(rule({"set": -5}, {"where": 'vm.name == "favoured"'})))
    wanted = 1000 * 3121 / 1024  # kernel/sched/core.c: nice -5
    part = 2000 / (wanted + 1000)
    favoured.wait_values(round(wanted * part), 0)
    other.wait_values(round(1000 * part), 0)
    started = time.monotonic()
    scene.site.settings(maxClaimPercent="300")
    favoured.wait_values(round(wanted), 0)
    other.wait_values(1000, 0)
    assert time.monotonic() - started < FEW_SECONDS
