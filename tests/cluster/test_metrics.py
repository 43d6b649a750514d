"""What the programs tell Prometheus, as they run against a real API server."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from apiserver import Cluster
from lab import wait_for
from peacemaker import __version__
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.paths import API_VERSION, item
from peacemaker_operator.metrics import METRICS, PREFIX
from promtool import check_metrics
from tests.cluster.deployment import TIMEOUT, deployed
from tests.cluster.operator_scene import POLICY
from tests.cluster.program import Program, ready
from tests.cluster.test_webhook import is_asked, refusal, wrong
from tests.metrics import Samples, get


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Cluster, Api]]:
    with deployed() as scene:
        yield scene


@pytest.fixture
def program(scene: tuple[Cluster, Api], tmp_path: Path) -> Iterator[Program]:
    cluster, api = scene
    with ready(cluster, api, tmp_path) as program:
        wait_for(lambda: is_asked(api, program), TIMEOUT, "the API server to ask the operator")
        yield program


def o(name: str) -> str:
    return f"{PREFIX}{name}"


def policy(name: str, spec: Document = POLICY) -> Document:
    return {
        "apiVersion": API_VERSION,
        "kind": "PeacePolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_the_operator_tells_what_it_holds_does_and_waits_for(
    scene: tuple[Cluster, Api], program: Program
) -> None:
    _, api = scene
    began = datetime.now(UTC).timestamp()
    labels = {"kubevirt.io/schedulable": "true"}
    for name in ("node-1", "node-2"):
        api.create(paths.NODES, {"metadata": {"name": name, "labels": labels}})
    api.create(paths.PEACE_POLICIES, policy("good"))
    lists = [item(paths.PEACE_LISTS, name) for name in ("node-1", "node-2")]

    def are_listed() -> bool:
        found = [each["metadata"]["name"] for each in api.get(paths.PEACE_LISTS)["items"]]
        return found == ["node-1", "node-2"]

    wait_for(are_listed, TIMEOUT, "both PeaceLists to be written")
    summary = {"managed": 3, "adjusted": 2, "deferred": 1, "contested": 1, "floored": 1}
    conditions = [
        {"type": "Ready", "status": "True", "reason": "InForce", "message": "",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]  # fmt: skip
    for path in lists:
        body = {"status": {"summary": summary, "conditions": conditions}}
        api.patch(f"{path}/status", body)

    def scraped() -> Samples | None:
        found = Samples.scrape(program.metrics)
        is_told = found.value(o("vms"), state="Managed") == 6
        return found if is_told and found.value(o("policies"), spec="accepted") == 1 else None

    found = wait_for(scraped, TIMEOUT, "the operator to tell of two nodes and a policy")
    assert found is not None
    found.must_agree(PREFIX, METRICS)
    assert found.names(PREFIX) == {metric.name for metric in METRICS}
    told = {
        ("build_info", "version", __version__): 1,
        ("objects", "resource", "peacelists"): 2,
        ("objects", "resource", "nodes"): 2,
        ("objects", "resource", "virtualmachineinstances"): 0,
        ("policies", "spec", "refused"): 0,
        ("peace_lists", "ready", "True"): 2,
        ("peace_lists", "ready", "Unknown"): 0,
        ("vms", "state", "Deferred"): 2,
        ("vms", "state", "Contested"): 2,
        ("vms", "state", "Failed"): 0,
    }
    assert {
        (name, label, value): found.value(o(name), **{label: value}) for name, label, value in told
    } == told
    alone = {"leader": 1, "suspended": 0, "max_claim_ratio": 1, "adjusted_vms": 4}
    alone |= {"floored_vms": 2, "silent_agents": 0}
    assert {name: found.value(o(name)) for name in alone} == alone
    created = {"resource": "peacelists", "verb": "create"}
    assert found.value(o("writes_total"), **created, result="written") == 2
    assert found.value(o("writes_total"), **created, result="refused") == 0
    reconciled = found.value(o("reconciled_nodes_total"))
    assert reconciled is not None
    assert reconciled >= 2
    for resource in ("peacelists", "nodes"):
        heard = found.value(o("watch_heard_timestamp_seconds"), resource=resource)
        assert heard is not None
        assert began - 1 <= heard <= datetime.now(UTC).timestamp()
    assert found.value(o("watch_restarts_total"), resource="nodes", reason="error") == 0


def test_the_operator_counts_what_its_webhook_judges_and_when_its_certificate_ends(
    scene: tuple[Cluster, Api], program: Program
) -> None:
    def count(result: str) -> float:
        return Samples.scrape(program.metrics).value(o("webhook_reviews_total"), result=result) or 0

    allowed, refused = count("allowed"), count("refused")
    sound = copy.deepcopy(policy("sound"))
    assert refusal(scene[1], sound) == ""
    assert refusal(scene[1], wrong("node.laod15 > 0.9")) != ""
    assert (count("allowed"), count("refused"), count("failed")) == (allowed + 1, refused + 1, 0)
    expiry = Samples.scrape(program.metrics).value(
        o("webhook_certificate_expiry_timestamp_seconds")
    )
    assert expiry is not None
    days = (expiry - datetime.now(UTC).timestamp()) / 86400
    assert 300 < days < 400


def test_promtool_has_nothing_to_say_of_the_operators_metrics(program: Program) -> None:
    assert check_metrics(Samples.scrape(program.metrics).text) == ""


def test_metrics_are_at_one_path_alone(program: Program) -> None:
    assert get(program.metrics, "/").status == 404
    assert get(program.metrics, "/metrics?name[]=unknown").status == 200
