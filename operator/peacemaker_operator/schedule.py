"""What is to be done and when: keys that are due, held back, or waiting to be tried again."""

import heapq
import math
import random
from typing import Final

_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 60.0


class Schedule:
    """Names of objects to be looked at, each at most once at a time. Of one thread; no clock.

    A name that is marked is due, but not before the time until which it is held. A name that is
    taken is busy until `finished` or `failed`; marked meanwhile, it is due again after that.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._held: dict[str, float] = {}
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}

    def mark(self, name: str, at: float = 0.0) -> None:
        """Have it taken at this time, or sooner if it is due sooner."""
        at = max(at, self._held.get(name, 0.0))
        if at < self._due.get(name, math.inf):
            self._due[name] = at
            if name not in self._busy:
                heapq.heappush(self._heap, (at, name))

    def hold(self, name: str, until: float) -> None:
        """Have it not taken before this time, if it is marked or when it is."""
        if until <= self._held.get(name, 0.0):
            return
        self._held[name] = until
        if name in self._due and self._due[name] < until:
            del self._due[name]
            self.mark(name, until)

    def take(self, now: float, most: int) -> list[str]:
        """At most so many names that are due, the longest due first; they are busy from now on."""
        taken: list[str] = []
        while len(taken) < most and self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if name not in self._busy and self._due.get(name) == at:
                del self._due[name]
                self._held.pop(name, None)
                self._busy.add(name)
                taken.append(name)
        return taken

    def finished(self, name: str) -> None:
        """It was done, or nothing had to be."""
        self._failures.pop(name, None)
        self._rest(name)

    def failed(self, name: str, now: float, longest: float = _LONGEST_RETRY) -> float:
        """It has to be tried again: after how many seconds, more each time, up to the longest."""
        failures = self._failures.get(name, 0)
        self._failures[name] = failures + 1
        pause = min(_FIRST_RETRY * 2.0 ** min(failures, 11), longest)
        pause *= random.uniform(0.75, 1.0)  # noqa: S311  # a thousand nodes not all at once
        self.hold(name, now + pause)
        self._rest(name)
        self.mark(name)
        return pause

    def forget(self, name: str) -> None:
        """It is gone."""
        for times in (self._due, self._held, self._failures):
            times.pop(name, None)

    def clear(self) -> None:
        """Forget all but what is busy."""
        self._due.clear()
        self._heap.clear()
        self._held.clear()
        self._failures.clear()

    def next(self) -> float:
        """When the next name is due; inf if none will be."""
        while self._heap:
            at, name = self._heap[0]
            if name not in self._busy and self._due.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return math.inf

    def is_anything_due(self, now: float) -> bool:
        """Whether a name is due, be it one that is busy and was marked meanwhile."""
        return self.next() <= now or not self._busy.isdisjoint(self._due)

    def is_busy(self, name: str) -> bool:
        return name in self._busy

    def __len__(self) -> int:
        """How many are due now or later, or busy."""
        return len(self._due.keys() | self._busy)

    def _rest(self, name: str) -> None:
        self._busy.discard(name)
        if (at := self._due.get(name)) is not None:
            heapq.heappush(self._heap, (at, name))
