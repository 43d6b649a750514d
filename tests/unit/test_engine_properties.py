"""Properties of the engine over any policy, any snapshot and any row of passes."""

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.engine import decide
from peacemaker.memory import Memory
from peacemaker.policy import PeacePolicy
from peacemaker.snapshot import Snapshot
from tests.unit.builders import policy, rule, snapshot, vm

WHENS = ("true", "node.load15 > 0.9", "node.load15 < 0.1", "vms.exists(v, v.wait > 0.2)")
UNTILS = ("", "", "node.load15 < 0.5", "node.psi.some10 < 0.1")
WHERES = ("", "where: vm.wait > 0.1", "where: vm.nice < 5", "where: '\"tier\" in vm.labels'")
ORDERS = ("lowest: vm.priority", "highest: vm.usage", "lowest: vm.usage / vm.wait")
ACTIONS = (
    *("add: 1", "add: -1", "add: 7", "add: -39", "set: 0", "set: 3", "set: -2"),
    *("toward: {value: 0}", "toward: {value: -3, step: 4}", "toward: {value: 3, step: 2}"),
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> str:
    order = draw(st.none() | st.sampled_from(ORDERS))
    counted = [order, f"count: {draw(st.integers(1, 3))}"] if order else []
    until = draw(st.sampled_from(UNTILS))
    waits = (
        f"for: {draw(st.sampled_from([0, 1, 15, 30]))}s, "
        f"cooldown: {draw(st.sampled_from([0, 15, 16]))}s"
    )
    return rule(
        name,
        when=draw(st.sampled_from(WHENS)),
        pick=", ".join(filter(None, [draw(st.sampled_from(WHERES)), *counted])),
        nice=draw(st.sampled_from(ACTIONS)),
        waits=waits + (f", until: '{until}'" if until else ""),
    )


@st.composite
def policies(draw: st.DrawFn) -> PeacePolicy:
    return policy(
        *(draw(rules(f"r{number}")) for number in range(draw(st.integers(1, 4)))),
        mode=draw(st.sampled_from(["Enforce", "Observe"])),
        low=draw(st.integers(-20, -3)),
        high=draw(st.integers(3, 19)),
    )


SHARES = st.sampled_from([0.0, 0.15, 0.3, float("nan")])


@st.composite
def readings(draw: st.DrawFn) -> Snapshot:
    """A node and its VMs; now and the VMs' nice are put in by who plays the row of passes."""
    node = {"load15": draw(st.sampled_from([0.05, 0.5, 0.95]))}
    if draw(st.booleans()):
        node = {}
    vms = []
    for number in range(draw(st.integers(0, 5))):
        signals: dict[str, Any] = {
            name: draw(SHARES) for name in ("usage", "wait") if draw(st.integers(0, 3)) > 0
        }
        labels = {"tier": "gold"} if draw(st.booleans()) else {}
        vms.append(vm(f"vm-{number}", labels=labels, **signals))
    return snapshot(vms, node)


def nth(
    reading: Snapshot, number: int, nices: dict[str, int], changed: dict[str, float]
) -> Snapshot:
    return replace(
        reading,
        now=15.0 * number,
        vms=tuple(
            replace(each, nice=nices.get(each.uid, 0), changed_at=changed.get(each.uid))
            for each in reading.vms
        ),
    )


@settings(max_examples=60)
@given(policies(), st.lists(readings(), min_size=1, max_size=8))
def test_any_row_of_passes(steered: PeacePolicy, row: list[Snapshot]) -> None:
    memory = Memory()
    nices: dict[str, int] = {}
    changed: dict[str, float] = {}
    for number, reading in enumerate(row):
        seen = nth(reading, number, nices, changed)
        given_memory = copy.deepcopy(memory)
        decision = decide(steered, seen, memory)
        assert memory == given_memory, "decide changes nothing that it is given"
        again = decide(steered, seen, memory)
        assert again.changes == decision.changes
        assert again.memory == decision.memory

        uids = [change.uid for change in decision.changes]
        assert len(uids) == len(set(uids)), "one change per VM and pass"
        assert set(uids) <= {each.uid for each in seen.vms}
        assert all(change.old != change.new for change in decision.changes)
        assert all(
            steered.bounds.min <= change.new <= steered.bounds.max for change in decision.changes
        )
        by_rule = Counter(change.rule for change in decision.changes)
        active = {trace.rule.name for trace in decision.trace.rules if trace.active}
        assert by_rule.keys() <= active
        for each in steered.rules:
            assert by_rule[each.name] <= (each.pick.count or len(seen.vms))
        memory = decision.memory
        if steered.mode.value == "Enforce":
            for change in decision.changes:
                assert nices.get(change.uid, 0) == change.old
                nices[change.uid], changed[change.uid] = change.new, seen.now
        else:
            assert {c.uid: c.new for c in decision.changes}.items() <= {
                uid: shadow.nice for uid, shadow in memory.shadows.items()
            }.items()


@settings(max_examples=40)
@given(policies(), readings())
def test_explain_has_a_line_or_two_for_each_rule_and_every_vm(
    steered: PeacePolicy, reading: Snapshot
) -> None:
    decision = decide(steered, reading)
    for each in (*(known.uid for known in reading.vms), "unknown"):
        lines = decision.trace.explain(each)
        active = sum(trace.active for trace in decision.trace.rules)
        assert len(lines) == 1 + len(steered.rules) + active
        assert all(line.isprintable() for line in lines)
