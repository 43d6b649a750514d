"""Discovery on a host without a cluster: QEMU processes by comm, wherever they are.

Cost follows changes: two readings of /proc a second are compared, and only new processes are
looked at. A process has its parent's name until it calls exec, so young ones are looked at again;
all of them are once in a while, which also finds a pid that was reused between two readings.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import psutil

from peacemaker_nodeagent.cgroup import Membership, Placement, place
from peacemaker_nodeagent.proc import CLOCK_TICKS, Process, ProcessEnded, is_qemu

YOUNG: Final = 5.0
"""Seconds for which a new process may still become QEMU by exec unnoticed."""

NO_NAMESPACE: Final = "default"
_SMP = re.compile(r"(?:cpus=)?(\d+)")


class Scanner:
    """Finds the pids of QEMU processes that were not reported before."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._young: dict[int, float] = {}

    def forget(self, pid: int) -> None:
        """The process has ended: what has its number at the next look is a new one."""
        self._seen.discard(pid)

    def scan(self, now: float, everything: bool = False) -> set[int]:
        """Pids of QEMU among new and young processes, or among all of them."""
        pids = set(psutil.pids())
        self._young.update((pid, now) for pid in pids - self._seen)
        self._seen = pids
        found = {pid for pid in (pids if everything else self._young) if _comm_is_qemu(pid)}
        self._young = {
            pid: since
            for pid, since in self._young.items()
            if pid in pids and now - since < YOUNG and pid not in found
        }
        return found


def _comm_is_qemu(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return is_qemu(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass(frozen=True, slots=True)
class Found:
    """A QEMU process and what its command line says of the VM (which a tenant could forge)."""

    process: Process
    name: str
    namespace: str
    vcpus: int
    started: float
    placement: Placement


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


def shared_cgroups(placements: Iterable[Placement]) -> frozenset[str]:
    """The cgroups that could be a VM's own, but hold several: their weight is no VM's."""
    counts = Counter(placement.own for placement in placements if placement.own)
    return frozenset(own for own, count in counts.items() if count > 1)


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
