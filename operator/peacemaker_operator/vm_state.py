"""What is to be done with a VM on one node, and why: Managed, Deferred or Excluded."""

from dataclasses import dataclass
from enum import StrEnum

from peacemaker.hint import shortened
from peacemaker.peacelist import VmState
from peacemaker_operator.records import EXCLUDE_LABEL, Exclusion, NamespaceRecord, VmiRecord


class Reason(StrEnum):
    """Why a VM is excluded or deferred; of those that hold the first, in this order."""

    NAMESPACE_EXCLUDED = "NamespaceExcluded"
    DEDICATED_CPU = Exclusion.DEDICATED_CPU.value
    ISOLATED_EMULATOR_THREAD = Exclusion.ISOLATED_EMULATOR_THREAD.value
    REALTIME = Exclusion.REALTIME.value
    GUARANTEED_QOS = Exclusion.GUARANTEED_QOS.value
    DELETING = "Deleting"
    MIGRATED_AWAY = "MigratedAway"
    MIGRATION_TARGET = "MigrationTarget"
    MIGRATING = "Migrating"
    PAUSED = "Paused"
    NOT_RUNNING = "NotRunning"
    NO_POD = "NoPod"
    AMBIGUOUS_POD = "AmbiguousPod"


@dataclass(frozen=True, slots=True)
class Place:
    """A VM on a node. `reason` and `message` are None while it is managed."""

    state: VmState
    pod_uid: str | None
    """Its active pod here, None if there is none, or more than one."""
    reason: Reason | None = None
    message: str | None = None


_EXCLUSIONS = {
    Exclusion.DEDICATED_CPU: "spec.domain.cpu.dedicatedCpuPlacement: its CPUs are its own",
    Exclusion.ISOLATED_EMULATOR_THREAD: (
        "spec.domain.cpu.isolateEmulatorThread: its emulator has a CPU of its own"
    ),
    Exclusion.REALTIME: "spec.domain.cpu.realtime: its vCPUs are real-time threads",
    Exclusion.GUARANTEED_QOS: "status.qosClass is Guaranteed",
}


def place(vmi: VmiRecord, node: str, namespace: NamespaceRecord | None) -> Place:
    """Tell what is to be done with the VM on this node, one of `vmi.nodes`."""
    pods = [pod for pod, pod_node in vmi.active_pods if pod_node == node]
    pod_uid = pods[0] if len(pods) == 1 else None
    if namespace is not None and namespace.excluded:
        message = f"the namespace {namespace.name} has the label {EXCLUDE_LABEL}: true"
        return Place(VmState.EXCLUDED, pod_uid, Reason.NAMESPACE_EXCLUDED, message)
    if vmi.exclusion is not None:
        message = _EXCLUSIONS[vmi.exclusion]
        return Place(VmState.EXCLUDED, pod_uid, Reason(vmi.exclusion.value), message)
    deferred = _why_deferred(vmi, node, pods)
    if deferred is not None:
        return Place(VmState.DEFERRED, pod_uid, *deferred)
    return Place(VmState.MANAGED, pod_uid)


def _why_deferred(vmi: VmiRecord, node: str, pods: list[str]) -> tuple[Reason, str] | None:
    if vmi.deleting:
        return Reason.DELETING, "the VirtualMachineInstance is being deleted"
    if (moving := _why_moving(vmi, node)) is not None:
        return moving
    if vmi.paused:
        return Reason.PAUSED, "the guest is paused"
    if vmi.phase != "Running":
        phase = shortened(vmi.phase) or "absent"
        return Reason.NOT_RUNNING, f"status.phase is {phase}, not Running"
    return _why_podless(node, pods)


def _why_podless(node: str, pods: list[str]) -> tuple[Reason, str] | None:
    if not pods:
        return Reason.NO_POD, f"status.activePods has no pod on {node}"
    if len(pods) > 1:
        return Reason.AMBIGUOUS_POD, f"status.activePods has {len(pods)} pods on {node}"
    return None


def _why_moving(vmi: VmiRecord, node: str) -> tuple[Reason, str] | None:
    """Tell the node's part in a live migration.

    Until the flip of status.nodeName the guest runs at the source, then at the target, where the
    migration is not over yet.
    """
    if vmi.node_name not in (None, node):
        if vmi.migration_source == node and vmi.migration_target == vmi.node_name:
            return Reason.MIGRATED_AWAY, f"the guest runs on {vmi.node_name} now"
        return Reason.MIGRATION_TARGET, f"the guest runs on {vmi.node_name}"
    if not vmi.migrating:
        return None
    if vmi.migration_target == node:
        return Reason.MIGRATION_TARGET, f"the migration from {vmi.migration_source} is not over"
    target = vmi.migration_target or "another node"
    return Reason.MIGRATING, f"the guest is migrating to {target}"
