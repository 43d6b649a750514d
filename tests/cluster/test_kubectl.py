"""What users type, in their order, and what they then see at a glance."""

import copy
import json
import re
from collections.abc import Iterator

import pytest
import yaml

from peacemaker_kube.api import Document
from tests.cluster.e2e.scene import Scene
from tests.cluster.e2e.site import ROOT, Site
from tests.cluster.kubectl import Kubectl

SEED = "policies/seed-figure-7.yaml"
POLICY = "peacepolicy.peacemaker.dev/seed-figure-7"
LIST = "peacelist.peacemaker.dev/node-1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """What everybody types is shown if a test fails."""
    with Site(tmp_path_factory.mktemp("site")) as site:
        site.operator.start()
        yield site
        print(site.kubectl.transcript)


@pytest.fixture(scope="module")
def kubectl(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Two nodes with VMs, one of them paused and one with CPUs of its own, and the seed policy."""
    with (
        Scene(site, tmp_path_factory.mktemp("one"), tag="1", tenant="shop") as one,
        Scene(site, tmp_path_factory.mktemp("other"), tag="2", tenant="lab") as other,
    ):
        one.vm("database")
        one.vm("web")
        paused, dedicated = one.vm("staging"), one.vm("trading")
        why = {"type": "Paused", "status": "True", "reason": "PausedByUser"}
        one.change_vmi(paused, {"status": {"conditions": [why]}})
        one.change_vmi(dedicated, {"spec": {"domain": {"cpu": {"dedicatedCpuPlacement": True}}}})
        other.vm("batch")
        for scene in (one, other):
            scene.node.start_agent()
        site.kubectl("apply", "-f", SEED)
        one.node.wait_told(paused, state="Deferred", reason="Paused")
        one.node.wait_told(dedicated, state="Excluded", reason="DedicatedCPU")
        yield site.kubectl
        site.kubectl("delete", "-f", SEED)
        for scene in (one, other):
            print(scene.node.agent.log())


def table(text: str) -> dict[str, dict[str, str]]:
    """The rows of what `kubectl get` shows, by name, each by column; of several tables one."""
    rows: dict[str, dict[str, str]] = {}
    header: list[str] = []
    starts: list[int] = []
    for line in text.splitlines():
        if line.startswith("NAME"):
            starts = [match.start() for match in re.finditer(r"\S+", line)]
            header = line.split()
        elif line:
            ends = [*starts[1:], len(line)]
            cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
            rows[cells[0]] = dict(zip(header, cells, strict=True))
    return rows


def test_one_waits_until_a_policy_is_in_force_everywhere(kubectl: Kubectl) -> None:
    said = kubectl("wait", "--for=condition=Ready", "--timeout=30s", "peacepolicy/seed-figure-7")
    assert said == f"{POLICY} condition met\n"
    assert kubectl("wait", "--for=condition=Ready", "--timeout=30s", "peacelists", "--all")


def test_get_tells_the_whole_story_at_a_glance(kubectl: Kubectl) -> None:
    kubectl("wait", "--for=condition=Ready", "--timeout=30s", "peacepolicy/seed-figure-7")
    rows = table(kubectl("get", "peacepolicies,peacelists"))
    policy, node = rows[POLICY], rows[LIST]
    assert {k: policy[k] for k in ("MODE", "READY", "NODES", "VMS")} == {
        "MODE": "Enforce", "READY": "True", "NODES": "2", "VMS": "4",
    }  # fmt: skip
    assert (node["MANAGED"], node["SUSPENDED"], node["READY"]) == ("2", "", "True")
    assert float(node["LOAD"]) >= 0
    assert policy["ADJUSTED"].isdecimal()
    assert node["ADJUSTED"].isdecimal()
    wide = table(kubectl("get", "peacepolicies,peacelists", "-o", "wide"))
    assert (wide[POLICY]["REASON"], wide[POLICY]["INTERVAL"]) == ("InForce", "15s")
    assert (wide[LIST]["REASON"], wide[LIST]["DEFERRED"], wide[LIST]["EXCLUDED"]) == (
        "InForce", "1", "1",
    )  # fmt: skip
    assert table(kubectl("get", "peacemaker")).keys() == rows.keys()
    assert table(kubectl("get", "pp,pl")).keys() == rows.keys()


@pytest.mark.parametrize(
    ("vm", "state", "reason", "message"),
    [
        ("staging", "Deferred", "Paused", "the guest is paused"),
        (
            "trading",
            "Excluded",
            "DedicatedCPU",
            "spec.domain.cpu.dedicatedCpuPlacement: its CPUs are its own",
        ),
    ],
)
def test_describe_explains_a_vm_that_is_not_managed(
    kubectl: Kubectl, vm: str, state: str, reason: str, message: str
) -> None:
    described = kubectl("describe", "peacelist", "node-1")
    _, _, status = described.partition("\nStatus:\n")
    shown = [" ".join(line.split()) for line in status.splitlines()]
    # Fields are shown in order of name: of a VM `Uid` is the last but `Weight`.
    at = shown.index(f"Name: {vm}")
    entry = set(shown[at - 1 : at + 7])
    assert {
        f"Message: {message}",
        "Namespace: shop",
        f"Reason: {reason}",
        f"State: {state}",
    } <= entry


def test_describe_tells_how_far_a_policy_has_come(kubectl: Kubectl) -> None:
    kubectl("wait", "--for=condition=Ready", "--timeout=30s", "peacepolicy/seed-figure-7")
    described = kubectl("describe", "peacepolicy", "seed-figure-7")
    shown = [" ".join(line.split()) for line in described.splitlines()]
    assert {"Message: of 2 nodes 2 in force", "Reason: InForce", "Vms: 4"} <= set(shown)
    _, _, events = described.partition("\nEvents:\n")
    assert re.search(r"Normal +Accepted .* the spec is sound$", events, re.MULTILINE), described


def test_explain_tells_what_a_rule_is_made_of(kubectl: Kubectl) -> None:
    said = kubectl("explain", "peacepolicy.spec.rules")
    for field in ("when", "for", "until", "pick", "nice", "cooldown", "name"):
        assert re.search(rf"^  {field}\t<", said, re.MULTILINE), said
    assert "CEL" in said


def test_a_mistake_is_shown_with_its_position_and_nothing_is_stored(kubectl: Kubectl) -> None:
    document: Document = yaml.safe_load((ROOT / SEED).read_bytes())
    bad = copy.deepcopy(document)
    bad["spec"]["rules"][0]["when"] = "node.laod15 > 0.9"
    said = kubectl.run("apply", "-f", "-", documents=(bad,))
    assert said.status == 1
    assert "spec.rules[0].when: line 1, column 6: unknown signal node.laod15" in said.stderr
    assert "did you mean node.load15?" in said.stderr
    found = json.loads(kubectl("get", POLICY, "-o", "json"))
    assert found["spec"]["rules"][0]["when"] == document["spec"]["rules"][0]["when"]
