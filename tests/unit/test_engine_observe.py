"""Observe: a shadow with a hypothetical nice of its own, which touches nothing real."""

from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.engine import decide
from peacemaker.memory import Memory
from peacemaker.snapshot import VmView
from peacemaker.trace import Verdict
from tests.unit.builders import moves, policy, rule, snapshot, verdicts, vm

UP = policy(rule(), mode="Observe", low=0, high=3)


def run(
    passes: int, *vms: VmView, memory: Memory | None = None
) -> list[dict[str, tuple[int, int]]]:
    kept, found = memory or Memory(), []
    for number in range(passes):
        decision = decide(UP, snapshot(vms, now=1000.0 + 15 * number), kept)
        kept = decision.memory
        found.append(moves(decision))
    return found


def test_the_hypothetical_nice_starts_at_the_baseline_and_goes_its_own_way() -> None:
    # The real nice is 9, and stays 9 whatever the shadow does.
    assert run(5, vm("a", nice=9)) == [{"a": (0, 1)}, {"a": (1, 2)}, {"a": (2, 3)}, {}, {}]
    assert run(1, vm("a", nice=9, baseline=2)) == [{"a": (2, 3)}]


def test_a_baseline_outside_the_bounds_is_clamped_as_a_take_over_would() -> None:
    assert run(1, vm("a", nice=0, baseline=-5)) == [{"a": (0, 1)}]


def test_it_is_forgotten_with_the_memory_and_with_the_vm() -> None:
    memory = decide(UP, snapshot([vm("a"), vm("b")])).memory
    assert memory.shadows.keys() == {"a", "b"}
    assert run(1, vm("a")) == [{"a": (0, 1)}]
    assert decide(UP, snapshot([vm("b")]), memory).memory.shadows.keys() == {"b"}


def test_expressions_see_the_hypothetical_values() -> None:
    steered = policy(
        rule(pick="where: vm.nice == 0 && vm.priority == 20 && vm.sinceChange == vm.age"),
        rule("then", pick="where: vm.nice == 1 && vm.sinceChange == 15.0", nice="set: 7"),
        mode="Observe",
    )
    real = vm("a", nice=9, changed_at=999.0)
    first = decide(steered, snapshot([real], now=1000.0))
    assert moves(first) == {"a": (0, 1)}
    assert moves(decide(steered, snapshot([real], now=1015.0), first.memory)) == {"a": (1, 7)}


def test_the_cooldown_counts_from_the_hypothetical_change() -> None:
    steered = policy(rule(waits="for: 0s, cooldown: 60s"), mode="Observe")
    real = vm("a", changed_at=999.0)
    first = decide(steered, snapshot([real], now=1000.0))
    assert moves(first) == {"a": (0, 1)}
    second = decide(steered, snapshot([real], now=1059.0), first.memory)
    assert verdicts(second)["a"] is Verdict.COOLDOWN
    assert moves(decide(steered, snapshot([real], now=1060.0), second.memory)) == {"a": (1, 2)}


def test_after_an_edit_of_the_bounds_the_hypothetical_nice_is_within_them() -> None:
    wide = policy(rule(nice="set: 12"), mode="Observe")
    memory = decide(wide, snapshot([vm("a")])).memory
    narrow = policy(rule(pick="where: vm.nice == 5", nice="add: -1"), mode="Observe", high=5)
    assert moves(decide(narrow, snapshot([vm("a")], now=1015.0), memory)) == {"a": (5, 4)}


def test_an_enforce_policy_keeps_no_shadows() -> None:
    assert not decide(policy(rule()), snapshot([vm("a")])).memory.shadows


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["add: 3", "add: -4", "set: 2", "toward: {value: -6, step: 5}"]),
                min_size=1, max_size=4), st.integers(1, 8))  # fmt: skip
def test_what_observe_would_do_is_what_enforce_does(actions: list[str], passes: int) -> None:
    rules = [rule(f"r{number}", nice=action) for number, action in enumerate(actions)]
    observe = policy(*rules, mode="Observe", low=-9, high=7)
    enforce = policy(*rules, low=-9, high=7)
    real, shadowed = Memory(), Memory()
    nice, changed_at = 0, None
    for number in range(passes):
        now = 15.0 * number
        did = decide(enforce, snapshot([vm("a", nice, changed_at=changed_at)], now=now), real)
        would = decide(observe, snapshot([vm("a", 19, changed_at=5.0)], now=now), shadowed)
        assert would.changes == did.changes
        real, shadowed = did.memory, would.memory
        for change in did.changes:
            nice, changed_at = change.new, now
