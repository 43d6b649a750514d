"""Kubernetes Events: told once, rate-limited, and never in the way of anything else."""

import datetime as dt
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from peacemaker_kube import log, paths
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, Document

COMPONENT: Final = "peacemaker-operator"

_REPEAT_AFTER: Final = 3600.0
_BURST: Final = 50
_PER_SECOND: Final = 5.0
_WAITING: Final = 500
_REMEMBERED: Final = 50_000
_MESSAGE_LENGTH: Final = 1024  # of an Event; the API server refuses a longer one
_CLUSTER_SCOPED_NAMESPACE: Final = "default"


class Kind(StrEnum):
    """What an Event may be."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an Event is about. `namespace` is empty for a cluster-scoped one."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """What is told. `repeats`: whether the same reason may be told again within the hour."""

    subject: Subject
    kind: Kind
    reason: str
    message: str
    repeats: bool = False


class TokenBucket:
    """At most `burst` at once and `rate` a second in the long run. Of one thread."""

    def __init__(self, burst: float, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = burst
        self._filled = clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Events:
    """Posts Events in a thread of its own: one that cannot be posted is lost, and counted.

    `dropped` counts what was not told, by why: "rate", "refused", "unreachable".
    """

    def __init__(
        self,
        api: Api,
        may_write: Callable[[], bool],
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._may_write = may_write
        self._instance = instance
        self._clock = clock
        self._bucket = TokenBucket(_BURST, _PER_SECOND, clock)
        self._told: dict[tuple[str, str], float] = {}
        self._queue = queue.Queue[Event | None](_WAITING)
        self._telling = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self.posted = 0
        self.dropped = {"rate": 0, "refused": 0, "unreachable": 0}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the Event that is being posted; those that wait are lost."""
        self._stopping = True
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def tell(self, event: Event) -> None:
        """Post an Event soon, or never. Does not wait. Of any thread."""
        with self._telling:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        key = (event.subject.uid, event.reason)
        now = self._clock()
        if not event.repeats and now - self._told.get(key, -_REPEAT_AFTER) < _REPEAT_AFTER:
            return
        if not self._bucket.take():
            self.dropped["rate"] += 1
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped["rate"] += 1
            return
        if not event.repeats:
            self._remember(key, now)

    def _remember(self, key: tuple[str, str], now: float) -> None:
        if len(self._told) >= _REMEMBERED:
            self._told = {k: at for k, at in self._told.items() if now - at < _REPEAT_AFTER}
        self._told[key] = now

    def _run(self) -> None:
        while (event := self._queue.get()) is not None and not self._stopping:
            if self._may_write():
                self._post(event)

    def _post(self, event: Event) -> None:
        namespace = event.subject.namespace or _CLUSTER_SCOPED_NAMESPACE
        try:
            self._api.create(
                paths.core(namespace, "events"), document(event, namespace, self._instance)
            )
        except ApiError as error:
            self.dropped["refused"] += 1
            self._log_lost(event, error)
        except ApiUnreachable as error:
            self.dropped["unreachable"] += 1
            self._log_lost(event, error)
        else:
            self.posted += 1

    def _log_lost(self, event: Event, error: Exception) -> None:
        about = f"{event.subject.namespace}/{event.subject.name}".removeprefix("/")
        level = logging.INFO
        log.event(level, "Event not posted", about=about, reason=event.reason, error=error)


def document(event: Event, namespace: str, instance: str) -> Document:
    """The v1 Event."""
    subject = event.subject
    now = dt.datetime.now(dt.UTC)
    seconds = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    involved = {
        "apiVersion": subject.api_version,
        "kind": subject.kind,
        "name": subject.name,
        "uid": subject.uid,
    }
    if subject.namespace:
        involved["namespace"] = subject.namespace
    # client-go's names: the object's, and nanoseconds in hexadecimal
    name = f"{subject.name[:200]}.{time.time_ns():x}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "type": event.kind.value,
        "reason": event.reason,
        "message": event.message[:_MESSAGE_LENGTH],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:128],
        "firstTimestamp": seconds,
        "lastTimestamp": seconds,
        "count": 1,
    }
