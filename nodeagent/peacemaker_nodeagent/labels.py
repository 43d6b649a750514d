"""VM labels on a host without a cluster: an optional file that maps `namespace/name` to labels."""

from collections.abc import Mapping
from typing import Final

from peacemaker.fields import Field, Reader
from peacemaker.yamltree import MAX_BYTES, Kind, Scalar, YamlError, documents
from peacemaker_kube import log
from peacemaker_nodeagent import files

_Labels = Mapping[str, Mapping[str, str]]
_MOST_NODES: Final = 50_000
"""Enough for a thousand VMs with twenty labels each."""


class LabelsError(Exception):
    """The labels file cannot be used; the text says where and why, one line a problem."""


class Labels:
    """The file's labels as they are now; none without a file."""

    def __init__(self, path: str | None) -> None:
        """Raises LabelsError."""
        self._path = path
        self._stamp: files.Stamp | None = None
        self._labels: _Labels = {}
        if path:
            try:
                self._stamp = files.stamp(path)
                self._labels = _read(path)
            except OSError as error:
                raise LabelsError(f"{path}: cannot be read: {error.strerror}") from None

    def of(self, full_name: str) -> Mapping[str, str]:
        return self._labels.get(full_name, {})

    def poll(self) -> bool:
        """Whether the file says something else now. One that turns wrong is logged, once."""
        if self._path is None:
            return False
        before = self._stamp
        try:
            self._stamp = files.stamp(self._path)
            if self._stamp == before:
                return False
            labels = _read(self._path)
        except OSError as error:
            self._stamp = None
            if before is not None:
                log.error("labels cannot be read", file=self._path, why=error.strerror)
            return False
        except LabelsError as error:
            log.error("labels refused, the last good ones stay in force", problem=error)
            return False
        changed = labels != self._labels
        self._labels = labels
        return changed


def _read(path: str) -> _Labels:
    """Raises OSError, LabelsError."""
    reader = Reader(path)
    labels: dict[str, Mapping[str, str]] = {}
    try:
        for root in documents(files.read(path, MAX_BYTES), _MOST_NODES):
            if not (isinstance(root, Scalar) and root.kind is Kind.NULL):
                labels |= _labels(reader, Field("", root))
    except YamlError as error:
        reader.problem("", (error.line, error.column), error.message)
    if reader.problems:
        raise LabelsError("\n".join(map(str, sorted(reader.problems))))
    return labels


def _labels(reader: Reader, root: Field) -> _Labels:
    reader.keys(root)
    found = {}
    for name, field in reader.labels(root).items():
        namespace, slash, vm = name.text.partition("/")
        if not (namespace and slash and vm):
            place = (name.line, name.column)
            reader.problem(field.path, place, "not a VM's name (allowed namespace/name)")
        found[name.text] = {
            key.text: reader.text(value, "a string") or ""
            for key, value in reader.labels(field).items()
        }
    return found
