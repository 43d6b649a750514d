"""The peace_list: the agent's set of VMs, and what it knows of each."""

from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from peacemaker.claim import Share
from peacemaker.govern import Standing
from peacemaker.peacelist import Suspension
from peacemaker.policy import PeacePolicy
from peacemaker_nodeagent.cgroup import Placement
from peacemaker_nodeagent.drift import Drift
from peacemaker_nodeagent.own_cgroup import OwnCgroup
from peacemaker_nodeagent.proc import Process
from peacemaker_nodeagent.records import ThreadRecord, WeightRecord


class State(StrEnum):
    """What the agent does with a VM."""

    MANAGED = "Managed"
    UNMANAGED = "Unmanaged"
    """No Enforce policy governs it: never written."""
    DEFERRED = "Deferred"
    """Frozen for a while: no rule sees it, and it keeps the values that it has."""
    EXCLUDED = "Excluded"
    """Never to be touched, whatever a policy says."""
    CONTESTED = "Contested"
    """Somebody else keeps writing its values: left to them."""
    FAILED = "Failed"
    """Its values before us are unknown, or cannot be written: left alone."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a VM is left alone, whichever policy governs it."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the agent is told to keep its hands off a VM.

    `keeps`: the values that it has stay, and in the claim of those who are governed; otherwise it
    is restored. `drains`: it is migrating away, and must not be slower at it than its baseline.
    """

    state: State
    reason: str
    keeps: bool = False
    drains: bool = False


@dataclass(slots=True)
class Vm:
    """One VM: its QEMU process, its cgroup, its nice, and the records that restore both.

    `uid` orders and names it for the engine; `started` and `changed_at` are seconds since boot.
    `weight` and `threads` are None while nothing of ours is written.
    """

    process: Process
    uid: str
    name: str
    namespace: str
    started: float
    placement: Placement
    own: OwnCgroup | None
    vcpus: int
    labels: Mapping[str, str] = field(default_factory=dict)
    priority_class: int = 0
    baseline_nice: int = 0
    nice: int = 0
    changed_at: float | None = None
    reason: str = ""
    weight: WeightRecord | None = None
    weight_found: int | None = None
    threads: ThreadRecord | None = None
    settled_threads: set[int] = field(default_factory=set)
    share: Share | None = None
    drift: Drift = field(default_factory=Drift)
    standing: Standing = field(default_factory=Standing)
    obstacle: Obstacle | None = None
    hold: Hold | None = None
    write_failure: str | None = None
    suspended: Suspension | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def governor(self) -> PeacePolicy | None:
        """The Enforce policy in whose hands the VM is now."""
        if self.obstacle or self.suspended or self.hold:
            return None
        return self.standing.governor

    @property
    def is_frozen(self) -> bool:
        """Whether it keeps its values, unseen by rules, until its hold ends."""
        return bool(self.hold and self.hold.keeps and not (self.obstacle or self.suspended))

    @property
    def state(self) -> State:
        if self.obstacle:
            return self.obstacle.state
        if self.write_failure:
            return State.FAILED
        if self.hold and not self.suspended:
            return self.hold.state
        return State.MANAGED if self.governor else State.UNMANAGED

    @property
    def is_touched(self) -> bool:
        """Whether there is anything of ours to restore."""
        return self.weight is not None or self.threads is not None

    @property
    def baseline_weight(self) -> int | None:
        """The weight that was there before us; None without a cgroup of its own."""
        return self.weight.baseline if self.weight else self.weight_found

    @property
    def thread_nice(self) -> int:
        """The nice for QEMU's threads.

        In a cgroup of its own the VM gains nothing from threads below their baseline, and its
        helpers inside would starve: there the weight alone favours.
        """
        return max(self.nice, self.baseline_nice) if self.own else self.nice

    @property
    def effective_nice(self) -> int:
        return self.share.effective_nice if self.share else self.nice


class PeaceList:
    """The VMs of this node, by uid and by pid."""

    def __init__(self) -> None:
        self._by_uid: dict[str, Vm] = {}
        self._by_pid: dict[int, Vm] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[Vm]:
        return iter(self._by_uid.values())

    def add(self, vm: Vm) -> None:
        """Raises ValueError if the uid or the pid is in the list already."""
        if vm.uid in self._by_uid or vm.pid in self._by_pid:
            raise ValueError(f"{vm.full_name} (pid {vm.pid}) is in the peace_list already")
        self._by_uid[vm.uid] = vm
        self._by_pid[vm.pid] = vm

    def delete(self, vm: Vm) -> None:
        """Raises KeyError if it is not in the list."""
        del self._by_uid[vm.uid]
        del self._by_pid[vm.pid]

    def get(self, uid: str) -> Vm | None:
        return self._by_uid.get(uid)

    def pids(self) -> KeysView[int]:
        return self._by_pid.keys()

    def find_pid(self, pid: int) -> Vm | None:
        return self._by_pid.get(pid)
