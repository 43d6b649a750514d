"""The VM's own cgroup: its weight, and the record of it, by kept descriptors.

Descriptors stay with the cgroup that was opened: if it is removed and another is made under the
same name, every call fails instead of reaching the wrong one.
"""

import errno
import os
from dataclasses import dataclass
from typing import Final, Self

from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.records import ATTRIBUTE, WeightRecord, read_weight_record

IDLE_WEIGHTS: Final = (0, 3)
"""What the weight of an idle cgroup reads on v2, and on v1 (kernel/sched: WEIGHT_IDLEPRIO)."""

_GONE = (errno.ENODEV, errno.ENOENT)


class CgroupEnded(Exception):
    """The cgroup was removed."""


@dataclass(slots=True)
class OwnCgroup:
    """One VM's own cgroup directory. Every method raises CgroupEnded once it is removed."""

    path: str
    _directory: int
    _weight: int

    @classmethod
    def open(cls, hierarchy: Hierarchy, path: str) -> Self | None:
        """None for a cgroup without a weight: on v2 one whose parent has the cpu controller off,
        so that its threads compete with those of its siblings, by nice.

        Raises CgroupEnded, PermissionError.
        """
        try:
            directory = os.open(hierarchy.directory(path), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as gone:
            raise CgroupEnded(path) from gone
        try:
            weight = os.open(hierarchy.weight_file, os.O_RDWR, dir_fd=directory)
        except OSError as error:
            os.close(directory)
            if not isinstance(error, FileNotFoundError):
                raise
            if os.path.exists(hierarchy.directory(path)):
                return None
            raise CgroupEnded(path) from error
        return cls(path, directory, weight)

    def close(self) -> None:
        os.close(self._weight)
        os.close(self._directory)

    def read_weight(self) -> int:
        """The weight now; of an idle cgroup (cpu.idle 1) one of IDLE_WEIGHTS."""
        try:
            return int(os.pread(self._weight, 32, 0))
        except OSError as error:
            raise self._ended(error) from error

    def write_weight(self, weight: int) -> None:
        """Raises OSError, EINVAL for a cgroup that is idle."""
        try:
            os.pwrite(self._weight, b"%d\n" % weight, 0)
        except OSError as error:
            raise self._ended(error) from error

    def read_record(self) -> WeightRecord | None:
        """Raises RecordError."""
        try:
            return read_weight_record(self._directory, self.path)
        except OSError as error:
            raise self._ended(error) from error

    def write_record(self, record: WeightRecord) -> None:
        try:
            os.setxattr(self._directory, ATTRIBUTE, record.encode())
        except OSError as error:
            raise self._ended(error) from error

    def remove_record(self) -> None:
        try:
            os.removexattr(self._directory, ATTRIBUTE)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise self._ended(error) from error

    def is_idle(self) -> bool:
        """cpu.idle (kernel >= 5.15): the cgroup runs only when nothing else does."""
        try:
            descriptor = os.open("cpu.idle", os.O_RDONLY, dir_fd=self._directory)
        except FileNotFoundError:
            return False
        try:
            return os.read(descriptor, 8).strip() == b"1"
        finally:
            os.close(descriptor)

    def _ended(self, error: OSError) -> Exception:
        return CgroupEnded(self.path) if error.errno in _GONE else error


def read_foreign_weight(hierarchy: Hierarchy, path: str) -> int | None:
    """The weight of a cgroup that is only looked at; None if it is gone."""
    try:
        with open(f"{hierarchy.directory(path)}/{hierarchy.weight_file}", encoding="ascii") as file:
            return int(file.read())
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
