"""What administrators are told of a policy: its conditions, its counts, and its worst nodes."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from peacemaker.policy import Mode
from peacemaker_operator.acceptance import Acceptance
from peacemaker_operator.observed import Condition, PeaceListRecord, PolicyRow
from peacemaker_operator.reading import Document, cut, sections
from peacemaker_operator.reconcile import PolicyCount
from peacemaker_operator.records import PolicyRecord

AGENT_SILENT: Final = "AgentSilent"
"""The reason of the Ready condition that the operator writes for an agent that is silent."""

_STOPPED: Final = frozenset({"Stopped", "RestoreFailed"})
"""Reasons of an agent that rests, or would if it could restore everything."""

MAX_OUTRANKED_BY: Final = 5
MAX_WORST_NODES: Final = 5
MAX_NODE_MESSAGE: Final = 256
MAX_CONDITION_MESSAGE: Final = 4096

_NO_ROW: Final = PolicyRow("")


class Progress(StrEnum):
    """How far the generation that is in force has come on a node; the text is for people."""

    IN_FORCE = "in force"
    SUSPENDED = "suspended"
    REFUSED = "not understood by the agent"
    PENDING = "not taken over yet"
    SILENT = "with a silent agent"


class Trouble(StrEnum):
    """What is wrong with a policy on a node, the worst first."""

    NOT_IN_FORCE = "NotInForce"
    AGENT_SILENT = AGENT_SILENT
    MISSING_SIGNALS = "MissingSignals"
    FAILED = "Failed"
    CONTESTED = "Contested"
    FLOORED = "Floored"


# What keeps a policy from being Ready, and how that is said; the first that is met on any node.
_HINDRANCES: Final = (
    (Progress.REFUSED, "False", "NotInForce"),
    (Progress.PENDING, "False", "Progressing"),
    (Progress.SILENT, "Unknown", AGENT_SILENT),
)

_SEVERITY: Final = {trouble: number for number, trouble in enumerate(Trouble)}


@dataclass(frozen=True, slots=True)
class _Fare:
    """How a policy fares on one node."""

    node: str
    progress: Progress
    count: PolicyCount
    row: PolicyRow


@dataclass(frozen=True, slots=True)
class _WorstNode:
    """One node where something is wrong, and how many VMs that concerns."""

    node: str
    trouble: Trouble
    message: str
    vms: int

    def order(self) -> tuple[int, int, str]:
        return (_SEVERITY[self.trouble], -self.vms, self.node)


def policy_status(
    record: PolicyRecord,
    acceptance: Acceptance,
    counts: Mapping[str, Mapping[str, PolicyCount]],
    lists: Mapping[str, PeaceListRecord],
    now: str,
) -> Document:
    """Return the whole status of a policy.

    `counts` has for each node the counts of each policy that selects it, as `reconcile` says;
    `lists` are the PeaceLists by node; `now` is RFC 3339.
    """
    fares = _fares(record.name, acceptance, counts, lists)
    accepted, ready = _accepted(acceptance), _ready(acceptance, fares)
    status: Document = {
        "observedGeneration": acceptance.generation,
        "conditions": [
            _condition(record, acceptance.generation, kind, *said, now=now)
            for kind, said in (("Accepted", accepted), ("Ready", ready))
        ],
        "nodes": len(fares),
        "vms": sum(fare.count.vms for fare in fares),
        "adjusted": _adjusted(acceptance, fares),
        **_outranked(fares),
        "worstNodes": _worst_nodes(acceptance, fares, lists),
    }
    if acceptance.in_force is not None:
        listed = acceptance.in_force.listed
        status["accepted"] = {"generation": listed.generation, "spec": listed.spec}
    elif record.accepted_spec is not None:  # another version of the operator may understand it
        accepted_before = {"generation": record.accepted_generation, "spec": record.accepted_spec}
        status["accepted"] = accepted_before
    return status


def status_patch(old: Document, new: Document) -> Document:
    """Return the merge patch that makes the new status of the old one, {} if they say the same."""
    patch: Document = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            if inner := status_patch(before, after):
                patch[key] = inner
        elif before != after:
            patch[key] = after  # None removes it
    return patch


def is_urgent(old: Document, new: Document) -> bool:
    """Tell whether the new status is to be written at once, and not only when its details may be.

    It is if a condition changed (not merely the figures in its message), or what is accepted.
    """
    return _gist(old) != _gist(new)


def _gist(status: Document) -> Document:
    conditions = [
        [condition.get(key) for key in ("type", "status", "reason", "observedGeneration")]
        for condition in sections(status.get("conditions"))
    ]
    return {
        "conditions": conditions,
        "observedGeneration": status.get("observedGeneration"),
        "accepted": status.get("accepted"),
    }


def _fares(
    name: str,
    acceptance: Acceptance,
    counts: Mapping[str, Mapping[str, PolicyCount]],
    lists: Mapping[str, PeaceListRecord],
) -> list[_Fare]:
    """Return how the policy fares on the nodes that it selects, in order of name."""
    if acceptance.in_force is None:
        return []
    generation = acceptance.in_force.listed.generation
    fares = []
    for node in sorted(node for node, policies in counts.items() if name in policies):
        found = lists.get(node)
        row = found.policies.get(name, _NO_ROW) if found else _NO_ROW
        fares.append(_Fare(node, _progress(found, row, generation), counts[node][name], row))
    return fares


def _progress(found: PeaceListRecord | None, row: PolicyRow, generation: int) -> Progress:
    if found is None:
        return Progress.PENDING
    if is_silent(found.ready):
        return Progress.SILENT
    if found.suspended is not None or _is_stopped(found.ready):
        return Progress.SUSPENDED
    if row.generation == generation:
        return Progress.IN_FORCE
    return Progress.REFUSED if row.reason else Progress.PENDING


def is_silent(ready: Condition | None) -> bool:
    """Tell whether the operator said that the agent is silent, and the agent nothing since."""
    return ready is not None and (ready.status, ready.reason) == ("Unknown", AGENT_SILENT)


def _is_stopped(ready: Condition | None) -> bool:
    """Tell whether the agent rests on its own, because the node's stop file tells it to."""
    return ready is not None and ready.status == "False" and ready.reason in _STOPPED


def _accepted(acceptance: Acceptance) -> tuple[str, str, str]:
    """Return status, reason and message of the Accepted condition."""
    if acceptance.problem is None:
        return "True", "Valid", ""
    return "False", "Invalid", acceptance.problem


def _ready(acceptance: Acceptance, fares: list[_Fare]) -> tuple[str, str, str]:
    """Return status, reason and message of the Ready condition."""
    tally = Counter(fare.progress for fare in fares)
    told = _told(tally, len(fares))
    if acceptance.in_force is None:
        return "False", "NotAccepted", "no spec of this policy is in force"
    generation = acceptance.in_force.listed.generation
    if acceptance.problem is not None:
        message = f"generation {generation} stays in force, {acceptance.generation} is not accepted"
        return "False", "NotAccepted", f"{message}; {told}"
    for progress, status, reason in _HINDRANCES:
        if tally[progress]:
            return status, reason, told
    if fares and tally[Progress.SUSPENDED] == len(fares):
        return "False", "Suspended", told
    return "True", "InForce", told


def _told(tally: Mapping[Progress, int], nodes: int) -> str:
    if not nodes:
        return "no node that KubeVirt knows matches nodeSelector"
    parts = [f"{tally[progress]} {progress.value}" for progress in Progress if tally.get(progress)]
    return f"of {nodes} node{'s' if nodes > 1 else ''} {', '.join(parts)}"


def _condition(
    record: PolicyRecord,
    generation: int,
    kind: str,
    status: str,
    reason: str,
    message: str,
    *,
    now: str,
) -> Document:
    since = now
    for before in sections(record.status.get("conditions")):
        if before.get("type") == kind and before.get("status") == status:
            since = str(before.get("lastTransitionTime") or now)
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": cut(message, MAX_CONDITION_MESSAGE),
    }


def _adjusted(acceptance: Acceptance, fares: Iterable[_Fare]) -> int:
    in_force = acceptance.in_force
    if in_force is not None and in_force.policy.mode is Mode.OBSERVE:
        return sum(fare.row.would_adjust for fare in fares)
    return sum(fare.row.adjusted for fare in fares)


def _outranked(fares: Iterable[_Fare]) -> Document:
    by: Counter[str] = Counter()
    for fare in fares:
        by.update(fare.count.outranked_by)
    most = sorted(by.items(), key=lambda item: (-item[1], item[0]))[:MAX_OUTRANKED_BY]
    return {
        "outranked": by.total(),
        "outrankedBy": [{"name": name, "vms": vms} for name, vms in most],
    }


def _worst_nodes(
    acceptance: Acceptance, fares: Iterable[_Fare], lists: Mapping[str, PeaceListRecord]
) -> list[Document]:
    generation = acceptance.in_force.listed.generation if acceptance.in_force else 0
    found = (_trouble(fare, lists.get(fare.node), generation) for fare in fares)
    worst = heapq.nsmallest(
        MAX_WORST_NODES, (each for each in found if each is not None), key=_WorstNode.order
    )
    return [
        {
            "name": each.node,
            "reason": each.trouble.value,
            "message": cut(each.message, MAX_NODE_MESSAGE),
            "vms": each.vms,
        }
        for each in worst
    ]


def _trouble(fare: _Fare, found: PeaceListRecord | None, generation: int) -> _WorstNode | None:
    """Return the worst of what is wrong with the policy on a node, None if nothing is."""
    row = fare.row
    match fare.progress:
        case Progress.SUSPENDED:
            return None
        case Progress.SILENT:
            message = found.ready.message if found and found.ready else ""
            return _WorstNode(fare.node, Trouble.AGENT_SILENT, message, fare.count.vms)
        case Progress.REFUSED:
            message = f"{row.reason}: {row.message or 'the agent does not say more'}"
            return _WorstNode(fare.node, Trouble.NOT_IN_FORCE, message, fare.count.vms)
        case Progress.PENDING:
            has = "none" if row.generation is None else f"generation {row.generation}"
            message = f"the agent has not taken generation {generation} over yet; {has} is in force"
            return _WorstNode(fare.node, Trouble.NOT_IN_FORCE, message, fare.count.vms)
        case Progress.IN_FORCE:
            return _vm_trouble(fare)


def _vm_trouble(fare: _Fare) -> _WorstNode | None:
    row = fare.row
    if row.missing_signals:
        message = f"missing: {', '.join(row.missing_signals)}"
        return _WorstNode(fare.node, Trouble.MISSING_SIGNALS, message, fare.count.vms)
    for trouble, vms, message in (
        (Trouble.FAILED, row.failed, "values of VMs cannot be read or written"),
        (Trouble.CONTESTED, row.contested, "somebody else keeps writing VMs' values"),
        (Trouble.FLOORED, row.floored, "VMs' wanted weights are below the kernel's minimum"),
    ):
        if vms:
            return _WorstNode(fare.node, trouble, message, vms)
    return None
