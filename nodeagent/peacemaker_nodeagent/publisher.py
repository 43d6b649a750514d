"""When the status of the node's PeaceList is written: on change only, and not too often.

The condition is written at once, and takes along what else there is to say. Details wait a moment
for what belongs together, and until their last write is an interval ago; both are a little longer
on some nodes than on others, so that a thousand of them do not write at the same time. Load travels
with other writes and causes none.
"""

import time
import zlib
from collections.abc import Callable, Container, Mapping
from typing import Any, Final

from peacemaker_nodeagent.agent import Agent
from peacemaker_nodeagent.agent_status import (
    Document,
    Ready,
    Work,
    in_force,
    load_of,
    ready,
    shown_in_force,
    shown_ready,
    status_of,
)
from peacemaker_nodeagent.listed_orders import ListedOrders, Source
from peacemaker_nodeagent.listing import Listing
from peacemaker_nodeagent.status_writer import StatusWriter

INTERVAL: Final = 30.0
_MOMENT: Final = 1 / 30
"""How long details wait for each other, as a share of the interval."""


class Publisher:
    """Compares what there is to say with what the API server shows, and hands on what differs."""

    def __init__(
        self,
        agent: Agent,
        orders: ListedOrders,
        source: Source,
        writer: StatusWriter,
        pods: Callable[[], Container[str]],
        node: str,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        jitter = zlib.crc32(node.encode()) / 2**32
        self._interval = interval * (1 + jitter / 10)
        self._moment = interval * _MOMENT * (1 + 2 * jitter)
        self._agent = agent
        self._orders = orders
        self._source = source
        self._writer = writer
        self._pods = pods
        self._booted_at = time.time() - clock()
        self._shown: Listing | None = None
        self._handed: Document | None = None
        self._handed_to = ""
        self._details_at = -interval
        self._news_at: float | None = None

    def news(self, now: float) -> None:
        if self._news_at is None:
            self._news_at = now
        if self._has_condition():
            self._publish(now)  # and soon again: what led to it may not be over

    def tick(self, now: float) -> None:
        shown = self._source.newest()
        if shown is not self._shown:
            self._shown = shown
            self.news(now)
        if self._news_at is None:
            return
        if now >= max(self._details_at + self._interval, self._news_at + self._moment):
            self._news_at = None
            if self._publish(now):
                self._details_at = now

    def _has_condition(self) -> bool:
        """Whether the condition that is shown, or on its way there, is not the true one.

        Which policies are in force counts as well: the operator makes theirs of it. And whoever
        waits for everything to be restored waits for the generation too.
        """
        if self._listing() is None:
            return False
        shown = shown_ready(before := self._before())
        true = ready(work := self._work())
        if true != Ready(*(str(shown.get(key, "")) for key in ("status", "reason", "message"))):
            return True
        if work.spec and shown_in_force(before) != in_force(work):
            return True
        return bool(work.suspended) and shown.get("observedGeneration") != work.generation

    def _publish(self, now: float) -> bool:
        """Hand on the status if it differs; without a PeaceList there is nothing to write to."""
        listing = self._listing()
        if listing is None:
            return False
        before = self._before()
        status = status_of(self._work(), before, time.time())
        if all(before.get(key) == value for key, value in status.items()):
            return False
        node = self._agent.sensors.read(now, (), frozenset()).node
        status["load"] = load_of(each / node.cpus for each in node.load)
        self._handed, self._handed_to = status, listing.uid
        self._writer.hand(listing.uid, status)
        return True

    def _listing(self) -> Listing | None:
        """The PeaceList whose orders are in force, once the API server has shown it."""
        listing = self._orders.listing
        shown = self._source.newest()
        return listing if listing and shown and shown.same_orders(listing) else None

    def _before(self) -> Mapping[str, Any]:
        """The status to hold the new one against: what was handed on last, unless the API server
        has since shown one that somebody else wrote.
        """
        shown = self._source.newest()
        if shown is None:
            return {}
        if self._handed is None or self._handed_to != shown.uid:
            return shown.status
        written = self._writer.written
        is_ours = (
            written is None
            or written.sent is not self._handed
            or not _is_newer(shown.version, written.version)
            or shown.status == written.stored
        )
        return self._handed if is_ours else shown.status

    def _work(self) -> Work:
        listing = self._orders.listing
        return Work(
            generation=listing.generation if listing else 0,
            spec=listing.spec if listing else None,
            problem=listing.problem if listing else "",
            understood=self._orders.understood,
            suspended=self._agent.suspended,
            vms=self._agent.vms,
            runs={run.policy.name: run for run in self._agent.passes},
            pods=self._pods(),
            booted_at=self._booted_at,
        )


def _is_newer(version: str, than: str) -> bool:
    """Resource versions of one object count upwards."""
    return version.isdecimal() and than.isdecimal() and int(version) > int(than)
