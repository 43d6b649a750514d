"""`peacemaker-operator check`: what it finds, what it waits for, and what it says to do."""

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apiserver import Cluster
from chartfiles.paths import ROOT
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api
from peacemaker_operator.check import Finding, Result, check
from tests.chart.hooks import AGENTS, Hook, Installation, hook, installed, lease
from tests.cluster.deployment import NAMESPACE, TIMEOUT
from tests.cluster.kubectl import Kubectl

LABEL = (
    f"kubectl label --overwrite namespace {NAMESPACE} pod-security.kubernetes.io/enforce=privileged"
)


def pods(component: str) -> str:
    labels = f"app.kubernetes.io/name=peacemaker,app.kubernetes.io/component={component}"
    return f"kubectl --namespace {NAMESPACE} get pods -o wide -l {labels}"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("check")) as installation:
        hook("test").create(installation)
        yield installation


@pytest.fixture
def program() -> Hook:
    """As `helm test` runs it."""
    return hook("test")


def findings(installation: Installation) -> tuple[Finding, ...]:
    """What is found without waiting: kinds, Pod Security, leader, agents."""
    return check(installation.api, NAMESPACE, 0.0, lambda _: None)


def test_where_all_is_well_it_says_of_what(scene: Installation, program: Hook) -> None:
    done = program.run(scene)
    assert done.returncode == 0
    told = done.stdout.splitlines()
    assert told[:2] == [
        "ok: the API server knows PeacePolicies and PeaceLists",
        "ok: namespace peacemaker has Pod Security level privileged",
    ]
    assert told[2].startswith("ok: operator ")
    assert told[2].endswith(" leads")
    assert told[3:] == ["ok: 1 of 1 agents are ready"]

    found = json.loads(program.run(scene, "-o", "json").stdout)
    assert found[3] == {"result": "ok", "message": "1 of 1 agents are ready", "command": ""}


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_where_pod_security_forbids_the_agents_it_says_at_once_what_to_type(
    scene: Installation, program: Hook, tmp_path: Path, level: str
) -> None:
    scene.set_level(level)
    scene.set_agents(wanted=1, made=0, ready=0)
    done = program.run(scene)
    assert done.returncode == 1
    failed = f"failed: namespace {NAMESPACE} has Pod Security level {level}, which keeps agents'"
    assert failed in done.stdout
    assert f"\n  {LABEL}\n" in done.stdout
    Kubectl(scene.cluster, ROOT, tmp_path)(*shlex.split(LABEL)[1:])
    scene.set_agents(wanted=1, made=1, ready=1)
    assert program.run(scene).returncode == 0


def test_it_waits_for_agents_to_be_ready(scene: Installation, program: Hook) -> None:
    scene.set_agents(wanted=3, made=3, ready=1)
    before = len(scene.asked(program.account))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(program.run, scene)
        # It has looked, at five things, and looks again.
        wait_for(
            lambda: len(scene.asked(program.account)) > before + 5, TIMEOUT, "it to look again"
        )
        scene.set_agents(wanted=3, made=3, ready=3)
        done = running.result()
    assert done.returncode == 0
    assert "not yet: 1 of 3 agents are ready\n" in done.stderr
    assert "ok: 3 of 3 agents are ready\n" in done.stdout


def test_what_is_not_ready_in_time_has_failed(scene: Installation, program: Hook) -> None:
    scene.set_agents(wanted=3, made=3, ready=1)
    done = program.run(scene, "--timeout", "4s")
    assert done.returncode == 1
    assert done.stdout.splitlines()[3:] == [
        "failed: 1 of 3 agents are ready",
        f"  {pods('agent')}",
    ]
    assert " leads\n" in done.stdout


def test_a_pod_that_is_not_made_may_be_due_to_the_clusters_own_pod_security(
    idle: Installation,
) -> None:
    idle.set_level(None)
    idle.set_agents(wanted=3, made=1, ready=1)
    message = "1 of 3 agents are ready, and 2 have no pod"
    *_, agents = findings(idle)
    assert agents.message.startswith(f"{message}: if the cluster enforces Pod Security by default")
    assert agents.command == LABEL
    idle.set_level("privileged")
    *_, agents = findings(idle)
    why = f"kubectl --namespace {NAMESPACE} describe daemonset peacemaker-agent"
    assert agents == Finding(Result.FAILED, message, why)


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        (None, "no operator has ever led: there is no Lease peacemaker-operator"),
        ("", "no operator leads: nobody holds Lease peacemaker-operator"),
        (
            "somebody",
            (
                "no operator leads: somebody holds Lease peacemaker-operator, and was not seen to "
                "renew it"
            ),
        ),
    ],
    ids=["never", "given-back", "dead"],
)
def test_it_says_that_no_operator_leads(
    idle: Installation, program: Hook, holder: str | None, message: str
) -> None:
    if holder is not None:
        lease(idle.api, holder)
    done = program.run(idle, "--timeout", "3s")
    assert done.returncode == 1
    assert f"failed: {message}\n  {pods('operator')}\n" in done.stdout
    assert f"not yet: {message}\n" in done.stderr


@pytest.mark.parametrize(
    ("pod", "message", "command"),
    [
        (
            {},
            (
                "no node is to have an agent: none that it could run on has the label "
                "kubevirt.io/schedulable (KubeVirt gives kubevirt.io/schedulable to each node "
                "where it can run VMs)"
            ),
            "kubectl get nodes -L kubevirt.io/schedulable",
        ),
        (
            {"affinity": None, "nodeSelector": {"zone": "a"}},
            "no node is to have an agent: none that it could run on has the label zone",
            "kubectl get nodes -L zone",
        ),
        (
            {"affinity": None, "nodeSelector": None},
            "no node is to have an agent: is none there whose taints they tolerate?",
            "",
        ),
    ],
    ids=["schedulable", "selector", "taints"],
)
def test_that_no_node_is_to_have_an_agent_is_a_warning_and_names_the_label(
    idle: Installation, pod: dict[str, object], message: str, command: str
) -> None:
    before = idle.api.get(AGENTS)["spec"]["template"]["spec"]
    idle.api.patch(AGENTS, {"spec": {"template": {"spec": pod}}})
    try:
        idle.set_agents(wanted=0, made=0, ready=0)
        *_, agents = findings(idle)
    finally:
        undo = {name: before.get(name) for name in pod}
        idle.api.patch(AGENTS, {"spec": {"template": {"spec": undo}}})
    assert agents == Finding(Result.WARNING, message, command)
    assert agents.is_well


def test_what_a_controller_said_of_an_older_daemonset_says_nothing(idle: Installation) -> None:
    annotations = {"metadata": {"annotations": {"a": "b"}}}
    idle.api.patch(AGENTS, {"spec": {"template": annotations}})
    *_, agents = findings(idle)
    message = "no controller has looked at DaemonSet peacemaker-agent yet"
    assert agents == Finding(Result.FAILED, message)


def test_it_says_what_is_missing_of_an_installation(tmp_path: Path) -> None:
    with Cluster() as cluster:
        api = Api.load(str(cluster.kubeconfig))
        nothing = check(api, NAMESPACE, TIMEOUT, lambda _: None)
        missing = f"there is no namespace {NAMESPACE}: name it by --namespace"
        assert nothing == (Finding(Result.FAILED, missing),)
        api.create(paths.NAMESPACES, {"metadata": {"name": NAMESPACE}})
        kinds, security, _, agents = check(api, NAMESPACE, TIMEOUT, lambda _: None)
        assert not kinds.is_well
        assert kinds.message == (
            "the API server does not know PeacePolicies and PeaceLists: their CRDs are missing"
        )
        Kubectl(cluster, ROOT, tmp_path)(*shlex.split(kinds.command)[1:])
        wait_for(lambda: check(api, NAMESPACE, 0.0, lambda _: None)[0].is_well, TIMEOUT, "kinds")
        assert security.message == f"namespace {NAMESPACE} has no Pod Security level of its own"
        assert agents.result is Result.FAILED
        assert "there is no DaemonSet peacemaker-agent" in agents.message
        api.close()


@pytest.mark.parametrize("options", [("--timeout", "soon"), ("-o", "yaml"), ("--kubeconfig", "/x")])
def test_wrong_input_is_told(idle: Installation, program: Hook, options: tuple[str, str]) -> None:
    done = program.run(idle, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert options[0] in done.stderr
