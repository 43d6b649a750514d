"""The newest that is known of objects: what the watch told, or the answers to our own writes.

An answer comes before the watch tells of the same write. Without it, the next write would be
compared with, and conditional on, what is known to be old.
"""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar


class Versioned(Protocol):
    """A record that knows its object's version."""

    @property
    def resource_version(self) -> str: ...


T = TypeVar("T", bound=Versioned)


class Newest(Generic[T]):
    """Records by name. `watched` is the watch's; of one thread."""

    def __init__(self, watched: Mapping[str, T]) -> None:
        self._watched = watched
        self._ahead: dict[str, T] = {}

    def get(self, name: str) -> T | None:
        """The newest record; None if there is no such object."""
        return self._ahead.get(name) or self._watched.get(name)

    def answered(self, name: str, record: T) -> None:
        """The API server answered a write or a read with this."""
        watched = self._watched.get(name)
        if watched is None or _is_older(watched, record):
            self._ahead[name] = record

    def told(self, name: str, record: T | None) -> bool:
        """The watch told this (None: it is gone). Whether it is news, and not our own write."""
        ahead = self._ahead.get(name)
        if ahead is None:
            return True
        if record is not None and _is_older(record, ahead):
            return False
        del self._ahead[name]
        return record != ahead


def _is_older(one: Versioned, other: Versioned) -> bool:
    """Versions are decimal numbers that rise; of others, what came last counts."""
    try:
        return int(one.resource_version) < int(other.resource_version)
    except ValueError:
        return False
