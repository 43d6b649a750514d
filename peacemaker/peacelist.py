"""The spec of a PeaceList: what the operator tells the agent of one node.

Both sides share this model; `crds/peacemaker.dev_peacelists.yaml` is its schema.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from peacemaker.claim import FULL_CLAIM_PERCENT

UNKNOWN_STATE: Final = "UnknownState"
"""The reason of a VM whose state this version does not know."""

_T = TypeVar("_T")


class MalformedPeaceList(ValueError):
    """A document that is no spec of a PeaceList; the text names the field and the value."""


class VmState(StrEnum):
    """What is to be done with a VM on a node."""

    MANAGED = "Managed"
    """Its policy, if it has one, acts on it."""
    DEFERRED = "Deferred"
    """Frozen for a while: values are kept."""
    EXCLUDED = "Excluded"
    """Restored and left alone."""


_STATES: Final = {state.value: state for state in VmState}


@dataclass(frozen=True, slots=True)
class ListedVm:
    """One VM of a node. Unless it is managed, `reason` (one word) and `message` say why.

    `pod_uid` is None while it has no active pod here; `creation_timestamp` is RFC 3339.
    """

    uid: str
    namespace: str
    name: str
    state: VmState
    pod_uid: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels_omitted: str | None = None
    priority_class_value: int = 0
    vcpus: int = 1
    creation_timestamp: str | None = None
    policy: str | None = None
    observers: tuple[str, ...] = ()
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ListedPolicy:
    """A policy in force: the fields of a PeacePolicy's spec, and the generation that had them."""

    name: str
    generation: int
    spec: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why everything on the node is restored and left alone."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PeaceListSpec:
    """What has to be done on one node; `max_claim_percent` as `claim.guard` takes it."""

    policies: tuple[ListedPolicy, ...] = ()
    vms: tuple[ListedVm, ...] = ()
    max_claim_percent: int = FULL_CLAIM_PERCENT
    suspended: Suspension | None = None


# The document's name and the record's, of the fields of a VM that may be absent.
_OPTIONAL: Final = (
    *(("podUID", "pod_uid"), ("labels", "labels"), ("labelsOmitted", "labels_omitted")),
    *(("creationTimestamp", "creation_timestamp"), ("policy", "policy"), ("reason", "reason")),
    ("message", "message"),
)


def to_document(spec: PeaceListSpec) -> dict[str, Any]:
    """The spec as the API has it: what is absent or empty is left out, defaults are written."""
    document: dict[str, Any] = {
        "policies": [
            {"name": each.name, "generation": each.generation, "spec": _text(each.spec)}
            for each in spec.policies
        ],
        "vms": [_vm_document(vm) for vm in spec.vms],
        "maxClaimPercent": spec.max_claim_percent,
    }
    if spec.suspended:
        document["suspended"] = {"reason": spec.suspended.reason}
        if spec.suspended.message:
            document["suspended"]["message"] = spec.suspended.message
    return document


def _text(spec: Mapping[str, Any]) -> str:
    """Canonical JSON: what is equal reads equal."""
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _vm_document(vm: ListedVm) -> dict[str, Any]:
    document: dict[str, Any] = {
        "uid": vm.uid,
        "namespace": vm.namespace,
        "name": vm.name,
        "state": vm.state.value,
        "priorityClassValue": vm.priority_class_value,
        "vcpus": vm.vcpus,
    }
    for key, attribute in _OPTIONAL:
        if value := getattr(vm, attribute):
            document[key] = value
    if vm.observers:
        document["observers"] = list(vm.observers)
    return document


def from_document(document: Mapping[str, Any]) -> PeaceListSpec:
    """The spec that an API document says. Raises MalformedPeaceList.

    Fields that this version does not know are passed over, and a state that it does not know
    reads as Deferred: a newer operator must not make an older agent move anything.
    """
    spec = _typed(document, dict, "spec")
    suspended = _get(spec, "suspended", dict, "spec")
    return PeaceListSpec(
        policies=tuple(
            _policy(policy, f"spec.policies[{number}]")
            for number, policy in enumerate(_get(spec, "policies", list, "spec") or ())
        ),
        vms=tuple(
            _vm(vm, f"spec.vms[{number}]")
            for number, vm in enumerate(_get(spec, "vms", list, "spec") or ())
        ),
        max_claim_percent=_get(spec, "maxClaimPercent", int, "spec") or FULL_CLAIM_PERCENT,
        suspended=None
        if suspended is None
        else Suspension(
            _required(suspended, "reason", str, "spec.suspended"),
            _get(suspended, "message", str, "spec.suspended") or "",
        ),
    )


def _policy(document: object, path: str) -> ListedPolicy:
    fields = _typed(document, dict, path)
    text = _required(fields, "spec", str, path)
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedPeaceList(f"{path}.spec: no JSON ({error})") from None
    return ListedPolicy(
        _required(fields, "name", str, path),
        _required(fields, "generation", int, path),
        _typed(spec, dict, f"{path}.spec"),
    )


def _vm(document: object, path: str) -> ListedVm:
    fields = _typed(document, dict, path)
    known = _STATES.get(state := _required(fields, "state", str, path))
    reason, message = _get(fields, "reason", str, path), _get(fields, "message", str, path)
    if known is None:
        reason, message = UNKNOWN_STATE, f"this version does not know the state {state!r}"
    labels = _get(fields, "labels", dict, path) or {}
    observers = _get(fields, "observers", list, path) or ()
    return ListedVm(
        uid=_required(fields, "uid", str, path),
        namespace=_required(fields, "namespace", str, path),
        name=_required(fields, "name", str, path),
        state=known or VmState.DEFERRED,
        pod_uid=_get(fields, "podUID", str, path),
        labels={key: _typed(value, str, f"{path}.labels.{key}") for key, value in labels.items()},
        labels_omitted=_get(fields, "labelsOmitted", str, path),
        priority_class_value=_get(fields, "priorityClassValue", int, path) or 0,
        vcpus=_get(fields, "vcpus", int, path) or 1,
        creation_timestamp=_get(fields, "creationTimestamp", str, path),
        policy=_get(fields, "policy", str, path),
        observers=tuple(_typed(name, str, f"{path}.observers") for name in observers),
        reason=reason,
        message=message,
    )


def _required(fields: Mapping[str, Any], key: str, kind: type[_T], path: str) -> _T:
    value = _get(fields, key, kind, path)
    if value is None:
        raise MalformedPeaceList(f"{path}.{key}: missing (allowed {kind.__name__})")
    return value


def _get(fields: Mapping[str, Any], key: str, kind: type[_T], path: str) -> _T | None:
    value = fields.get(key)
    return None if value is None else _typed(value, kind, f"{path}.{key}")


def _typed(value: object, kind: type[_T], path: str) -> _T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedPeaceList(
            f"{path}: wrong type (found {type(value).__name__}, allowed {kind.__name__})"
        )
    return value
