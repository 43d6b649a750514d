"""What the cluster tests have: a real API server with the project's CRDs on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiClient

from apiserver import Cluster, MissingError, programs
from lab import wait_for
from tests.cluster.api import ask

CRDS = Path(__file__).parents[2] / "crds"

ESTABLISH_TIMEOUT = 30.0


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the API server before the first test's clock runs, for all to see: it takes minutes."""
    if session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            programs()
        except MissingError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane that all tests share, without the CRDs."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[ApiClient]:
    """A client of a cluster that serves the project's CRDs, as an administrator."""
    kubeconfig = str(cluster.kubeconfig)
    with config.new_client_from_config(kubeconfig) as api:
        crds = [yaml.safe_load(file.read_bytes()) for file in sorted(CRDS.glob("*.yaml"))]
        for crd in crds:
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            ask(api, "POST", path, crd, fieldValidation="Strict")
        names = [crd["metadata"]["name"] for crd in crds]
        wait_for(
            lambda: all(is_established(api, name) for name in names),
            ESTABLISH_TIMEOUT,
            f"{' and '.join(names)} to be established",
        )
        yield api


def is_established(api: ApiClient, crd: str) -> bool:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}"
    conditions = ask(api, "GET", path)["status"]["conditions"] or ()  # null at first
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
