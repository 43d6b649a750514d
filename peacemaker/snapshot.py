"""What the engine sees: one reading of the node and of the VMs that a policy governs."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VmView:
    """One VM as a policy sees it.

    `signals` is the part of the CEL variable `vm` that was measured; a signal that the node cannot
    give is absent. What follows from the typed fields (nice, priority, sinceChange, age) is added
    by the engine. `started` and `changed_at` are seconds on the clock of `Snapshot.now`;
    `changed_at` is None for a VM whose nice was never changed.
    """

    uid: str
    started: float
    nice: int
    signals: Mapping[str, object]
    baseline_nice: int = 0
    changed_at: float | None = None
    priority_class: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One pass's reading: `now` in seconds, the CEL variable `node`, and the policy's VMs."""

    now: float
    node: Mapping[str, object]
    vms: tuple[VmView, ...]
