"""Which nodes' agents are silent: those without a ready agent pod for a while."""

import math
from typing import Final

from peacemaker_kube.watch import Change
from peacemaker_operator.records import AgentPodRecord

SILENT_AFTER: Final = 60.0
"""Seconds without a ready pod, after which an agent is called silent."""

_LONGEST_PATIENCE: Final = 3600.0


class Agents:
    """When each node's agent is to be called silent. Of one thread; no clock."""

    def __init__(self, silent_after: float = SILENT_AFTER) -> None:
        self._silent_after = silent_after
        self._ready: dict[str, set[str]] = {}
        self._lost: dict[str, float] = {}
        self._patience: dict[str, float] = {}

    def pod_changed(self, change: Change[AgentPodRecord], now: float) -> list[str]:
        """Take a change of an agent pod; the nodes that it concerns."""
        nodes = []
        for record in (change.old, change.new):
            if record is not None and record.node and record.node not in nodes:
                nodes.append(record.node)
        for node in nodes:
            ready = self._ready.setdefault(node, set())
            new = change.new
            if new is not None and new.node == node and new.ready:
                ready.add(change.key)
                self._lost.pop(node, None)
                self._patience.pop(node, None)
            else:
                ready.discard(change.key)
            if not ready:
                del self._ready[node]
                self._lost.setdefault(node, now)
        return nodes

    def silent_at(self, node: str, now: float) -> float:
        """When its agent is to be called silent: inf while it has a ready pod."""
        if node in self._ready:
            return math.inf
        return self._lost.setdefault(node, now) + self._patience.get(node, self._silent_after)

    def spoke(self, node: str, now: float) -> None:
        """It was called silent, and answered: a pod that is not ready may well be alive.

        It gets twice the time, so that the two do not contradict each other for ever.
        """
        if node in self._ready:
            return
        patience = 2 * self._patience.get(node, self._silent_after)
        self._patience[node] = min(patience, _LONGEST_PATIENCE)
        self._lost[node] = now

    def forget(self, node: str) -> None:
        """Its PeaceList is gone."""
        self._lost.pop(node, None)
        self._patience.pop(node, None)
