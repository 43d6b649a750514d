"""The PeacePolicies' statuses: conditions at once, details now and then, nothing at rest."""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.watch import Change
from peacemaker_operator.events import Event, Events, Kind, Subject
from peacemaker_operator.inventory import Inventory, WatchedPolicy, watched_policy
from peacemaker_operator.observed import PeaceListRecord
from peacemaker_operator.policy_status import is_urgent, policy_status, status_patch
from peacemaker_operator.reading import sections
from peacemaker_operator.reconcile import PolicyCount
from peacemaker_operator.records import PolicyRecord
from peacemaker_operator.schedule import Schedule
from peacemaker_operator.writer import Job, Outcome, Refusals, Result, Writer, settle

_LOOK_EVERY: Final = 2.0
_COUNTING: Final = 0.1


class PolicyReports:
    """Keeps each policy's status up to date. The worker's.

    `counts` says for each node how its policies fare; `is_counted` whether it is complete now.
    """

    def __init__(
        self,
        api: Api,
        inventory: Inventory,
        writer: Writer,
        events: Events,
        clock: Callable[[], float],
        counts: Mapping[str, Mapping[str, PolicyCount]],
        is_counted: Callable[[float], bool],
        details_every: float,
    ) -> None:
        self.due = Schedule()
        self._api = api
        self._inventory = inventory
        self._writer = writer
        self._events = events
        self._clock = clock
        self._counts = counts
        self._is_counted = is_counted
        self._details_every = details_every
        self._refusals = Refusals("status", "policy")
        self._looked_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}

    def begin(self) -> None:
        """Look at all policies."""
        self.due.clear()
        for name in self._inventory.policy_names:
            self.due.mark(name)

    def end(self) -> None:
        """Another replica leads."""
        self.due.clear()

    def policy_changed(self, change: Change[WatchedPolicy]) -> None:
        if change.new is None:
            for times in (self._looked_at, self._written_at):
                times.pop(change.key, None)
            self.due.forget(change.key)
        else:
            self.due.mark(change.key)

    def list_changed(self, change: Change[PeaceListRecord]) -> None:
        if _fares(change.old) != _fares(change.new):
            self.fares_changed()

    def fares_changed(self) -> None:
        """Some policy fares differently on some node: look at all, but not all the time."""
        now = self._clock()
        for name in self._inventory.policy_names:
            self.due.mark(name, max(now, self._looked_at.get(name, 0.0) + _LOOK_EVERY))

    def work(self, now: float) -> None:
        """Look at the policies that are due, as far as there is room for their writes."""
        is_counted = self._is_counted(now)
        for name in self.due.take(now, self._writer.room(now)):
            policy = self._inventory.policies.get(name)
            acceptance = self._inventory.acceptances.get(name)
            if policy is None or acceptance is None:
                self.due.finished(name)
            elif not is_counted and acceptance.problem is None:
                # Of nodes that were not looked at yet nothing can be said; of a problem it can.
                self.due.finished(name)
                self.due.mark(name, now + _COUNTING)
            else:
                self._look(name, policy, now)

    def _look(self, name: str, policy: WatchedPolicy, now: float) -> None:
        self._looked_at[name] = now
        before = policy.record.status
        status = policy_status(
            policy.record,
            self._inventory.acceptances[name],
            self._counts,
            self._inventory.peace_lists,
            dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        patch = status_patch(before, status)
        details_due = self._written_at.get(name, -self._details_every) + self._details_every
        if not patch:
            self.due.finished(name)
        elif now < details_due and not is_urgent(before, status):
            self.due.finished(name)
            self.due.mark(name, details_due)
        else:
            self._written_at[name] = now
            event = _acceptance_event(policy.record, status)
            self._writer.submit(self._job(name, policy, patch, event))

    def _job(
        self, name: str, policy: WatchedPolicy, patch: Document, event: Event | None
    ) -> Job[WatchedPolicy]:
        body = {"metadata": {"resourceVersion": policy.resource_version}, "status": patch}
        path = paths.status(paths.PEACE_POLICIES, name)
        return Job(
            kind="peacepolicies/status patch",
            write=lambda: self._api.patch(path, body),
            read=lambda: self._api.get(paths.item(paths.PEACE_POLICIES, name)),
            record=watched_policy,
            done=partial(self._done, name, event),
        )

    def _done(self, name: str, event: Event | None, outcome: Outcome[WatchedPolicy]) -> None:
        settle(name, outcome, self.due, self._inventory.policies, self._clock())
        self._refusals.learn(name, outcome)
        if outcome.result is not Result.WRITTEN:
            self._written_at.pop(name, None)
        elif event is not None:
            self._events.tell(event)


def _fares(record: PeaceListRecord | None) -> object:
    """What a PeaceList says of policies."""
    return record and (record.ready, record.suspended, record.policies)


def _acceptance_event(record: PolicyRecord, status: Document) -> Event | None:
    """What is told of a policy whose acceptance changes; None if it does not."""
    before, after = _accepted(record.status), _accepted(status)
    if before == after:
        return None
    subject = Subject(paths.API_VERSION, "PeacePolicy", record.name, record.uid)
    if after[0] == "True":
        return Event(subject, Kind.NORMAL, "Accepted", "the spec is sound", repeats=True)
    return Event(subject, Kind.WARNING, "NotAccepted", after[1], repeats=True)


def _accepted(status: Document) -> tuple[str, str]:
    """Status and message of the condition."""
    for condition in sections(status.get("conditions")):
        if condition.get("type") == "Accepted":
            return str(condition.get("status")), str(condition.get("message"))
    return "", ""
