"""helm and kubectl against a real API server: what they store, and what an upgrade leaves alone.

There are no controllers and no nodes, so nothing runs: hooks are not waited for, and left out.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import Cluster
from chartfiles.helm import HelmError, helm
from chartfiles.paths import CHART, ROOT
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import item
from tests.chart.others import serve_others
from tests.chart.rendering import VALUES, documents, rendered
from tests.cluster.deployment import CRDS, NAMESPACE, TIMEOUT, apply, is_served
from tests.cluster.kubectl import Kubectl

SETTINGS = item(paths.core(NAMESPACE, "configmaps"), "peacemaker")
WEBHOOK = item(paths.WEBHOOKS, "peacemaker-policies")
LEVEL = "pod-security.kubernetes.io/enforce"


class Helm:
    """An administrator's helm, and release `peacemaker` of the chart."""

    def __init__(self, cluster: Cluster) -> None:
        self._settings = {"KUBECONFIG": str(cluster.kubeconfig)}

    def __call__(self, *words: str) -> str:
        """What it says. Raises HelmError."""
        return helm(*words, f"--namespace={NAMESPACE}", settings=self._settings)

    def install(self, *options: str, release: str = "peacemaker") -> str:
        return self("install", release, str(CHART), "--create-namespace", *options)

    def upgrade(self, *options: str) -> str:
        return self("upgrade", "peacemaker", str(CHART), *options)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    api = Api.load(str(cluster.kubeconfig))
    yield api
    api.close()


@pytest.fixture
def release(cluster: Cluster) -> Helm:
    return Helm(cluster)


@pytest.fixture
def kubectl(cluster: Cluster, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster, ROOT, tmp_path)


def test_the_server_takes_every_object_of_every_set_of_values(api: Api, kubectl: Kubectl) -> None:
    apply(api, *CRDS, ROOT / "deploy/base/namespace.yaml")
    serve_others(api)
    wait_for(lambda: is_served(api, paths.PEACE_POLICIES), TIMEOUT, "PeacePolicies to be served")
    # The server looks for the account of a pod, also where it stores nothing.
    api.create(paths.core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": "peacemaker-test"}})
    for values in VALUES.values():
        objects = tuple(documents(rendered(values)))
        said = kubectl(
            *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
            documents=objects,
        )
        assert said.count("serverside-applied (server dry run)") == len(objects)


def test_a_release_brings_everything_and_takes_it_back_but_the_policies(
    api: Api, release: Helm
) -> None:
    said = release.install("--set=policies.shipped={observe-only}")
    assert f"kubectl label --overwrite namespace {NAMESPACE} {LEVEL}=privileged" in said
    assert api.get(item(paths.PEACE_POLICIES, "observe-only"))["spec"]["mode"] == "Observe"
    assert api.get(SETTINGS)["data"] == {"maxClaimPercent": "100"}
    assert "caBundle" not in api.get(WEBHOOK)["webhooks"][0]["clientConfig"]
    api.create(paths.PEACE_POLICIES, own_policy())

    release("uninstall", "peacemaker", "--no-hooks")
    for path in (SETTINGS, WEBHOOK, item(paths.PEACE_POLICIES, "observe-only")):
        with pytest.raises(ApiError, match="not found"):
            api.get(path)
    assert api.get(item(paths.PEACE_POLICIES, "own"))["spec"]["mode"] == "Observe"
    release.install()
    assert api.get(item(paths.PEACE_POLICIES, "own"))["spec"]["mode"] == "Observe"


def own_policy() -> Document:
    rule = {"name": "r", "when": "node.load1 > 1.0", "pick": {}, "nice": {"add": 1}}
    return {
        "apiVersion": paths.API_VERSION,
        "kind": "PeacePolicy",
        "metadata": {"name": "own"},
        "spec": {"mode": "Observe", "rules": [rule]},
    }


def test_the_notes_name_the_label_only_where_it_is_missing(api: Api, release: Helm) -> None:
    metadata: Document = {"name": NAMESPACE, "labels": {LEVEL: "baseline"}}
    api.create(paths.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    assert "(now its level is baseline):\n\n  kubectl label" in release.install()
    api.patch(item(paths.NAMESPACES, NAMESPACE), {"metadata": {"labels": {LEVEL: "privileged"}}})
    assert LEVEL not in release.upgrade()


def test_upgrade_and_rollback_leave_alone_what_belongs_to_the_operator(
    api: Api, release: Helm
) -> None:
    release.install()
    api.patch(SETTINGS, {"data": {"suspended": "true"}})
    bundle = base64.b64encode(b"a certificate").decode()
    webhooks = api.get(WEBHOOK)["webhooks"]
    webhooks[0]["clientConfig"]["caBundle"] = bundle
    api.patch(WEBHOOK, {"webhooks": webhooks})

    def kept() -> tuple[Document, str]:
        configured: str = api.get(WEBHOOK)["webhooks"][0]["clientConfig"]["caBundle"]
        return api.get(SETTINGS)["data"], configured

    release.upgrade("--set=settings.maxClaimPercent=150", "--set=operator.replicas=3")
    assert kept() == ({"maxClaimPercent": "150", "suspended": "true"}, bundle)
    release("rollback", "peacemaker")
    assert kept() == ({"maxClaimPercent": "100", "suspended": "true"}, bundle)


def test_an_upgrade_that_changes_nothing_starts_no_pod_anew(api: Api, release: Helm) -> None:
    release.install()
    workloads = [
        f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/peacemaker-{name}"
        for kind, name in (("deployments", "operator"), ("daemonsets", "agent"))
    ]
    before = [api.get(path)["metadata"]["generation"] for path in workloads]
    release.upgrade()
    assert [api.get(path)["metadata"]["generation"] for path in workloads] == before


def test_a_second_installation_is_refused(release: Helm) -> None:
    release.install()
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        release.install(release="another")


def test_kustomize_builds_what_the_server_takes_and_the_overlay_changes_what_it_says(
    api: Api, kubectl: Kubectl
) -> None:
    apply(api, *CRDS)
    kubectl("apply", "-f", "deploy/base/namespace.yaml")
    for folder in ("deploy/base", "deploy/overlays/example"):
        kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", folder)
    kubectl("apply", "-k", "deploy/overlays/example")
    operator, agent = (
        api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/peacemaker-{name}")
        for kind, name in (("deployments", "operator"), ("daemonsets", "agent"))
    )
    assert operator["spec"]["replicas"] == 3
    pods = [each["spec"]["template"]["spec"] for each in (operator, agent)]
    assert [pod["containers"][0]["image"] for pod in pods] == [
        f"registry.example.org/peacemaker/peacemaker-{name}:0.1.0" for name in ("operator", "agent")
    ]
    assert pods[1]["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}

    kubectl(
        "patch", "configmap", "peacemaker", "-n", NAMESPACE, "-p", '{"data":{"suspended":"true"}}'
    )
    kubectl("apply", "-k", "deploy/overlays/example")
    assert api.get(SETTINGS)["data"] == {"maxClaimPercent": "150", "suspended": "true"}
