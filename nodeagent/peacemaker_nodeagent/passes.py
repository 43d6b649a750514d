"""Passes: when each policy is evaluated, on what, and what it remembers in between."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from peacemaker.engine import Decision, decide
from peacemaker.govern import rank
from peacemaker.memory import Memory
from peacemaker.policy import PeacePolicy
from peacemaker.snapshot import Snapshot, VmView
from peacemaker.trace import PassTrace, Verdict
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.readings import DELTA_SIGNALS, Reading, node_signals, vm_signals


@dataclass(slots=True)
class PolicyRun:
    """One policy in force: `due` is its next pass, `before` its last one's reading.

    So far it had so many `passes`, which took so many `seconds`; `picks` counts what became of the
    VMs that its rules picked, by the rule's name and the verdict.
    """

    policy: PeacePolicy
    due: float
    memory: Memory = field(default_factory=Memory)
    before: Reading | None = None
    trace: PassTrace | None = None
    missing: tuple[str, ...] = ()
    passes: int = 0
    seconds: float = 0.0
    picks: Counter[tuple[str, Verdict]] = field(default_factory=Counter)

    def run(self, reading: Reading, vms: Iterable[Vm], node: str, vm_count: int) -> Decision:
        """One pass over the policy's VMs, at its due time."""
        begin = time.perf_counter()
        before = self.before
        views = []
        all_have_deltas = before is not None
        for vm in vms:
            earlier = before.vms.get(vm.uid) if before else None
            all_have_deltas = all_have_deltas and earlier is not None
            views.append(
                VmView(
                    uid=vm.uid,
                    started=vm.started,
                    nice=vm.nice,
                    signals=vm_signals(vm, reading.vms.get(vm.uid), earlier),
                    baseline_nice=vm.baseline_nice,
                    changed_at=vm.changed_at,
                    priority_class=vm.priority_class,
                )
            )
        signals = node_signals(reading.node, before.node if before else None, node, vm_count)
        decision = decide(self.policy, Snapshot(self.due, signals, tuple(views)), self.memory)
        self.memory, self.trace, self.before = decision.memory, decision.trace, reading
        self.passes += 1
        # The first reading of a policy, or of a VM, has no deltas: that is no news.
        self.missing = tuple(
            name for name in decision.trace.missing if all_have_deltas or name not in DELTA_SIGNALS
        )
        for rule in decision.trace.rules:
            for uid in rule.picked:
                self.picks[rule.rule.name, rule.vms[uid].verdict] += 1
        self.seconds += time.perf_counter() - begin
        return decision

    @property
    def activity(self) -> tuple[tuple[bool, ...], tuple[str, ...]]:
        """Which rules the last pass found active, and the signals that it missed."""
        rules = self.trace.rules if self.trace else ()
        return tuple(rule.active for rule in rules), self.missing

    def schedule_next(self) -> None:
        """The next pass is an interval after this one."""
        self.due += self.policy.interval

    def take(self, policy: PeacePolicy) -> None:
        """An edit: timers of rules that stay are kept, and it acts at the next due pass."""
        self.due = min(self.due, self.due - self.policy.interval + policy.interval)
        if policy.mode is not self.policy.mode:
            self.memory = Memory(rules=self.memory.rules)
            self.picks.clear()
        rules = {rule.name for rule in policy.rules}
        self.picks = Counter({key: n for key, n in self.picks.items() if key[0] in rules})
        self.policy = policy


class Passes:
    """The policies in force, in the order in which they claim VMs.

    `cpu_seconds` is the CPU time that passes have taken so far, with all that they wrote.
    """

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self._runs: dict[str, PolicyRun] = {}

    def __iter__(self) -> Iterator[PolicyRun]:
        return iter(self._runs.values())

    def take(self, policies: Iterable[PeacePolicy], now: float) -> None:
        """These policies are in force from now on; a new one is due at once."""
        runs = {}
        for policy in rank(policies):
            run = self._runs.get(policy.name)
            if run is None:
                run = PolicyRun(policy, due=now)
            else:
                run.take(policy)
            runs[policy.name] = run
        self._runs = runs

    def policies(self) -> tuple[PeacePolicy, ...]:
        return tuple(run.policy for run in self._runs.values())

    def due(self, now: float) -> list[PolicyRun]:
        """The policies whose pass is due; passes that were missed are not made up for."""
        runs = [run for run in self._runs.values() if run.due <= now]
        for run in runs:
            if now - run.due >= run.policy.interval:
                run.due = now
        return runs

    def next_due(self) -> float:
        """Seconds since boot of the earliest pass to come; infinity without policies."""
        return min((run.due for run in self._runs.values()), default=float("inf"))

    def needs(self, runs: Iterable[PolicyRun]) -> frozenset[str]:
        """The costly signals that these policies speak of."""
        spoken: set[str] = set()
        for run in runs:
            for rule in run.policy.rules:
                for expression in (rule.when, rule.until, rule.pick.where, rule.pick.order):
                    if expression:
                        spoken |= expression.signals
        return frozenset(
            name
            for name in ("vm.psi", "vm.throttled")
            if any(signal.startswith(name) for signal in spoken)
        )
