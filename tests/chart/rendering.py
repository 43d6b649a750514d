"""The chart as helm renders it, and the values that the tests render it with."""

import json
from collections.abc import Iterator
from typing import Any, Final

import yaml

from chartfiles.helm import KUBERNETES, helm
from chartfiles.paths import CHART

Document = dict[str, Any]

VERSIONS: Final = ("1.32.0", "1.33.0", "1.34.0", "1.35.0", "1.36.0")

VALUES: Final[dict[str, Document]] = {
    "defaults": {},
    "everything-on": {
        "image": {
            "registry": "registry.example.org:5000/peacemaker",
            "tag": "v9",
            "pullPolicy": "Always",
            "pullSecrets": ["registry"],
        },
        "operator": {
            "podAnnotations": {"example.org/a": "b"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "agent": {
            "podAnnotations": {"example.org/a": "b"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "perVmMetrics": False,
            "maxUnavailable": 1,
        },
        "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
        "openshift": {"enabled": True},
        "policies": {
            "shipped": ["favour-waiting", "observe-only", "restrain-noisy", "seed-figure-7"]
        },
    },
    "everything-off": {
        "operator": {"replicas": 1, "resources": {}, "priorityClassName": ""},
        "agent": {
            "onlyKubeVirtNodes": False,
            "tolerations": [],
            "resources": {},
            "priorityClassName": "",
        },
        "webhook": {"enabled": False},
        "uninstall": {"restore": False},
    },
    "digests-and-selinux": {
        "operator": {"image": {"digest": f"sha256:{'0' * 64}"}},
        "agent": {"image": {"digest": f"sha256:{'f' * 64}"}, "seLinuxType": "spc_t"},
    },
}


def render(
    values: Document | None = None, *options: str, namespace: str = "peacemaker"
) -> list[Document]:
    """Its objects, hooks included, CRDs not. Raises chartfiles.helm.HelmError."""
    return list(documents(rendered(values, *options, namespace=namespace)))


def rendered(
    values: Document | None = None,
    *options: str,
    namespace: str = "peacemaker",
    version: str = KUBERNETES,
) -> str:
    """The same as text."""
    settings = [f"--set-json={key}={json.dumps(value)}" for key, value in (values or {}).items()]
    where = (f"--namespace={namespace}", f"--kube-version={version}")
    return helm("template", "peacemaker", str(CHART), *where, *settings, *options)


def documents(text: str) -> Iterator[Document]:
    return (each for each in yaml.safe_load_all(text) if each)


def pod_templates(objects: list[Document]) -> dict[str, Document]:
    """The spec of each pod that the objects make, by the name of its object."""
    return {
        each["metadata"]["name"]: each["spec"]
        if each["kind"] == "Pod"
        else each["spec"]["template"]["spec"]
        for each in objects
        if each["kind"] in ("Deployment", "DaemonSet", "Job", "Pod")
    }
