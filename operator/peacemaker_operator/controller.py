"""The operator at work: watches tell, one thread decides, a few write, and at rest all sleep.

What the watches tell goes through one inbox to the worker, the only one to hold state. It marks
what a change concerns as due, and looks at what is due from scratch: nothing that was missed,
refused or done by somebody else needs a case of its own.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from peacemaker_kube import log, paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.watch import Change, Watch
from peacemaker_operator.agents import SILENT_AFTER, Agents
from peacemaker_operator.events import Event, Events, Kind, Subject
from peacemaker_operator.inventory import Inventory, WatchedPolicy, watched_policy
from peacemaker_operator.leader import DEFAULT_TIMING, Leader, Timing
from peacemaker_operator.node_lists import NodeLists
from peacemaker_operator.observed import PeaceListRecord, peace_list_record
from peacemaker_operator.policy_reports import PolicyReports
from peacemaker_operator.records import (
    AgentPodRecord,
    NamespaceRecord,
    NodeRecord,
    PriorityClassRecord,
    VmiRecord,
    agent_pod_record,
    namespace_record,
    node_record,
    priority_class_record,
    vmi_record,
)
from peacemaker_operator.settings import (
    CONFIG_MAP,
    ConfigMapRecord,
    config_map_record,
    read_settings,
)
from peacemaker_operator.silence import Silence
from peacemaker_operator.vm_events import VmEvent, vm_events
from peacemaker_operator.writer import Writer

AGENT_PODS: Final = "app.kubernetes.io/name=peacemaker,app.kubernetes.io/component=agent"

_STOP_TIMEOUT: Final = 5.0
_SYNC_PAUSE: Final = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: changes are gathered; between two writes of a status's details; an agent is silent
    before it is called so.
    """

    gather: float = 0.02
    details: float = 30.0
    silent_after: float = SILENT_AFTER


DEFAULT_PACE: Final = Pace()


class Controller:
    """Keeps PeaceLists and policies' statuses as they should be, from start() to stop().

    namespace: the operator's own. identity: names this replica. leader_elect: False if it is the
    only one. `watches` are by what they watch; `synced_at`, in seconds since the epoch, is when all
    of them were first complete. What else is public is for reading, by whoever counts.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        *,
        leader_elect: bool = True,
        timing: Timing = DEFAULT_TIMING,
        pace: Pace = DEFAULT_PACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._pace = pace
        self._inbox: deque[Callable[[], None]] = deque()
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._is_synced = False
        self.synced_at: float | None = None
        self._leads = False
        self._setting_event: Event | None = None
        self._leader: Leader | None = None
        if leader_elect:
            self._leader = Leader(
                api.client, namespace, identity, self._told_to_lead, timing, clock=clock
            )
        self._inventory = Inventory()
        self.writer = Writer(self.is_leading, self._post, clock=clock)
        self.events = Events(api, self.is_leading, identity, clock=clock)
        self._lists = NodeLists(api, self._inventory, self.writer, clock)
        self._reports = PolicyReports(
            api,
            self._inventory,
            self.writer,
            self.events,
            clock,
            self._lists.counts,
            self._lists.is_counted,
            pace.details,
        )
        self._silence = Silence(api, self._inventory, self.writer, Agents(pace.silent_after), clock)
        self._desks = (self._lists, self._reports, self._silence)
        self.watches = self._all_watches(api, namespace)
        self._threads = [
            threading.Thread(target=self._work_on, name="worker", daemon=True),
            threading.Thread(target=self._wait_for_sync, name="sync", daemon=True),
        ]

    # --- from outside ---

    def start(self) -> None:
        self.writer.start()
        self.events.start()
        for watch in self.watches.values():
            watch.start()
        for thread in self._threads:
            thread.start()
        if self._leader is not None:
            self._leader.start()
        else:
            self._told_to_lead(True)

    def stop(self) -> None:
        """End, and let another replica lead at once if no write of ours is under way any more."""
        self._stopping.set()
        for watch in self.watches.values():
            watch.stop()
        with self._news:
            self._news.notify()
        for thread in self._threads:
            thread.join()
        is_quiet = self.writer.stop(_STOP_TIMEOUT)
        self.events.stop()
        if self._leader is not None:
            self._leader.stop(release=is_quiet)

    def is_leading(self) -> bool:
        """The fence: whether this replica may write now."""
        return self._leader is None or self._leader.is_leading()

    def is_ready(self) -> bool:
        """Whether it knows the whole cluster."""
        return self._is_synced

    def is_alive(self) -> bool:
        """Whether all of its threads run."""
        worker, _ = self._threads  # the other ends once all lists are there
        return (
            worker.is_alive()
            and self.writer.is_alive()
            and self.events.is_alive()
            and all(watch.is_alive for watch in self.watches.values())
            and (self._leader is None or self._leader.is_alive())
        )

    @property
    def pending(self) -> int:
        """How much the worker was told and has not taken yet."""
        return len(self._inbox)

    @property
    def inventory(self) -> Inventory:
        return self._inventory

    @property
    def lists(self) -> NodeLists:
        return self._lists

    # --- threads ---

    def _post(self, call: Callable[[], None]) -> None:
        """Have the worker call this."""
        with self._news:
            self._inbox.append(call)
            self._news.notify()

    def _told_to_lead(self, leads: bool) -> None:
        self._post(partial(self._take_lead, leads))

    def _work_on(self) -> None:
        while not self._stopping.is_set():
            self._wait()
            while self._inbox:
                self._inbox.popleft()()
            if self._is_synced and self._leads:
                now = self._clock()
                if self._lists.work(now):
                    self._reports.fares_changed()
                self._reports.work(now)
                self._silence.work(now)

    def _wait(self) -> None:
        """Until something is told, or due; then a moment more, since news come together."""
        with self._news:
            if not self._inbox and not self._stopping.is_set():
                pause = self._next() - self._clock()
                if pause > 0:
                    self._news.wait(min(pause, threading.TIMEOUT_MAX))
        if self._inbox:
            self._stopping.wait(self._pace.gather)

    def _next(self) -> float:
        if not (self._is_synced and self._leads):
            return math.inf
        due = min(desk.due.next() for desk in self._desks)
        return self.writer.wake_at(due, self._clock())

    def _wait_for_sync(self) -> None:
        for watch in self.watches.values():
            while not watch.synced.wait(_SYNC_PAUSE):
                if self._stopping.is_set():
                    return
        self._post(self._take_sync)

    # --- what the worker is told ---

    def _take_sync(self) -> None:
        self._is_synced = True
        self.synced_at = time.time()
        log.info("all lists are there", nodes=len(self._inventory.nodes))
        self._begin()

    def _take_lead(self, leads: bool) -> None:
        self._leads = leads
        if leads:
            self._begin()
        else:
            for desk in self._desks:
                desk.end()

    def _begin(self) -> None:
        """Look at everything, once all is known and this replica leads."""
        if not (self._is_synced and self._leads):
            return
        for desk in self._desks:
            desk.begin()
        if self._setting_event is not None:
            self.events.tell(self._setting_event)

    def _take_vmi(self, change: Change[VmiRecord]) -> None:
        self._lists.mark(self._inventory.vmi_changed(change))

    def _take_node(self, change: Change[NodeRecord]) -> None:
        self._lists.mark(self._inventory.node_changed(change))

    def _take_namespace(self, change: Change[NamespaceRecord]) -> None:
        self._lists.mark(self._inventory.namespace_changed(change))

    def _take_priority_class(self, change: Change[PriorityClassRecord]) -> None:
        self._lists.mark(self._inventory.priority_class_changed(change))

    def _take_policy(self, change: Change[WatchedPolicy]) -> None:
        self._lists.mark(self._inventory.policy_changed(change))
        self._reports.policy_changed(change)

    def _take_list(self, change: Change[PeaceListRecord]) -> None:
        if self._inventory.list_changed(change):
            self._lists.list_changed(change, self._clock())
        self._silence.list_changed(change)
        self._reports.list_changed(change)
        if self._is_synced and self._leads:
            for told in vm_events(change.old, change.new):
                self.events.tell(_event(told))

    def _take_agent_pod(self, change: Change[AgentPodRecord]) -> None:
        self._silence.pod_changed(change)

    def _take_config_map(self, change: Change[ConfigMapRecord]) -> None:
        self._setting_event = None
        if change.new is None:
            log.warning("ConfigMap is gone: the last known settings stay", name=change.key)
            return
        settings, wrong = read_settings(dict(change.new.data), self._inventory.settings)
        if wrong:
            message = "; ".join(map(str, wrong))
            log.warning("wrong setting", configmap=change.key, why=message)
            subject = Subject("v1", "ConfigMap", CONFIG_MAP, change.new.uid, change.new.namespace)
            self._setting_event = Event(subject, Kind.WARNING, "WrongSetting", message, True)
            if self._is_synced and self._leads:
                self.events.tell(self._setting_event)
        if settings != self._inventory.settings:
            log.info(
                "settings",
                maxClaimPercent=settings.max_claim_percent,
                suspended=settings.suspended,
            )
            self._inventory.settings = settings
            self._lists.mark(self._inventory.all_nodes())

    # --- watches ---

    def _all_watches(self, api: Api, namespace: str) -> dict[str, Watch[Any]]:
        def watch(
            path: str,
            record: Callable[[Document], T],
            take: Callable[[Change[T]], None],
            *,
            fields: str = "",
            labels: str = "",
        ) -> Watch[T]:
            def changed(change: Change[T]) -> None:
                self._post(partial(take, change))

            return Watch(api, path, record, changed, fields=fields, labels=labels)

        own = partial(paths.core, namespace)
        return {
            "peacepolicies": watch(paths.PEACE_POLICIES, watched_policy, self._take_policy),
            "virtualmachineinstances": watch(paths.VMIS, vmi_record, self._take_vmi),
            "nodes": watch(paths.NODES, node_record, self._take_node),
            "namespaces": watch(paths.NAMESPACES, namespace_record, self._take_namespace),
            "priorityclasses": watch(
                paths.PRIORITY_CLASSES, priority_class_record, self._take_priority_class
            ),
            "peacelists": watch(paths.PEACE_LISTS, peace_list_record, self._take_list),
            "pods": watch(own("pods"), agent_pod_record, self._take_agent_pod, labels=AGENT_PODS),
            "configmaps": watch(
                own("configmaps"),
                config_map_record,
                self._take_config_map,
                fields=f"metadata.name={CONFIG_MAP}",
            ),
        }


def _event(told: VmEvent) -> Event:
    subject = Subject(
        "kubevirt.io/v1", "VirtualMachineInstance", told.name, told.uid, told.namespace
    )
    return Event(subject, Kind(told.type), told.reason, told.message)
