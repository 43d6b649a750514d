"""The program around the controller: its probes, how it starts, and how it ends."""

import http.client
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from apiserver import Cluster
from lab import wait_for
from lab.processes import launch
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError
from peacemaker_kube.paths import item
from tests.cluster.deployment import (
    CRDS,
    KUBEVIRT_CRD,
    MANIFESTS,
    NAMESPACE,
    OPERATOR,
    TIMEOUT,
    apply,
    kubeconfig,
    token,
)
from tests.cluster.program import (
    LOCALHOST,
    Program,
    free_ports,
    is_ready,
    ready,
    running,
    running_with,
)
from tests.cluster.test_webhook import is_asked

LEASE = item(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases", "peacemaker-operator")


@pytest.fixture
def bare() -> Iterator[tuple[Cluster, Api]]:
    """The manifests are applied, the CRDs are not."""
    with Cluster() as cluster:
        api = Api.load(str(cluster.kubeconfig))
        apply(api, *MANIFESTS)
        yield cluster, api
        api.close()


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Cluster, Api]]:
    with Cluster() as cluster:
        api = Api.load(str(cluster.kubeconfig))
        apply(api, *CRDS, KUBEVIRT_CRD, *MANIFESTS)
        yield cluster, api
        api.close()


def test_it_waits_for_crds_that_come_later_and_then_judges_policies(
    bare: tuple[Cluster, Api], tmp_path: Path
) -> None:
    cluster, api = bare
    with running(cluster, api, tmp_path) as program:
        wait_for(lambda: is_alive(program), TIMEOUT, "/healthz")
        wait_for(
            lambda: "are the CRDs applied?" in program.said(), TIMEOUT, "it to say what is missing"
        )
        assert program.asks(program.health, "/readyz") == http.client.INTERNAL_SERVER_ERROR
        assert program.asks(program.metrics, "/metrics") == http.client.OK
        apply(api, *CRDS, KUBEVIRT_CRD)
        wait_for(lambda: is_ready(program), 2 * TIMEOUT, "it to be ready")
        wait_for(lambda: is_asked(api, program), TIMEOUT, "the API server to ask it")
        assert program.end() == 0


def is_alive(program: Program) -> bool:
    program.process.must_run()
    return program.asks(program.health, "/healthz") == http.client.OK


def test_it_ends_when_asked_though_it_still_waits_for_the_crds(
    bare: tuple[Cluster, Api], tmp_path: Path
) -> None:
    with running(*bare, tmp_path) as program:
        wait_for(lambda: "are the CRDs applied?" in program.said(), TIMEOUT, "it to wait")
        assert program.end() == 0


def test_it_starts_without_an_api_server_and_works_once_there_is_one(
    scene: tuple[Cluster, Api], tmp_path: Path
) -> None:
    cluster, api = scene
    config = kubeconfig(cluster, token(api, OPERATOR), tmp_path / "kubeconfig")
    cluster.stop_server()
    try:
        with running_with(config) as program:
            wait_for(lambda: is_alive(program), TIMEOUT, "/healthz")
            wait_for(lambda: "does not answer" in program.said(), TIMEOUT, "it to say so")
            cluster.start_server()
            wait_for(lambda: is_ready(program), 2 * TIMEOUT, "it to be ready")
            wait_for(lambda: is_asked(api, program), TIMEOUT, "the API server to ask it")
            assert program.end() == 0
    finally:
        cluster.stop_server()
        cluster.start_server()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_gives_the_lease_back_whoever_keeps_a_connection_open(
    scene: tuple[Cluster, Api], tmp_path: Path, number: signal.Signals
) -> None:
    cluster, api = scene
    with ready(cluster, api, tmp_path, "--identity", "me") as program:
        wait_for(lambda: holder(api) == "me", TIMEOUT, "it to lead")
        with closing(http.client.HTTPConnection(LOCALHOST, program.health)) as kept:
            kept.request("GET", "/healthz")
            kept.getresponse().read()
            program.process.child.send_signal(number)
            assert program.process.child.wait(TIMEOUT) == 0
        assert holder(api) == ""
        assert "Traceback" not in program.said()
        assert all(line.startswith("time=") for line in program.said().splitlines())


def holder(api: Api) -> str | None:
    try:
        found: str | None = api.get(LEASE)["spec"].get("holderIdentity")
    except ApiError:
        return None
    return found


@pytest.mark.parametrize("which", ["health", "webhook", "metrics"])
def test_an_address_that_is_taken_is_an_error_that_says_so(
    scene: tuple[Cluster, Api], tmp_path: Path, which: str
) -> None:
    cluster, api = scene
    config = kubeconfig(cluster, token(api, OPERATOR), tmp_path / "kubeconfig")
    with socket.create_server((LOCALHOST, 0)) as taken:
        ports = dict(zip(("health", "webhook", "metrics"), free_ports(3), strict=True))
        ports[which] = taken.getsockname()[1]
        addresses = [f"--{name}-address={LOCALHOST}:{port}" for name, port in ports.items()]
        argv = ["-m", "peacemaker_operator", "run", "--kubeconfig", str(config), *addresses]
        process = launch([sys.executable, *argv])
        try:
            assert process.child.wait(TIMEOUT) == 1
            process.output.seek(0)
            last = process.output.read().decode().splitlines()[-1]
        finally:
            process.stop()
    assert "level=error" in last
    assert "address already in use" in last.lower()


# What ends a thread of the controller would be a mistake of ours that is not known yet.
DEAD = """
import sys
from peacemaker_kube.api import Api
from peacemaker_kube.address import Address
from peacemaker_operator.frame import Frame, run

class Controller:
    def start(self): pass
    def stop(self): pass
    def is_alive(self): return False
    def is_ready(self): return True
    def is_leading(self): return False

run(Controller(), Api.load(sys.argv[1]), Frame(Address("127.0.0.1", int(sys.argv[2])), None))
"""


def test_a_controller_that_died_fails_the_liveness_probe(scene: tuple[Cluster, Api]) -> None:
    (port,) = free_ports(1)
    process = launch([sys.executable, "-c", DEAD, str(scene[0].kubeconfig), str(port)])
    try:
        program = Program(process, port, 0, 0)
        wait_for(lambda: is_ready(program), TIMEOUT, "/readyz")
        assert program.asks(port, "/healthz") == http.client.INTERNAL_SERVER_ERROR
    finally:
        process.stop()


def test_two_programs_follow_one_another_at_once(
    scene: tuple[Cluster, Api], tmp_path: Path
) -> None:
    cluster, api = scene
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with ready(cluster, api, tmp_path / "a", "--no-webhook", "--identity", "a") as one:
        wait_for(lambda: holder(api) == "a", TIMEOUT, "the first to lead")
        with ready(cluster, api, tmp_path / "b", "--no-webhook", "--identity", "b"):
            assert holder(api) == "a"
            started = time.monotonic()
            assert one.end() == 0
            wait_for(lambda: holder(api) == "b", TIMEOUT, "the second to follow")
            assert time.monotonic() - started < 10.0


def test_without_election_it_writes_and_holds_no_lease(
    bare: tuple[Cluster, Api], tmp_path: Path
) -> None:
    cluster, api = bare
    apply(api, *CRDS, KUBEVIRT_CRD)
    options = ("--no-webhook", "--no-leader-elect")
    with ready(cluster, api, tmp_path, *options):
        labels = {"kubevirt.io/schedulable": "true"}
        node = {"metadata": {"name": "node-1", "labels": labels}}
        api.create(paths.NODES, node)
        wait_for(lambda: api.get(paths.PEACE_LISTS)["items"], TIMEOUT, "a PeaceList")
        assert holder(api) is None
