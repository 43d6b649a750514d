"""What the operator keeps of a PeaceList: enough to tell what it has to write, and what to report.

The spec is the operator's own and is kept as digests only. Of the status, the agent's, it keeps
what policies' statuses and VM owners' events are made of.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from peacemaker_operator.reading import (
    INT64_MAX,
    Document,
    count,
    number,
    section,
    sections,
    text,
    unique,
)

Digests: TypeAlias = Mapping[str, bytes]
"""A digest for each field of a PeaceList's spec, in its canonical form with defaults filled in."""

_DEFAULTS: Mapping[str, object] = {
    "policies": [],
    "vms": [],
    "maxClaimPercent": 100,
    "suspended": None,
}


def digests(spec: Mapping[str, object]) -> Digests:
    """Return the digests of the `spec` of a PeaceList document."""
    return {name: _digest(spec.get(name, default)) for name, default in _DEFAULTS.items()}


def _digest(value: object) -> bytes:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()


def spec_patch(wanted: Mapping[str, object], observed: Digests) -> Document:
    """Return the merge patch of `spec` that makes of the observed one the wanted: {} if it is.

    A field that is to be absent is None, as a merge patch has it.
    """
    written = digests(wanted)
    return {
        name: wanted.get(name, default)
        for name, default in _DEFAULTS.items()
        if written[name] != observed.get(name)
    }


@dataclass(frozen=True, slots=True)
class Condition:
    """The Ready condition of a PeaceList. `since` is its lastTransitionTime."""

    status: str
    reason: str
    message: str
    since: str | None
    observed_generation: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How many VMs of the node are how."""

    managed: int = 0
    adjusted: int = 0
    deferred: int = 0
    excluded: int = 0
    floored: int = 0
    contested: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """How one policy fares on a node. `generation`: in force there, None if none is."""

    name: str
    generation: int | None = None
    reason: str | None = None
    message: str | None = None
    missing_signals: tuple[str, ...] = ()
    adjusted: int = 0
    would_adjust: int = 0
    contested: int = 0
    floored: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class VmRow:
    """What a VM's owner may be told of it. `moved`: peacemaker has changed its nice before."""

    namespace: str
    name: str
    state: str
    nice: int | None = None
    moved: bool = False
    message: str | None = None


@dataclass(frozen=True, slots=True)
class PeaceListRecord:
    """One PeaceList. `policies` is by name, `vms` by the uid of the VirtualMachineInstance."""

    name: str
    uid: str
    resource_version: str
    generation: int
    owner_uid: str | None
    """The uid of the Node that owns it: another one is gone."""
    spec: Digests
    suspended: str | None
    """The reason in spec.suspended, None if policies are in force."""
    observed_generation: int
    ready: Condition | None
    summary: Summary
    policies: Mapping[str, PolicyRow]
    vms: Mapping[str, VmRow]


def peace_list_record(document: Document) -> PeaceListRecord:
    """Return what matters of a PeaceList."""
    metadata = section(document, "metadata")
    status = section(document, "status")
    return PeaceListRecord(
        name=text(metadata.get("name")) or "",
        uid=unique(metadata.get("uid")) or "",
        resource_version=unique(metadata.get("resourceVersion")) or "",
        generation=number(metadata.get("generation"), 1, INT64_MAX) or 1,
        owner_uid=_owner_uid(metadata.get("ownerReferences")),
        spec=digests(section(document, "spec")),
        suspended=text(section(document, "spec", "suspended").get("reason"), 64),
        observed_generation=number(status.get("observedGeneration"), 0, INT64_MAX) or 0,
        ready=_ready(status.get("conditions")),
        summary=_summary(section(status, "summary")),
        policies={
            row.name: row
            for found in sections(status.get("policies"))
            if (row := _policy_row(found))
        },
        vms=dict(named for found in sections(status.get("vms")) if (named := _vm_row(found))),
    )


def _owner_uid(references: object) -> str | None:
    owners = (unique(found.get("uid")) for found in sections(references) if _is_node(found))
    return next(owners, None)


def _is_node(reference: Mapping[str, object]) -> bool:
    return reference.get("kind") == "Node" and reference.get("apiVersion") == "v1"


def _ready(conditions: object) -> Condition | None:
    for found in sections(conditions):
        if found.get("type") == "Ready":
            return Condition(
                status=text(found.get("status"), 16) or "Unknown",
                reason=text(found.get("reason"), 64) or "",
                message=text(found.get("message"), 4096) or "",
                since=text(found.get("lastTransitionTime"), 64),
                observed_generation=number(found.get("observedGeneration"), 0, INT64_MAX),
            )
    return None


def _summary(found: Mapping[str, object]) -> Summary:
    return Summary(
        managed=count(found.get("managed")),
        adjusted=count(found.get("adjusted")),
        deferred=count(found.get("deferred")),
        excluded=count(found.get("excluded")),
        floored=count(found.get("floored")),
        contested=count(found.get("contested")),
        failed=count(found.get("failed")),
    )


# A policy fares alike on most nodes: a thousand nodes share one row.
_shared_row = lru_cache(maxsize=4096)(PolicyRow)


def _policy_row(found: Mapping[str, object]) -> PolicyRow | None:
    name = text(found.get("name"))
    if name is None:
        return None
    signals = found.get("missingSignals")
    missing = [text(each, 256) for each in signals] if isinstance(signals, list) else []
    return _shared_row(
        name=name,
        generation=number(found.get("generation"), 1, INT64_MAX),
        reason=text(found.get("reason"), 64),
        message=text(found.get("message"), 1024),
        missing_signals=tuple(each for each in missing if each is not None),
        adjusted=count(found.get("adjusted")),
        would_adjust=count(found.get("wouldAdjust")),
        contested=count(found.get("contested")),
        floored=count(found.get("floored")),
        failed=count(found.get("failed")),
    )


def _vm_row(found: Mapping[str, object]) -> tuple[str, VmRow] | None:
    uid = unique(found.get("uid"))
    namespace = text(found.get("namespace"), 63)
    name = text(found.get("name"))
    if uid is None or namespace is None or name is None:
        return None
    return uid, VmRow(
        namespace=namespace,
        name=name,
        state=text(found.get("state"), 16) or "",
        nice=number(found.get("nice"), -20, 19),
        moved=found.get("since") is not None,
        message=text(found.get("message"), 256),
    )
