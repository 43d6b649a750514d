"""Cgroups shaped like those of Kubernetes and libvirt, on cgroup v1 and v2, made and removed.

A PodTree makes only directories below one root of its own at the top of the host's cgroup file
system, and leaves mounts and other people's cgroups alone.
"""

import errno
import itertools
import os
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.measure import wait_for

CGROUP_FS = Path("/sys/fs/cgroup")
REMOVE_TIMEOUT = 30.0
"""Seconds that a killed process may take to leave its cgroup."""
_serial = itertools.count(1)


@cache
def cgroup_version() -> int:
    """1 or 2: which version has the cpu controller on this host."""
    return 2 if (CGROUP_FS / "cgroup.controllers").exists() else 1


@cache
def _hierarchies() -> tuple[Path, ...]:
    """The mounts that a CPU cgroup has a directory in: one on v2; on v1 those of cpu and cpuacct,
    which may be one mount by two names. The one with the weight is first.
    """
    if cgroup_version() == 2:
        return (CGROUP_FS,)
    return tuple(dict.fromkeys((CGROUP_FS / name).resolve(True) for name in ("cpu", "cpuacct")))


@dataclass(frozen=True, slots=True)
class Group:
    """One cgroup, by its path from the hierarchy's top, such as `/kubepods/burstable/pod…`."""

    path: str

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directory in each hierarchy, the one with the weight first."""
        return tuple(hierarchy / self.path.lstrip("/") for hierarchy in _hierarchies())

    @property
    def weight_file(self) -> Path:
        """`cpu.shares` (v1, 2..262144) or `cpu.weight` (v2, 1..10000)."""
        return self.directories[0] / ("cpu.weight" if cgroup_version() == 2 else "cpu.shares")

    def weight(self) -> int:
        """The weight, in the unit of this host's cgroup version."""
        return int(self.weight_file.read_text())

    def set_weight(self, weight: int) -> None:
        """Write the weight. OSError (EINVAL) if v2 does not take it; v1 clamps it silently."""
        self.weight_file.write_text(str(weight))

    def attach(self, pid: int) -> None:
        """Move a process, with all its threads, into this cgroup."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """The processes in it, those of its children not counted."""
        return {
            int(pid)
            for directory in self.directories
            for pid in (directory / "cgroup.procs").read_text().split()
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a VM or an ordinary pod lives. `own` has its weight, and `leaf` its processes: for
    libvirt they may be one.
    """

    own: Group
    leaf: Group


class Naming(Enum):
    """How a kubelet and its container runtime name the cgroups of pods."""

    CGROUPFS = "kubepods"
    SYSTEMD_CONTAINERD = "cri-containerd"
    SYSTEMD_CRIO = "crio"
    SYSTEMD_CRUN = "crio, with crun's nested cgroup `container`"


class PodTree:
    """A context manager for cgroups below one root: whatever it made is gone afterwards.

    root is a path from the hierarchy's top, new by default. Leaving the context waits until the
    processes in the tree have ended; it kills nothing, and raises TimeoutError if one stays.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root or f"/peacelab-{os.getpid()}-{next(_serial)}"
        self._made: list[Group] = []

    def __enter__(self) -> Self:
        try:
            self._make(self.root)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def pod(
        self,
        uid: str | None = None,
        *,
        naming: Naming = Naming.CGROUPFS,
        qos: str = "burstable",
        prefix: str = "",
        weight: int | None = None,
    ) -> Place:
        """A pod with one container. uid: with dashes, random if None. qos: burstable, besteffort or
        guaranteed. prefix: a kubelet's cgroup root, such as `kubelet`. weight: of the pod's
        directory, else the kernel's default.
        """
        uid = uid or str(uuid.uuid4())
        own = f"{self.root}/{_pod_path(uid, naming, qos, prefix)}"
        leaf = f"{own}/{_container_path(secrets.token_hex(32), naming)}"
        return self._place(own, leaf, weight)

    def machine(
        self, name: str, *, number: int = 1, nested: bool = False, weight: int | None = None
    ) -> Place:
        """libvirt's scope of a machine. nested: QEMU is in `libvirt/emulator` below it."""
        escaped = name.replace("-", r"\x2d")
        own = rf"{self.root}/machine.slice/machine-qemu\x2d{number}\x2d{escaped}.scope"
        return self._place(own, f"{own}/libvirt/emulator" if nested else own, weight)

    def group(self, path: str, *, weight: int | None = None) -> Group:
        """A plain cgroup below the root, such as one that several VMs share."""
        path = f"{self.root}/{path.strip('/')}"
        return self._place(path, path, weight).own

    def remove(self) -> None:
        """Remove all that was made, depth first, as soon as the processes in it have ended."""
        for group in reversed(self._made):
            for directory in group.directories:
                try:
                    wait_for(partial(is_removed, directory), REMOVE_TIMEOUT, "it to be empty")
                except TimeoutError as error:
                    stay = f"processes {sorted(group.pids())} in {group.path} do not end"
                    raise TimeoutError(stay) from error
        self._made.clear()

    def _place(self, own: str, leaf: str, weight: int | None) -> Place:
        self._make(leaf)
        place = Place(Group(own), Group(leaf))
        if weight is not None:
            place.own.set_weight(weight)
        return place

    def _make(self, path: str) -> None:
        for parent, group in itertools.pairwise(_down_to(path)):
            if cgroup_version() == 2:
                # A v2 cgroup has a cpu.weight only if its parent hands the controller down.
                (parent.directories[0] / "cgroup.subtree_control").write_text("+cpu")
            for directory in group.directories:
                if not directory.exists():
                    if group not in self._made:
                        self._made.append(group)
                    directory.mkdir()


def is_removed(directory: Path) -> bool:
    """Remove a cgroup that has no children. False while there are processes in it."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _down_to(path: str) -> Iterator[Group]:
    """The top cgroup, then each one on the way down to path, which comes last."""
    return map(Group, itertools.accumulate(path.split("/"), "{}/{}".format))


def _pod_path(uid: str, naming: Naming, qos: str, prefix: str) -> str:
    class_part = [] if qos == "guaranteed" else [qos]
    parts = [*([prefix] if prefix else []), "kubepods", *class_part]
    if naming is Naming.CGROUPFS:
        return "/".join([*parts, f"pod{uid}"])
    # systemd spells a slice's ancestors in its name and its separator is the dash.
    parts.append(f"pod{uid.replace('-', '_')}")
    return "/".join(f"{'-'.join(parts[: i + 1])}.slice" for i in range(len(parts)))


def _container_path(container_id: str, naming: Naming) -> str:
    match naming:
        case Naming.CGROUPFS:
            return container_id
        case Naming.SYSTEMD_CONTAINERD:
            return f"cri-containerd-{container_id}.scope"
        case Naming.SYSTEMD_CRIO:
            return f"crio-{container_id}.scope"
        case Naming.SYSTEMD_CRUN:
            return f"crio-{container_id}.scope/container"
