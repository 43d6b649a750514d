"""Who governs: one Enforce policy; Observe is a shadow."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.govern import rank, selects, standing
from peacemaker.policy import Mode, PeacePolicy
from tests.unit.builders import policy, rule

NODE = {"kubernetes.io/hostname": "n1"}
NAMESPACE = {"kubernetes.io/metadata.name": "prod"}
VM = {"tier": "gold"}


def named(name: str, mode: str = "Enforce", priority: int = 0) -> PeacePolicy:
    return policy(rule(), name=name, mode=mode, priority=priority)


@pytest.mark.parametrize(
    ("policies", "governor", "observers", "outranked"),
    [
        ([], None, [], []),
        ([("a", "Enforce", 0)], "a", [], []),
        ([("b", "Enforce", 0), ("a", "Enforce", 0)], "a", [], ["b"]),
        ([("a", "Enforce", 0), ("b", "Enforce", 1)], "b", [], ["a"]),
        ([("a", "Enforce", -1), ("z", "Enforce", 0)], "z", [], ["a"]),
        ([("a-z", "Enforce", 0), ("b-a", "Enforce", 0)], "a-z", [], ["b-a"]),
        ([("a", "Enforce", 0), ("b", "Enforce", 2), ("c", "Enforce", 1)], "b", [], ["c", "a"]),
        ([("a", "Observe", 9)], None, ["a"], []),
        ([("a", "Observe", 9), ("b", "Enforce", 0)], "b", ["a"], []),
        ([("a", "Observe", 0), ("b", "Enforce", 9)], "b", [], []),
        ([("a", "Observe", 0), ("b", "Enforce", 0)], "b", ["a"], []),
        ([("b", "Observe", 0), ("a", "Enforce", 0)], "a", [], []),
        # Observe policies do not compete with each other: each asks what it alone would do.
        ([("a", "Observe", 2), ("b", "Observe", 1), ("c", "Enforce", 0)], "c", ["a", "b"], []),
    ],
)
def test_the_highest_priority_then_the_first_name_governs(
    policies: list[tuple[str, str, int]],
    governor: str | None,
    observers: list[str],
    outranked: list[str],
) -> None:
    for shuffled in itertools.permutations([named(*each) for each in policies]):
        found = standing(rank(shuffled), NODE, NAMESPACE, VM)
        assert (found.governor.name if found.governor else None) == governor
        assert [each.name for each in found.observers] == observers
        assert [each.name for each in found.outranked] == outranked


@pytest.mark.parametrize(
    ("selectors", "selected"),
    [
        ("namespaceSelector: {}", True),
        ("namespaceSelector: {}\nselector: {matchLabels: {tier: gold}}", True),
        ("namespaceSelector: {}\nselector: {matchLabels: {tier: lead}}", False),
        ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}", True),
        ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: test}}", False),
        ("namespaceSelector: {matchLabels: {tier: gold}}", False),
        ("namespaceSelector: {}\nnodeSelector: {matchLabels: {kubernetes.io/hostname: n1}}", True),
        ("namespaceSelector: {}\nnodeSelector: {matchLabels: {kubernetes.io/hostname: n2}}", False),
    ],
)
def test_all_three_selectors_must_match_each_on_its_own_labels(
    selectors: str, selected: bool
) -> None:
    asked = policy(rule(), selectors=selectors)
    assert selects(asked, NODE, NAMESPACE, VM) is selected
    assert (standing((asked,), NODE, NAMESPACE, VM).governor is asked) is selected


def test_a_policy_that_does_not_select_a_vm_does_not_outrank_others() -> None:
    elsewhere = policy(
        rule(),
        name="elsewhere",
        priority=9,
        selectors="namespaceSelector: {}\nselector: {matchLabels: {tier: lead}}",
    )
    here = named("here")
    found = standing(rank([elsewhere, here]), NODE, NAMESPACE, VM)
    assert found.governor is here
    assert not found.outranked


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from(["Enforce", "Observe"]),
            st.integers(-2, 2),
        ),
        unique_by=lambda each: each[0],
    ),
    st.randoms(use_true_random=False),
)
def test_standing_does_not_depend_on_the_order_of_policies(
    drawn: list[tuple[str, str, int]], shuffled: random.Random
) -> None:
    policies = [named(*each) for each in drawn]
    before = standing(rank(policies), NODE, NAMESPACE, VM)
    shuffled.shuffle(policies)
    assert standing(rank(policies), NODE, NAMESPACE, VM) == before
    governors = [each for each in policies if each.mode is Mode.ENFORCE]
    assert (before.governor is None) == (not governors)
    assert len(before.outranked) == max(0, len(governors) - 1)
