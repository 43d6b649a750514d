"""What the node's PeaceList says, and what follows from it for each VM.

Pure. A QEMU is joined with its VM by the uid of the pod that it is in, and by nothing else: the
cgroup tree tells it, and no tenant can choose it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from peacemaker.fields import PolicyError
from peacemaker.govern import Standing, rank
from peacemaker.parse import policy_from_document
from peacemaker.peacelist import (
    ListedPolicy,
    ListedVm,
    MalformedPeaceList,
    PeaceListSpec,
    VmState,
    from_document,
)
from peacemaker.policy import Mode, PeacePolicy
from peacemaker_nodeagent.peace_list import Hold, State

MIGRATING: Final = "Migrating"
"""Why a VM is deferred that is moving to another node: it must not be slow at it."""

NOT_LISTED: Final = Hold(
    State.UNMANAGED, "NotInPeaceList: its pod is not in the PeaceList of this node"
)
NOT_ANSWERED: Final = "NoPeaceListYet: the API server has not answered, and none is remembered"


@dataclass(frozen=True, slots=True)
class Listing:
    """One version of the node's PeaceList; `spec` is None where it cannot be understood.

    `version` is its resourceVersion, which a change of `status` alone raises too.
    """

    uid: str
    generation: int
    spec: PeaceListSpec | None
    problem: str = ""
    version: str = ""
    status: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def same_orders(self, other: "Listing | None") -> bool:
        """Whether the spec has not changed: its generation counts the changes."""
        return other is not None and (self.uid, self.generation) == (other.uid, other.generation)


def read_listing(document: Mapping[str, Any], before: Listing | None = None) -> Listing:
    """The PeaceList of an API document, malformed or not; a spec known from `before` is kept."""
    metadata = document.get("metadata") or {}
    generation = metadata.get("generation")
    status = document.get("status")
    read = Listing(
        uid=str(metadata.get("uid")),
        generation=generation if isinstance(generation, int) else 0,
        spec=None,
        version=str(metadata.get("resourceVersion")),
        status=status if isinstance(status, dict) else {},
    )
    if before is not None and read.same_orders(before):
        return _with_spec(read, before.spec, before.problem)
    try:
        return _with_spec(read, from_document(document.get("spec") or {}))
    except MalformedPeaceList as error:
        return _with_spec(read, None, str(error))


def _with_spec(read: Listing, spec: PeaceListSpec | None, problem: str = "") -> Listing:
    return Listing(read.uid, read.generation, spec, problem, read.version, read.status)


@dataclass(frozen=True, slots=True)
class Understood:
    """A listed policy: parsed, or why this version of the agent cannot have it in force."""

    listed: ListedPolicy
    policy: PeacePolicy | None
    problem: str = ""


def understand(
    policies: tuple[ListedPolicy, ...], before: Mapping[str, Understood]
) -> dict[str, Understood]:
    """The listed policies by name. One that says what it said before is not parsed anew."""
    understood = {}
    for listed in policies:
        known = before.get(listed.name)
        if known is not None and known.listed.spec == listed.spec:
            understood[listed.name] = Understood(listed, known.policy, known.problem)
            continue
        try:
            understood[listed.name] = Understood(
                listed, policy_from_document(listed.name, listed.spec)
            )
        except PolicyError as error:
            understood[listed.name] = Understood(listed, None, str(error))
    return understood


def in_force(understood: Mapping[str, Understood]) -> tuple[PeacePolicy, ...]:
    """The policies that are understood, in the order in which they claim VMs."""
    return rank(each.policy for each in understood.values() if each.policy)


def standing_of(vm: ListedVm, understood: Mapping[str, Understood]) -> tuple[Standing, Hold | None]:
    """Who governs a listed VM, and what keeps the agent's hands off it.

    A frozen VM that no Enforce policy governs has nothing to keep.
    """
    if vm.state is VmState.EXCLUDED:
        return Standing(), Hold(State.EXCLUDED, _why(vm))
    governor = _policy(vm.policy, Mode.ENFORCE, understood)
    observers = (_policy(name, Mode.OBSERVE, understood) for name in vm.observers)
    standing = Standing(governor, tuple(each for each in observers if each))
    if vm.state is VmState.DEFERRED:
        keeps = vm.policy is not None
        drains = keeps and vm.reason == MIGRATING
        return standing, Hold(State.DEFERRED, _why(vm), keeps, drains)
    if vm.policy is not None and governor is None:
        return standing, Hold(State.DEFERRED, _not_in_force(vm.policy, understood), keeps=True)
    return standing, None


def _policy(
    name: str | None, mode: Mode, understood: Mapping[str, Understood]
) -> PeacePolicy | None:
    known = understood.get(name) if name else None
    return known.policy if known and known.policy and known.policy.mode is mode else None


def _not_in_force(name: str, understood: Mapping[str, Understood]) -> str:
    known = understood.get(name)
    if known is not None and known.policy is None:
        return f"NotUnderstood: this agent does not understand policy {name}"
    return f"PolicyNotListed: the PeaceList has no Enforce policy {name}"


def _why(vm: ListedVm) -> str:
    reason = vm.reason or vm.state.value
    return f"{reason}: {vm.message}" if vm.message else reason


def seconds_since_epoch(timestamp: str | None) -> float | None:
    """RFC 3339, as the API writes times; None for what is none."""
    try:
        moment = datetime.fromisoformat(timestamp or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
