"""All that the watches told, in one thread's hands, and which nodes each change concerns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from peacemaker_kube.api import Document
from peacemaker_kube.watch import Change
from peacemaker_operator.acceptance import Acceptance, Acceptor
from peacemaker_operator.newest import Newest
from peacemaker_operator.observed import PeaceListRecord
from peacemaker_operator.reconcile import World
from peacemaker_operator.records import (
    NamespaceRecord,
    NodeRecord,
    PolicyRecord,
    PriorityClassRecord,
    VmiRecord,
    policy_record,
)
from peacemaker_operator.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WatchedPolicy:
    """A policy, and the version of it that a write of its status is conditional on."""

    record: PolicyRecord
    resource_version: str


def watched_policy(document: Document) -> WatchedPolicy:
    """Return the record of a PeacePolicy, with its version."""
    version = document["metadata"].get("resourceVersion")
    return WatchedPolicy(policy_record(document), str(version or ""))


class Inventory:
    """What is known of the cluster. The methods that take a change return the nodes it concerns."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.nodes: dict[str, NodeRecord] = {}
        self.namespaces: dict[str, NamespaceRecord] = {}
        self.priority_classes: dict[str, PriorityClassRecord] = {}
        self.acceptances: dict[str, Acceptance] = {}
        self._lists: dict[str, PeaceListRecord] = {}
        self._policies: dict[str, WatchedPolicy] = {}
        self.lists = Newest(self._lists)
        self.policies = Newest(self._policies)
        self._vmis: dict[str, dict[str, VmiRecord]] = {}
        self._views: dict[str, Iterable[VmiRecord]] = {}
        self._acceptor = Acceptor()

    def world(self) -> World:
        """A view of it all for `reconcile`; what is in it changes with the next change."""
        return World(
            vmis=self._views,
            nodes=self.nodes,
            namespaces=self.namespaces,
            priority_classes=self.priority_classes,
            policies=tuple(
                acceptance.in_force
                for acceptance in self.acceptances.values()
                if acceptance.in_force is not None
            ),
            settings=self.settings,
        )

    def all_nodes(self) -> Iterable[str]:
        """The nodes that may have a PeaceList, and those that have one."""
        return self.nodes.keys() | self._lists.keys()

    @property
    def peace_lists(self) -> Mapping[str, PeaceListRecord]:
        """As the watch told them."""
        return self._lists

    @property
    def policy_names(self) -> Iterable[str]:
        return self._policies.keys()

    def vmi_changed(self, change: Change[VmiRecord]) -> set[str]:
        left = set(change.old.nodes) if change.old else set()
        stands = set(change.new.nodes) if change.new else set()
        for node in left - stands:
            del self._vmis[node][change.key]
            if not self._vmis[node]:
                del self._vmis[node], self._views[node]
        if change.new is not None:
            for node in stands:
                if node not in self._vmis:
                    self._vmis[node] = {}
                    self._views[node] = self._vmis[node].values()
                self._vmis[node][change.key] = change.new
        return left | stands

    def node_changed(self, change: Change[NodeRecord]) -> set[str]:
        _put(self.nodes, change)
        return {change.key}

    def namespace_changed(self, change: Change[NamespaceRecord]) -> set[str]:
        _put(self.namespaces, change)
        return {
            node
            for node, vmis in self._vmis.items()
            if any(vmi.namespace == change.key for vmi in vmis.values())
        }

    def priority_class_changed(self, change: Change[PriorityClassRecord]) -> Iterable[str]:
        _put(self.priority_classes, change)
        return self.all_nodes()

    def policy_changed(self, change: Change[WatchedPolicy]) -> Iterable[str]:
        """All nodes if another spec is in force now; what is in force may be what was before."""
        _put(self._policies, change)
        self.policies.told(change.key, change.new)
        if change.old and (change.new is None or change.new.record.uid != change.old.record.uid):
            self._acceptor.forget(change.old.record.uid)
        before = self.acceptances.get(change.key)
        if change.new is None:
            after = None
            self.acceptances.pop(change.key, None)
        else:
            after = self.acceptances[change.key] = self._acceptor.accept(change.new.record)
        in_force = before.in_force if before else None
        if in_force == (after.in_force if after else None):
            return ()
        return self.all_nodes()

    def list_changed(self, change: Change[PeaceListRecord]) -> bool:
        """Whether this is news, and not the echo of our own write."""
        _put(self._lists, change)
        return self.lists.told(change.key, change.new)


def _put(records: dict[str, T], change: Change[T]) -> None:
    if change.new is None:
        records.pop(change.key, None)
    else:
        records[change.key] = change.new
