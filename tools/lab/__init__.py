"""The lab: real QEMU guests in real pod-shaped cgroups, for tests, benchmarks and the demo.

It needs root, `qemu-system-x86` and the kernel's cgroup file system (v1 or v2), and nothing else:
no guest kernel, no disk image, no libvirt. Import it with `PYTHONPATH=tools`::

    with PodTree() as tree, Fleet() as fleet:
        pods = [tree.pod(weight=weight) for weight in (3000, 1000)]
        guests = [fleet.keep(start(f"vm-{i}", cgroup=pod.leaf, cpus={0}))
                  for i, pod in enumerate(pods)]
        print(shares([guest.pid for guest in guests], seconds=2.0))

Put the PodTree outside the Fleet, as here: a cgroup can be removed once its processes are gone.
"""

from lab.cgroups import Group, Naming, Place, PodTree, cgroup_version
from lab.measure import cpu_time, shares, thread_cpu_time, wait_for, wake_delays
from lab.processes import Fleet, Process, spinner
from lab.qemu import Guest, stand_in, start, start_many
from lab.spin import Image

__all__ = [
    "Fleet",
    "Group",
    "Guest",
    "Image",
    "Naming",
    "Place",
    "PodTree",
    "Process",
    "cgroup_version",
    "cpu_time",
    "shares",
    "spinner",
    "stand_in",
    "start",
    "start_many",
    "thread_cpu_time",
    "wait_for",
    "wake_delays",
]
