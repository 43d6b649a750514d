"""What the operator's tests are made of: documents as the API server has them, and its schemas."""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from peacemaker_operator.acceptance import Accepted, Acceptor
from peacemaker_operator.reconcile import World
from peacemaker_operator.records import (
    NamespaceRecord,
    NodeRecord,
    PolicyRecord,
    VmiRecord,
    policy_record,
    vmi_record,
)
from peacemaker_operator.settings import Settings
from tests.kubevirt import RUNNING, Document

ROOT = Path(__file__).parents[2]
POD = "ceea7969-fe6d-458b-9e3d-ec0994ecc195"

POLICY_SPEC: Document = {
    "mode": "Enforce",
    "priority": 0,
    "interval": "15s",
    "bounds": {"min": 0, "max": 10},
    "rules": [
        {
            "name": "r",
            "when": "node.load1 > 0.9",
            "pick": {"lowest": "vm.priority"},
            "nice": {"add": 1},
        }
    ],
}


def vmi_document(name: str = "vm-a", **changes: object) -> Document:
    """A running VMI of node1, with other values at these paths (`status__phase`); None removes."""
    document = copy.deepcopy(RUNNING)
    document["metadata"]["name"] = name
    for path, value in changes.items():
        put(document, path.split("__"), value)
    return document


def put(document: Document, path: list[str], value: object) -> None:
    """Set the value at a path, or remove it if it is None."""
    for key in path[:-1]:
        document = document.setdefault(key, {})
    if value is None:
        document.pop(path[-1], None)
    else:
        document[path[-1]] = copy.deepcopy(value)


def vmi(
    name: str = "vm-a",
    *,
    uid: str | None = None,
    namespace: str = "default",
    node: str = "node1",
    labels: Mapping[str, str] | None = None,
    **changes: object,
) -> VmiRecord:
    """The record of a running VMI whose only pod is on this node."""
    uid = uid or f"uid-{name}"
    document = vmi_document(
        name,
        metadata__uid=uid,
        metadata__namespace=namespace,
        metadata__labels=dict(labels or {}),
        status__nodeName=node,
        status__activePods={f"pod-{uid}": node},
    )
    for path, value in changes.items():
        put(document, path.split("__"), value)
    return vmi_record(document)


def node(name: str = "node1", **labels: str) -> NodeRecord:
    return NodeRecord(name, f"uid-{name}", {"kubevirt.io/schedulable": "true", **labels})


def namespace(name: str = "default", **labels: str) -> NamespaceRecord:
    return NamespaceRecord(name, {"kubernetes.io/metadata.name": name, **labels})


def policy_document(name: str = "p", generation: int = 1, **spec: object) -> Document:
    changed = {key: value for key, value in (POLICY_SPEC | spec).items() if value is not None}
    return {
        "apiVersion": "peacemaker.dev/v1alpha1",
        "kind": "PeacePolicy",
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": generation},
        "spec": copy.deepcopy(changed),
    }


def policy_of(name: str = "p", generation: int = 1, **spec: object) -> PolicyRecord:
    return policy_record(policy_document(name, generation, **spec))


def accepted(name: str = "p", generation: int = 1, **spec: object) -> Accepted:
    """A policy that is in force."""
    found = Acceptor().accept(policy_of(name, generation, **spec))
    assert found.in_force is not None, found.problem
    return found.in_force


def world(
    *vmis: VmiRecord,
    nodes: tuple[NodeRecord, ...] = (),
    namespaces: tuple[NamespaceRecord, ...] = (),
    policies: tuple[Accepted, ...] = (),
    settings: Settings | None = None,
    **others: Any,
) -> World:
    """A world of these; without nodes there is node1, without namespaces `default`."""
    by_node: dict[str, list[VmiRecord]] = {}
    for each in vmis:
        for name in each.nodes:
            by_node.setdefault(name, []).append(each)
    return World(
        vmis=by_node,
        nodes={each.name: each for each in nodes or (node(),)},
        namespaces={each.name: each for each in namespaces or (namespace(),)},
        policies=policies,
        settings=settings or Settings(),
        **others,
    )


def crd_schema(plural: str) -> Document:
    """The schema of a kind of ours, as the API server gets it."""
    text = (ROOT / "crds" / f"peacemaker.dev_{plural}.yaml").read_text(encoding="utf-8")
    schema: Document = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def violations(value: object, schema: Document, path: str = "") -> Iterator[str]:
    """What a structural schema has against a value: the keywords that our CRDs use."""
    kind = _TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {schema['type']}"
    elif isinstance(value, str):
        yield from _text_violations(value, schema, path)
    elif isinstance(value, int):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} is out of bounds"
    elif isinstance(value, list):
        if len(value) > schema["maxItems"]:
            yield f"{path}: {len(value)} items"
        for number, item in enumerate(value):
            yield from violations(item, schema["items"], f"{path}[{number}]")
    elif isinstance(value, dict):
        yield from _object_violations(value, schema, path)


def _text_violations(value: str, schema: Document, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not value.endswith("Z"):
        yield f"{path}: {value!r} is no time"
    value.encode()


def _object_violations(value: Document, schema: Document, path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: missing"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{path}: {len(value)} properties"
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, item in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if known is None:
            yield f"{path}.{name}: would be pruned"
        else:
            yield from violations(item, known, f"{path}.{name}")
