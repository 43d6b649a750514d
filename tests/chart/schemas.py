"""Schemas of Kubernetes' own kinds and of our own, laid out for kubeconform.

Kubernetes': of each version, from the package kubernetes-validate. Its files refer to a path of
their own, and have to be copied for that. Ours: from the CRDs.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

from chartfiles.paths import ROOT

_PACKAGE = Path(str(files("kubernetes_validate"))) / "kubernetes-json-schema"
_REFERENCE: Final = "/api/_definitions.json#"
_DEFINITIONS: Final = "_definitions.json"

PATTERN: Final = "{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
"""Where kubeconform finds a kind's schema below the folder that `lay_out` filled."""


def lay_out(folder: Path, version: str) -> None:
    """Write the strict schemas of a version, say 1.36.0, which the package must have."""
    source, target = _PACKAGE / f"v{version}-local-strict", folder / f"v{version}"
    target.mkdir()
    for file in source.glob("*.json"):
        schema = json.loads(file.read_text().replace(_REFERENCE, f"{_DEFINITIONS}#"))
        schema.pop("$id", None)  # where there is one, it is absolute, too
        (target / file.name).write_text(json.dumps(schema))
    for file in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(file.read_bytes())["spec"]
        group = crd["group"].split(".")[0]
        for served in crd["versions"]:
            name = f"{crd['names']['kind'].lower()}-{group}-{served['name']}.json"
            schema = closed(served["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            (target / name).write_text(json.dumps(schema))


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner
