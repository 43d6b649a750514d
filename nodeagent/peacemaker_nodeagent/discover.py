"""Discovery on a host without a cluster: QEMU processes by comm, wherever they are.

Cost follows changes: only pids that were given out since the last look are looked at. A process has
its parent's name until it calls exec, so young ones are looked at again; once in a while, all are.
"""

import math
import os
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

import psutil

from peacemaker_nodeagent.cgroup import Hierarchy, Membership, Placement, place
from peacemaker_nodeagent.proc import CLOCK_TICKS, Process, ProcessEnded, is_qemu

YOUNG: Final = 5.0
"""Seconds for which a new process may still become QEMU by exec unnoticed."""

MANY: Final = 4096
"""With more new pids than this, to list /proc is cheaper than to try each."""

NO_NAMESPACE: Final = "default"
_SMP = re.compile(r"(?:cpus=)?(\d+)")


class Scanner:
    """Finds the pids of QEMU processes that were not reported before.

    The kernel gives out pids in ascending order, to threads as well, and starts again from below
    when it comes to the end (kernel/pid.c). The last field of /proc/loadavg is the last one given
    out. To list /proc instead takes a millisecond where VMs have thousands of threads.
    """

    def __init__(self) -> None:
        self._loadavg = os.open("/proc/loadavg", os.O_RDONLY)
        self._last: int | None = None
        self._young: dict[int, float] = {}
        self._ended: set[int] = set()

    def forget(self, pid: int) -> None:
        """The process has ended: what has its number at the next look is a new one."""
        self._ended.add(pid)

    def scan(self, now: float, everything: bool = False, known: Container[int] = ()) -> set[int]:
        """Pids of QEMU among new and young processes, or among all of them but the known."""
        last = int(os.pread(self._loadavg, 128, 0).split()[-1])
        self._young.update(dict.fromkeys((*_given_out(self._last, last), *self._ended), now))
        self._last = last
        self._ended.clear()
        looked_at = psutil.pids() if everything else self._young
        comms = {pid: _comm(pid) for pid in looked_at if pid not in known}
        found = {
            pid for pid, comm in comms.items() if is_qemu(comm) and (everything or _is_process(pid))
        }
        self._young = {
            pid: since
            for pid, since in self._young.items()
            # A pid is given out just before its process can be seen.
            if now - since < YOUNG and pid not in found and (comms.get(pid) or since == now)
        }
        return found


def _given_out(before: int | None, last: int) -> Iterable[int]:
    """The pids given out after `before`, up to `last`; all that there are if `before` is None."""
    if before is not None and before <= last <= before + MANY:
        return range(before + 1, last + 1)
    pids = psutil.pids()
    if before is None:
        return pids
    if before <= last:
        return (pid for pid in pids if before < pid <= last)
    return (pid for pid in pids if pid > before or pid <= last)


def _comm(pid: int) -> str:
    """The name of a process or thread; empty if there is none."""
    return _read(f"/proc/{pid}/comm").decode("utf-8", "replace")


def _is_process(pid: int) -> bool:
    """Threads have ids of the same kind, and a /proc/ID that is not listed but can be opened."""
    return b"\nTgid:\t%d\n" % pid in _read(f"/proc/{pid}/status")


def _read(path: str) -> bytes:
    """The first bytes of a file of a process; none if that has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, 1024)
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Found:
    """A QEMU process, and the VM's name as far as the one who found it knows.

    On a host without a cluster the name is from the command line, which a tenant could forge.
    """

    process: Process
    name: str
    namespace: str
    vcpus: int
    started: float
    placement: Placement


class Finder(Protocol):
    """Finds the QEMU processes that have started."""

    def find(self, now: float, everything: bool, known: Container[int]) -> list[Found]:
        """Those not reported before, looked for among new processes or among all but the known.

        The caller closes their processes.
        """
        ...

    def forget(self, pid: int) -> None:
        """The process has ended: whoever has its number next is somebody new."""
        ...

    def next_look(self) -> float:
        """Seconds since boot at which something may be found that nobody tells of."""
        ...


class HostFinder:
    """QEMU anywhere on a host, in a cgroup below `below`."""

    def __init__(self, hierarchy: Hierarchy, below: str) -> None:
        self._membership = Membership(hierarchy)
        self._below = below
        self._scanner = Scanner()

    def find(self, now: float, everything: bool, known: Container[int]) -> list[Found]:
        pids = self._scanner.scan(now, everything, known)
        return describe(pids, self._membership, self._below) if pids else []

    def forget(self, pid: int) -> None:
        self._scanner.forget(pid)

    def next_look(self) -> float:
        return math.inf  # the agent's own two looks a second are enough


def describe(pids: Iterable[int], membership: Membership, below: str = "/") -> list[Found]:
    """Open each pid that is a live QEMU in a cgroup below `below`; the caller closes them."""
    found = []
    paths = membership.paths(tuple(pids))
    for pid, path in paths.items():
        if not f"{path}/".startswith(f"{below.rstrip('/')}/"):
            continue
        try:
            process = Process.open(pid)
        except ProcessEnded:
            continue
        try:
            described = _describe(process, place(path))
        except (ProcessEnded, psutil.NoSuchProcess):
            described = None
        if described is None:
            process.close()
        else:
            found.append(described)
    return found


def _describe(process: Process, placement: Placement) -> Found | None:
    """None if the process is no QEMU after all, or a zombie (pid reused, ended)."""
    stat = process.stat()
    if not is_qemu(stat.comm) or stat.state in "ZX":
        return None
    arguments = psutil.Process(process.pid).cmdline()
    namespace, name = guest_name(_option(arguments, "-name"), process.pid)
    smp = _SMP.match(_option(arguments, "-smp"))
    return Found(
        process=process,
        name=name,
        namespace=namespace,
        vcpus=max(1, int(smp[1])) if smp else 1,
        started=stat.start / CLOCK_TICKS,
        placement=placement,
    )


def _option(arguments: list[str], name: str) -> str:
    """The value of the last such option; empty if there is none."""
    values = [value for key, value in pairwise(arguments) if key == name]
    return values[-1] if values else ""


def guest_name(option: str, pid: int) -> tuple[str, str]:
    """Namespace and name from `-name [guest=]<namespace>_<name>,…`, as KubeVirt writes it."""
    guest = ""
    for part in option.split(","):
        key, equals, value = part.partition("=")
        if not equals and not guest:
            guest = key
        elif key == "guest":
            guest = value
    namespace, underscore, name = guest.partition("_")
    if underscore and namespace and name:
        return namespace, name
    return NO_NAMESPACE, guest or f"qemu-{pid}"
