"""Suspend and resume: the setting, who obeys, who is waited for, and what is said of the rest."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import item, status
from peacemaker_kube.watch import Change, Watch
from peacemaker_operator.suspend import NoAnswer, suspend, write_setting
from tests.cluster.deployment import (
    NAMESPACE,
    OPERATOR,
    TIMEOUT,
    agent_pod,
    deployed,
    kubeconfig,
    token,
)
from tests.cluster.program import ready

IMAGE = "example.org/peacemaker-agent:7"
CONFIG_MAPS = paths.core(NAMESPACE, "configmaps")
SETTINGS = item(CONFIG_MAPS, "peacemaker")
PODS = paths.core(NAMESPACE, "pods")

RESTORED = ("True", "Suspended", "")
FAILED = ("False", "RestoreFailed", "a/vm: cpu.weight could not be written")
SILENT = ("Unknown", "AgentSilent", "no ready agent pod for 60 s")


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster with the operator's manifests, and who runs the commands: its own account."""

    cluster: Cluster
    api: Api
    config: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, *options = arguments
        argv = [sys.executable, "-m", "peacemaker_operator", command, "--kubeconfig"]
        return subprocess.run(
            [*argv, str(self.config), *options],
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with deployed() as (cluster, api):
        file = tmp_path_factory.mktemp("suspend") / "kubeconfig"
        yield Scene(cluster, api, kubeconfig(cluster, token(api, OPERATOR), file))


@pytest.fixture
def idle(cluster: Scene) -> Iterator[Scene]:
    """No operator runs; nothing of another test is left."""
    yield cluster
    for path in (paths.NODES, paths.PEACE_LISTS, PODS, CONFIG_MAPS):
        for document in cluster.api.get(path)["items"]:
            cluster.api.delete(item(path, document["metadata"]["name"]), gracePeriodSeconds="0")


@pytest.fixture
def scene(idle: Scene, tmp_path: Path) -> Iterator[Scene]:
    """An operator that leads."""
    with ready(idle.cluster, idle.api, tmp_path, "--no-webhook"):
        yield idle


class Agents:
    """Answers for nodes as their agents would, with a condition (status, reason, message) each.

    A dead node's silence cannot be had from a real agent; the real one's answer is tested with it.
    """

    def __init__(self, api: Api, answers: Mapping[str, tuple[str, str, str]]) -> None:
        self._api = api
        self._answers = answers
        self._watch = Watch(api, paths.PEACE_LISTS, _told, self._answer)

    def __enter__(self) -> None:
        self._watch.start()

    def __exit__(self, *_: object) -> None:
        self._watch.stop()

    def _answer(self, change: Change[tuple[int, bool]]) -> None:
        if change.new is None or change.key not in self._answers:
            return
        generation, is_suspended = change.new
        answer = self._answers[change.key] if is_suspended else ("True", "InForce", "")
        self._api.patch(
            status(paths.PEACE_LISTS, change.key), {"status": answered(generation, answer)}
        )


def _told(document: Document) -> tuple[int, bool]:
    return document["metadata"]["generation"], "suspended" in document["spec"]


def answered(generation: int, answer: tuple[str, str, str]) -> Document:
    ready, reason, message = answer
    condition = {
        "type": "Ready",
        "status": ready,
        "reason": reason,
        "message": message,
        "lastTransitionTime": datetime.now(UTC).isoformat(timespec="seconds"),
        "observedGeneration": generation,
    }
    return {"observedGeneration": generation, "conditions": [condition]}


def make_nodes(scene: Scene, *names: str, without_agent: str = "", excluded: str = "") -> None:
    for name in names:
        labels = {"kubevirt.io/schedulable": "true"}
        if name == excluded:
            labels["peacemaker.dev/exclude"] = "true"
        metadata = {"name": name, "labels": labels}
        scene.api.create(paths.NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        if name != without_agent:
            agent_pod(scene.api, name, IMAGE)


def wait_for_lists(scene: Scene, count: int) -> None:
    wait_for(
        lambda: len(scene.api.get(paths.PEACE_LISTS)["items"]) == count,
        TIMEOUT,
        f"{count} PeaceLists",
    )


def suspended(scene: Scene) -> dict[str, str | None]:
    lists = scene.api.get(paths.PEACE_LISTS)["items"]
    return {
        each["metadata"]["name"]: each["spec"].get("suspended", {}).get("reason") for each in lists
    }


def test_suspend_waits_until_all_have_restored_and_resume_lifts_it(scene: Scene) -> None:
    make_nodes(scene, "node-1", "node-2", "node-3", excluded="node-3")
    metadata = {"name": "peacemaker"}
    scene.api.create(CONFIG_MAPS, {"metadata": metadata, "data": {"maxClaimPercent": "150"}})
    wait_for_lists(scene, 3)
    with Agents(scene.api, dict.fromkeys(("node-1", "node-2", "node-3"), RESTORED)):
        done = scene.run("suspend")
        assert (done.returncode, done.stdout) == (0, "suspended: 3 of 3 nodes restored\n")
        assert done.stderr.splitlines()[-1] == "3 of 3 nodes restored"
        assert scene.api.get(SETTINGS)["data"] == {"maxClaimPercent": "150", "suspended": "true"}
        assert set(suspended(scene).values()) == {"SystemSuspended"}

        done = scene.run("resume", "-o", "json")
        assert json.loads(done.stdout) == {"resumed": ["node-1", "node-2", "node-3"]}
        assert done.returncode == 0
        assert scene.api.get(SETTINGS)["data"] == {"maxClaimPercent": "150", "suspended": "false"}
        assert suspended(scene) == {"node-1": None, "node-2": None, "node-3": "NodeExcluded"}


def test_a_silent_node_is_waited_for_a_grace_and_named_with_the_command_that_restores_it(
    scene: Scene,
) -> None:
    make_nodes(scene, "alive", "no-agent", "silent", without_agent="no-agent")
    wait_for_lists(scene, 3)
    with Agents(scene.api, {"alive": RESTORED, "silent": SILENT}):
        started = time.monotonic()
        done = scene.run("suspend", "-o", "json", "--timeout", "50s")
        assert 10.0 <= time.monotonic() - started < 40.0
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["restored"] == ["alive"]
    assert told["unanswered"] == [
        {
            "node": node,
            "why": "the agent is not running",
            "command": f"kubectl debug node/{node} --image {IMAGE} --profile=sysadmin -it -- "
            "peacemaker-agent restore --run-dir /host/run/peacemaker "
            "--cgroup-mount /host/sys/fs/cgroup",
        }
        for node in ("no-agent", "silent")
    ]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({}, "the agent has not answered"),
        ({"node-1": FAILED}, "RestoreFailed: a/vm: cpu.weight could not be written"),
    ],
)
def test_a_node_that_has_not_restored_in_time_is_named_with_the_reason(
    scene: Scene, answers: Mapping[str, tuple[str, str, str]], why: str
) -> None:
    make_nodes(scene, "node-1")
    wait_for_lists(scene, 1)
    with Agents(scene.api, answers):
        done = scene.run("suspend", "--timeout", "3s")
    assert done.returncode == 3
    assert done.stdout.startswith(
        f"suspended: 0 of 1 nodes restored\nnode-1: {why}; once it can be reached, restore it with"
        "\n  kubectl debug node/node-1 "
    )


def test_without_any_agent_pod_it_is_told_that_the_image_must_be_filled_in(scene: Scene) -> None:
    make_nodes(scene, "node-1", without_agent="node-1")
    wait_for_lists(scene, 1)
    done = scene.run("suspend", "--timeout", "1s")
    assert done.returncode == 3
    assert "--image AGENT_IMAGE " in done.stdout
    assert "AGENT_IMAGE stands for the image of peacemaker's agent" in done.stdout


def test_the_setting_is_made_where_there_is_none_and_holds_for_nodes_to_come(scene: Scene) -> None:
    done = scene.run("suspend")
    assert (done.returncode, done.stdout) == (0, "suspended: 0 of 0 nodes restored\n")
    assert scene.api.get(SETTINGS)["data"] == {"suspended": "true"}
    make_nodes(scene, "node-1")
    wait_for_lists(scene, 1)
    assert suspended(scene) == {"node-1": "SystemSuspended"}


def peace_list(scene: Scene, node: str, spec: Document) -> None:
    version = paths.API_VERSION
    metadata = {"name": node}
    document = {"apiVersion": version, "kind": "PeaceList", "metadata": metadata, "spec": spec}
    scene.api.create(paths.PEACE_LISTS, document)


def test_suspend_says_so_if_no_operator_obeys(idle: Scene) -> None:
    peace_list(idle, "node-1", {})
    lines: list[str] = []
    with pytest.raises(NoAnswer, match=r"no operator leads .* 1 of 1 nodes not told"):
        suspend(idle.api, NAMESPACE, 60.0, lines.append, leader_timeout=1.0)
    assert lines == ["0 of 1 nodes restored"]
    assert idle.api.get(SETTINGS)["data"] == {"suspended": "true"}


def test_resume_says_so_if_no_operator_obeys(idle: Scene) -> None:
    peace_list(idle, "node-1", {"suspended": {"reason": "SystemSuspended"}})
    done = idle.run("resume", "--timeout", "1s")
    assert done.returncode == 1
    assert "no operator leads" in done.stderr
    assert "0 of 1 nodes resumed" in done.stderr


def test_an_answer_to_an_older_generation_is_no_answer(idle: Scene) -> None:
    peace_list(idle, "node-1", {"suspended": {"reason": "SystemSuspended"}})
    agent_pod(idle.api, "node-1", IMAGE)
    idle.api.patch(status(paths.PEACE_LISTS, "node-1"), {"status": answered(0, RESTORED)})
    outcome = suspend(idle.api, NAMESPACE, 0.5, lambda _: None)
    assert [each.why for each in outcome.unanswered] == ["the agent has not answered"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("suspend", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("resume", "-o", "yaml"), "Invalid value for '-o'"),
        (("run", "--webhook-address", "9443"), "HOST:PORT"),
        (("run", "--webhook-url", "http://localhost"), "https://HOST"),
        (("run", "--no-webhook", "--webhook-url", "https://localhost"), "--no-webhook"),
    ],
)
def test_wrong_input_is_told_and_touches_nothing(
    idle: Scene, arguments: tuple[str, ...], says: str
) -> None:
    done = idle.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    with pytest.raises(ApiError, match="not found"):
        idle.api.get(SETTINGS)


def test_an_api_server_that_cannot_be_reached_is_an_error(tmp_path: Path, idle: Scene) -> None:
    config = json.loads(idle.config.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    done = Scene(idle.cluster, idle.api, tmp_path / "kubeconfig").run("suspend")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1  # a sentence, not a traceback
    with pytest.raises(ApiError, match="not found"):
        idle.api.get(SETTINGS)


def test_many_that_write_the_setting_at_once_all_succeed(idle: Scene) -> None:
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(write_setting, idle.api, NAMESPACE, suspended=True) for _ in range(8)]
    assert [write.exception() for write in writes] == [None] * 8
    assert idle.api.get(SETTINGS)["data"] == {"suspended": "true"}
