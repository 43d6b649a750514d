"""The processes of one pod, read so that a pod which waits for its QEMU can be asked often."""

import errno
import os
from collections.abc import Mapping
from typing import Final

from peacemaker_nodeagent.discover import YOUNG
from peacemaker_nodeagent.pod_cgroups import children

_NESTED: Final = "container"
"""crun makes a cgroup of this name in the container's, and runs the processes there."""


class PodProcesses:
    """The processes in the containers of the pod whose cgroup is at `path`.

    No descriptor is kept: v1 answers a kept cgroup.procs from a list that it makes anew only when
    nobody has read it for a second (kernel/cgroup/cgroup-v1.c).
    """

    __slots__ = ("_containers", "_directory", "_links", "_since", "path")

    def __init__(self, directory: str, path: str) -> None:
        self.path = path
        self._directory = directory
        self._links = 0
        self._containers: list[str] = []
        self._since: Mapping[int, float] = {}

    def members(self, everything: bool = False) -> dict[int, str]:
        """Each process's cgroup path, by pid; none of a pod that is gone."""
        self._find_containers(everything)
        found: dict[int, str] = {}
        for name in self._containers:
            cgroup, pids = name, self._pids(name)
            if pids is None:
                self._links = 0  # it is gone: look for its successor, which counts as much
            elif not pids:
                cgroup = f"{name}/{_NESTED}"
                pids = self._pids(cgroup)
            found.update(dict.fromkeys(pids or (), f"{self.path}/{cgroup}"))
        return found

    def new(self, members: Mapping[int, str], now: float) -> list[int]:
        """Those first seen a short while ago: until it calls exec, one has its parent's name."""
        self._since = {pid: self._since.get(pid, now) for pid in members}
        return [pid for pid, since in self._since.items() if now - since < YOUNG]

    def renew(self) -> None:
        """All of them count as new again."""
        self._since = {}

    def _find_containers(self, everything: bool) -> None:
        """A directory's link count is 2 + the cgroups in it (fs/kernfs): as cheap as can be."""
        try:
            links = os.stat(self._directory).st_nlink
        except FileNotFoundError:
            links = 0
        if everything or links != self._links:
            self._containers = children(self._directory)
            self._links = links

    def _pids(self, name: str) -> list[int] | None:
        """cgroup.procs; empty in a threaded cgroup (v2: its domain lists them), None if gone."""
        try:
            descriptor = os.open(f"{self._directory}/{name}/cgroup.procs", os.O_RDONLY)
        except FileNotFoundError:
            return None
        content = b""
        try:
            while part := os.read(descriptor, 4096):
                content += part
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            if error.errno != errno.EOPNOTSUPP:
                raise
        finally:
            os.close(descriptor)
        return list(map(int, content.split()))


def comm(pid: int) -> str:
    """The name of a process; empty if it has ended."""
    try:
        descriptor = os.open(f"/proc/{pid}/comm", os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        return os.read(descriptor, 64).decode("utf-8", "replace").rstrip("\n")
    except ProcessLookupError:
        return ""
    finally:
        os.close(descriptor)
