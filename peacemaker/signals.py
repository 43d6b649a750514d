"""The one table of signals: what an expression may read, in which unit, and where it comes from.

The table declares the types of the expression language (`peacemaker.cel`), feeds the hints of
its errors, and is the reference that documentation is made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class SignalType(Enum):
    """The type of a signal's value, as an expression sees it."""

    INTEGER = "int"
    NUMBER = "double"
    TEXT = "string"
    LABELS = "map(string, string)"


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that can be read about a node or a VM.

    `name` is dotted (`vm.psi.some10`); its path below the variable is the path of the nested
    dicts an evaluation is given. A signal that cannot be had is an absent key, never a zero.
    """

    name: str
    type: SignalType
    unit: str
    meaning: str
    source: str

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the value, without the variable: ("psi", "some10")."""
        return tuple(self.name.split("."))[1:]


_INTEGER, _NUMBER = SignalType.INTEGER, SignalType.NUMBER
_TEXT, _LABELS = SignalType.TEXT, SignalType.LABELS

_PER_CPU = "load per online CPU"
_SHARE = "0..1"
_LOADAVG = "/proc/loadavg"
_VMI = "VirtualMachineInstance"
_LIST = "peace_list"

_TABLE = (
    Signal("node.load1", _NUMBER, _PER_CPU, "load average of 1 minute", _LOADAVG),
    Signal("node.load5", _NUMBER, _PER_CPU, "load average of 5 minutes", _LOADAVG),
    Signal("node.load15", _NUMBER, _PER_CPU, "load average of 15 minutes", _LOADAVG),
    Signal("node.cpus", _INTEGER, "CPUs", "online CPUs", "/proc/stat"),
    Signal(
        "node.busy", _NUMBER, _SHARE, "busy share of all CPUs since the last pass", "/proc/stat"
    ),
    Signal("node.vmCount", _INTEGER, "VMs", "all VMs found on the node, managed or not", _LIST),
    Signal("node.name", _TEXT, "", "name of the node", "the node"),
    Signal("node.psi.some10", _NUMBER, _SHARE, "CPU pressure over 10 s", "/proc/pressure/cpu"),
    Signal("node.psi.some60", _NUMBER, _SHARE, "CPU pressure over 60 s", "/proc/pressure/cpu"),
    Signal("node.psi.some300", _NUMBER, _SHARE, "CPU pressure over 300 s", "/proc/pressure/cpu"),
    Signal("vm.name", _TEXT, "", "name of the VM", _VMI),
    Signal("vm.namespace", _TEXT, "", "namespace of the VM", _VMI),
    Signal("vm.labels", _LABELS, "", "labels of the VM", _VMI),
    Signal("vm.priorityClass", _INTEGER, "", "value of the VM's PriorityClass", _VMI),
    Signal("vm.age", _NUMBER, "s", "time since the VM was created", _VMI),
    Signal("vm.nice", _INTEGER, "-20..19", "nice; lower gains", _LIST),
    Signal("vm.priority", _INTEGER, "1..40", "20 - nice: the kernel's own, higher is more", _LIST),
    Signal("vm.vcpus", _INTEGER, "vCPUs", "virtual CPUs", _LIST),
    Signal("vm.sinceChange", _NUMBER, "s", "time since nice last changed; its age if never", _LIST),
    Signal(
        "vm.usage", _NUMBER, "cores", "CPU used since the last pass", "cpu.stat or cpuacct.usage"
    ),
    Signal(
        "vm.usagePerVcpu",
        _NUMBER,
        "cores per vCPU",
        "CPU used since the last pass, divided by the vCPUs",
        "cpu.stat or cpuacct.usage",
    ),
    Signal(
        "vm.wait",
        _NUMBER,
        _SHARE,
        "share of time that the vCPUs were runnable but not running, since the last pass; "
        "counts the VM's own CPU limit too, so test vm.throttled beside it",
        "/proc/PID/task/*/schedstat, second field",
    ),
    Signal("vm.psi.some10", _NUMBER, _SHARE, "CPU pressure over 10 s", "the pod's cpu.pressure"),
    Signal("vm.psi.some60", _NUMBER, _SHARE, "CPU pressure over 60 s", "the pod's cpu.pressure"),
    Signal("vm.psi.some300", _NUMBER, _SHARE, "CPU pressure over 300 s", "the pod's cpu.pressure"),
    Signal(
        "vm.throttled",
        _NUMBER,
        _SHARE,
        "throttled of the elapsed CPU-limit periods since the last pass, the largest of the pod "
        "and its containers",
        "cpu.stat",
    ),
)

SIGNALS: Mapping[str, Signal] = MappingProxyType({signal.name: signal for signal in _TABLE})
"""Every signal by its dotted name, in the order of the documentation."""
