"""What an installation applies, on a control plane of a test's own, and who its programs are."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import yaml
from kubernetes.client import Configuration

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document

NAMESPACE: Final = "peacemaker"
OPERATOR: Final = "peacemaker-operator"
AGENT: Final = "peacemaker-agent"

TIMEOUT: Final = 30.0

_ROOT = Path(__file__).parents[2]
CRDS: Final = sorted((_ROOT / "crds").glob("*.yaml"))
KUBEVIRT_CRD: Final = _ROOT / "tests" / "data" / "kubevirt" / "vmi-crd.yaml"
MANIFESTS: Final = sorted((_ROOT / "deploy" / "base").glob("*.yaml"))


@contextmanager
def deployed(*, audit: bool = False) -> Iterator[tuple[Cluster, Api]]:
    """A cluster with CRDs, KubeVirt's too, and deploy/base; a client of its administrator."""
    with Cluster(audit=audit) as cluster:
        api = Api.load(str(cluster.kubeconfig))
        try:
            apply(api, *CRDS, KUBEVIRT_CRD)
            for path in (paths.PEACE_POLICIES, paths.PEACE_LISTS, paths.VMIS):
                wait_for(partial(is_served, api, path), TIMEOUT, f"{path} to be served")
            apply(api, *MANIFESTS)
            yield cluster, api
        finally:
            api.close()


def apply(api: Api, *files: Path) -> None:
    """Create what is in the files, in the order in which `kubectl apply -f FOLDER` does."""
    for file in files:
        for document in yaml.safe_load_all(file.read_bytes()):
            api.create(collection(api, document), document, fieldValidation="Strict")


def collection(api: Api, document: Document) -> str:
    """Where the API server keeps objects of this document's kind and namespace."""
    version = document["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    kinds = api.get(root)["resources"]
    kind = next(each for each in kinds if each["kind"] == document["kind"])
    if kind["namespaced"]:
        return f"{root}/namespaces/{document['metadata']['namespace']}/{kind['name']}"
    return f"{root}/{kind['name']}"


def is_served(api: Api, path: str) -> bool:
    try:
        api.get(path, limit="1")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def token(api: Api, account: str, pod: Document | None = None) -> str:
    """A token of a service account; with a pod, the one that the kubelet would put into it."""
    spec: Document = {"audiences": None, "expirationSeconds": 3600}
    if pod is not None:
        metadata = pod["metadata"]
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
    path = f"{paths.core(NAMESPACE, 'serviceaccounts')}/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    issued: str = api.create(path, body)["status"]["token"]
    return issued


def client(cluster: Cluster, bearer: str) -> Api:
    """A client that has nothing but this token."""
    configuration = Configuration(host=cluster.url)
    configuration.ssl_ca_cert = str(cluster.ca)
    configuration.api_key = {"BearerToken": bearer}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return Api(configuration, NAMESPACE)


def kubeconfig(cluster: Cluster, bearer: str, file: Path) -> Path:
    """A kubeconfig file that has nothing but this token."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {"server": cluster.url, "certificate-authority": str(cluster.ca)},
            }
        ],
        "users": [{"name": "u", "user": {"token": bearer}}],
        "contexts": [
            {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
        ],
        "current-context": "x",
    }
    file.write_text(json.dumps(document))
    return file


def agent_pod(api: Api, node: str, image: str = "example.org/peacemaker-agent:1") -> Document:
    """A pod of the agents' DaemonSet, bound to a node; it never runs, as there is no kubelet."""
    labels = {"app.kubernetes.io/name": "peacemaker", "app.kubernetes.io/component": "agent"}
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "nodeName": node,
            "serviceAccountName": AGENT,
            "containers": [{"name": "agent", "image": image}],
        },
    }
    return api.create(paths.core(NAMESPACE, "pods"), document)
