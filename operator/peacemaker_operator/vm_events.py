"""What the owners of VMs are told: they cannot see cluster-scoped objects, but Events on their VM.

An Event tells of a VM's first adjustment, of Contested, and of its restoring; not of each step.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from peacemaker_operator.observed import PeaceListRecord, VmRow

MANAGED: Final = "Managed"
CONTESTED: Final = "Contested"
# While frozen or failed a VM keeps the values that it has.
_KEEPS_VALUES: Final = frozenset({MANAGED, "Deferred", "Failed"})


class VmReason(StrEnum):
    """What happened to a VM."""

    ADJUSTED = "Adjusted"
    CONTESTED = "Contested"
    RESTORED = "Restored"


@dataclass(frozen=True, slots=True)
class VmEvent:
    """What the owner of one VirtualMachineInstance is told."""

    namespace: str
    name: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: VmReason
    message: str


def vm_events(before: PeaceListRecord | None, after: PeaceListRecord | None) -> list[VmEvent]:
    """Return what the change of a PeaceList means for the owners of its VMs, in order of uid.

    Without a `before`, at a start, nothing is known to be new. Without an `after` there is nobody
    to say that anything was restored.
    """
    if before is None or after is None:
        return []
    return [
        VmEvent(vm.namespace, vm.name, uid, *told)
        for uid, vm in sorted(after.vms.items())
        if (told := _what_happened(before.vms.get(uid), vm, after)) is not None
    ]


def _what_happened(
    old: VmRow | None, vm: VmRow, after: PeaceListRecord
) -> tuple[Literal["Normal", "Warning"], VmReason, str] | None:
    why = f": {vm.message}" if vm.message else ""
    if vm.state == CONTESTED:
        if old is not None and old.state == CONTESTED:
            return None
        message = f"peacemaker leaves its CPU share alone on node {after.name}{why}"
        return "Warning", VmReason.CONTESTED, message
    if vm.state == MANAGED and vm.nice and vm.moved:
        if old is not None and (old.moved or old.nice):
            return None
        gains = "more" if vm.nice < 0 else "less"
        message = f"nice {vm.nice} on node {after.name}, for {gains} CPU when it is scarce{why}"
        return "Normal", VmReason.ADJUSTED, message
    if old is not None and _is_restored(old, vm, after):
        return "Normal", VmReason.RESTORED, f"its own CPU share again on node {after.name}{why}"
    return None


def _is_restored(old: VmRow, vm: VmRow, after: PeaceListRecord) -> bool:
    """Whether its nice went back because nothing governs it any more, or the node is suspended."""
    was_adjusted = bool(old.nice) and old.state in _KEEPS_VALUES
    is_left_alone = vm.state not in _KEEPS_VALUES or after.suspended is not None
    return was_adjusted and is_left_alone and vm.nice != old.nice
