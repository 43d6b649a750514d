"""What the agent tells Prometheus in a cluster, and what promtool says of it and of our alerts."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apiserver import Cluster
from lab import Fleet, PodTree
from lab.policy import put
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from peacemaker_nodeagent.metrics_table import METRICS, PREFIX
from promtool import check_metrics, check_rules
from tests.cluster.deployment import deployed
from tests.kernel.cluster_scene import NODE, ClusterAgent, PodVm, listed_policy, pod_vm, spec
from tests.metrics import LOCALHOST, Samples, free_port

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Cluster, Api]]:
    with deployed() as cluster:
        yield cluster


@pytest.fixture
def tree() -> Iterator[PodTree]:
    with PodTree() as tree:
        yield tree


@pytest.fixture
def fleet(tree: PodTree) -> Iterator[Fleet]:  # noqa: ARG001 (its processes end before the tree)
    with Fleet() as fleet:
        yield fleet


VM = {"namespace": "shop", "name": "a"}


class Scene:
    """An agent with its metrics; its PeaceList puts a VM at nice 5."""

    def __init__(self, api: Api, agent: ClusterAgent, vm: PodVm) -> None:
        self._api = api
        self._agent = agent
        self._port = free_port()
        kind = {"apiVersion": paths.API_VERSION, "kind": "PeaceList", "metadata": {"name": NODE}}
        listed = spec(vm, policies=(listed_policy(put(5)),))
        api.create(paths.PEACE_LISTS, {**kind, "spec": listed})
        agent.launch("--metrics-address", f"{LOCALHOST}:{self._port}", "--status-interval", "1")

    def apply(self, listed: Document) -> None:
        """Put another spec into the PeaceList."""
        self._api.patch(paths.item(paths.PEACE_LISTS, NODE), {"spec": listed})

    def scrape(self) -> Samples:
        return Samples.scrape(self._port)

    def wait(self, condition: Callable[[Samples], bool], what: str) -> Samples:
        def find() -> Samples | None:
            found = self.scrape()
            return found if condition(found) else None

        found = self._agent.wait(find, what)
        assert found is not None
        return found


@pytest.fixture
def scene(
    cluster: tuple[Cluster, Api], tree: PodTree, fleet: Fleet, tmp_path: Path
) -> Iterator[Scene]:
    server, api = cluster
    vm = pod_vm(tree, fleet, "a")
    with ClusterAgent(tmp_path, tree.root) as agent:
        agent.kubeconfig = server.kubeconfig
        try:
            yield Scene(api, agent, vm)
            agent.must_run()
        finally:
            api.delete(paths.item(paths.PEACE_LISTS, NODE))


def m(name: str) -> str:
    return f"{PREFIX}{name}"


def written(found: Samples) -> float:
    return found.value(m("status_writes_total"), result="written") or 0


def restarts(found: Samples) -> float:
    return found.value(m("watch_restarts_total"), reason="unreachable") or 0


def test_an_agent_in_a_cluster_tells_all_that_the_table_has(scene: Scene) -> None:
    found = scene.wait(
        lambda found: found.value(m("vm_wait_ratio"), **VM) is not None and written(found) > 0,
        "a second reading, and a status that was written",
    )
    found.must_agree(PREFIX, METRICS)
    absent = {m("would_adjust_total")}  # of Observe policies only, and here is none
    assert found.names(PREFIX) == {metric.name for metric in METRICS} - absent
    assert found.value(m("vm_nice"), **VM) == 5
    heard = found.value(m("watch_heard_timestamp_seconds"))
    assert heard is not None
    assert abs(time.time() - heard) < 60
    assert restarts(found) == 0
    assert found.value(m("status_writes_total"), result="refused") == 0


def test_of_two_vms_with_one_name_the_listed_one_is_told(
    scene: Scene, tree: PodTree, fleet: Fleet
) -> None:
    """As when a VM is made anew, and the one that had its name has not ended yet."""
    scene.wait(lambda found: found.value(m("vm_nice"), **VM) == 5, "the first")
    scene.apply(spec(pod_vm(tree, fleet, "a"), policies=(listed_policy(put(7)),)))
    found = scene.wait(
        lambda found: found.value(m("vm_nice"), **VM) == 7, "the second in the place of the first"
    )
    assert found.value(m("vms"), state="Unmanaged") == 1
    assert found.value(m("vms"), state="Managed") == 1


def test_while_the_api_server_is_away_the_agent_says_so(
    scene: Scene, cluster: tuple[Cluster, Api]
) -> None:
    server, _ = cluster
    scene.wait(lambda found: written(found) > 0, "a status that was written")
    server.stop_server()
    try:
        away = scene.wait(lambda found: restarts(found) > 0, "the watch to end")
        passes = away.value(m("passes_total"), policy="test") or 0
        scene.wait(
            lambda found: (found.value(m("passes_total"), policy="test") or 0) > passes,
            "passes to go on",
        )
    finally:
        server.start_server()
    last = away.value(m("watch_heard_timestamp_seconds")) or 0
    scene.wait(
        lambda found: (found.value(m("watch_heard_timestamp_seconds")) or 0) > last,
        "the server to be heard again",
    )


def test_promtool_has_nothing_to_say_of_the_agents_metrics(scene: Scene) -> None:
    found = scene.wait(lambda found: bool(found.labelled(m("vm_nice"))), "the VM to be told")
    assert check_metrics(found.text) == ""


def test_promtool_takes_the_documented_alerts_and_questions() -> None:
    alerts = DOCUMENT.split("```yaml\n")[1].split("```")[0]
    assert check_rules(alerts) == ""
    questions = DOCUMENT.split("```promql\n")[1].split("```")[0]
    lines = [line for line in questions.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 3
    rules = [{"record": f"q:{number}", "expr": line} for number, line in enumerate(lines)]
    assert check_rules(json.dumps({"groups": [{"name": "q", "rules": rules}]})) == ""
    assert "could not parse expression" in check_rules(alerts.replace("absent(", "absnt("))
