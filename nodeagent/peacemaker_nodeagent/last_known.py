"""The last known PeaceList, kept across restarts of the agent while the API server is away."""

import json
import os
from contextlib import suppress
from typing import Final

from peacemaker.peacelist import from_document, to_document
from peacemaker_kube import log
from peacemaker_nodeagent.listing import Listing

_FORMAT: Final = 1
_MOST_BYTES: Final = 4 << 20
"""Well above what the API server can store of one object."""


class LastKnown:
    """One file, replaced whole. Of another node, torn or foreign: it counts as none."""

    def __init__(self, path: str, node: str) -> None:
        self._path = path
        self._node = node

    def read(self) -> Listing | None:
        try:
            with open(self._path, "rb") as file:
                fields = json.loads(file.read(_MOST_BYTES))
            if (fields["v"], fields["node"]) != (_FORMAT, self._node):
                raise ValueError(f"format {fields['v']!r}, node {fields['node']!r:.80}")
            spec = from_document(fields["spec"])
            return Listing(str(fields["uid"]), int(fields["generation"]), spec)
        except FileNotFoundError:
            return None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ) as error:
            log.warning("last known PeaceList ignored", file=self._path, why=repr(error))
            return None

    def write(self, listing: Listing) -> None:
        """What cannot be understood is not kept; a full disk is told, and nothing worse."""
        if listing.spec is None:
            return
        fields = {
            "v": _FORMAT,
            "node": self._node,
            "uid": listing.uid,
            "generation": listing.generation,
            "spec": to_document(listing.spec),
        }
        try:
            with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                json.dump(fields, file)
            os.replace(f"{self._path}.new", self._path)
        except OSError as error:
            log.error("PeaceList cannot be kept", file=self._path, why=error.strerror)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path)
