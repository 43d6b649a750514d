"""Which VMs a rule picks: `where`, the order, `count`, and a total order of ties."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.engine import decide
from peacemaker.snapshot import VmView
from peacemaker.trace import Verdict
from tests.unit.builders import moves, policy, rule, snapshot, verdicts, vm

THREE = (vm("a", 0, usage=1.0), vm("b", 5, usage=0.2), vm("c", -5, usage=0.6))


@pytest.mark.parametrize(
    ("pick", "picked"),
    [
        ("", "abc"),
        ("where: vm.nice >= 0", "ab"),
        ("where: vm.nice > 5", ""),
        ("lowest: vm.nice", "c"),
        ("highest: vm.nice", "b"),
        ("lowest: vm.priority", "b"),
        ("highest: vm.priority", "c"),
        ("lowest: vm.usage", "b"),
        ("highest: vm.usage", "a"),
        ("highest: vm.usage, count: 2", "ac"),
        ("highest: vm.usage, count: 3", "abc"),
        ("highest: vm.usage, count: 1000", "abc"),
        ("lowest: -vm.usage", "a"),
        ("highest: vm.usage, where: vm.nice != 0", "c"),
        ("highest: vm.usage / (1.0 + vm.usage)", "a"),
    ],
)
def test_where_filters_the_order_sorts_and_count_cuts(pick: str, picked: str) -> None:
    decision = decide(policy(rule(pick=pick)), snapshot(THREE))
    assert "".join(sorted(moves(decision))) == picked


@pytest.mark.parametrize(
    ("pick", "found"),
    [
        ("lowest: vm.usage", {"a": Verdict.ADJUSTED, "b": Verdict.NO_VALUE}),
        ("highest: vm.usage", {"a": Verdict.ADJUSTED, "b": Verdict.NO_VALUE}),
        ("lowest: vm.usage, count: 2", {"a": Verdict.ADJUSTED, "b": Verdict.NO_VALUE}),
        ("where: vm.usage < 5.0", {"a": Verdict.ADJUSTED, "b": Verdict.NO_VALUE}),
        ("where: vm.usage > 5.0", {"a": Verdict.FILTERED, "b": Verdict.NO_VALUE}),
        ("where: 'vm.usage > 0.0 || vm.name == \"b\"'", dict.fromkeys("ab", Verdict.ADJUSTED)),
        ("lowest: vm.psi.some10", dict.fromkeys("ab", Verdict.NO_VALUE)),
        ('where: \'vm.labels["tier"] == "gold"\'', {"a": Verdict.ADJUSTED, "b": Verdict.NO_VALUE}),
        ("where: '\"tier\" in vm.labels'", {"a": Verdict.ADJUSTED, "b": Verdict.FILTERED}),
    ],
)
def test_a_vm_without_the_value_cannot_be_picked(pick: str, found: dict[str, Verdict]) -> None:
    vms = vm("a", usage=0.5, labels={"tier": "gold"}), vm("b")
    assert verdicts(decide(policy(rule(pick=pick)), snapshot(vms))) == found


@pytest.mark.parametrize("order", ["lowest", "highest"])
def test_nan_is_neither_the_lowest_nor_the_highest(order: str) -> None:
    vms = [vm("nan", usage=math.nan), vm("a", usage=-math.inf), vm("b", usage=math.inf)]
    decision = decide(policy(rule(pick=f"{order}: vm.usage")), snapshot(vms))
    assert moves(decision).keys() == {"a" if order == "lowest" else "b"}
    assert verdicts(decision)["nan"] is Verdict.NO_VALUE


@pytest.mark.parametrize(
    ("vms", "lowest", "highest"),
    [
        # The value counts first, then the PriorityClass, then the older start, then the UID.
        ([vm("a", usage=1.0, priority_class=9), vm("b", usage=2.0)], "a", "b"),
        ([vm("a", priority_class=9), vm("b", priority_class=1)], "b", "a"),
        ([vm("a", priority_class=-1), vm("b", priority_class=0)], "a", "b"),
        ([vm("a", started=9.0), vm("b", started=1.0)], "b", "b"),
        ([vm("a", started=9.0, priority_class=1), vm("b", started=1.0)], "b", "a"),
        ([vm("b"), vm("a")], "a", "a"),
        ([vm("b", usage=0.0), vm("a", usage=-0.0)], "a", "a"),
    ],
)
def test_ties_are_broken_by_priority_class_then_age_then_uid(
    vms: list[VmView], lowest: str, highest: str
) -> None:
    seen = [
        VmView(
            uid=each.uid,
            started=each.started,
            nice=0,
            signals={"usage": 1.0, **each.signals},
            priority_class=each.priority_class,
        )
        for each in vms
    ]
    for order, expected in (("lowest", lowest), ("highest", highest)):
        for given_order in (seen, seen[::-1]):
            decision = decide(policy(rule(pick=f"{order}: vm.usage")), snapshot(given_order))
            assert list(moves(decision)) == [expected]


def test_every_vm_of_an_active_rule_has_a_verdict_and_of_an_idle_one_none() -> None:
    both = policy(rule(pick="lowest: vm.usage"), rule("idle", when="false"))
    decision = decide(both, snapshot(THREE))
    assert verdicts(decision) == {
        "a": Verdict.NOT_PICKED,
        "b": Verdict.ADJUSTED,
        "c": Verdict.NOT_PICKED,
    }
    assert not verdicts(decision, of_rule=1)


def test_no_vm_at_all_is_no_trouble() -> None:
    assert not moves(decide(policy(rule(pick="lowest: vm.usage, count: 3")), snapshot([])))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        *(("vm.nice", 5), ("vm.priority", 15), ("vm.age", 900.0), ("vm.sinceChange", 250.0)),
        *(("vm.vcpus", 1), ("vm.priorityClass", 7)),
    ],
)
def test_the_engine_gives_what_follows_from_a_vms_own_fields(expression: str, value: float) -> None:
    seen = vm("a", 5, started=100.0, changed_at=750.0, priority_class=7)
    steered = policy(rule(pick=f"where: {expression} == {value}"))
    assert verdicts(decide(steered, snapshot([seen])))["a"] is Verdict.ADJUSTED


def test_since_change_of_a_vm_that_was_never_changed_is_its_age() -> None:
    steered = policy(rule(pick="where: vm.sinceChange == 900.0 && vm.age == 900.0"))
    decision = decide(steered, snapshot([vm("a", started=100.0)]))
    assert verdicts(decision)["a"] is Verdict.ADJUSTED


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([0.0, 0.5, math.nan, math.inf]), st.none()),
            st.integers(-2, 2),
            st.integers(0, 2),
        ),
        max_size=8,
    ),
    st.sampled_from(["lowest", "highest"]),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_vms_come_decides_nothing(
    drawn: list[tuple[float | None, int, int]], order: str, count: int, shuffled: random.Random
) -> None:
    vms = []
    for number, (usage, priority_class, started) in enumerate(drawn):
        signals: dict[str, Any] = {} if usage is None else {"usage": usage}
        signals |= {"started": float(started), "priority_class": priority_class}
        vms.append(vm(f"vm-{number}", **signals))
    steered = policy(
        rule(pick=f"{order}: vm.usage, count: {count}", nice="add: 3"),
        rule("s", pick="highest: vm.sinceChange, count: 2", nice="add: -3"),
    )
    before = decide(steered, snapshot(vms))
    shuffled.shuffle(vms)
    after = decide(steered, snapshot(vms))
    assert after.changes == before.changes
    assert after.memory == before.memory
    assert [verdicts(after, n) for n in (0, 1)] == [verdicts(before, n) for n in (0, 1)]
    picked = [c for c in before.changes if c.rule == "r"]
    assert len(picked) <= count
    usable = [usage for usage, _, _ in drawn if usage is not None and not math.isnan(usage)]
    assert len(picked) == min(count, len(usable))
