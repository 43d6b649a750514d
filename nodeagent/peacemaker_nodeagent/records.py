"""The two records that make restore exact. Record first, then write, then confirm.

The weight's record is an extended attribute on the VM's own cgroup directory: it lives and dies
with the cgroup and needs no key. The threads' record is a small file of its own for each QEMU
process below /run, keyed by boot, pid and start time. A record that is not whole is never
repaired: reading it raises RecordError, and the VM is left alone.
"""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Self, TypeVar

from peacemaker.nice import NICE_MAX, NICE_MIN
from peacemaker_nodeagent.proc import ProcessKey

ATTRIBUTE: Final = "user.peacemaker"
_FORMAT: Final = 1
_MOST_WEIGHT: Final = 262_144
_MOST_BYTES: Final = 1 << 20
_TID: Final = re.compile(r"[1-9][0-9]{0,9}")
_THREAD_FIELDS: Final = 2
_Name = TypeVar("_Name", str, int)


class RecordError(Exception):
    """A record that is not whole, or not of this boot or process; the text says which and why."""


@dataclass(frozen=True, slots=True)
class WeightRecord:
    """The weight that was there before us, the one that is ours, and a step under way.

    While `pending` is set, the cgroup may hold `confirmed` or `pending`: both are ours.
    """

    baseline: int
    confirmed: int
    nice: int
    pending: int | None = None

    def is_ours(self, weight: int) -> bool:
        return weight in (self.confirmed, self.pending)

    def with_pending(self, weight: int, nice: int) -> Self:
        return replace(self, pending=weight, nice=nice)

    def with_confirmed(self) -> Self:
        return self if self.pending is None else replace(self, confirmed=self.pending, pending=None)

    def encode(self) -> bytes:
        return json.dumps(
            {
                "v": _FORMAT,
                "baseline": self.baseline,
                "confirmed": self.confirmed,
                "pending": self.pending,
                "nice": self.nice,
            }
        ).encode()

    @classmethod
    def decode(cls, raw: bytes, where: str) -> Self:
        """Raises RecordError."""
        fields = _fields(raw, where, ("v", "baseline", "confirmed", "pending", "nice"))
        pending = fields["pending"]
        return cls(
            baseline=_integer(fields, "baseline", where, 1, _MOST_WEIGHT),
            confirmed=_integer(fields, "confirmed", where, 1, _MOST_WEIGHT),
            nice=_integer(fields, "nice", where, NICE_MIN, NICE_MAX),
            pending=None
            if pending is None
            else _integer(fields, "pending", where, 1, _MOST_WEIGHT),
        )


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """The nice that each SCHED_OTHER thread of a QEMU had, and the one that is ours.

    `threads` maps a thread id to its start time (clock ticks since boot) and its nice before us;
    `baseline` is the main thread's, for threads that started later. `nice` is the VM's.
    """

    boot: str
    key: ProcessKey
    baseline: int
    confirmed: int
    nice: int
    threads: Mapping[int, tuple[int, int]]
    pending: int | None = None

    def is_ours(self, nice: int) -> bool:
        return nice in (self.confirmed, self.pending)

    def baseline_of(self, tid: int, start: int) -> int:
        """A thread without a record, or whose id was given anew, came to life under ours."""
        recorded = self.threads.get(tid)
        return recorded[1] if recorded and recorded[0] == start else self.baseline

    def with_pending(self, thread_nice: int, nice: int) -> Self:
        return replace(self, pending=thread_nice, nice=nice)

    def with_confirmed(self) -> Self:
        return self if self.pending is None else replace(self, confirmed=self.pending, pending=None)

    def encode(self) -> bytes:
        return json.dumps(
            {
                "v": _FORMAT,
                "boot": self.boot,
                "pid": self.key.pid,
                "start": self.key.start,
                "baseline": self.baseline,
                "confirmed": self.confirmed,
                "pending": self.pending,
                "nice": self.nice,
                "threads": {str(tid): list(known) for tid, known in self.threads.items()},
            }
        ).encode()

    @classmethod
    def decode(cls, raw: bytes, where: str, boot: str) -> Self:
        """Raises RecordError, also for a record of another boot."""
        names = ("v", "boot", "pid", "start", "baseline", "confirmed", "pending", "nice", "threads")
        fields = _fields(raw, where, names)
        if fields["boot"] != boot:
            raise RecordError(f"{where}: the record is from another boot")

        def nice(name: str) -> int:
            return _integer(fields, name, where, NICE_MIN, NICE_MAX)

        return cls(
            boot=boot,
            key=ProcessKey(_integer(fields, "pid", where, 1), _integer(fields, "start", where, 0)),
            baseline=nice("baseline"),
            confirmed=nice("confirmed"),
            nice=nice("nice"),
            threads=_threads(fields["threads"], where),
            pending=None if fields["pending"] is None else nice("pending"),
        )


def _fields(raw: bytes, where: str, names: tuple[str, ...]) -> dict[str, object]:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise RecordError(f"{where}: the record is torn or garbage") from None
    if not isinstance(fields, dict) or sorted(fields) != sorted(names):
        raise RecordError(f"{where}: the record has not the fields {', '.join(names)}")
    if fields["v"] != _FORMAT:
        raise RecordError(f"{where}: the record has format {fields['v']!r}, not {_FORMAT}")
    return fields


def _integer(
    fields: Mapping[_Name, object], name: _Name, where: str, least: int, most: int = 2**63
) -> int:
    value = fields[name]
    if type(value) is not int or not least <= value <= most:
        raise RecordError(f"{where}: {name} is {value!r:.40}, not a number in {least}..{most}")
    return value


def _threads(value: object, where: str) -> dict[int, tuple[int, int]]:
    if not isinstance(value, dict):
        raise RecordError(f"{where}: threads is {value!r:.40}")
    known = {}
    for tid, entry in value.items():
        fields = dict(enumerate(entry)) if isinstance(entry, list) else {}
        if not _TID.fullmatch(tid) or len(fields) != _THREAD_FIELDS:
            raise RecordError(f"{where}: thread {tid!r:.20} has the record {entry!r:.40}")
        known[int(tid)] = (
            _integer(fields, 0, where, 0),
            _integer(fields, 1, where, NICE_MIN, NICE_MAX),
        )
    return known


def read_weight_record(directory: int | str, where: str) -> WeightRecord | None:
    """The record on a cgroup directory, None if there is none. Raises RecordError, OSError."""
    try:
        raw = os.getxattr(directory, ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
    return WeightRecord.decode(raw, f"{where} ({ATTRIBUTE})")


class Journal:
    """The threads' records: one file a process, replaced whole, so that none is ever half new."""

    _NAME = re.compile(r"(\d+)-(\d+)\.json")

    def __init__(self, directory: str, boot: str) -> None:
        self._directory = directory
        self.boot = boot

    def _path(self, key: ProcessKey) -> str:
        return f"{self._directory}/{key.pid}-{key.start}.json"

    def read(self, key: ProcessKey) -> ThreadRecord | None:
        """Raises RecordError."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        record = ThreadRecord.decode(raw, path, self.boot)
        if record.key != key:
            raise RecordError(f"{path}: the record is of process {record.key}")
        return record

    def write(self, record: ThreadRecord) -> None:
        path = self._path(record.key)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(record.encode())
        os.replace(f"{path}.new", path)

    def remove(self, key: ProcessKey) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path(key))

    def remove_unfinished(self) -> None:
        """Remove what a write that was cut short has left; nobody must be writing."""
        for name in self._names():
            if name.endswith(".new"):
                os.unlink(f"{self._directory}/{name}")

    def processes(self) -> Iterator[ProcessKey]:
        """The processes that the journal has a file for, whole or not."""
        for name in self._names():
            if match := self._NAME.fullmatch(name):
                yield ProcessKey(int(match[1]), int(match[2]))

    def _names(self) -> list[str]:
        return sorted(os.listdir(self._directory)) if os.path.isdir(self._directory) else []
