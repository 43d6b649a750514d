"""What the operator keeps of each object: small frozen records, made from API documents.

A record has what decisions need and nothing that churns, so that equal records mean that there is
nothing to do. A function that makes one never raises: what is malformed reads as absent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from peacemaker_operator.reading import (
    INT32_MAX,
    INT64_MAX,
    Document,
    labels,
    number,
    section,
    sections,
    text,
    unique,
)

EXCLUDE_LABEL = "peacemaker.dev/exclude"
SCHEDULABLE_LABEL = "kubevirt.io/schedulable"
MIGRATION_TARGET_LABEL = "kubevirt.io/migrationTargetNodeName"

_IS_CREATION_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII).fullmatch


class Exclusion(StrEnum):
    """What in a VirtualMachineInstance forbids touching it, the first that holds."""

    DEDICATED_CPU = "DedicatedCPU"
    ISOLATED_EMULATOR_THREAD = "IsolatedEmulatorThread"
    REALTIME = "Realtime"
    GUARANTEED_QOS = "GuaranteedQoS"


@dataclass(frozen=True, slots=True)
class VmiRecord:
    """One VirtualMachineInstance. `uid` is empty if it has none that a PeaceList could name."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    created: str | None
    """RFC 3339, in UTC and whole seconds, as the API server writes it."""
    priority_class: str | None
    vcpus: int
    node_name: str | None
    """Where its guest runs; during a live migration the source until the flip, then the target."""
    active_pods: tuple[tuple[str, str], ...]
    """(pod uid, node) of its virt-launcher pods, in order; without those that have no node yet."""
    phase: str
    paused: bool
    deleting: bool
    migrating: bool
    """A live migration is under way, or about to begin."""
    migration_source: str | None
    """The node that it left, or is leaving, in the last live migration; the next one: where to."""
    migration_target: str | None
    exclusion: Exclusion | None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes in whose PeaceLists it stands, in order."""
        found = {node for _, node in self.active_pods}
        if self.node_name is not None:
            found.add(self.node_name)
        return tuple(sorted(found))

    @property
    def home(self) -> str | None:
        """The one of its nodes on which it is counted, since a migration has it on two."""
        return self.node_name or (self.active_pods[0][1] if self.active_pods else None)


def vmi_record(document: Document) -> VmiRecord:
    """Return what matters of a VirtualMachineInstance."""
    metadata = section(document, "metadata")
    status = section(document, "status")
    found_labels = labels(document)
    migration = section(status, "migrationState")
    target = text(found_labels.get(MIGRATION_TARGET_LABEL)) or text(migration.get("targetNode"))
    return VmiRecord(
        uid=unique(metadata.get("uid")) or "",
        namespace=text(metadata.get("namespace"), 63) or "",
        name=text(metadata.get("name")) or "",
        labels=found_labels,
        created=_creation_time(metadata.get("creationTimestamp")),
        priority_class=text(section(document, "spec").get("priorityClassName")),
        vcpus=_vcpus(section(status, "currentCPUTopology"))
        or _vcpus(section(document, "spec", "domain", "cpu"))
        or 1,
        node_name=text(status.get("nodeName")),
        active_pods=_active_pods(section(status, "activePods")),
        phase=text(status.get("phase"), 64) or "",
        paused=_condition_holds(document, "Paused"),
        deleting=metadata.get("deletionTimestamp") is not None,
        migrating=_is_migrating(migration, target),
        migration_source=text(migration.get("sourceNode")),
        migration_target=target,
        exclusion=_exclusion(document),
    )


def _creation_time(value: object) -> str | None:
    if not isinstance(value, str) or not _IS_CREATION_TIME(value):
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:  # the 30th of February
        return None
    return value


def _vcpus(topology: Mapping[str, object]) -> int | None:
    """Return sockets × cores × threads; one that is absent is 1, None if all are."""
    factors = [number(topology.get(name), 1, INT32_MAX) for name in ("sockets", "cores", "threads")]
    if factors == [None, None, None]:
        return None
    sockets, cores, threads = (factor or 1 for factor in factors)
    return number(sockets * cores * threads, 1, INT32_MAX)


def _active_pods(pods: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    found = ((unique(pod), text(node)) for pod, node in pods.items())
    return tuple(sorted((pod, node) for pod, node in found if pod and node))


def _is_migrating(migration: Mapping[str, object], target: str | None) -> bool:
    """Tell whether a migration has begun and not ended.

    The label that names the target comes with migrationState; if the target's virt-handler dies it
    stays on after the migration has failed, and then says nothing.
    """
    if migration.get("completed") is True or migration.get("failed") is True:
        return target != text(migration.get("targetNode"))
    return bool(migration) or target is not None


def _condition_holds(document: object, kind: str) -> bool:
    return any(
        condition.get("type") == kind and condition.get("status") == "True"
        for condition in sections(section(document, "status").get("conditions"))
    )


def _exclusion(document: Document) -> Exclusion | None:
    cpu = section(document, "spec", "domain", "cpu")
    if cpu.get("dedicatedCpuPlacement") is True:
        return Exclusion.DEDICATED_CPU
    if cpu.get("isolateEmulatorThread") is True:
        return Exclusion.ISOLATED_EMULATOR_THREAD
    if isinstance(cpu.get("realtime"), Mapping):
        return Exclusion.REALTIME
    if section(document, "status").get("qosClass") == "Guaranteed":
        return Exclusion.GUARANTEED_QOS
    return None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One Node."""

    name: str
    uid: str
    labels: Mapping[str, str]

    @property
    def excluded(self) -> bool:
        return self.labels.get(EXCLUDE_LABEL) == "true"

    @property
    def schedulable(self) -> bool:
        """Whether KubeVirt knows the node: it has the label, whatever its value."""
        return SCHEDULABLE_LABEL in self.labels


def node_record(document: Document) -> NodeRecord:
    """Return what matters of a Node. Its heartbeats and capacities do not."""
    metadata = section(document, "metadata")
    return NodeRecord(
        name=text(metadata.get("name")) or "",
        uid=unique(metadata.get("uid")) or "",
        labels=labels(document),
    )


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """One Namespace."""

    name: str
    labels: Mapping[str, str]

    @property
    def excluded(self) -> bool:
        return self.labels.get(EXCLUDE_LABEL) == "true"


def namespace_record(document: Document) -> NamespaceRecord:
    """Return what matters of a Namespace."""
    return NamespaceRecord(
        name=text(section(document, "metadata").get("name"), 63) or "", labels=labels(document)
    )


@dataclass(frozen=True, slots=True)
class PriorityClassRecord:
    """One PriorityClass. `global_default`: of VMs that name no class."""

    name: str
    value: int
    global_default: bool


def priority_class_record(document: Document) -> PriorityClassRecord:
    """Return what matters of a PriorityClass."""
    return PriorityClassRecord(
        name=text(section(document, "metadata").get("name")) or "",
        value=number(document.get("value"), -INT32_MAX - 1, INT32_MAX) or 0,
        global_default=document.get("globalDefault") is True,
    )


@dataclass(frozen=True, slots=True)
class AgentPodRecord:
    """One agent pod. `node` is empty until it is scheduled; `image` is that of its first container.

    A pod that is being deleted is not ready, whatever it says.
    """

    name: str
    node: str
    ready: bool
    image: str | None


def agent_pod_record(document: Document) -> AgentPodRecord:
    """Return what matters of an agent pod."""
    metadata = section(document, "metadata")
    containers = sections(section(document, "spec").get("containers"))
    return AgentPodRecord(
        name=text(metadata.get("name")) or "",
        node=text(section(document, "spec").get("nodeName")) or "",
        ready=_condition_holds(document, "Ready") and metadata.get("deletionTimestamp") is None,
        image=text(containers[0].get("image"), 4096) if containers else None,
    )


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """One PeacePolicy: what is written, and what was last said of it."""

    name: str
    uid: str
    generation: int
    spec: Document
    accepted_generation: int | None
    accepted_spec: Document | None
    """status.accepted: the last spec that was accepted, both or neither."""
    status: Document
    """The whole status, to tell what differs."""


def policy_record(document: Document) -> PolicyRecord:
    """Return what matters of a PeacePolicy."""
    metadata = section(document, "metadata")
    accepted = section(document, "status", "accepted")
    generation = number(accepted.get("generation"), 1, INT64_MAX)
    spec = accepted.get("spec")
    known = generation is not None and isinstance(spec, dict)
    return PolicyRecord(
        name=text(metadata.get("name")) or "",
        uid=unique(metadata.get("uid")) or "",
        generation=number(metadata.get("generation"), 1, INT64_MAX) or 1,
        spec=dict(section(document, "spec")),
        accepted_generation=generation if known else None,
        accepted_spec=spec if known and isinstance(spec, dict) else None,
        status=dict(section(document, "status")),
    )
