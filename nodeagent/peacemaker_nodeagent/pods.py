"""Discovery in a cluster: the QEMU processes in pods, by cgroup, name and parent.

A pod's uid is in its cgroup's path, which a tenant cannot choose; the command line, which a tenant
can, is not read. Only a pod that may be waiting for its QEMU is looked at again and again.
"""

import math
import os
import time
from collections.abc import Container, Iterator, KeysView
from dataclasses import dataclass, field
from typing import Final

from peacemaker_nodeagent.cgroup import Hierarchy, place
from peacemaker_nodeagent.discover import Found
from peacemaker_nodeagent.pod_cgroups import PodCgroups
from peacemaker_nodeagent.pod_processes import PodProcesses, comm
from peacemaker_nodeagent.proc import CLOCK_TICKS, Process, ProcessEnded, is_qemu, is_vcpu

POLL_EVERY: Final = 0.3
"""Seconds between two looks at the pods that wait for their QEMU."""

YOUNG: Final = 300.0
"""Seconds for which a pod that no PeaceList names may still turn out to be a VM's."""

MONITOR: Final = "virt-launcher-monitor"[:15]
"""The comm of QEMU's parent in KubeVirt's pods, as the kernel cuts it."""


@dataclass(slots=True)
class _Pod:
    """A pod with a cgroup; it waits for a QEMU `until` then, and longer if a PeaceList names it."""

    processes: PodProcesses
    until: float
    qemus: set[int] = field(default_factory=set)


class PodScanner:
    """Finds QEMU processes in the pods below one cgroup that were not reported before.

    Its cost follows what happens: a scan without events, with no pod that waits, reads nothing but
    inotify's descriptor.
    """

    def __init__(self, hierarchy: Hierarchy, below: str = "/") -> None:
        """Raises CgroupError."""
        self._hierarchy = hierarchy
        self._cgroups = PodCgroups(hierarchy, below)
        self._pods: dict[str, _Pod] = {}
        self._now = -math.inf
        self._due = -math.inf
        self._waits = False

    def close(self) -> None:
        self._cgroups.close()

    @property
    def fd(self) -> int:
        """Readable when pods came or went, until the next `scan`."""
        return self._cgroups.fd

    @property
    def pod_uids(self) -> KeysView[str]:
        """The pods that have a cgroup, with QEMU or without."""
        return self._pods.keys()

    def next_poll(self) -> float:
        """When to scan if nothing else happens: seconds since boot; inf if no pod waits."""
        return self._due if self._waits else math.inf

    def forget(self, pid: int) -> None:
        """The process has ended, or was not taken in: its pod waits for a QEMU again."""
        for pod in self._pods.values():
            if pid in pod.qemus:
                pod.qemus.remove(pid)
                pod.processes.renew()
                pod.until = self._now + YOUNG
                self._waits = True

    def scan(
        self,
        now: float,
        everything: bool = False,
        listed: Container[str] = (),
        known: Container[int] = (),
    ) -> list[Found]:
        """QEMU processes in pods that wait, or in all pods; none of the known ones.

        `listed`: the pod uids of the PeaceList; scan when they change, too. A Found has its pod's
        uid for a name, and no namespace. The caller closes the processes.
        """
        self._now = now
        for uid in self._cgroups.update(everything):
            self._renew(uid, now)
        found: list[Found] = []
        if everything or now >= self._due:
            for uid in list(self._pods) if everything else self._waiting(now, listed):
                self._due = now + POLL_EVERY
                found += self._search(uid, now, known, uid in listed, everything)
        self._waits = bool(self._waiting(now, listed))
        return found

    def _renew(self, uid: str, now: float) -> None:
        path = self._cgroups.pods.get(uid)
        if path is None:
            self._pods.pop(uid, None)
        elif uid not in self._pods or self._pods[uid].processes.path != path:
            directory = self._hierarchy.directory(path)
            until = now - _age(directory) + YOUNG
            self._pods[uid] = _Pod(PodProcesses(directory, path), until)

    def _waiting(self, now: float, listed: Container[str]) -> list[str]:
        return [
            uid
            for uid, pod in self._pods.items()
            if not pod.qemus and (now < pod.until or uid in listed)
        ]

    def _search(
        self, uid: str, now: float, known: Container[int], listed: bool, everything: bool
    ) -> Iterator[Found]:
        """QEMU in one pod. Only new processes are looked at if it is most likely no VM's."""
        pod = self._pods[uid]
        members = pod.processes.members(everything)
        new = pod.processes.new(members, now)
        pod.qemus = {pid for pid in members if pid in known}
        for pid in members if listed or everything else new:
            if pid in pod.qemus or not is_qemu(comm(pid)):
                continue
            try:
                found = _open(pid, members[pid], uid, members)
            except ProcessEnded:
                continue
            if found is not None:
                pod.qemus.add(pid)
                yield found


def _open(pid: int, path: str, uid: str, members: Container[int]) -> Found | None:
    """None if the process is no QEMU, or none that this pod's monitor started. ProcessEnded."""
    process = Process.open(pid)
    found = None
    try:
        stat = process.stat()
        if is_qemu(stat.comm) and stat.ppid in members and comm(stat.ppid) == MONITOR:
            found = Found(
                process=process,
                name=uid,
                namespace="",
                vcpus=max(1, sum(map(is_vcpu, _thread_comms(process)))),
                started=stat.start / CLOCK_TICKS,
                placement=place(path),
            )
    finally:
        if found is None:
            process.close()
    return found


def _thread_comms(process: Process) -> Iterator[str]:
    for tid in process.threads():
        try:
            yield process.thread_stat(tid).comm
        except ProcessEnded:
            continue


def _age(directory: str) -> float:
    """Seconds since the cgroup was made, or fewer.

    A cgroup's time is that of its inode, which the kernel may drop and make anew (fs/kernfs).
    """
    try:
        return max(0.0, time.time() - os.stat(directory).st_ctime)
    except FileNotFoundError:
        return 0.0
