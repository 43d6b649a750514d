"""cgroup hierarchies, and the names that kubelets, container runtimes and libvirt give cgroups.

A path here starts with `/` and is counted from the root of the hierarchy.
"""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from peacemaker.nice import CPU_SHARES, CPU_WEIGHT, WeightRange

DEFAULT_MOUNT: Final = "/sys/fs/cgroup"


class CgroupError(Exception):
    """The machine's cgroup file system is not as the agent needs it; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where the `cpu` controller lives, and (on v1, apart from it) the accounting of CPU time."""

    version: int
    cpu: str
    cpuacct: str
    weight_file: str
    weights: WeightRange

    def directory(self, path: str) -> str:
        return self.cpu + path.rstrip("/")

    def accounting(self, path: str) -> str:
        return self.cpuacct + path.rstrip("/")


def find_hierarchy(mount: str = DEFAULT_MOUNT) -> Hierarchy:
    """The hierarchy mounted at `mount`: v2 if unified, else v1's `cpu` and `cpuacct` below it."""
    if os.path.exists(f"{mount}/cgroup.controllers"):
        return Hierarchy(2, mount, mount, "cpu.weight", CPU_WEIGHT)
    cpu = _first(mount, "cpu.shares", ("cpu", "cpu,cpuacct", "cpuacct,cpu"))
    cpuacct = _first(mount, "cpuacct.usage", ("cpuacct", "cpu,cpuacct", "cpuacct,cpu"))
    if cpu is None or cpuacct is None:
        raise CgroupError(
            f"{mount}: found neither cgroup v2 (cgroup.controllers) nor v1 (cpu/cpu.shares and "
            "cpuacct/cpuacct.usage); name the mount with --cgroup-mount"
        )
    return Hierarchy(1, cpu, cpuacct, "cpu.shares", CPU_SHARES)


def _first(mount: str, file: str, names: tuple[str, ...]) -> str | None:
    found = (f"{mount}/{name}" for name in names if os.path.exists(f"{mount}/{name}/{file}"))
    return next(found, None)


_POD_UID = r"(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"

# Who names a VM's cgroup, and how. `own` is the VM's own cgroup, the one whose weight is written;
# `container` the one below it that QEMU runs in. The prefixes are those of nested kubelets (kind:
# /kubelet/…, kubelet.slice/kubelet-kubepods.slice/…); crun nests `container` in its scope.
_SCHEMES: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in {
        "kubelet, cgroupfs driver": (
            r"(?P<own>.*?/kubepods(?:/(?P<qos>burstable|besteffort))?/pod" + _POD_UID + r")"
            r"(?P<container>/[^/]+(?:/container)?)?(?:/.*)?"
        ),
        "kubelet, systemd driver": (
            r"(?P<own>.*?/(?:[^/]+-)?kubepods\.slice"
            r"(?:/(?:[^/]+-)?kubepods-(?P<qos>burstable|besteffort)\.slice)?"
            r"/(?:[^/]+-)?kubepods(?:-burstable|-besteffort)?-pod" + _POD_UID + r"\.slice)"
            r"(?P<container>/[^/]+(?:/container)?)?(?:/.*)?"
        ),
        "libvirt, systemd-machined": r"(?P<own>.*?/machine-qemu[^/]*\.scope)(?:/.*)?",
        "libvirt, cgroupfs": (
            r"(?P<own>.*?/machine(?:/[^/]+\.partition)*/[^/]+\.libvirt-qemu)(?:/.*)?"
        ),
    }.items()
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a QEMU process is.

    `own` is None where the VM has no cgroup to itself. `qos` is the pod's QoS class: guaranteed,
    burstable, besteffort; None outside pods.
    """

    path: str
    scheme: str | None = None
    own: str | None = None
    container: str | None = None
    pod_uid: str | None = None
    qos: str | None = None

    @property
    def parent(self) -> str | None:
        """The cgroup in which the VM's own one competes."""
        return self.own[: self.own.rindex("/")] or "/" if self.own else None


def place(path: str) -> Placement:
    """Parse a cgroup path by the table of schemes."""
    matches = [(name, match) for name, pattern in _SCHEMES if (match := pattern.fullmatch(path))]
    if not matches:
        return Placement(path)
    # The outermost pod, since what is inside a pod its tenant may have made; else libvirt's scope.
    scheme, match = min(matches, key=lambda m: ("uid" not in m[1].groupdict(), len(m[1]["own"])))
    groups = match.groupdict()
    own, uid, container = groups["own"], groups.get("uid"), groups.get("container")
    return Placement(
        path=path,
        scheme=scheme,
        own=own,
        container=own + container if container else None,
        pod_uid=uid.replace("_", "-") if uid else None,
        qos=(groups.get("qos") or "guaranteed") if uid else None,
    )


class Membership:
    """Which cgroup a process is in.

    /proc/PID/cgroup is cheap, but in a private cgroup namespace it counts from the reader's own
    cgroup (`/../…`). The tree itself does not lie, so there `cgroup.procs` is searched instead.
    """

    __slots__ = ("_hierarchy", "_private")

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        own = _path_in_proc(os.getpid(), hierarchy.version)
        self._private = own is None or os.getpid() not in _members(hierarchy.directory(own))

    def paths(self, pids: Collection[int]) -> dict[int, str]:
        """The cgroup path of each process; a process that has ended is left out."""
        if self._private:
            return self._search(set(pids))
        found = ((pid, _path_in_proc(pid, self._hierarchy.version)) for pid in pids)
        return {pid: path for pid, path in found if path is not None}

    def _search(self, wanted: set[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for directory in walk(self._hierarchy.cpu):
            if not wanted:
                break
            here = wanted.intersection(_members(directory))
            found.update((pid, directory[len(self._hierarchy.cpu) :] or "/") for pid in here)
            wanted -= here
        return found


def walk(directory: str) -> Iterator[str]:
    """The directory and every cgroup below it; one that ends meanwhile is passed over."""
    yield directory
    try:
        entries = sorted(entry.path for entry in os.scandir(directory) if entry.is_dir())
    except FileNotFoundError:
        return
    for entry in entries:
        yield from walk(entry)


def _path_in_proc(pid: int, version: int) -> str | None:
    """/proc/PID/cgroup: `hierarchy:controllers:path` lines, v2 alone has no controllers."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                if (not controllers) if version == 2 else ("cpu" in controllers.split(",")):
                    return path
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None


def _members(directory: str) -> list[int]:
    """cgroup.procs; a threaded cgroup of v2 refuses the reading (its domain lists the members)."""
    try:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            return [int(line) for line in file]
    except OSError:
        return []
