"""What the chart renders: valid in each version of Kubernetes, and as confined as can be."""

import subprocess
from pathlib import Path

import pytest

from chartfiles import base_files
from chartfiles.helm import KUBERNETES, HelmError, helm, program
from chartfiles.paths import BASE, CHART
from peacemaker_kube.metrics import HEALTH_PATH
from tests.chart.rendering import (
    VALUES,
    VERSIONS,
    Document,
    documents,
    pod_templates,
    render,
    rendered,
)
from tests.chart.schemas import PATTERN, lay_out

OTHERS_KINDS = ("PodMonitor", "ServiceMonitor", "SecurityContextConstraints")
"""Whose schemas Kubernetes does not have; test_installed has the server judge them."""


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    for version in VERSIONS:
        lay_out(folder, version)
    return folder


def conform(schemas: Path, version: str, text: str) -> subprocess.CompletedProcess[str]:
    """kubeconform's word on it."""
    return subprocess.run(
        [
            *(program("kubeconform"), "-strict", "-summary", "-kubernetes-version", version),
            *("-skip", ",".join(OTHERS_KINDS), "-schema-location", f"{schemas}/{PATTERN}"),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_helm_finds_nothing_to_say_about_the_chart() -> None:
    said = helm("lint", "--strict", "--quiet", f"--kube-version={KUBERNETES}", str(CHART))
    assert said.strip() == ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES.values(), ids=list(VALUES))
def test_all_objects_are_valid_in_each_version_of_kubernetes(
    schemas: Path, version: str, values: Document
) -> None:
    text = rendered(values, version=version)
    count = sum(each["kind"] not in OTHERS_KINDS for each in documents(text))
    said = conform(schemas, version, text)
    assert said.returncode == 0, said.stdout
    assert f"Valid: {count}, Invalid: 0, Errors: 0" in said.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("hostPID: true", "hostPid: true", "hostPid"),
        ("replicas: 2", "replicas: two", "replicas"),
        ("mode: Observe", "mood: Observe", "mood"),
    ],
)
def test_the_schemas_refuse_what_is_wrong(
    schemas: Path, right: str, wrong: str, where: str
) -> None:
    text = rendered({"policies": {"shipped": ["observe-only"]}})
    assert right in text
    said = conform(schemas, KUBERNETES, text.replace(right, wrong))
    assert said.returncode != 0
    assert where in said.stdout


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.32"):
        rendered(version="1.31.9")


@pytest.mark.parametrize("values", VALUES.values(), ids=list(VALUES))
def test_every_pod_is_confined(values: Document) -> None:
    pods = pod_templates(render(values))
    assert {"peacemaker-agent", "peacemaker-operator", "peacemaker-test"} <= set(pods)
    for name, pod in pods.items():
        is_agent = name == "peacemaker-agent"
        security = pod["securityContext"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["runAsUser"] == (0 if is_agent else 65532)
        assert security.get("runAsNonRoot", False) is not is_agent
        assert pod.get("hostPID", False) is is_agent
        assert not {"hostNetwork", "hostIPC", "hostUsers", "initContainers"} & set(pod)
        assert pod["enableServiceLinks"] is False
        assert [each["hostPath"]["path"] for each in pod.get("volumes", ())] == (
            ["/sys/fs/cgroup", "/run/peacemaker"] if is_agent else []
        )
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["SYS_NICE"]}
            if is_agent
            else {"drop": ["ALL"]},
        }


def test_the_kubelet_asks_the_agent_whether_its_loop_turns_and_learns_it_soon() -> None:
    agent = pod_templates(render())["peacemaker-agent"]["containers"][0]
    (port,) = agent["ports"]
    assert f"--metrics-address=:{port['containerPort']}" in agent["args"]
    probes = {name: agent[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    for probe in probes.values():
        assert probe["httpGet"] == {"path": HEALTH_PATH, "port": port["name"]}
        assert "initialDelaySeconds" not in probe
    assert probes["startup"]["periodSeconds"] == 1
    # A kubelet that has just started lets up to one period pass before it asks.
    assert probes["readiness"]["periodSeconds"] <= 5


def test_the_hooks_run_where_the_operator_may() -> None:
    tolerations = [{"key": "infra", "operator": "Exists"}]
    place = {"nodeSelector": {"a": "b"}, "tolerations": tolerations}
    pods = pod_templates(render({f"operator.{key}": value for key, value in place.items()}))
    for name in ("operator", "test", "uninstall"):
        assert pods[f"peacemaker-{name}"]["nodeSelector"] == {"a": "b"}
    assert pods["peacemaker-test"]["tolerations"] == tolerations
    # Uninstalling waits for no node.
    everything = [{"operator": "Exists", "effect": "NoSchedule"}]
    assert pods["peacemaker-uninstall"]["tolerations"] == everything
    assert pods["peacemaker-uninstall"]["priorityClassName"] == "system-cluster-critical"


def test_every_container_says_what_it_needs_and_only_memory_is_limited() -> None:
    for pod in pod_templates(render()).values():
        resources = pod["containers"][0]["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize(
    ("values", "operator", "agent"),
    [
        ({}, "peacemaker-operator:0.1.0", "peacemaker-agent:0.1.0"),
        (
            {"image": {"registry": "localhost", "tag": "x"}},
            "localhost/peacemaker-operator:x",
            "localhost/peacemaker-agent:x",
        ),
        (
            {"image": {"tag": "x"}, "agent": {"image": {"digest": f"sha256:{'a' * 64}"}}},
            "peacemaker-operator:x",
            f"peacemaker-agent@sha256:{'a' * 64}",
        ),
    ],
    ids=["version", "registry-and-tag", "digest"],
)
def test_images_are_named_by_registry_repository_and_tag_or_digest(
    values: Document, operator: str, agent: str
) -> None:
    pods = pod_templates(render(values))
    images = {name: pod["containers"][0]["image"] for name, pod in pods.items()}
    assert images == {
        "peacemaker-agent": agent,
        "peacemaker-operator": operator,
        "peacemaker-test": operator,
        "peacemaker-uninstall": operator,
    }


def test_everything_is_in_the_releases_namespace_also_where_it_is_only_named() -> None:
    text = rendered(VALUES["everything-on"], namespace="elsewhere")
    for each in documents(text):
        assert each["metadata"].get("namespace", "elsewhere") == "elsewhere"
        for subject in each.get("subjects", ()):
            assert subject["namespace"] == "elsewhere"
    assert "namespace: peacemaker\n" not in text
    assert "serviceaccount:peacemaker:" not in text
    assert '"system:serviceaccount:elsewhere:peacemaker-agent"' in text


def test_without_a_webhook_there_is_none_and_no_right_for_it() -> None:
    objects = render({"webhook": {"enabled": False}})
    kinds = {each["kind"] for each in objects}
    assert not {"ValidatingWebhookConfiguration", "Service"} & kinds
    rules = [rule for each in objects for rule in each.get("rules", ())]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert not {"secrets", "validatingwebhookconfigurations"} & resources
    operator = pod_templates(objects)["peacemaker-operator"]["containers"][0]
    assert "--no-webhook" in operator["args"]


def test_hooks_leave_nothing_behind_but_their_logs() -> None:
    hooks = [each for each in render() if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert len(hooks) == 12
    for each in hooks:
        annotations = each["metadata"]["annotations"]
        policy = "before-hook-creation"
        if each["kind"] not in ("Job", "Pod"):  # what they need is there before, and goes
            policy += ",hook-succeeded,hook-failed"
            assert annotations["helm.sh/hook-weight"] == "-5"
        assert annotations["helm.sh/hook-delete-policy"] == policy
    (job,) = (each for each in hooks if each["kind"] == "Job")
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600


def test_deploy_base_is_what_the_chart_renders() -> None:
    files = base_files()
    assert {file: file.read_text() for file in files} == files
    assert {file.name for file in BASE.glob("*.yaml")} == {
        *(file.name for file in files),
        "namespace.yaml",
    }
