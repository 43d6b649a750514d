"""Which replica writes: the holder of one Lease, and a fence that no clock but its own moves.

A leader may write until the renew deadline after it *sent* its last successful renewal. Another
replica takes the Lease over only after it has seen it unchanged for the lease duration, which is
longer. Each counts on its own monotonic clock.
"""

import datetime as dt
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kubernetes.client import ApiClient, CoordinationV1Api
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from urllib3.exceptions import HTTPError

from peacemaker_kube import log

LEASE: Final = "peacemaker-operator"

_CLOCK_STEP: Final = 1.0
_RELEASED_DURATION: Final = "1"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: of the lease, of the leader's fence, between two tries."""

    lease: int = 15
    renew: int = 10
    retry: int = 2


DEFAULT_TIMING: Final = Timing()


class Leader:
    """A candidate for the Lease, in a thread of its own, from start() to stop().

    `changed` is called in that thread with True when this replica has become the leader and with
    False when it is one no more.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        changed: Callable[[bool], None],
        timing: Timing = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        logging.getLogger("leaderelection").setLevel(logging.ERROR)  # it tells of every try
        self.identity = identity
        self._timing = timing
        self._clock = clock
        self._changed = changed
        self._lock = LeaseLock(LEASE, namespace, identity)
        self._lock.api_instance = _leases(client, timing.retry)
        self._election = LeaderElection(
            Config(self._lock, timing.lease, timing.renew, timing.retry, _nothing, _nothing)
        )
        self._until = -math.inf
        self._said_leading = False
        self._wall_offset = time.time() - clock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, release: bool = True) -> None:
        """Write no more, and give the Lease back so that another need not wait for its end.

        `release` is False if a write is under way still.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        was_leading, self._until = self.is_leading(), -math.inf
        if was_leading and release:
            self._release()

    def is_leading(self) -> bool:
        """The fence: whether this replica may write now. Ask before every write."""
        return self._clock() < self._until

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._try()
            leading = self.is_leading()
            if leading is not self._said_leading:
                self._said_leading = leading
                log.info("leading" if leading else "no longer leading", identity=self.identity)
                self._changed(leading)
            self._stopping.wait(self._timing.retry)

    def _try(self) -> None:
        self._forget_if_clock_stepped()
        sent = self._clock()
        try:
            succeeded = self._election.try_acquire_or_renew()
        except (HTTPError, OSError):
            return  # No answer: the fence falls by itself.
        if succeeded:
            self._until = sent + self._timing.renew
        elif self._holder() not in (None, self.identity):
            self._until = -math.inf

    def _holder(self) -> str | None:
        """Whom the Lease named when it was last read; None: nobody, or never read."""
        record = self._election.observed_record
        return None if record is None else record.holder_identity

    def _forget_if_clock_stepped(self) -> None:
        """The client measures a lease's age by the wall clock: after a step of that, anew."""
        offset = time.time() - self._clock()
        if abs(offset - self._wall_offset) > _CLOCK_STEP:
            self._election.observed_record = None
        self._wall_offset = offset

    def _release(self) -> None:
        now = str(dt.datetime.now())  # noqa: DTZ005  # the client's format: local and naive
        try:
            found, record = self._lock.get(LEASE, self._lock.namespace)
            if found and record.holder_identity == self.identity:
                nobody = LeaderElectionRecord("", _RELEASED_DURATION, record.acquire_time, now)
                self._lock.update(LEASE, self._lock.namespace, nobody)
        except (HTTPError, OSError) as error:
            log.warning("Lease not given back", error=error)


def _leases(client: ApiClient, timeout: int) -> CoordinationV1Api:
    """Leases with a timeout: an answer that is lost must not hold up the next try for minutes."""
    leases = CoordinationV1Api(client)
    for verb in ("read", "create", "replace"):
        method = f"{verb}_namespaced_lease"
        setattr(leases, method, partial(getattr(leases, method), _request_timeout=timeout))
    return leases


def _nothing() -> None:
    """The client's own loop, which cannot be stopped, is not used, nor are its callbacks."""
