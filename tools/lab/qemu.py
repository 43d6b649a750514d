"""QEMU guests that show what KubeVirt's and libvirt's show: name, threads, parent, cgroup."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from lab.cgroups import Group
from lab.measure import thread_cpu_time, wait_for
from lab.processes import TIMEOUT, Process, launch
from lab.spin import Image, image_fd

BINARY = "qemu-system-x86_64"
MONITOR = "virt-launcher-monitor"
"""parent_comm of QEMU in a KubeVirt pod."""

_VCPU = re.compile(r"CPU (\d+)/")
_SPINNING = 0.02
"""CPU seconds by which a vCPU shows that it spins: one that waits to be started uses far fewer."""


@dataclass(frozen=True, slots=True)
class Guest(Process):
    """A VM: its QEMU process."""

    name: str
    namespace: str
    vcpus: int
    image: Image
    paused: bool
    debug_threads: bool
    wakes: BinaryIO | None = field(repr=False)
    """The stamps of a periodic guest's wakes so far (lab.measure.wake_delays), else None."""

    def vcpu_tids(self) -> list[int]:
        """Its vCPU threads in order of vCPU; none if it was started without debug_threads."""
        found = {
            int(match[1]): tid
            for tid, comm in self.threads().items()
            if (match := _VCPU.match(comm))
        }
        return [found[number] for number in sorted(found)]

    def wake_stamps(self) -> bytes:
        """All that a periodic guest has written since it started."""
        if self.wakes is None:
            raise ValueError(f"guest {self.name} is not periodic")
        fd = self.wakes.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def stop(self) -> None:
        """Kill it if it runs; wait until it and its monitor are gone. Its stamps go with it."""
        Process.stop(self)
        if self.wakes is not None:
            self.wakes.close()

    def wait_until_running(self) -> None:
        """Until all vCPU threads are there and, unless it is paused, the guest's code runs."""
        wait_for(self._runs, TIMEOUT, f"guest {self.namespace}/{self.name} to run")

    def _runs(self) -> bool:
        self.must_run()
        if not self.debug_threads:
            return len(self.threads()) >= self.vcpus + 2  # beside the vCPUs: main and call_rcu
        vcpus = self.vcpu_tids()
        if len(vcpus) < self.vcpus:
            return False
        if self.paused or self.image is Image.IDLE:
            return True
        if self.image is Image.PERIODIC:
            return bool(self.wake_stamps())
        return all(thread_cpu_time(self.pid, tid) >= _SPINNING for tid in vcpus)


def start(
    name: str,
    namespace: str = "default",
    *,
    cgroup: Group | None = None,
    cpus: Collection[int] | None = None,
    vcpus: int = 1,
    image: Image = Image.SPIN,
    paused: bool = False,
    memory_mib: int = 8,
    debug_threads: bool = True,
    parent_comm: str | None = None,
    accel: str = "tcg",
    wait: bool = True,
) -> Guest:
    """Start a VM in a cgroup, on these host CPUs, and wait until it runs.

    paused: it never runs (-S). parent_comm: see MONITOR. accel: tcg or kvm. RuntimeError with
    QEMU's own words if it ends.
    """
    code = image_fd(image)
    fds = [code]
    wakes: BinaryIO | None = None
    options = {
        "name": f"guest={namespace}_{name},debug-threads={'on' if debug_threads else 'off'}",
        "machine": "pc",
        "accel": "tcg,thread=multi,tb-size=1" if accel == "tcg" else accel,
        "smp": str(vcpus),
        "m": str(memory_mib),
        "bios": f"/dev/fd/{code}",
        **dict.fromkeys(("display", "vga", "serial", "parallel", "monitor", "net"), "none"),
    }
    if image is Image.PERIODIC:
        wakes = os.fdopen(os.memfd_create("lab-wakes"), "rb")
        fds.append(wakes.fileno())
        options["chardev"] = f"file,id=wakes,path=/dev/fd/{wakes.fileno()}"
        options["device"] = "isa-debugcon,iobase=0xe9,chardev=wakes"
    argv = [BINARY, "-nodefaults", "-no-user-config", *(["-S"] if paused else [])]
    for option, value in options.items():
        argv += [f"-{option}", value]
    process = launch(argv, parent_comm=parent_comm, cgroup=cgroup, cpus=cpus, fds=fds)
    guest = Guest(
        process.pid,
        process.child,
        process.output,
        name=name,
        namespace=namespace,
        vcpus=vcpus,
        image=image,
        paused=paused,
        debug_threads=debug_threads,
        wakes=wakes,
    )
    if wait:
        try:
            guest.wait_until_running()
        except BaseException:
            guest.stop()
            raise
    return guest


def start_many(
    groups: Sequence[Group | None],
    *,
    prefix: str = "vm",
    vcpus: int = 4,
    image: Image = Image.IDLE,
    paused: bool = True,
    parent_comm: str | None = None,
) -> list[Guest]:
    """Start one VM in each cgroup, `<prefix>-0` and so on, all at once; wait until all run."""
    guests: list[Guest] = []
    try:
        for number, cgroup in enumerate(groups):
            guests.append(
                start(
                    f"{prefix}-{number}",
                    cgroup=cgroup,
                    vcpus=vcpus,
                    image=image,
                    paused=paused,
                    parent_comm=parent_comm,
                    wait=False,
                )
            )
        for guest in guests:
            guest.wait_until_running()
    except BaseException:
        for guest in guests:
            guest.signal_end()
        for guest in guests:
            guest.stop()
        raise
    return guests


def stand_in(
    name: str,
    namespace: str = "default",
    *,
    cgroup: Group | None = None,
    parent_comm: str | None = None,
) -> Process:
    """A light process that looks like a guest by comm and `-name`, but sleeps in one thread: for
    starting and ending thousands.
    """
    # The words after the script are a shell's parameters, which this one does not read.
    argv = ["sh", "-c", "read _", "-name", f"guest={namespace}_{name},debug-threads=on"]
    return launch(argv, comm=BINARY, parent_comm=parent_comm, cgroup=cgroup)
