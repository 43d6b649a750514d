"""The status of the node's PeaceList: what the agent makes of its spec, as the API has it.

Pure, and made only when it is due. Limits are those of the CRD: a text that is longer is cut.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from peacemaker.peacelist import ListedVm, PeaceListSpec, Suspension, VmState
from peacemaker.policy import Mode
from peacemaker_nodeagent.adopt import ADOPTED
from peacemaker_nodeagent.listing import Understood
from peacemaker_nodeagent.passes import PolicyRun
from peacemaker_nodeagent.peace_list import PeaceList, State, Vm

Document = dict[str, Any]

MAX_VM_MESSAGE: Final = 256
MAX_POLICY_MESSAGE: Final = 1024
MAX_CONDITION_MESSAGE: Final = 4096
MAX_MISSING, MAX_MISSING_TEXT = 32, 256
MAX_WOULD_BE: Final = 10
_NAMED: Final = 5
"""VMs that a message names; the others are counted."""

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_SUMMED: Final = {
    State.MANAGED: "managed",
    State.DEFERRED: "deferred",
    State.EXCLUDED: "excluded",
    State.CONTESTED: "contested",
    State.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Ready:
    """The one condition: whether the agent does all that spec says."""

    status: str
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What the agent has at work: its orders, understood or not, its VMs and its policies' runs.

    `spec` is None where the PeaceList is not understood, for `problem`. `pods` are those that exist
    on the node. `booted_at` turns seconds since boot into seconds since the epoch.
    """

    generation: int
    spec: PeaceListSpec | None
    problem: str
    understood: Mapping[str, Understood]
    suspended: Suspension | None
    vms: PeaceList
    runs: Mapping[str, PolicyRun]
    pods: Container[str]
    booted_at: float


def ready(work: Work) -> Ready:
    """Suspended means that everything is restored; until then it says what is not."""
    if work.spec is None:
        return Ready("False", "NotUnderstood", cut(work.problem, MAX_CONDITION_MESSAGE))
    if work.suspended:
        if touched := [vm for vm in work.vms if vm.is_touched]:
            names = _names(f"{vm.full_name} ({vm.write_failure or 'at work'})" for vm in touched)
            return Ready("False", "RestoreFailed", cut(names, MAX_CONDITION_MESSAGE))
        why = _sentence(work.suspended.reason, work.suspended.message)
        if work.spec.suspended:
            return Ready("True", "Suspended", f"everything is restored: {why}")
        return Ready("False", work.suspended.reason, f"everything is restored: {why}")
    foreign = [f"policy {each.listed.name}: {each.problem}"
               for each in work.understood.values() if each.problem]  # fmt: skip
    if foreign:
        return Ready("False", "NotUnderstood", cut("; ".join(foreign), MAX_CONDITION_MESSAGE))
    return Ready("True", "InForce")


def status_of(work: Work, before: Mapping[str, Any], now: float) -> Document:
    """The whole status but for the load. `before` is what it was; `now` is since the epoch.

    Of a PeaceList that is not understood only the condition is told.
    """
    status: Document = {
        "observedGeneration": work.generation,
        "conditions": [_condition(ready(work), work.generation, before, now)],
    }
    if work.spec is not None:
        told = {vm.get("uid"): vm for vm in before.get("vms") or () if isinstance(vm, dict)}
        found = [work.vms.get(vm.pod_uid) if vm.pod_uid else None for vm in work.spec.vms]
        status["vms"] = [
            _vm(listed, vm, work, told.get(listed.uid, {}))
            for listed, vm in zip(work.spec.vms, found, strict=True)
        ]
        status["summary"] = _summary(status["vms"], [vm for vm in found if vm and vm.governor])
        status["policies"] = _policies(work)
    return status


def load_of(load: Iterable[float]) -> Document:
    """Load averages for each CPU, of 1, 5 and 15 minutes."""
    return {
        name: f"{each:.2f}" for name, each in zip(("load1", "load5", "load15"), load, strict=True)
    }


def shown_ready(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Ready condition of a status that anybody may have written; empty if it has none."""
    conditions = status.get("conditions")
    for each in conditions if isinstance(conditions, list) else ():
        if isinstance(each, dict) and each.get("type") == "Ready":
            return each
    return {}


def in_force(work: Work) -> frozenset[tuple[str, int | None]]:
    """Each policy with its generation; None of one that is not understood."""
    return frozenset(
        (name, each.listed.generation if each.policy else None)
        for name, each in work.understood.items()
    )


def shown_in_force(status: Mapping[str, Any]) -> frozenset[tuple[str, int | None]]:
    """The same, as a status says."""
    return frozenset(
        (each["name"], each.get("generation")) for each in status.get("policies") or ()
    )


def cut(text: str, most: int) -> str:
    """The text, its end left out where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _condition(told: Ready, generation: int, before: Mapping[str, Any], now: float) -> Document:
    was = shown_ready(before)
    since = was.get("lastTransitionTime") if was.get("status") == told.status else None
    return {
        "type": "Ready",
        "status": told.status,
        "observedGeneration": generation,
        "lastTransitionTime": since or _rfc3339(int(now)),
        "reason": told.reason,
        "message": told.message,
    }


# --- VMs ---


def _vm(listed: ListedVm, vm: Vm | None, work: Work, told: Mapping[str, Any]) -> Document:
    entry: Document = {"uid": listed.uid, "namespace": listed.namespace, "name": listed.name}
    if vm is None:
        return entry | _not_found(listed, work.pods)
    entry["state"] = vm.state.value
    entry["nice"] = vm.nice
    entry["effectiveNice"] = vm.effective_nice
    if vm.own and vm.weight_found:
        entry["weight"] = vm.weight_found
        entry["baseline"] = vm.baseline_weight
    reason, message = _reason(vm)
    since = vm.changed_at and _rfc3339(round(work.booted_at + vm.changed_at))
    if vm.reason == ADOPTED and told.get("nice") == vm.nice:
        # Its nice is older than this agent: what was told of it then is still true.
        since = told.get("since") or since
        message = str(told.get("message") or message) if message == ADOPTED else message
    if vm.governor and vm.share and vm.share.floored:
        entry["wanted"] = int(vm.share.wanted)
        reason = "Floored"
    if since:
        entry["since"] = since
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = cut(message, MAX_VM_MESSAGE)
    return entry


def _not_found(listed: ListedVm, pods: Container[str]) -> Document:
    if listed.state is not VmState.MANAGED:
        told = {"state": listed.state.value, "reason": listed.reason or listed.state.value}
        return {**told, **({"message": listed.message} if listed.message else {})}
    where = "in its pod" if listed.pod_uid in pods else "here, and its pod has no cgroup"
    return {"state": "Deferred", "reason": "NotFound", "message": f"no QEMU {where} yet"}


def _reason(vm: Vm) -> tuple[str, str]:
    """Why it is as it is: a word (none if it is managed) and a sentence."""
    if vm.obstacle:
        return _split(vm.obstacle.reason)
    if vm.write_failure:
        return _split(vm.write_failure)
    if vm.suspended:
        return vm.suspended.reason, vm.suspended.message
    if vm.hold:
        return _split(vm.hold.reason)
    if vm.governor is None:
        return "NoPolicy", vm.reason or "no policy governs it"
    return "", vm.reason


def _split(text: str) -> tuple[str, str]:
    word, _, rest = text.partition(": ")
    return (word, rest) if _WORD.fullmatch(word) else ("Other", text)


def _summary(entries: Iterable[Mapping[str, Any]], governed: Iterable[Vm]) -> Document:
    counts = Counter(entry["state"] for entry in entries)
    summary = {name: counts[state.value] for state, name in _SUMMED.items()}
    return summary | _moved(vm for vm in governed if vm.state is State.MANAGED)


def _moved(managed: Iterable[Vm]) -> Document:
    """How many are not at their baseline, and how many would be lower than the kernel allows."""
    vms = list(managed)
    return {
        "adjusted": sum(1 for vm in vms if vm.nice != vm.baseline_nice),
        "floored": sum(1 for vm in vms if vm.share and vm.share.floored),
    }


# --- policies ---


def _policies(work: Work) -> list[Document]:
    governed: dict[str, list[Vm]] = defaultdict(list)
    for vm in work.vms:
        if vm.standing.governor:
            governed[vm.standing.governor.name].append(vm)
    return [_policy(each, work, governed[name]) for name, each in work.understood.items()]


def _policy(known: Understood, work: Work, governed: Iterable[Vm]) -> Document:
    entry: Document = {"name": known.listed.name}
    if known.policy is None:
        entry["reason"] = "NotUnderstood"
        entry["message"] = cut(known.problem, MAX_POLICY_MESSAGE)
        return entry
    entry["generation"] = known.listed.generation
    run = work.runs.get(known.listed.name)
    rules = run.trace.rules if run and run.trace else ()
    entry["activeRules"] = [trace.rule.name for trace in rules if trace.active]
    missing = run.missing[:MAX_MISSING] if run else ()
    entry["missingSignals"] = [cut(name, MAX_MISSING_TEXT) for name in missing]
    if known.policy.mode is Mode.OBSERVE:
        return entry | _would_be(run, work.vms)
    vms = list(governed)
    states = Counter(vm.state for vm in vms)
    entry |= _moved(vm for vm in vms if vm.state is State.MANAGED)
    entry["contested"] = states[State.CONTESTED]
    entry["failed"] = states[State.FAILED]
    return entry


def _would_be(run: PolicyRun | None, vms: PeaceList) -> Document:
    """Where the VMs' nice would be, of those that it would have moved the farthest ones."""
    shadows = run.memory.shadows if run else {}
    moved = [
        (-abs(shadow.nice - vm.baseline_nice), vm.namespace, vm.name, shadow.nice)
        for uid, shadow in shadows.items()
        if (vm := vms.get(uid)) and shadow.nice != vm.baseline_nice
    ]
    return {
        "wouldAdjust": len(moved),
        "wouldBe": [
            {"namespace": namespace, "name": name, "nice": nice}
            for _, namespace, name, nice in sorted(moved)[:MAX_WOULD_BE]
        ],
    }


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _sentence(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


@lru_cache(maxsize=4096)  # most VMs keep the time of their last change from one status to the next
def _rfc3339(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
