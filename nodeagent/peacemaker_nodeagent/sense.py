"""Sensors: one reading of the node and of the VMs, by kept descriptors and pread."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil

from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.proc import CLOCK_TICKS, Process, ProcessEnded, is_vcpu
from peacemaker_nodeagent.readings import NodeReading, Reading, VmReading, vm_signals

SHORTEST_SPAN: Final = 1.0
"""Seconds: usage and wait that people are shown span at least this long."""

_NS: Final = 1_000_000_000
_ABSENT: Final = (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EOPNOTSUPP, errno.EACCES)
_IDLE_FIELDS: Final = (3, 4)  # /proc/stat: idle and iowait (proc(5))


class NodeSensor:
    """/proc/loadavg, /proc/stat and /proc/pressure/cpu."""

    def __init__(self) -> None:
        self._load = os.open("/proc/loadavg", os.O_RDONLY)
        self._stat = os.open("/proc/stat", os.O_RDONLY)
        self._pressure = _open_if_any("/proc/pressure/cpu")

    def read(self, at: float) -> NodeReading:
        load1, load5, load15 = map(float, os.pread(self._load, 64, 0).split()[:3])
        ticks = [
            int(field) for field in os.pread(self._stat, 256, 0).split(b"\n", 1)[0].split()[1:9]
        ]
        idle = sum(ticks[index] for index in _IDLE_FIELDS)
        return NodeReading(
            at=at,
            load=(load1, load5, load15),
            cpus=psutil.cpu_count() or 1,
            busy=sum(ticks) - idle,
            total=sum(ticks),
            psi=_read_pressure(self._pressure),
        )


@dataclass(slots=True)
class VmSensor:
    """The descriptors of one VM. What a policy does not ask for is not opened."""

    hierarchy: Hierarchy
    process: Process
    own: str | None
    names_vcpus: bool = False
    _names_are_final: bool = False
    _threads: tuple[int, ...] = ()
    _vcpus: dict[int, int] = field(default_factory=dict)
    _usage: int | None = None
    _pressure: int | None = None
    _periods: dict[str, int] | None = None
    _children: int = 0

    def close(self) -> None:
        for descriptor in (self._usage, self._pressure, *self._vcpus.values()):
            if descriptor is not None:
                os.close(descriptor)
        self._close_periods()

    def vcpu_threads(self) -> tuple[int, ...]:
        """The vCPU threads; all threads where QEMU does not name them. Raises ProcessEnded."""
        threads = self.process.threads_if_changed()
        if threads != self._threads or not self._names_are_final:
            # A thread gets its name just after it starts: names are final when seen twice.
            self._names_are_final = threads == self._threads
            self._follow(threads)
        return tuple(self._vcpus)

    def _follow(self, threads: tuple[int, ...]) -> None:
        named = {}
        for tid in threads:
            try:
                named[tid] = is_vcpu(self.process.thread_stat(tid).comm)
            except ProcessEnded:
                continue
        self.names_vcpus = any(named.values())
        vcpus = [tid for tid, is_named in named.items() if is_named or not self.names_vcpus]
        for tid in self._vcpus.keys() - set(vcpus):
            os.close(self._vcpus.pop(tid))
        for tid in vcpus:
            if tid not in self._vcpus:
                self._vcpus[tid] = self.process.open_thread_file(tid, "schedstat")
        self._threads = threads

    def read(self, at: float, needs: frozenset[str]) -> VmReading:
        """Raises ProcessEnded."""
        vcpus = self.vcpu_threads()
        return VmReading(
            at=at,
            usage=self._read_usage(),
            delay=self._read_delay(),
            vcpus=vcpus,
            psi=self._read_psi() if "vm.psi" in needs else None,
            periods=self._read_periods() if "vm.throttled" in needs else None,
        )

    def _read_delay(self) -> int | None:
        """Second field of schedstat: ns runnable but not running (Documentation/scheduler)."""
        try:
            delay = 0
            for descriptor in self._vcpus.values():
                delay += int(os.pread(descriptor, 64, 0).split()[1])
        except (OSError, IndexError):
            self._threads = ()
            return None
        return delay

    def _read_usage(self) -> int | None:
        """CPU time in ns: of the own cgroup, or of the process where it has none."""
        if self.own is None:
            return self.process.stat().cpu * _NS // CLOCK_TICKS
        if self._usage is None:
            name = "cpu.stat" if self.hierarchy.version == 2 else "cpuacct.usage"
            self._usage = _open_if_any(f"{self.hierarchy.accounting(self.own)}/{name}")
        raw = _pread(self._usage)
        if raw is None:
            return None
        if self.hierarchy.version == 1:
            return int(raw)
        return int(raw[raw.index(b"usage_usec ") + 11 :].split(b"\n", 1)[0]) * 1000

    def _read_psi(self) -> Mapping[str, float] | None:
        if self._pressure is None and self.own is not None:
            self._pressure = _open_if_any(f"{self.hierarchy.directory(self.own)}/cpu.pressure")
        return _read_pressure(self._pressure)

    def _read_periods(self) -> Mapping[str, tuple[int, int]] | None:
        if self.own is None:
            return None
        directory = self.hierarchy.directory(self.own)
        try:
            # A cgroup's link count is 2 + its children: containers that came or went are seen.
            children = os.stat(directory).st_nlink
        except FileNotFoundError:
            return None
        if self._periods is None or children != self._children:
            self._close_periods()
            self._periods = _open_cpu_stats(directory)
            self._children = children
        found = {}
        for name, descriptor in self._periods.items():
            raw = _pread(descriptor)
            if raw is not None and b"nr_periods " in raw:
                found[name] = (_field(raw, b"nr_periods "), _field(raw, b"nr_throttled "))
        return found or None

    def _close_periods(self) -> None:
        for descriptor in (self._periods or {}).values():
            os.close(descriptor)
        self._periods = None


class _Recent(NamedTuple):
    """A VM's latest reading, and two at least a second apart to hold against it."""

    earlier: VmReading
    anchor: VmReading
    latest: VmReading

    @property
    def before(self) -> VmReading:
        is_apart = self.latest.at - self.anchor.at >= SHORTEST_SPAN
        return self.anchor if is_apart else self.earlier

    def with_latest(self, reading: VmReading) -> "_Recent":
        if self.latest.at - self.anchor.at >= SHORTEST_SPAN:
            return _Recent(self.anchor, self.latest, reading)
        return _Recent(self.earlier, self.anchor, reading)


class Sensors:
    """All sensors of the agent, and recent readings of each VM for people to look at."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._node = NodeSensor()
        self._vms: dict[str, VmSensor] = {}
        self._recent: dict[str, _Recent] = {}

    def add(self, vm: Vm, at: float) -> None:
        """Raises ProcessEnded."""
        own = vm.own.path if vm.own else None
        sensor = self._vms[vm.uid] = VmSensor(self._hierarchy, vm.process, own)
        first = sensor.read(at, frozenset())
        self._recent[vm.uid] = _Recent(first, first, first)

    def delete(self, vm: Vm) -> None:
        self._recent.pop(vm.uid, None)
        if sensor := self._vms.pop(vm.uid, None):
            sensor.close()

    def read(self, at: float, vms: Iterable[Vm], needs: frozenset[str]) -> Reading:
        """One reading; a VM's vCPUs are counted with it. One that has just ended is left out."""
        readings = {}
        for vm in vms:
            sensor = self._vms[vm.uid]
            try:
                reading = readings[vm.uid] = sensor.read(at, needs)
            except ProcessEnded:
                continue
            if sensor.names_vcpus:
                vm.vcpus = len(reading.vcpus)
            self._recent[vm.uid] = self._recent[vm.uid].with_latest(reading)
        return Reading(self._node.read(at), readings)

    def recent(self, vm: Vm) -> dict[str, object]:
        """The VM's signals over the last second or more."""
        recent = self._recent[vm.uid]
        return vm_signals(vm, recent.latest, recent.before)


def _open_if_any(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _open_cpu_stats(directory: str) -> dict[str, int]:
    """cpu.stat of the cgroup and of every one below it, down to crun's nested `container`."""
    opened = {}
    for path, children, _ in os.walk(directory):
        children.sort()
        if (descriptor := _open_if_any(f"{path}/cpu.stat")) is not None:
            opened[path] = descriptor
    return opened


def _pread(descriptor: int | None) -> bytes | None:
    if descriptor is None:
        return None
    try:
        return os.pread(descriptor, 1024, 0)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _read_pressure(descriptor: int | None) -> Mapping[str, float] | None:
    """`some avg10=1.53 avg60=0.87 avg300=0.21 total=…` (Documentation/accounting/psi.rst)."""
    raw = _pread(descriptor)
    if raw is None or not raw.startswith(b"some "):
        return None
    averages = dict(pair.split(b"=") for pair in raw.split(b"\n", 1)[0].split()[1:4])
    return {
        "some10": float(averages[b"avg10"]) / 100,
        "some60": float(averages[b"avg60"]) / 100,
        "some300": float(averages[b"avg300"]) / 100,
    }


def _field(raw: bytes, name: bytes) -> int:
    return int(raw[raw.index(name) + len(name) :].split(b"\n", 1)[0])
