"""When a rule is active: `when`, `for`, `until`, and what an edit does to the timers."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.engine import decide
from peacemaker.memory import Memory
from tests.unit.builders import actives, moves, policy, rule, snapshot, vm

Y, N = {"load15": 2.0}, {"load15": 0.0}
MISSING: Mapping[str, object] = {}
ON_LOAD = "node.load15 > 1"


def timed(for_: str, until: str = "") -> str:
    end = f", until: '{until}'" if until else ""
    return rule(when=ON_LOAD, waits=f"for: {for_}, cooldown: 0s{end}")


@pytest.mark.parametrize(
    ("for_", "readings", "expected"),
    [
        # passes are 15 s apart
        ("0s", [Y, N, Y], [True, False, True]),
        ("1s", [Y, Y, N, Y, Y], [False, True, False, False, True]),
        ("15s", [Y, Y, Y], [False, True, True]),
        ("30s", [Y, Y, Y], [False, False, True]),
        ("31s", [Y, Y, Y, Y], [False, False, False, True]),
        ("30s", [Y, Y, N, Y, Y, Y], [False, False, False, False, False, True]),
        ("30s", [Y, Y, MISSING, Y, Y, Y], [False, False, False, False, False, True]),
        ("15s", [N, N, Y, Y, N], [False, False, False, True, False]),
        ("15s", [Y, Y, MISSING, Y], [False, True, False, False]),
    ],
)
def test_when_must_have_held_at_each_pass_for_this_long(
    for_: str, readings: Sequence[Mapping[str, object]], expected: list[bool]
) -> None:
    assert actives(policy(timed(for_)), readings) == expected


HOT, WARM, COLD = (
    {"load15": 2.0, "load1": 2.0},
    {"load15": 0.5, "load1": 2.0},
    {
        "load15": 0.5,
        "load1": 0.1,
    },
)
HOT_BUT_OVER = {"load15": 2.0, "load1": 0.1}
NO_UNTIL = {"load15": 2.0}
NO_WHEN = {"load1": 2.0}


@pytest.mark.parametrize(
    ("for_", "readings", "expected"),
    [
        # Hysteresis: `when` may fail, the rule goes on until load1 is below 1.
        ("0s", [HOT, WARM, WARM, COLD, WARM], [True, True, True, False, False]),
        ("0s", [WARM, HOT, COLD, HOT], [False, True, False, True]),
        # While active, `when` is not asked: its signal may be missing.
        ("0s", [HOT, NO_WHEN, NO_WHEN, COLD], [True, True, True, False]),
        # A missing signal in `until` ends the rule, and keeps it from starting.
        ("0s", [HOT, NO_UNTIL, NO_UNTIL, HOT], [True, False, False, True]),
        ("0s", [NO_UNTIL, NO_UNTIL], [False, False]),
        # Both hold: `until` wins.
        ("0s", [HOT, HOT_BUT_OVER, HOT], [True, False, True]),
        ("0s", [HOT_BUT_OVER, HOT_BUT_OVER, HOT], [False, False, True]),
        # Once ended, `for` counts anew.
        ("15s", [HOT, HOT, HOT_BUT_OVER, HOT], [False, True, False, True]),
        ("30s", [HOT, HOT, HOT, HOT_BUT_OVER, HOT, HOT], [*[False] * 2, True, *[False] * 2, True]),
        ("30s", [HOT, HOT, HOT, COLD, HOT, HOT, HOT], [*[False] * 2, True, *[False] * 3, True]),
        ("15s", [HOT, WARM, HOT, HOT], [False, False, False, True]),
    ],
)
def test_until_ends_an_active_rule_and_nothing_else_does(
    for_: str, readings: Sequence[Mapping[str, object]], expected: list[bool]
) -> None:
    steered = policy(timed(for_, until="node.load1 < 1.0"))
    assert actives(steered, readings) == expected


@pytest.mark.parametrize(
    ("when", "active"),
    [
        *(("node.load1 > 1.0", False), ("node.load1 > 1.0 || node.load15 > 1.0", True)),
        ("node.load15 > 1.0 || node.load1 > 1.0", True),
        *(("node.load1 > 1.0 && node.load15 > 1.0", False), ("!(node.load1 > 1.0)", False)),
        ("node.load1 <= 1.0 || node.load1 > 1.0", False),
        ("node.psi.some10 > 0.1", False),
        ("vms.exists(v, v.wait > 0.1)", False),
        ("vms.exists(v, v.wait > 0.1) || node.load15 > 1.0", True),
        ("vms.all(v, v.nice == 0)", True),
        ("1 / (node.cpus - node.cpus) > 0", False),
    ],
)
def test_what_is_missing_is_not_zero(when: str, active: bool) -> None:
    steered = policy(rule(when=when))
    decision = decide(steered, snapshot([vm("a")], Y))
    assert decision.trace.rules[0].active is active
    assert bool(moves(decision)) is active


def test_every_active_rule_acts_in_the_order_of_the_rules() -> None:
    steered = policy(
        rule("first", pick='where: vm.name == "a"', nice="add: 1"),
        rule("idle", when="false", nice="set: 15"),
        rule("second", pick='where: vm.name == "b"', nice="add: -1"),
    )
    decision = decide(steered, snapshot([vm("a"), vm("b"), vm("c")]))
    assert [(c.uid, c.rule) for c in decision.changes] == [("a", "first"), ("b", "second")]


def test_all_rules_see_the_one_snapshot_not_each_others_changes() -> None:
    steered = policy(
        rule("first", pick='where: vm.name == "a"', nice="set: 10"),
        rule("second", when="vms.all(v, v.nice == 0)", pick="where: vm.nice == 0", nice="set: 5"),
    )
    decision = decide(steered, snapshot([vm("a"), vm("b")]))
    assert moves(decision) == {"a": (0, 10), "b": (0, 5)}


@pytest.mark.parametrize(
    ("edited", "keeps"),
    [
        (timed("30s"), True),
        (rule(when=ON_LOAD, nice="set: 7", waits="for: 30s, cooldown: 5m"), True),
        (rule(when=ON_LOAD, pick="lowest: vm.nice", waits="for: 30s"), True),
        (timed("31s"), False),
        (timed("30s", until="node.load1 < 1.0"), False),
        (rule(when="node.load15 > 1.0", waits="for: 30s"), False),
        (rule("another", when=ON_LOAD, waits="for: 30s"), False),
    ],
)
def test_an_edited_rule_keeps_its_timers_if_its_conditions_stay(edited: str, keeps: bool) -> None:
    readings = [{"load15": 2.0, "load1": 2.0}] * 2
    memory = Memory()
    for number, node in enumerate(readings):
        memory = decide(policy(timed("30s")), snapshot([], node, number * 15.0), memory).memory
    # Held for 15 s so far: with its timers the edited rule is active at the next pass.
    assert actives(policy(edited), readings[:1], memory=memory, start=30.0) == [keeps]


def test_an_active_rule_stays_active_through_an_edit_of_another_rule() -> None:
    until = timed("0s", until="node.load1 < 1.0")
    memory = decide(policy(until), snapshot([], HOT, 0.0)).memory
    edited = policy(until, rule("new", when="false"))
    assert actives(edited, [WARM], memory=memory, start=15.0) == [True]


def test_the_memory_holds_no_rule_that_the_policy_has_not() -> None:
    memory = decide(policy(timed("0s")), snapshot([], Y)).memory
    assert decide(policy(rule("other")), snapshot([], Y), memory).memory.rules.keys() == {"other"}


@given(st.lists(st.sampled_from([Y, N, MISSING]), max_size=20), st.integers(0, 60))
def test_without_until_a_rule_is_active_exactly_while_when_has_held_for_long_enough(
    readings: list[Mapping[str, object]], for_: int
) -> None:
    found = actives(policy(timed(f"{for_}s")), readings, step=10.0)
    for index, active in enumerate(found):
        row = 0
        while row <= index and readings[index - row] is Y:
            row += 1
        assert active is (row > 0 and (row - 1) * 10 >= for_)
