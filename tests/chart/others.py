"""Others' kinds and their words: the CRDs of Flux, Argo CD, Prometheus' operator and OpenShift, and
Flux's own judgement of health; all from the Go modules that tools/go-gitops locks.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

import yaml

from chartfiles.paths import ROOT
from gobuild import Program, ProgramSet, build
from lab import wait_for
from peacemaker_kube.api import Api
from tests.chart.rendering import Document
from tests.cluster.deployment import TIMEOUT, is_served

MODULE: Final = ROOT / "tools" / "go-gitops"
_OWN = hashlib.sha256((MODULE / "health" / "main.go").read_bytes()).hexdigest()[:8]
GITOPS: Final = ProgramSet(
    f"gitops-{_OWN}",
    MODULE,
    {
        "controller-gen": Program("sigs.k8s.io/controller-tools/cmd/controller-gen"),
        "health": Program("tools/health"),
    },
)

_TYPES: Final = (
    "github.com/fluxcd/helm-controller/api/v2",
    "github.com/fluxcd/kustomize-controller/api/v1",
    "github.com/fluxcd/source-controller/api/v1",
    "github.com/openshift/api/security/v1",
    "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1",
)
_USED: Final = frozenset(
    {
        "Application",
        "GitRepository",
        "HelmRelease",
        "Kustomization",
        "PodMonitor",
        "SecurityContextConstraints",
        "ServiceMonitor",
    }
)


@cache
def crds() -> tuple[Document, ...]:
    """The CRDs of all kinds that the project's manifests use and does not bring."""
    paths = [f"paths={each}" for each in _TYPES]
    text = _call(str(build(GITOPS) / "controller-gen"), "crd:maxDescLen=0", *paths, "output:stdout")
    argo = _call("go", "list", "-m", "-f", "{{.Dir}}", "github.com/argoproj/argo-cd/v3").strip()
    text += "\n---\n" + Path(argo, "manifests", "crds", "application-crd.yaml").read_text()
    found = [each for each in yaml.safe_load_all(text) if each]
    used = tuple(each for each in found if each["spec"]["names"]["kind"] in _USED)
    assert {each["spec"]["names"]["kind"] for each in used} == _USED
    return used


def serve_others(api: Api) -> None:
    """Have the server serve these kinds."""
    for crd in crds():
        api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    for crd in crds():
        spec = crd["spec"]
        version = next(each["name"] for each in spec["versions"] if each["storage"])
        path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
        wait_for(partial(is_served, api, path), TIMEOUT, f"{path} to be served")


def flux_health(expressions: Document, objects: Sequence[Document]) -> list[tuple[str, str]]:
    """What Flux thinks of each object: by kstatus alone, and by the expressions."""
    told = json.dumps({"exprs": expressions, "objects": list(objects)})
    said = json.loads(_call(str(build(GITOPS) / "health"), told=told))
    return [(generic, own) for generic, own in said]


def _call(*command: str, told: str = "") -> str:
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', '')}"
    settings = {
        "PATH": path,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
    }
    done = subprocess.run(
        command,
        input=told,
        cwd=MODULE,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
