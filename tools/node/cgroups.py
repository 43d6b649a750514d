"""The cgroup of a box: a directory at the top of each hierarchy of the host, made and removed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from lab.cgroups import CGROUP_FS, is_removed
from lab.measure import wait_for

REMOVE_TIMEOUT = 30.0
"""Seconds that the kernel may take to let go of a cgroup whose processes were killed."""

LEAF = "box"
"""Where the box's own processes are, beside the pods': v2 wants processes in leaves only."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup file system: `kind` is cgroup (v1, of some controllers) or cgroup2."""

    mount: Path
    kind: str
    controllers: str


@cache
def hierarchies() -> tuple[Hierarchy, ...]:
    """Those below /sys/fs/cgroup, as proc_pid_mountinfo(5) lists them."""
    known = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()[1:]}
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        front, _, back = line.partition(" - ")
        mount, (kind, _, options) = Path(front.split()[4]), back.split(" ", 2)
        if kind in ("cgroup", "cgroup2") and mount.is_relative_to(CGROUP_FS):
            own = (word for word in options.split(",") if word in known or word.startswith("name="))
            found.append(Hierarchy(mount, kind, ",".join(own) if kind == "cgroup" else ""))
    return tuple(found)


def make(name: str) -> None:
    """Make the cgroup and its leaf in every hierarchy, fit to take processes."""
    for hierarchy in hierarchies():
        if hierarchy.kind == "cgroup2":
            _hand_down(hierarchy.mount)
        for directory in (hierarchy.mount / name, hierarchy.mount / name / LEAF):
            directory.mkdir()
            # A v1 cpuset takes no process before it has CPUs and memory nodes.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if hierarchy.kind == "cgroup" and (directory / file).exists():
                    (directory / file).write_text((directory.parent / file).read_text())


def tops(name: str) -> list[Path]:
    return [hierarchy.mount / name for hierarchy in hierarchies()]


def leaves(name: str) -> list[Path]:
    return [top / LEAF for top in tops(name)]


def settle(name: str) -> None:
    """Move what is in the cgroup itself into its leaf."""
    for top in tops(name):
        for pid in (top / "cgroup.procs").read_text().split():
            (top / LEAF / "cgroup.procs").write_text(pid)


def remove(name: str) -> None:
    """Remove the cgroup and all below it. TimeoutError if processes in it do not end."""
    for top in tops(name):
        for directory in _depth_first(top):
            wait_for(partial(is_removed, directory), REMOVE_TIMEOUT, f"{directory} to be empty")


def sweep(prefix: str, folders: Path) -> None:
    """Remove the cgroups and folders called `prefix-PID-…` of processes that were killed."""
    names = {top.name for hierarchy in hierarchies() for top in hierarchy.mount.glob(f"{prefix}-*")}
    names |= {folder.name for folder in folders.glob(f"{prefix}-*")}
    for name in names:
        pid = name.removeprefix(f"{prefix}-").partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            remove(name)
            with suppress(FileNotFoundError):
                shutil.rmtree(folders / name)


def _hand_down(directory: Path) -> None:
    """Have the children of a v2 cgroup get every controller that it has."""
    controllers = (directory / "cgroup.controllers").read_text().split()
    (directory / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def _depth_first(top: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)
