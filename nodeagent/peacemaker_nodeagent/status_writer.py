"""Writing the status of the node's PeaceList, in a thread of its own: no API server, however slow,
holds up the agent.
"""

import random
import threading
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from peacemaker_kube import log
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, Document
from peacemaker_kube.paths import PEACE_LISTS, status

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0

_IN_VAIN: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
)
"""Refusals that the same document would meet again: the PeaceList is gone or another one (the
patch names its uid), or the status is not as the schema has it."""


@dataclass(frozen=True, slots=True)
class Written:
    """A status as it was sent, and what the API server made of it, as what version."""

    sent: Document
    stored: Document
    version: str


class StatusWriter:
    """Sends the newest status that it was handed; what was handed before and not sent is dropped.

    `written` is the last one that was stored; `outcomes` counts: written, refused, unreachable.
    """

    def __init__(self, api: Api, node: str) -> None:
        self.written: Written | None = None
        self.outcomes: Counter[str] = Counter()
        self._api = api
        self._path = status(PEACE_LISTS, node)
        self._handed: tuple[str, Document] | None = None
        self._changed = threading.Condition()
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hand(self, uid: str, document: Document) -> None:
        """Send this to the PeaceList with this uid, and to no other."""
        with self._changed:
            self._handed = (uid, document)
            self._changed.notify()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                while self._handed is None:
                    self._changed.wait()
                handed = self._handed
            if self._send(*handed):
                pause = _FIRST_PAUSE
                with self._changed:
                    if self._handed is handed:
                        self._handed = None
                continue
            # What is handed meanwhile waits too: the server is what the pause is for.
            threading.Event().wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _send(self, uid: str, document: Document) -> bool:
        """Whether there is nothing more to be done about it."""
        try:
            answer = self._api.patch(self._path, {"metadata": {"uid": uid}, "status": document})
        except ApiUnreachable as error:
            self._tell("unreachable", f"the API server does not answer: {error}")
            return False
        except ApiError as error:
            self._tell("refused", f"{error.message} (HTTP status {error.status})")
            return error.status in _IN_VAIN
        self._told = ""
        self.outcomes["written"] += 1
        metadata = answer.get("metadata") or {}
        version = str(metadata.get("resourceVersion"))
        self.written = Written(document, answer.get("status") or {}, version)
        return True

    def _tell(self, outcome: str, why: str) -> None:
        """Each time counts; the same words are logged once."""
        self.outcomes[outcome] += 1
        if why != self._told:
            self._told = why
            log.warning("status is not written", why=why)
