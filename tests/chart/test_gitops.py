"""The objects for Flux and Argo CD: valid, in order, and right about a policy's health."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]  # as Argo CD speaks

from apiserver import Cluster
from chartfiles.paths import ROOT
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from peacemaker_operator.acceptance import Acceptor
from tests.chart.others import flux_health, serve_others
from tests.chart.rendering import documents
from tests.cluster.kubectl import Kubectl
from tests.unit.operator_builders import policy_of
from tests.unit.test_operator_policy_status import (
    BAD_SPEC,
    SILENT,
    STOPPED,
    peace_list,
    status_of,
)

GITOPS = ROOT / "deploy" / "gitops"
FILES = sorted(GITOPS.rglob("*.yaml"))


def objects(folder: str) -> dict[tuple[str, str], Document]:
    """What is below the folder, by kind and name."""
    files = sorted((GITOPS / folder).rglob("*.yaml"))
    found = [each for file in files for each in documents(file.read_text())]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def test_the_server_takes_all_objects(cluster: Cluster, tmp_path_factory: Any) -> None:
    api = Api.load(str(cluster.kubeconfig))
    serve_others(api)
    for name in ("flux-system", "argocd", "peacemaker"):
        api.create(paths.NAMESPACES, {"metadata": {"name": name}})
    api.close()
    kubectl = Kubectl(cluster, ROOT, tmp_path_factory.mktemp("home"))
    trial = ("--server-side", "--dry-run=server", "--validate=strict")
    said = kubectl("apply", *trial, "--recursive", "-f", str(GITOPS))
    assert said.count("serverside-applied") == sum(
        1 for file in FILES for _ in documents(file.read_text())
    )


def test_flux_brings_crds_then_the_chart_then_policies_and_waits_for_each() -> None:
    found = objects("flux")
    order = ["peacemaker-crds", "peacemaker", "peacemaker-policies"]
    for name, before in zip(order, [None, *order], strict=False):
        spec = found["Kustomization", name]["spec"]
        assert [each["name"] for each in spec.get("dependsOn", ())] == [before] * bool(before)
        assert spec["wait"] is True
        assert ("GitRepository", spec["sourceRef"]["name"]) in found
        if spec["sourceRef"]["name"] == "peacemaker":
            assert any((ROOT / spec["path"]).glob("*.yaml"))
    assert found["Kustomization", "peacemaker-crds"]["spec"]["prune"] is False
    release = found["HelmRelease", "peacemaker"]["spec"]
    assert (ROOT / release["chart"]["spec"]["chart"] / "Chart.yaml").is_file()
    assert release["install"]["crds"] == release["upgrade"]["crds"] == "Skip"


def test_argo_cd_brings_crds_then_the_chart_then_policies() -> None:
    found = objects("argocd")
    wave = "argocd.argoproj.io/sync-wave"
    waves = {
        name: int(each["metadata"]["annotations"][wave])
        for (_, name), each in found.items()
        if wave in each["metadata"].get("annotations", {})
    }
    assert sorted(waves, key=lambda name: waves[name]) == [
        "peacemaker-crds",
        "peacemaker-chart",
        "peacemaker-policies",
    ]
    assert len(set(waves.values())) == 3
    for (kind, _), each in found.items():
        if kind == "Application" and each["spec"]["source"]["targetRevision"] == "v0.1.0":
            assert (ROOT / each["spec"]["source"]["path"]).is_dir()
    crds, chart = (found["Application", f"peacemaker-{name}"] for name in ("crds", "chart"))
    assert crds["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert chart["spec"]["source"]["helm"]["skipCrds"] is True


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, and what Flux's kstatus, Flux's expressions and Argo CD make of it."""

    policy: Document
    kstatus: str
    expressions: str
    argo: str
    message: str


def policy(status: Document | None, generation: int = 1) -> Document:
    document: Document = {
        "apiVersion": paths.API_VERSION,
        "kind": "PeacePolicy",
        "metadata": {"name": "p", "generation": generation},
        "spec": {},
    }
    return document | ({} if status is None else {"status": status})


def refused() -> Document:
    """The status of a policy that makes no sense."""
    record = policy_of("p", **BAD_SPEC)
    return status_of(peace_list("a", None), record=record, acceptance=Acceptor().accept(record))


CASES = {
    "new": Case(policy(None), "Current", "Unknown", "Progressing", "has not looked at it yet"),
    "in-force": Case(
        policy(status_of(peace_list("a"))), "Current", "Current", "Healthy", "of 1 node"
    ),
    "no-node": Case(policy(status_of()), "Current", "Current", "Healthy", "no node that KubeVirt"),
    "edited": Case(
        policy(status_of(peace_list("a")), generation=2),
        "InProgress",
        "InProgress",
        "Progressing",
        "this generation",
    ),
    "taken-over-by-one-of-two": Case(
        policy(status_of(peace_list("a"), peace_list("b", None))),
        "InProgress",
        "InProgress",
        "Progressing",
        "1 not taken over yet",
    ),
    "refused-by-the-operator": Case(policy(refused()), "InProgress", "Failed", "Degraded", "laod1"),
    "refused-by-an-agent": Case(
        policy(status_of(peace_list("a", None, reason="NotUnderstood"))),
        "InProgress",
        "Failed",
        "Degraded",
        "NotInForce: of 1 node",
    ),
    "silent-agent": Case(
        policy(status_of(peace_list("a", ready=SILENT))),
        "InProgress",
        "InProgress",
        "Degraded",
        "AgentSilent: of 1 node",
    ),
    "suspended": Case(
        policy(status_of(peace_list("a", suspended="SystemSuspended"))),
        "InProgress",
        "Current",
        "Suspended",
        "of 1 node",
    ),
    "stopped-on-one-of-two-nodes": Case(
        policy(status_of(peace_list("a", ready=STOPPED), peace_list("b"))),
        "Current",
        "Current",
        "Healthy",
        "1 suspended",
    ),
}


def test_flux_tells_the_health_of_a_policy() -> None:
    checks = objects("flux")["Kustomization", "peacemaker-policies"]["spec"]["healthCheckExprs"]
    (check,) = checks
    assert (check.pop("apiVersion"), check.pop("kind")) == (paths.API_VERSION, "PeacePolicy")
    judged = flux_health(check, [case.policy for case in CASES.values()])
    assert dict(zip(CASES, judged, strict=True)) == {
        name: (case.kstatus, case.expressions) for name, case in CASES.items()
    }


def lua_health(kind: str, document: Document) -> tuple[str, str]:
    """Status and message, as Argo CD gets them: the object is the global `obj`."""
    settings = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_bytes())["data"]
    lua = LuaRuntime(register_eval=False)
    lua.globals().obj = lua.table_from(document, recursive=True)
    found = lua.execute(settings[f"resource.customizations.health.{kind}"])
    return found["status"], found["message"]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_argo_cd_tells_the_health_of_a_policy(case: Case) -> None:
    status, message = lua_health("peacemaker.dev_PeacePolicy", case.policy)
    assert status == case.argo
    assert case.message in message


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ({}, "Progressing"),
        ({"health": {}}, "Progressing"),
        ({"health": {"status": "Healthy"}}, "Healthy"),
        ({"health": {"status": "Degraded", "message": "m"}}, "Degraded"),
    ],
)
def test_argo_cd_waits_for_the_applications_of_a_wave(status: Document, health: str) -> None:
    assert lua_health("argoproj.io_Application", {"status": status})[0] == health
