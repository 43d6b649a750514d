"""How VMs share CPUs, by what the kernel accounts to their pods' cgroups."""

import os
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from lab.cgroups import Group, cgroup_version
from node.vm import Vm


def cpu_used(group: Group) -> float:
    """Seconds of CPU that a cgroup has used (v1 cpuacct.usage, in ns; v2 cpu.stat, in us)."""
    if cgroup_version() == 2:
        stat = (group.directories[0] / "cpu.stat").read_text()
        return int(dict(line.split() for line in stat.splitlines())["usage_usec"]) / 1e6
    return int((group.directories[-1] / "cpuacct.usage").read_text()) / 1e9


def cpu_shares(vms: Iterable[Vm], seconds: float) -> dict[str, float]:
    """Each VM's part (0..1) of the CPU time that their pods use together in the coming seconds, by
    the VM's name.
    """
    before = {vm: cpu_used(vm.own) for vm in vms}
    time.sleep(seconds)
    used = {vm: cpu_used(vm.own) - then for vm, then in before.items()}
    together = sum(used.values())
    if not together:
        raise ValueError(f"none of {[vm.name for vm in used]} used any CPU in {seconds:g} s")
    return {vm.name: time_used / together for vm, time_used in used.items()}


def pin(vm: Vm, cpus: Collection[int]) -> None:
    """Have all threads of a VM's QEMU run on these CPUs only, so that VMs compete for them."""
    for task in Path(f"/proc/{vm.qemu}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)
