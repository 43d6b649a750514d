"""Readings and signals: what sensors found, and what a policy's pass makes of two of them.

Pure. A reading holds counters; `node_signals` and `vm_signals` make the CEL variables of it and of
the policy's own last reading. A signal that cannot be had is absent, never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from peacemaker_nodeagent.peace_list import Vm

DELTA_SIGNALS: Final = frozenset(
    {"node.busy", "vm.usage", "vm.usagePerVcpu", "vm.wait", "vm.throttled"}
)
"""Signals that need two readings."""

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NodeReading:
    """`at` in seconds; `busy` and `total` in clock ticks; `psi` None where it cannot be had."""

    at: float
    load: tuple[float, float, float]
    cpus: int
    busy: int
    total: int
    psi: Mapping[str, float] | None


class VmReading(NamedTuple):
    """Counters of one VM: `usage` and `delay` (of `vcpus`, thread ids) in ns.

    `periods` maps a cgroup to its enforcement periods and how many of them were throttled.
    """

    at: float
    usage: int | None
    delay: int | None
    vcpus: tuple[int, ...]
    psi: Mapping[str, float] | None = None
    periods: Mapping[str, tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment: the node, and by uid the VMs that were asked for."""

    node: NodeReading
    vms: Mapping[str, VmReading]


def node_signals(
    now: NodeReading, before: NodeReading | None, name: str, vm_count: int
) -> dict[str, object]:
    """The CEL variable `node`."""
    load1, load5, load15 = (load / now.cpus for load in now.load)
    signals: dict[str, object] = {
        "name": name,
        "cpus": now.cpus,
        "vmCount": vm_count,
        "load1": load1,
        "load5": load5,
        "load15": load15,
    }
    if now.psi is not None:
        signals["psi"] = now.psi
    if before and now.total > before.total:
        # iowait may go backwards (proc(5)), and busy then seem to be more than all.
        busy = (now.busy - before.busy) / (now.total - before.total)
        signals["busy"] = min(1.0, max(0.0, busy))
    return signals


def vm_signals(vm: Vm, now: VmReading | None, before: VmReading | None) -> dict[str, object]:
    """The measured part of the CEL variable `vm`."""
    signals: dict[str, object] = {
        "name": vm.name,
        "namespace": vm.namespace,
        "labels": vm.labels,
        "vcpus": vm.vcpus,
        "priorityClass": vm.priority_class,
    }
    if now is None:
        return signals
    if now.psi is not None:
        signals["psi"] = now.psi
    if before is None or now.at <= before.at:
        return signals
    span = now.at - before.at
    if now.usage is not None and before.usage is not None:
        usage = max(0, now.usage - before.usage) / _NS / span
        signals["usage"] = usage
        signals["usagePerVcpu"] = usage / vm.vcpus
    if now.delay is not None and before.delay is not None and now.vcpus == before.vcpus:
        wait = max(0, now.delay - before.delay) / _NS / span / vm.vcpus
        signals["wait"] = min(1.0, wait)
    if now.periods is not None and before.periods is not None:
        signals["throttled"] = _throttled(now.periods, before.periods)
    return signals


def _throttled(now: Mapping[str, tuple[int, int]], before: Mapping[str, tuple[int, int]]) -> float:
    """The largest share of periods throttled, of the pod and its containers (one throttles)."""
    shares = [0.0]
    for name, (periods, throttled) in now.items():
        earlier = before.get(name, (0, 0))
        if periods > earlier[0]:
            shares.append((throttled - earlier[1]) / (periods - earlier[0]))
    return max(shares)
