"""Which spec of a policy is in force: the newest that is sound, whatever comes and goes."""

from dataclasses import replace
from typing import Any

import pytest

from peacemaker.parse import policy_from_document
from peacemaker_operator import acceptance
from peacemaker_operator.acceptance import Acceptance, Acceptor
from peacemaker_operator.records import PolicyRecord
from tests.unit.operator_builders import POLICY_SPEC, policy_of


def bad(generation: int, **accepted: Any) -> PolicyRecord:
    """A policy whose newest spec has a wrong name at line 1, column 6 of a rule's `when`."""
    rule = POLICY_SPEC["rules"][0] | {"when": "node.laod1 > 0.9"}
    return replace(policy_of("p", generation, rules=[rule]), **accepted)


def in_force(found: Acceptance) -> int | None:
    return found.in_force.listed.generation if found.in_force else None


def test_a_sound_spec_is_in_force_as_it_is_written() -> None:
    record = policy_of("p", 3, priority=7)
    found = Acceptor().accept(record)
    assert found.problem is None
    assert found.generation == 3
    assert found.in_force is not None
    assert found.in_force.listed.name == "p"
    assert found.in_force.listed.spec == record.spec
    assert found.in_force.policy.priority == 7


def test_what_is_wrong_is_told_with_its_place() -> None:
    found = Acceptor().accept(bad(1))
    assert in_force(found) is None
    assert found.problem is not None
    assert found.problem.startswith("spec.rules[0].when: line 1, column ")
    assert "laod1" in found.problem


def test_the_last_sound_spec_stays_until_a_newer_one_is_sound() -> None:
    acceptor = Acceptor()
    steps = [
        (policy_of("p", 1, priority=1), 1),
        (bad(2), 1),
        (bad(3), 1),
        (policy_of("p", 4, priority=4), 4),
        (bad(5), 4),
    ]
    for record, generation in steps:
        found = acceptor.accept(record)
        assert in_force(found) == generation
        assert found.generation == record.generation
        assert (found.problem is None) == (record.generation == generation)


SOUND = policy_of("p", 1).spec


@pytest.mark.parametrize("times", [1, 2])
def test_after_a_restart_the_last_accepted_spec_comes_from_the_status(times: int) -> None:
    acceptor = Acceptor()
    for _ in range(times):
        found = acceptor.accept(bad(6, accepted_generation=4, accepted_spec=SOUND))
        assert in_force(found) == 4
        assert found.problem is not None


def test_the_status_lags_behind_what_was_accepted_here() -> None:
    acceptor = Acceptor()
    acceptor.accept(policy_of("p", 5, priority=5))
    found = acceptor.accept(bad(6, accepted_generation=4, accepted_spec=SOUND))
    assert in_force(found) == 5


def test_another_replica_may_have_accepted_a_later_one() -> None:
    acceptor = Acceptor()
    acceptor.accept(policy_of("p", 2))
    found = acceptor.accept(bad(6, accepted_generation=4, accepted_spec=SOUND))
    assert in_force(found) == 4


def test_an_accepted_spec_that_is_no_longer_understood_is_not_in_force_and_said_so() -> None:
    later = {**SOUND, "of-a-later-version": 1}
    found = Acceptor().accept(bad(6, accepted_generation=4, accepted_spec=later))
    assert in_force(found) is None
    assert found.problem is not None
    assert "laod1" in found.problem
    assert "the last accepted spec, generation 4" in found.problem
    assert "of-a-later-version" in found.problem


def test_a_policy_of_the_same_name_is_another_policy() -> None:
    acceptor = Acceptor()
    acceptor.accept(policy_of("p", 1))
    assert in_force(acceptor.accept(replace(bad(1), uid="another"))) is None


def test_what_is_forgotten_is_not_known() -> None:
    acceptor = Acceptor()
    acceptor.accept(policy_of("p", 1))
    acceptor.forget("uid-p")
    acceptor.forget("uid-p")
    assert in_force(acceptor.accept(bad(2))) is None


def test_each_spec_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    def counted(name: str, spec: Any) -> Any:
        judged.append(name)
        return policy_from_document(name, spec)

    monkeypatch.setattr(acceptance, "policy_from_document", counted)
    acceptor = Acceptor()
    first = acceptor.accept(policy_of("p", 1))
    for _ in range(3):
        assert acceptor.accept(policy_of("p", 1)) == first
        acceptor.accept(policy_of("q", 1))
    for _ in range(3):
        acceptor.accept(bad(2))
    assert judged == ["p", "q", "p"]
