"""Writing to the API server: a few threads, and never when another replica may be writing.

The worker submits and is told the outcome; between the two only the API server is waited for.
"""

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

from peacemaker_kube import log
from peacemaker_kube.api import ApiError, ApiUnreachable, Document
from peacemaker_operator.newest import Newest, Versioned
from peacemaker_operator.schedule import Schedule

THREADS: Final = 4

_OUTSTANDING: Final = 32
"""Writes submitted at a time: what changes meanwhile must not wait behind a thousand others."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_FENCED_PAUSE: Final = 1.0
_CONFLICT_PAUSE: Final = 1.0

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class Result(StrEnum):
    """What became of a write."""

    WRITTEN = "written"
    CONFLICT = "conflict"
    """It was not made from the newest version, which was read after that."""
    GONE = "gone"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """It may have been written: nobody knows."""
    FENCED = "fenced"
    """Not tried: this replica does not lead any more."""


R = TypeVar("R", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of a write. `record` is the newest, None if there is none or it is not known."""

    result: Result
    record: R | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """One write. `kind`, of object and write, is for counting; `read` is for after a conflict.

    `record` makes a record of the answer, None if that is not the object. `done` is called in the
    worker.
    """

    kind: str
    write: Callable[[], Document]
    read: Callable[[], Document]
    record: Callable[[Document], R | None]
    done: Callable[[Outcome[R]], None]


class Writer:
    """Does jobs in the order in which they come, a few at a time.

    `post` has something called in the worker. `counts` counts outcomes by (kind, result), and
    `outstanding` the jobs without one. Apart from start() and stop(), its methods are the worker's.
    """

    def __init__(
        self,
        may_write: Callable[[], bool],
        post: Callable[[Callable[[], None]], None],
        *,
        threads: int = THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._may_write = may_write
        self._post = post
        self._clock = clock
        self._jobs = queue.SimpleQueue[Callable[[], None] | None]()
        self.outstanding = 0
        self._pause = 0.0
        self._paused_until = 0.0
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"writer {number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> bool:
        """Begin no other write. Whether those under way ended in time."""
        self._stopping = True
        for _ in self._threads:
            self._jobs.put(None)
        deadline = self._clock() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def room(self, now: float) -> int:
        """How many jobs may be submitted now: none for a while if the API server is away."""
        return 0 if now < self._paused_until else _OUTSTANDING - self.outstanding

    def wake_at(self, due: float, now: float) -> float:
        """When the worker has to look again, if something is due then."""
        if now < self._paused_until:
            return max(due, self._paused_until)
        return due if self.outstanding < _OUTSTANDING else math.inf

    def submit(self, job: Job[R]) -> None:
        self.outstanding += 1
        self._jobs.put(lambda: self._do(job))

    def _run(self) -> None:
        while (do := self._jobs.get()) is not None and not self._stopping:
            do()

    def _do(self, job: Job[R]) -> None:
        outcome: Outcome[R] = _outcome(job) if self._may_write() else Outcome(Result.FENCED)
        self._post(lambda: self._deliver(job, outcome))

    def _deliver(self, job: Job[R], outcome: Outcome[R]) -> None:
        self.outstanding -= 1
        self.counts[job.kind, outcome.result] += 1
        if outcome.result is Result.UNREACHABLE:
            if self._clock() >= self._paused_until:  # not once for each write that was under way
                if not self._pause:
                    log.warning("cannot write: the API server does not answer", why=outcome.error)
                self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
                self._paused_until = self._clock() + self._pause
        elif outcome.result is not Result.FENCED:
            self._pause = 0.0
        job.done(outcome)


def _outcome(job: Job[R]) -> Outcome[R]:
    try:
        return Outcome(Result.WRITTEN, job.record(job.write()))
    except ApiUnreachable as error:
        return Outcome(Result.UNREACHABLE, error=str(error))
    except ApiError as error:
        if error.status == _CONFLICT:
            return _newest(job, error.message)
        result = Result.GONE if error.status == _NOT_FOUND else Result.REFUSED
        return Outcome(result, error=error.message)


def _newest(job: Job[R], conflict: str) -> Outcome[R]:
    try:
        return Outcome(Result.CONFLICT, job.record(job.read()), conflict)
    except ApiUnreachable as error:
        return Outcome(Result.UNREACHABLE, error=str(error))
    except ApiError as error:
        return Outcome(
            Result.GONE if error.status == _NOT_FOUND else Result.REFUSED, None, conflict
        )


class Refusals:
    """Says of an object once that its write was refused, and again if the reason changes.

    It is a warning, as the write is tried again: an API server that has just started refuses what
    it takes a second later. `what` is written; `key` names the object's field in the log.
    """

    def __init__(self, what: str, key: str) -> None:
        self._message = f"{what} refused by the API server, it will be tried again"
        self._key = key
        self._said: dict[str, str] = {}

    def learn(self, name: str, outcome: Outcome[R]) -> None:
        if outcome.result is not Result.REFUSED:
            self._said.pop(name, None)
        elif self._said.get(name) != outcome.error:
            self._said[name] = outcome.error
            log.warning(self._message, **{self._key: name}, why=outcome.error)


def settle(
    name: str, outcome: Outcome[R], schedule: Schedule, newest: Newest[R], now: float
) -> None:
    """Take what a write of this object brought: it is done with, or due again."""
    if outcome.record is not None:
        newest.answered(name, outcome.record)
    match outcome.result:
        case Result.WRITTEN:
            schedule.finished(name)
        case Result.UNREACHABLE:  # the writer pauses for all
            schedule.finished(name)
            schedule.mark(name)
        case Result.FENCED:
            schedule.finished(name)
            schedule.mark(name, now + _FENCED_PAUSE)
        case Result.CONFLICT:  # nothing is wrong: once the others stop writing, it will do
            schedule.failed(name, now, _CONFLICT_PAUSE)
        case Result.GONE | Result.REFUSED:
            schedule.failed(name, now)
