"""A list of one kind of object, kept up to date: what client-go calls a reflector.

Objects are shrunk to records as they come, so that ten thousand of them fit in little memory, and
only a record that differs is news. Whatever goes wrong ends in a new list, never in an exit; what
the new list lacks was deleted meanwhile.
"""

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from peacemaker_kube import log
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, Document, Lines

T = TypeVar("T")

EXPIRED: Final = 410
"""HTTP 410 Gone: the server no longer knows the version that the watch would go on from."""

WATCH_FOR: Final = 300.0
"""Seconds after which the server ends a watch, and the next one goes on from there."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """A record that came (old is None), changed, or went (new is None).

    `key` is "namespace/name", or "name" of what is in no namespace.
    """

    key: str
    old: T | None
    new: T | None


class _Relist(Exception):
    """The watch cannot go on; a new list is due, at once or after a pause."""

    def __init__(self, reason: str, why: str, at_once: bool = False) -> None:
        super().__init__(why)
        self.reason = reason
        self.at_once = at_once


class Watch(Generic[T]):
    """Keeps `items` in a thread of its own, from `start` to `stop`.

    `record` makes a record of a document, and must bear malformed ones. `changed` is called in the
    watch's thread. `synced` is set once the first whole list is in `items` and told. `relists`
    counts why the list was taken anew: expired, error or unreachable. `heard_at`, in seconds since
    the epoch, is when the server last said something: at rest a bookmark about once a minute.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        record: Callable[[Document], T],
        changed: Callable[[Change[T]], None],
        *,
        fields: str = "",
        labels: str = "",
        page: int = 250,
    ) -> None:
        self.items: dict[str, T] = {}
        self.synced = threading.Event()
        self.relists: Counter[str] = Counter()
        self.heard_at: float | None = None
        self._api = api
        self._path = path
        self._record = record
        self._changed = changed
        self._query = {
            **({"fieldSelector": fields} if fields else {}),
            **({"labelSelector": labels} if labels else {}),
        }
        self._page = page
        self._stopped = threading.Event()
        self._lines: Lines | None = None
        self._told = ""
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it may take a moment more, but tells no change after this."""
        self._stopped.set()
        if (lines := self._lines) is not None:
            lines.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                version = self._list()
                pause, self._told = _FIRST_PAUSE, ""
                while not self._stopped.is_set():
                    version = self._follow(version)
            except _Relist as relist:
                if self._stopped.is_set():
                    return
                self.relists[relist.reason] += 1
                self._tell(str(relist))
                if not relist.at_once:
                    self._stopped.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _tell(self, why: str) -> None:
        """The same words once, for as long as no list can be had."""
        if why != self._told:
            self._told = why
            log.warning("list is taken anew", path=self._path, why=why)

    # --- list ---

    def _list(self) -> str:
        """Take the whole list, tell how it differs, and return its version."""
        found: dict[str, T] = {}
        more = ""
        while True:
            query = {**self._query, "limit": str(self._page)}
            page = self._ask({**query, "continue": more} if more else query)
            for document in page.get("items") or ():
                if (key := _key(document)) is not None:
                    found[key] = self._record(document)
            metadata = page.get("metadata") or {}
            more = metadata.get("continue") or ""
            if not more:
                break
        for key in [key for key in self.items if key not in found]:
            self._put(key, None)
        for key, record in found.items():
            self._put(key, record)
        if not self._stopped.is_set():
            self.synced.set()
        return str(metadata.get("resourceVersion") or "")

    def _ask(self, query: dict[str, str]) -> Document:
        try:
            page = self._api.get(self._path, **query)
        except (ApiError, ApiUnreachable) as error:
            raise _relist(error) from None
        self.heard_at = time.time()
        return page

    # --- watch ---

    def _follow(self, version: str) -> str:
        """Watch from a version until the server ends it, and return the version to go on from."""
        timeout = WATCH_FOR * random.uniform(1.0, 1.2)  # noqa: S311 (not all at the same time)
        query = {**self._query, "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            with contextlib.closing(self._api.watch(self._path, timeout=timeout, **query)) as lines:
                self._lines = lines
                for line in lines:
                    self.heard_at = time.time()
                    if self._stopped.is_set():
                        break
                    if line:
                        version = self._take(line, version)
        except (ApiError, ApiUnreachable) as error:
            raise _relist(error) from None
        finally:
            self._lines = None
        return version

    def _take(self, line: str, version: str) -> str:
        """One event of the watch; the version that it brings."""
        try:
            event = json.loads(line)
            kind, document = event["type"], event["object"]
            if kind == "ERROR":
                raise _relist(ApiError(document.get("code") or 500, document))
            metadata = document["metadata"]
            key = _key(document)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _Relist("error", f"an event that makes no sense: {error!r}") from None
        if kind == "DELETED" and key is not None:
            self._put(key, None)
        elif kind in ("ADDED", "MODIFIED") and key is not None:
            self._put(key, self._record(document))
        return str(metadata.get("resourceVersion") or version)

    def _put(self, key: str, new: T | None) -> None:
        old = self.items.get(key)
        if old == new or self._stopped.is_set():
            return
        if new is None:
            del self.items[key]
        else:
            self.items[key] = new
        self._changed(Change(key, old, new))


def _relist(error: ApiError | ApiUnreachable) -> _Relist:
    if isinstance(error, ApiUnreachable):
        return _Relist("unreachable", f"the API server does not answer: {error}")
    if error.status == EXPIRED:
        return _Relist("expired", error.message, at_once=True)
    return _Relist("error", f"{error.message} (HTTP status {error.status})")


def _key(document: Any) -> str | None:
    """None for what has no name: it cannot be told from another."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str):
        return None
    namespace = metadata.get("namespace")
    return f"{namespace}/{name}" if namespace else name
