"""The engine: `decide(policy, snapshot, memory)`.

Pure and deterministic: no clock, no I/O, no state of its own. The agent, policy tests and
simulation call this same function.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from peacemaker.cel import Expression, Missing, Variables
from peacemaker.duration import format_duration
from peacemaker.memory import Memory, RuleMemory, Shadow
from peacemaker.nice import priority
from peacemaker.policy import Action, Add, Mode, PeacePolicy, Rule, Set, Toward
from peacemaker.snapshot import Snapshot, VmView
from peacemaker.trace import PassTrace, RuleTrace, Verdict, VmTrace, news

_NO_MEMORY = Memory()
_NOT_PICKED = VmTrace(Verdict.NOT_PICKED)
_FILTERED = VmTrace(Verdict.FILTERED)


@dataclass(frozen=True, slots=True)
class Change:
    """A rule moves a VM's nice from `old` to `new`."""

    uid: str
    old: int
    new: int
    rule: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pass decided. An Observe policy's changes are what it would do."""

    changes: tuple[Change, ...]
    memory: Memory
    trace: PassTrace


def decide(policy: PeacePolicy, snapshot: Snapshot, memory: Memory = _NO_MEMORY) -> Decision:
    """Evaluate one policy once.

    `snapshot.vms` are the VMs that the policy governs, or for an Observe policy would govern.
    Every rule sees this one snapshot. The returned memory belongs to the policy's next pass.
    """
    vms = _as_seen(policy, snapshot, memory)
    variables = _Pass(policy, snapshot, vms)
    changes: dict[str, Change] = {}
    rules: dict[str, RuleMemory] = {}
    traces = []
    for rule in policy.rules:
        state, trace = _advance(rule, memory.rule(rule), variables, snapshot.now)
        if state.active:
            picked, verdicts = _pick(rule, vms, variables)
            for vm in picked:
                outcome = _move(policy, rule, vm, snapshot.now, changes)
                if isinstance(outcome, Change):
                    changes[vm.uid] = outcome
                    verdicts[vm.uid] = VmTrace(
                        Verdict.ADJUSTED, f"nice {outcome.old} to {outcome.new}"
                    )
                else:
                    verdicts[vm.uid] = outcome
            trace = replace(trace, vms=verdicts, picked=tuple(vm.uid for vm in picked))
        rules[rule.name] = state
        traces.append(trace)
    shadows = _shadows(policy, vms, changes.values(), snapshot.now)
    return Decision(
        changes=tuple(changes.values()),
        memory=Memory(rules=rules, shadows=shadows),
        trace=PassTrace(policy, snapshot.now, tuple(traces)),
    )


class _Pass:
    """The CEL variables of one pass: each is made once, when an expression first asks for it.

    A VM has those signals that the policy speaks of, and the names that tell it from others: to
    convert them all for CEL would cost more than to evaluate.
    """

    def __init__(self, policy: PeacePolicy, snapshot: Snapshot, vms: Sequence[VmView]) -> None:
        self._now = snapshot.now
        self._node = snapshot.node
        self._vms = vms
        self._by_uid: dict[str, Variables] = {}
        self._signals_by_uid: dict[str, dict[str, object]] = {}
        spoken = {"name", "namespace"} | {
            signal.split(".")[1]
            for rule in policy.rules
            for expression in (rule.when, rule.until, rule.pick.where, rule.pick.order)
            if expression
            for signal in expression.signals
        }
        self._measured = sorted(spoken - _DERIVED.keys())
        self._derived = [(name, _DERIVED[name]) for name in sorted(spoken & _DERIVED.keys())]

    def conditions(self, expression: Expression) -> Variables:
        """For `when` and `until`: `node`, and `vms` if the expression may speak of them."""
        return self._node_and_vms if "vms" in expression.text else self._node_alone

    @cached_property
    def _node_alone(self) -> Variables:
        return Variables({"node": self._node})

    @cached_property
    def _node_and_vms(self) -> Variables:
        return Variables({"node": self._node, "vms": [self._signals(vm) for vm in self._vms]})

    def picks(self, vm: VmView) -> Variables:
        """For `where` and the order: `vm`."""
        known = self._by_uid.get(vm.uid)
        if known is None:
            known = self._by_uid[vm.uid] = Variables({"vm": self._signals(vm)})
        return known

    def _signals(self, vm: VmView) -> dict[str, object]:
        known = self._signals_by_uid.get(vm.uid)
        if known is None:
            measured = vm.signals
            known = {name: measured[name] for name in self._measured if name in measured}
            for name, derive in self._derived:
                known[name] = derive(vm, self._now)
            self._signals_by_uid[vm.uid] = known
        return known


def _age(vm: VmView, now: float) -> float:
    return max(0.0, now - vm.started)


def _since_change(vm: VmView, now: float) -> float:
    return _age(vm, now) if vm.changed_at is None else _since(vm.changed_at, now)


# The signals of a VM that follow from what the engine knows of it.
_DERIVED: Mapping[str, Callable[[VmView, float], float]] = {
    "age": _age,
    "nice": lambda vm, _: vm.nice,
    "priority": lambda vm, _: priority(vm.nice),
    "sinceChange": _since_change,
}


def _as_seen(policy: PeacePolicy, snapshot: Snapshot, memory: Memory) -> tuple[VmView, ...]:
    """An Observe policy sees its own hypothetical nice, which starts at the baseline."""
    if policy.mode is Mode.ENFORCE:
        return snapshot.vms
    seen = []
    for vm in snapshot.vms:
        shadow = memory.shadows.get(vm.uid, Shadow(vm.baseline_nice))
        nice = policy.bounds.clamp(shadow.nice)
        seen.append(replace(vm, nice=nice, changed_at=shadow.changed_at))
    return tuple(seen)


def _shadows(
    policy: PeacePolicy, vms: Iterable[VmView], changes: Iterable[Change], now: float
) -> Mapping[str, Shadow]:
    if policy.mode is Mode.ENFORCE:
        return {}
    shadows = {vm.uid: Shadow(vm.nice, vm.changed_at) for vm in vms}
    shadows.update((change.uid, Shadow(change.new, now)) for change in changes)
    return shadows


def _advance(
    rule: Rule, state: RuleMemory, variables: _Pass, now: float
) -> tuple[RuleMemory, RuleTrace]:
    """The rule's timers after this pass. An `until` that holds, or has no value, ends the rule."""
    until = _condition(rule.until, variables) if rule.until else None
    ended = rule.until is not None and until is not False
    if state.active and rule.until and not ended:
        return state, RuleTrace(rule, None, until, None, active=True)
    when = _condition(rule.when, variables)
    if when is not True:
        return state.with_state(None, active=False), RuleTrace(
            rule, when, until, None, active=False
        )
    starts = state.held_since is None or (state.active and ended)
    held_since = now if starts or state.held_since is None else state.held_since
    active = now - held_since >= rule.for_ and not ended
    return (
        state.with_state(held_since, active),
        RuleTrace(rule, when, until, now - held_since, active),
    )


def _condition(expression: Expression, variables: _Pass) -> bool | Missing:
    value = expression.evaluate(variables.conditions(expression))
    return value if isinstance(value, Missing) else value is True


def _pick(
    rule: Rule, vms: Sequence[VmView], variables: _Pass
) -> tuple[list[VmView], dict[str, VmTrace]]:
    """`where` filters, the order sorts, `count` cuts. Bounds and cooldown play no part here."""
    pick = rule.pick
    verdicts: dict[str, VmTrace] = {}
    ranked: list[tuple[tuple[float, float, float, str], VmView]] = []
    for vm in vms:
        if pick.where:
            holds = pick.where.evaluate(variables.picks(vm))
            if holds is not True:
                verdicts[vm.uid] = _unpicked(holds)
                continue
        value: float = 0.0
        if pick.order:
            found = pick.order.evaluate(variables.picks(vm))
            if isinstance(found, Missing) or math.isnan(found):
                verdicts[vm.uid] = _unpicked(found)
                continue
            value = float(found)
        ranked.append((_rank(vm, value, pick.highest), vm))
    ranked.sort()
    cut = len(ranked) if pick.count is None else pick.count
    for _, vm in ranked[cut:]:
        verdicts[vm.uid] = _NOT_PICKED
    return [vm for _, vm in ranked[:cut]], verdicts


def _rank(vm: VmView, value: float, highest: bool) -> tuple[float, float, float, str]:
    """The total order of a pick: the value, the PriorityClass, older start, then the UID."""
    sign = -1 if highest else 1
    return (sign * value, sign * vm.priority_class, vm.started, vm.uid)


def _unpicked(value: bool | float | Missing) -> VmTrace:
    if isinstance(value, Missing):
        return VmTrace(Verdict.NO_VALUE, ", ".join(news(value)), news(value))
    return _FILTERED if value is False else VmTrace(Verdict.NO_VALUE, "NaN")


def _move(
    policy: PeacePolicy, rule: Rule, vm: VmView, now: float, changes: Mapping[str, Change]
) -> Change | VmTrace:
    """The change that the rule makes to a picked VM, or what held it."""
    if earlier := changes.get(vm.uid):
        return VmTrace(Verdict.ALREADY_ADJUSTED, f"by {earlier.rule}")
    if vm.changed_at is not None and _since(vm.changed_at, now) < rule.cooldown:
        ago = f"changed {_since(vm.changed_at, now):.0f}s ago"
        return VmTrace(Verdict.COOLDOWN, f"{ago}, cooldown {format_duration(rule.cooldown)}")
    aim = _aim(rule.action, vm.nice)
    new = policy.bounds.clamp(aim)
    if new != vm.nice:
        return Change(vm.uid, vm.nice, new, rule.name)
    if aim != new:
        bounds = policy.bounds
        return VmTrace(Verdict.BOUND, f"nice {vm.nice}, bounds {bounds.min}..{bounds.max}")
    return VmTrace(Verdict.UNMOVED, f"nice {vm.nice}")


def _since(changed_at: float, now: float) -> float:
    """Seconds since a change; a pass that is due just before it, and late, sees it as new."""
    return max(0.0, now - changed_at)


def _aim(action: Action, nice: int) -> int:
    """Where the action leads from this nice, before the bounds."""
    match action:
        case Add():
            return nice + action.nice
        case Set():
            return action.nice
        case Toward():
            distance = action.value - nice
            return nice + max(-action.step, min(action.step, distance))
