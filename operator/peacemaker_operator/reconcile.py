"""What each node's PeaceList has to say: one pure function from all that is known.

It is the same for one node and for all of them; nothing that happened before matters.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from peacemaker.peacelist import ListedVm, PeaceListSpec, Suspension, VmState, to_document
from peacemaker_operator.acceptance import Accepted
from peacemaker_operator.reading import cut
from peacemaker_operator.records import (
    EXCLUDE_LABEL,
    NamespaceRecord,
    NodeRecord,
    PriorityClassRecord,
    VmiRecord,
)
from peacemaker_operator.settings import Settings
from peacemaker_operator.standings import NamedStanding, Standings
from peacemaker_operator.vm_state import place

MAX_VMS: Final = 500
MAX_POLICIES: Final = 64
MAX_OBSERVERS: Final = 8
MAX_MESSAGE: Final = 256
MAX_LABELS: Final = 32
MAX_LABEL_BYTES: Final = 1024
MAX_SPEC_BYTES: Final = 1024 * 1024
"""etcd takes 1.5 MiB; the status of 500 VMs and the object's own fields need room as well."""

# As the API server has them in metadata. What is not so cannot be written into a PeaceList for
# certain, since the schema may refuse it and the server may change it.
_is_label_key: Final = re.compile(
    r"(?:[a-z0-9][-.a-z0-9]{0,252}/)?[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
).fullmatch
_is_label_value: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?"
).fullmatch


@dataclass(frozen=True, slots=True)
class World:
    """All that is known. Everything is by name, `vmis` by the node in whose PeaceList they stand.

    `policies` are those in force, by any order; the mappings may be live and are only read.
    """

    vmis: Mapping[str, Iterable[VmiRecord]] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    namespaces: Mapping[str, NamespaceRecord] = field(default_factory=dict)
    priority_classes: Mapping[str, PriorityClassRecord] = field(default_factory=dict)
    policies: tuple[Accepted, ...] = ()
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class PolicyCount:
    """One policy on one node: the VMs that it governs there (of an Observe policy: would govern).

    `outranked_by` counts the VMs that it selects in vain, by the policy that governs them. A VM
    that is on two nodes, in a migration, counts on the one where its guest runs.
    """

    vms: int = 0
    outranked_by: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The PeaceList of one node, the counts of its policies, and what administrators should know.

    `policies` has an entry for each policy that selects the node.
    """

    spec: PeaceListSpec
    policies: Mapping[str, PolicyCount]
    remarks: tuple[str, ...] = ()


def listed_nodes(world: World) -> set[str]:
    """Return the nodes that have a PeaceList: those KubeVirt knows, and those that have VMs."""
    return {name for name in world.nodes if _is_listed(world, name)}


def reconcile(world: World, nodes: Iterable[str]) -> dict[str, NodeResult]:
    """Return what the PeaceLists of these nodes have to say; a node that has none is left out."""
    shared = _Shared(
        world,
        {accepted.listed.name: accepted for accepted in world.policies},
        Standings(accepted.policy for accepted in world.policies),
        _default_priority(world.priority_classes.values()),
    )
    return {name: _node(shared, world.nodes[name]) for name in nodes if _is_listed(world, name)}


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all nodes have in common."""

    world: World
    policies: Mapping[str, Accepted]
    standings: Standings
    default_priority: int


def _is_listed(world: World, name: str) -> bool:
    node = world.nodes.get(name)
    return node is not None and (node.schedulable or any(map(_has_names, world.vmis.get(name, ()))))


def _has_names(vmi: VmiRecord) -> bool:
    """Whether the VM can be listed at all."""
    return bool(vmi.uid and vmi.namespace and vmi.name)


def _default_priority(classes: Iterable[PriorityClassRecord]) -> int:
    """Return the priority of VMs without a class: of several defaults the least, as Kubernetes."""
    return min((found.value for found in classes if found.global_default), default=0)


def _node(shared: _Shared, node: NodeRecord) -> NodeResult:
    remarks = []
    on_node = shared.standings.on_node(node.labels)
    if (found := on_node.bit_count()) > MAX_POLICIES:
        remarks.append(
            f"{found} policies select the node, allowed {MAX_POLICIES}: "
            "those of lowest priority are not in force on it"
        )
        on_node = shared.standings.first(on_node, MAX_POLICIES)
    vmis = sorted(
        filter(_has_names, shared.world.vmis.get(node.name, ())),
        key=lambda vmi: (vmi.uid, vmi.namespace, vmi.name),
    )
    if len(vmis) > MAX_VMS:
        remarks.append(
            f"{len(vmis)} VMs are on the node, allowed {MAX_VMS}: "
            "those last in order of uid are left alone"
        )
    names = sorted(shared.standings.names(on_node))
    tally = _Tally(names)
    vms = []
    for vmi in vmis[:MAX_VMS]:
        vm, standing = _vm(shared, vmi, node.name, on_node)
        vms.append(vm)
        if vmi.home == node.name:
            tally.add(standing)
    policies = [shared.policies[name] for name in names]
    spec = PeaceListSpec(
        policies=tuple(accepted.listed for accepted in policies),
        vms=tuple(vms),
        max_claim_percent=shared.world.settings.max_claim_percent,
        suspended=_suspension(shared.world.settings, node),
    )
    spec = _within_size(spec, sum(accepted.size for accepted in policies), remarks)
    return NodeResult(spec, tally.counts(), tuple(remarks))


class _Tally:
    """Counts the VMs of a node for its policies."""

    def __init__(self, policies: Iterable[str]) -> None:
        self._vms = dict.fromkeys(policies, 0)
        self._outranked: dict[str, Counter[str]] = {}

    def add(self, standing: NamedStanding) -> None:
        for name in standing.observers:
            self._vms[name] += 1
        if standing.governor is not None:
            self._vms[standing.governor] += 1
            for name in standing.outranked:
                self._outranked.setdefault(name, Counter())[standing.governor] += 1

    def counts(self) -> dict[str, PolicyCount]:
        return {
            name: PolicyCount(vms, self._outranked.get(name, {})) for name, vms in self._vms.items()
        }


def _vm(shared: _Shared, vmi: VmiRecord, node: str, on_node: int) -> tuple[ListedVm, NamedStanding]:
    namespace = shared.world.namespaces.get(vmi.namespace)
    found = place(vmi, node, namespace)
    standing = _NO_STANDING
    if found.state is not VmState.EXCLUDED:
        labels = namespace.labels if namespace else {}
        standing = shared.standings.of(on_node, vmi.namespace, labels, vmi.labels)
    omitted = _why_omitted(vmi.labels)
    vm = ListedVm(
        uid=vmi.uid,
        namespace=vmi.namespace,
        name=vmi.name,
        state=found.state,
        pod_uid=found.pod_uid,
        labels={} if omitted else vmi.labels,
        labels_omitted=omitted,
        priority_class_value=_priority(shared, vmi),
        vcpus=vmi.vcpus,
        creation_timestamp=vmi.created,
        policy=standing.governor,
        observers=standing.observers[:MAX_OBSERVERS],
        reason=found.reason,
        message=found.message and cut(found.message, MAX_MESSAGE),
    )
    return vm, standing


_NO_STANDING: Final = NamedStanding()


def _priority(shared: _Shared, vmi: VmiRecord) -> int:
    if vmi.priority_class is None:
        return shared.default_priority
    found = shared.world.priority_classes.get(vmi.priority_class)
    return found.value if found else 0


def _why_omitted(labels: Mapping[str, str]) -> str | None:
    """Tell why the labels of a VM cannot be listed, None if they can."""
    if len(labels) > MAX_LABELS:
        return f"{len(labels)} labels, allowed {MAX_LABELS}"
    for key, value in labels.items():
        if not (_is_label_key(key) and _is_label_value(value)):
            return cut(f"not a label: {key!a}: {value!a}", MAX_MESSAGE)
    size = sum(len(key) + len(value) for key, value in labels.items())
    if size > MAX_LABEL_BYTES:
        return f"{size} bytes of labels, allowed {MAX_LABEL_BYTES}"
    return None


def _suspension(settings: Settings, node: NodeRecord) -> Suspension | None:
    if settings.suspended:
        return Suspension("SystemSuspended", "until `peacemaker-operator resume`")
    if node.excluded:
        return Suspension("NodeExcluded", f"the node has the label {EXCLUDE_LABEL}: true")
    return None


def _within_size(spec: PeaceListSpec, policies_size: int, remarks: list[str]) -> PeaceListSpec:
    """Return the spec, without labels if it were too large with them."""
    if (size := policies_size + _vms_size(spec)) <= MAX_SPEC_BYTES:
        return spec
    why = f"the PeaceList would have {size} bytes, allowed {MAX_SPEC_BYTES}"
    spec = replace(
        spec,
        vms=tuple(
            replace(vm, labels={}, labels_omitted=why) if vm.labels else vm for vm in spec.vms
        ),
    )
    remarks.append(f"{why}: policies see no labels of its VMs")
    if (size := policies_size + _vms_size(spec)) > MAX_SPEC_BYTES:
        remarks.append(f"the PeaceList has {size} bytes even so: the API server may refuse it")
    return spec


def _vms_size(spec: PeaceListSpec) -> int:
    vms = to_document(PeaceListSpec(vms=spec.vms))["vms"]
    return len(json.dumps(vms, separators=(",", ":")))
