"""What a rule does to the VMs it picked, and what holds it: bounds, cooldown, an earlier rule."""

import pytest

from peacemaker.engine import Change, decide
from peacemaker.trace import Verdict
from tests.unit.builders import moves, policy, rule, snapshot, verdicts, vm

NOW = 1000.0


@pytest.mark.parametrize(
    ("action", "nice", "expected"),
    [
        # add moves, and stops at the bounds (-15..15)
        *(("add: 1", 0, 1), ("add: -1", 0, -1), ("add: 39", 0, 15), ("add: -39", 0, -15)),
        *(("add: 4", 13, 15), ("add: -4", -13, -15), ("add: 1", 14, 15)),
        # set puts
        *(("set: 7", 0, 7), ("set: -7", 7, -7), ("set: 0", 7, 0), ("set: 15", -15, 15)),
        # toward moves at most step (default 1), never past the value
        *(("toward: {value: 0}", 5, 4), ("toward: {value: 0}", -5, -4)),
        *(("toward: {value: 5, step: 3}", 0, 3), ("toward: {value: 5, step: 3}", 3, 5)),
        *(("toward: {value: 5, step: 39}", -15, 5), ("toward: {value: -5, step: 2}", -4, -5)),
        *(("toward: {value: -5, step: 2}", 4, 2), ("toward: {value: 15, step: 39}", -15, 15)),
    ],
)
def test_actions(action: str, nice: int, expected: int) -> None:
    decision = decide(policy(rule(nice=action)), snapshot([vm("a", nice)]))
    assert decision.changes == (Change("a", nice, expected, "r"),)


@pytest.mark.parametrize(
    ("action", "nice", "verdict"),
    [
        *(("add: 1", 15, Verdict.BOUND), ("add: -1", -15, Verdict.BOUND)),
        *(("add: 30", 15, Verdict.BOUND), ("set: 7", 7, Verdict.UNMOVED)),
        *(("toward: {value: 7}", 7, Verdict.UNMOVED), ("set: 15", 15, Verdict.UNMOVED)),
        ("toward: {value: 15, step: 5}", 15, Verdict.UNMOVED),
    ],
)
def test_what_moves_nothing_is_no_change(action: str, nice: int, verdict: Verdict) -> None:
    decision = decide(policy(rule(nice=action)), snapshot([vm("a", nice)]))
    assert not decision.changes
    assert verdicts(decision) == {"a": verdict}


@pytest.mark.parametrize("nice", [0, 3, 15])
def test_bounds_are_the_policys_own(nice: int) -> None:
    decision = decide(policy(rule(nice="add: 20"), low=0, high=3), snapshot([vm("a", nice)]))
    assert moves(decision) == ({} if nice == 3 else {"a": (nice, 3)})


@pytest.mark.parametrize(
    ("changed", "cooldown", "held"),
    [
        # changed so many seconds ago (None: never)
        *((None, "60s", False), (0, "60s", True), (59, "60s", True), (60, "60s", False)),
        *((61, "60s", False), (0, "0s", False), (59.999, "60s", True)),
    ],
)
def test_a_rule_leaves_a_vm_alone_whose_last_change_is_younger_than_its_cooldown(
    changed: float | None, cooldown: str, held: bool
) -> None:
    steered = policy(rule(waits=f"for: 0s, cooldown: {cooldown}"))
    seen = vm("a", changed_at=None if changed is None else NOW - changed)
    decision = decide(steered, snapshot([seen], now=NOW))
    assert bool(moves(decision)) is not held
    assert (verdicts(decision)["a"] is Verdict.COOLDOWN) is held


def test_each_rule_has_its_own_cooldown_for_changes_by_any_rule() -> None:
    steered = policy(
        rule("slow", waits="for: 0s, cooldown: 5m", nice="add: 1"),
        rule("quick", waits="for: 0s, cooldown: 10s", nice="add: -1"),
    )
    decision = decide(steered, snapshot([vm("a", changed_at=NOW - 60)], now=NOW))
    assert decision.changes == (Change("a", 0, -1, "quick"),)


@pytest.mark.parametrize(
    ("blocked", "verdict"),
    [
        (rule("first", pick="lowest: vm.nice", nice="set: 0"), Verdict.UNMOVED),
        (rule("first", pick="lowest: vm.nice", nice="add: -30"), Verdict.BOUND),
        (rule("first", pick="lowest: vm.nice", waits="for: 0s, cooldown: 5m"), Verdict.COOLDOWN),
    ],
)
def test_a_pick_that_was_held_does_not_use_the_vm_up_and_falls_through_to_none(
    blocked: str, verdict: Verdict
) -> None:
    steered = policy(blocked, rule("second", pick="lowest: vm.nice", nice="add: 2"), low=0)
    vms = [vm("a", 0, changed_at=NOW - 60), vm("b", 5)]
    decision = decide(steered, snapshot(vms, now=NOW))
    assert verdicts(decision) == {"a": verdict, "b": Verdict.NOT_PICKED}
    assert decision.changes == (Change("a", 0, 2, "second"),)


def test_a_vm_that_was_adjusted_is_left_by_later_rules_of_the_pass() -> None:
    steered = policy(
        rule("first", pick="lowest: vm.nice"),
        rule("second", pick="lowest: vm.nice, count: 2", nice="add: 5"),
    )
    decision = decide(steered, snapshot([vm("a", 0), vm("b", 1)]))
    assert moves(decision) == {"a": (0, 1), "b": (1, 6)}
    assert verdicts(decision, of_rule=1)["a"] is Verdict.ALREADY_ADJUSTED


def test_a_rule_that_would_undo_an_earlier_one_finds_the_vm_used_up() -> None:
    steered = policy(rule("up", nice="add: 1"), rule("down", nice="add: -1"))
    assert moves(decide(steered, snapshot([vm("a")]))) == {"a": (0, 1)}


@pytest.mark.parametrize(
    ("pick", "moved"),
    [
        ("highest: vm.usage", {}),
        ("highest: vm.usage, where: vm.nice < 15 && vm.sinceChange > 60", {"c": (0, 1)}),
    ],
)
def test_who_wants_fall_through_writes_it(pick: str, moved: dict[str, tuple[int, int]]) -> None:
    vms = [
        vm("a", 15, usage=3.0),
        vm("b", 0, usage=2.0, changed_at=NOW - 30),
        vm("c", 0, usage=1.0),
    ]
    steered = policy(rule(pick=pick, waits="for: 0s, cooldown: 60s"))
    assert moves(decide(steered, snapshot(vms, now=NOW))) == moved


def test_values_stay_where_they_are_when_no_rule_acts() -> None:
    steered = policy(rule(when="false"))
    assert not moves(decide(steered, snapshot([vm("a", 9), vm("b", -9)])))
