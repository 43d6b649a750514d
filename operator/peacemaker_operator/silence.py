"""Saying for the agents that are silent that they are: Ready is Unknown in their PeaceLists."""

import datetime as dt
import math
from collections.abc import Callable, Iterable
from functools import partial

from peacemaker_kube import log, paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.watch import Change
from peacemaker_operator.agents import Agents
from peacemaker_operator.inventory import Inventory
from peacemaker_operator.observed import PeaceListRecord, peace_list_record
from peacemaker_operator.policy_status import AGENT_SILENT, is_silent
from peacemaker_operator.records import AgentPodRecord
from peacemaker_operator.schedule import Schedule
from peacemaker_operator.writer import Job, Outcome, Refusals, Writer, settle

_MESSAGE = (
    "no agent pod on this node has been ready for a while: what the status says is what its agent "
    "last wrote, and its VMs keep the values that they have"
)


class Silence:
    """Writes the one condition of PeaceLists that is not their agents' to write. The worker's."""

    def __init__(
        self,
        api: Api,
        inventory: Inventory,
        writer: Writer,
        agents: Agents,
        clock: Callable[[], float],
    ) -> None:
        self.due = Schedule()
        self._api = api
        self._inventory = inventory
        self._writer = writer
        self._agents = agents
        self._clock = clock
        self._refusals = Refusals("status of a silent agent", "node")

    def begin(self) -> None:
        """Look after all nodes."""
        self.due.clear()
        self._mark(self._inventory.peace_lists)

    def end(self) -> None:
        """Another replica leads."""
        self.due.clear()

    def pod_changed(self, change: Change[AgentPodRecord]) -> None:
        self._mark(self._agents.pod_changed(change, self._clock()))

    def list_changed(self, change: Change[PeaceListRecord]) -> None:
        """An agent that was called silent may answer; a PeaceList may be new, or gone."""
        if change.new is None:
            self._agents.forget(change.key)
            return
        if change.old is not None and is_silent(change.old.ready):
            if is_silent(change.new.ready):
                return
            self._agents.spoke(change.key, self._clock())
        elif change.old is not None:
            return
        self._mark([change.key])

    def work(self, now: float) -> None:
        """Write for the agents that are to be called silent now, as far as there is room."""
        for name in self.due.take(now, self._writer.room(now)):
            record = self._inventory.lists.get(name)
            at = self._agents.silent_at(name, now)
            if record is None or is_silent(record.ready) or at > now:
                self.due.finished(name)
                if record is not None and not is_silent(record.ready) and at < math.inf:
                    self.due.mark(name, at)
                continue
            log.warning("agent is silent", node=name)
            self._writer.submit(self._job(name, record))

    def _mark(self, nodes: Iterable[str]) -> None:
        now = self._clock()
        for node in nodes:
            if node in self._inventory.peace_lists:
                at = self._agents.silent_at(node, now)
                if at < math.inf:
                    self.due.mark(node, at)

    def _job(self, name: str, record: PeaceListRecord) -> Job[PeaceListRecord]:
        body: Document = {
            "metadata": {"resourceVersion": record.resource_version},
            "status": {"conditions": [_condition(record)]},
        }
        path = paths.status(paths.PEACE_LISTS, name)
        return Job(
            kind="peacelists/status patch",
            write=lambda: self._api.patch(path, body),
            read=lambda: self._api.get(paths.item(paths.PEACE_LISTS, name)),
            record=peace_list_record,
            done=partial(self._done, name),
        )

    def _done(self, name: str, outcome: Outcome[PeaceListRecord]) -> None:
        settle(name, outcome, self.due, self._inventory.lists, self._clock())
        self._refusals.learn(name, outcome)


def _condition(record: PeaceListRecord) -> Document:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    was_unknown = record.ready is not None and record.ready.status == "Unknown"
    since = record.ready.since if record.ready and was_unknown else None
    return {
        "type": "Ready",
        "status": "Unknown",
        "reason": AGENT_SILENT,
        "message": _MESSAGE,
        "lastTransitionTime": since or now,
        "observedGeneration": record.observed_generation,
    }
