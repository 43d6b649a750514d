"""VM labels on a host without a cluster: an optional file that maps `namespace/name` to labels."""

import os
from collections.abc import Mapping
from typing import Final

import yaml

from peacemaker_nodeagent import log

_MOST_BYTES: Final = 1 << 20


class LabelsError(Exception):
    """The labels file cannot be used; the text says where and why."""


class Labels:
    """The file's labels as they are now; none without a file."""

    def __init__(self, path: str | None) -> None:
        """Raises LabelsError."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._labels: Mapping[str, Mapping[str, str]] = {}
        if path:
            self._stamp = _stamp(path)
            self._labels = _read(path)

    def of(self, full_name: str) -> Mapping[str, str]:
        return self._labels.get(full_name, {})

    def poll(self) -> bool:
        """Whether the file says something else now. One that turns wrong is logged and ignored."""
        if self._path is None:
            return False
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            labels = _read(self._path)
        except LabelsError as error:
            if self._stamp is not None:
                log.error("labels refused, the last good ones stay in force", problem=error)
            return False
        changed = labels != self._labels
        self._labels = labels
        return changed


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: str) -> Mapping[str, Mapping[str, str]]:
    try:
        with open(path, "rb") as file:
            document = yaml.safe_load(file.read(_MOST_BYTES))
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LabelsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise LabelsError(
            f"{path}: found {type(document).__name__}, expected namespace/name: labels"
        )
    for name, labels in document.items():
        if not isinstance(name, str) or "/" not in name:
            raise LabelsError(f"{path}: {name!r} is not a namespace/name")
        if not isinstance(labels, dict) or not all(
            isinstance(part, str) for pair in labels.items() for part in pair
        ):
            raise LabelsError(f"{path}: {name}: labels are strings by strings, found {labels!r}")
    return document
