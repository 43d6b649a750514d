"""The PeaceLists' specs: compared with what they should be, and written where they differ."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from peacemaker.peacelist import to_document
from peacemaker_kube import log, paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.watch import Change
from peacemaker_operator.inventory import Inventory
from peacemaker_operator.observed import PeaceListRecord, peace_list_record, spec_patch
from peacemaker_operator.reconcile import NodeResult, PolicyCount, reconcile
from peacemaker_operator.records import NodeRecord
from peacemaker_operator.schedule import Schedule
from peacemaker_operator.writer import Job, Outcome, Refusals, Writer, settle

REVERT_EVERY: Final = 1.0
"""Seconds between two answers to others who write a PeaceList's spec."""

_LABELS: Final = {"app.kubernetes.io/name": "peacemaker"}


class NodeLists:
    """Keeps each node's PeaceList as it should be. The worker's.

    `counts` has, for each node that was looked at, how many VMs its policies govern there. So far
    there were so many `looks`, at so many nodes (`looked_at`), and they took so many `seconds`.
    """

    def __init__(
        self,
        api: Api,
        inventory: Inventory,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self.counts: dict[str, Mapping[str, PolicyCount]] = {}
        self.due = Schedule()
        self.looks = 0
        self.looked_at = 0
        self.seconds = 0.0
        self._api = api
        self._inventory = inventory
        self._writer = writer
        self._clock = clock
        self._written_at: dict[str, float] = {}
        self._remarks: dict[str, tuple[str, ...]] = {}
        self._refusals = Refusals("PeaceList", "node")

    def begin(self) -> None:
        """Look at all nodes, as a leader that knows nothing of what the last one did."""
        self.due.clear()
        self.mark(self._inventory.all_nodes())

    def end(self) -> None:
        """Another replica leads."""
        self.due.clear()

    def mark(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self.due.mark(node)

    def list_changed(self, change: Change[PeaceListRecord], now: float) -> None:
        """Look at a PeaceList whose spec changed, unless it is the echo of our own write."""
        name, old, new = change.key, change.old, change.new
        if old is not None and new is not None and _is_same_but_status(old, new):
            return
        if old is None or name not in self.counts:
            self.due.mark(name)
            return
        if not self.due.is_busy(name):
            log.info("PeaceList was changed by somebody else", node=name)
        self.due.mark(name, max(now, self._written_at.get(name, 0.0) + REVERT_EVERY))

    def is_counted(self, now: float) -> bool:
        """Whether no node waits to be looked at, nor for the end of a write to be."""
        return not self.due.is_anything_due(now)

    def work(self, now: float) -> bool:
        """Look at the nodes that are due, as far as there is room for their writes.

        Whether a policy fares differently now on one of them.
        """
        names = self.due.take(now, self._writer.room(now))
        if not names:
            return False
        begin = time.perf_counter()
        results = reconcile(self._inventory.world(), names)
        is_recount = False
        for name in names:
            result = results.get(name)
            is_recount |= self._count(name, result)
            job = self._job(name, result)
            if job is None:
                self.due.finished(name)
            else:
                self._written_at[name] = now
                self._writer.submit(job)
        self.looks += 1
        self.looked_at += len(names)
        self.seconds += time.perf_counter() - begin
        return is_recount

    def _count(self, name: str, result: NodeResult | None) -> bool:
        """Whether the node's counts are others than before."""
        if result is None:
            self._remarks.pop(name, None)
            self._written_at.pop(name, None)
            return self.counts.pop(name, None) is not None
        if result.remarks != self._remarks.get(name, ()):
            self._remarks[name] = result.remarks
            for remark in result.remarks:
                log.warning("PeaceList is not all that was asked for", node=name, why=remark)
        if self.counts.get(name) == result.policies:
            return False
        self.counts[name] = result.policies
        return True

    def _job(self, name: str, result: NodeResult | None) -> Job[PeaceListRecord] | None:
        observed = self._inventory.lists.get(name)
        path = paths.item(paths.PEACE_LISTS, name)
        if result is None:
            if observed is None:
                return None
            return self._new_job(name, "delete", lambda: self._api.delete(path))
        node = self._inventory.nodes[name]
        spec = to_document(result.spec)
        if observed is None:
            document = {
                "apiVersion": paths.API_VERSION,
                "kind": "PeaceList",
                "metadata": {"name": name, "labels": _LABELS, "ownerReferences": [_owner(node)]},
                "spec": spec,
            }
            return self._new_job(
                name, "create", lambda: self._api.create(paths.PEACE_LISTS, document)
            )
        differing = spec_patch(spec, observed.spec)
        is_owned = observed.owner_uid == node.uid
        if is_owned and not differing:
            return None
        owned = {} if is_owned else {"ownerReferences": [_owner(node)]}
        patch = {"metadata": {"resourceVersion": observed.resource_version, **owned}}
        if differing:
            patch["spec"] = differing
        return self._new_job(name, "patch", lambda: self._api.patch(path, patch))

    def _new_job(self, name: str, verb: str, write: Callable[[], Document]) -> Job[PeaceListRecord]:
        return Job(
            kind=f"peacelists {verb}",
            write=write,
            read=lambda: self._api.get(paths.item(paths.PEACE_LISTS, name)),
            record=_deleted if verb == "delete" else peace_list_record,
            done=partial(self._done, name),
        )

    def _done(self, name: str, outcome: Outcome[PeaceListRecord]) -> None:
        settle(name, outcome, self.due, self._inventory.lists, self._clock())
        self._refusals.learn(name, outcome)


def _owner(node: NodeRecord) -> Document:
    return {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}


def _is_same_but_status(old: PeaceListRecord, new: PeaceListRecord) -> bool:
    return (old.uid, old.owner_uid, old.spec) == (new.uid, new.owner_uid, new.spec)


def _deleted(_: Document) -> None:
    """The answer to a deletion says nothing of what is now."""
