"""The first process of a box (node.box): it mounts what is the box's own, then takes in orphans.

It runs in namespaces of its own, by its path and without this project's packages. When it is
killed, the kernel ends every process of the box, and with them go its mounts and interfaces.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

READY = "ready"


class Plan(TypedDict):
    """What the box is to have. binds: place → folder or file of the box's own. cgroups: mount
    point, file system type, controllers. settings: files that a kubelet writes and that belong to
    the whole machine → the box's own copy.
    """

    binds: dict[str, str]
    cgroups: list[tuple[str, str, str]]
    settings: dict[str, str]


def main() -> None:
    plan: Plan = json.loads(sys.argv[1])
    for place, own in plan["binds"].items():
        _call("mount", "--bind", own, place)
    # The host's cgroup mounts, of which only our copies go here, would mislead whoever looks for a
    # hierarchy in the list of mounts.
    _call("umount", "--recursive", "/sys")
    _call("mount", "-t", "sysfs", "sysfs", "/sys")
    _mount_cgroups(plan["cgroups"])
    for place, own in plan["settings"].items():
        Path(own).write_text(Path(place).read_text())
        _call("mount", "--bind", own, place)
    # A kubelet passes mounts on to its pods (HostToContainer).
    _call("mount", "--make-rshared", "/")
    # Ignored, the kernel reaps for us what the container runtime leaves to the first process.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(READY, flush=True)
    while True:
        signal.pause()


def _mount_cgroups(cgroups: list[tuple[str, str, str]]) -> None:
    """The host's hierarchies, seen through the cgroup namespace: their top is the box's cgroup."""
    if any(place != "/sys/fs/cgroup" for place, _, _ in cgroups):
        _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
    for place, kind, controllers in cgroups:
        Path(place).mkdir(exist_ok=True)
        options = ("-o", controllers) if controllers else ()
        _call("mount", "-t", kind, *options, "cgroup", place)


def _call(*words: str) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
