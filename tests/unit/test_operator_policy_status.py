"""What administrators are told of a policy: conditions, counts, the worst nodes."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from peacemaker_operator.acceptance import Acceptance, Acceptor
from peacemaker_operator.observed import (
    Condition,
    PeaceListRecord,
    PolicyRow,
    peace_list_record,
)
from peacemaker_operator.policy_status import is_urgent, policy_status, status_patch
from peacemaker_operator.reconcile import PolicyCount
from peacemaker_operator.records import PolicyRecord
from tests.kubevirt import Document
from tests.unit.operator_builders import POLICY_SPEC, accepted, crd_schema, policy_of, violations

SCHEMA = crd_schema("peacepolicies")["properties"]["status"]
NOW, BEFORE = "2026-11-23T04:00:00Z", "2026-11-23T03:00:00Z"
STOPPED = Condition("False", "Stopped", "the stop file exists", BEFORE, 1)
OTHER = Condition("False", "NotUnderstood", "another policy", BEFORE, 1)
SILENT = Condition("Unknown", "AgentSilent", "no word since 03:00", BEFORE, 1)

BAD_SPEC: Document = POLICY_SPEC | {
    "rules": [POLICY_SPEC["rules"][0] | {"when": "node.laod1 > 0.9"}]
}


def peace_list(
    name: str,
    generation: int | None = 1,
    *,
    ready: Condition | None = None,
    suspended: str | None = None,
    **row: Any,
) -> PeaceListRecord:
    """The PeaceList of a node on which the policy p has this generation in force."""
    empty = peace_list_record({"metadata": {"name": name}})
    rows = {"p": PolicyRow("p", generation, **row)}
    return replace(empty, ready=ready, suspended=suspended, policies=rows)


def status_of(
    *lists: PeaceListRecord,
    record: PolicyRecord | None = None,
    acceptance: Acceptance | None = None,
    vms: int = 2,
    silent_nodes: tuple[str, ...] = (),
    now: str = NOW,
) -> Document:
    """The status of p, which governs so many VMs on each node; some nodes have no PeaceList."""
    record = record or policy_of("p")
    acceptance = acceptance or Acceptor().accept(record)
    names = [each.name for each in lists] + list(silent_nodes)
    counts = {name: {"p": PolicyCount(vms, {}), "other": PolicyCount(7, {})} for name in names}
    counts["elsewhere"] = {"other": PolicyCount(5, {})}
    by_name = {each.name: each for each in lists}
    found = policy_status(record, acceptance, counts, by_name, now)
    assert not list(violations(found, SCHEMA))
    assert found["observedGeneration"] == record.generation
    assert {each["observedGeneration"] for each in found["conditions"]} == {record.generation}
    return found


def condition(status: Document, kind: str) -> Document:
    (found,) = (each for each in status["conditions"] if each["type"] == kind)
    result: Document = found
    return result


# The nodes' PeaceLists, then status and reason of Ready and a part of its message.
READY: list[tuple[list[PeaceListRecord], str, str, str]] = [
    ([], "True", "InForce", "no node"),
    ([peace_list("a")], "True", "InForce", "of 1 node 1 in force"),
    (
        [peace_list("a"), peace_list("b", suspended="NodeExcluded")],
        "True",
        "InForce",
        "1 suspended",
    ),
    ([peace_list("a", suspended="SystemSuspended")], "False", "Suspended", "1 suspended"),
    ([peace_list("a"), peace_list("b", ready=STOPPED)], "True", "InForce", "1 suspended"),
    ([peace_list("a", ready=OTHER)], "True", "InForce", "1 in force"),
    ([peace_list("a"), peace_list("b", None)], "False", "Progressing", "1 not taken over yet"),
    ([peace_list("a"), peace_list("b", 7)], "False", "Progressing", "of 2 nodes 1 in force"),
    ([peace_list("a"), peace_list("b", ready=SILENT)], "Unknown", "AgentSilent", "1 with a silent"),
    (
        [peace_list("a", None), peace_list("b", ready=SILENT)],
        "False",
        "Progressing",
        "1 not taken over yet, 1 with a silent",
    ),
    (
        [peace_list("a", None), peace_list("b", None, reason="NotUnderstood")],
        "False",
        "NotInForce",
        "1 not understood",
    ),
    (  # what a silent agent said last is no answer
        [peace_list("a", None, reason="NotUnderstood", ready=SILENT)],
        "Unknown",
        "AgentSilent",
        "1 with a silent",
    ),
    (  # silent and suspended: whether it restored anything is not known
        [peace_list("a", suspended="NodeExcluded", ready=SILENT)],
        "Unknown",
        "AgentSilent",
        "1 with a silent",
    ),
]


@pytest.mark.parametrize(("lists", "status", "reason", "message"), READY)
def test_ready_says_whether_the_policy_as_written_is_in_force(
    lists: list[PeaceListRecord], status: str, reason: str, message: str
) -> None:
    found = status_of(*lists)
    ready = condition(found, "Ready")
    assert (ready["status"], ready["reason"]) == (status, reason)
    assert message in ready["message"]
    assert condition(found, "Accepted")["status"] == "True"
    assert found["nodes"] == len(lists)


def test_a_node_without_a_peace_list_yet_has_not_taken_it_over() -> None:
    found = status_of(peace_list("a"), silent_nodes=("b",))
    assert condition(found, "Ready")["reason"] == "Progressing"
    assert [(each["name"], each["reason"]) for each in found["worstNodes"]] == [("b", "NotInForce")]


def test_a_spec_that_is_not_accepted_leaves_the_last_one_in_force() -> None:
    acceptor = Acceptor()
    acceptor.accept(policy_of("p", 1))
    record = policy_of("p", 2, **BAD_SPEC)
    found = status_of(
        peace_list("a"),
        peace_list("b", None),
        record=record,
        acceptance=acceptor.accept(record),
    )
    said, ready = condition(found, "Accepted"), condition(found, "Ready")
    assert (said["status"], said["reason"]) == ("False", "Invalid")
    assert said["message"].startswith("spec.rules[0].when: line 1, column ")
    assert (ready["status"], ready["reason"]) == ("False", "NotAccepted")
    assert "generation 1 stays in force, 2 is not accepted" in ready["message"]
    assert "of 2 nodes 1 in force, 1 not taken over yet" in ready["message"]
    assert found["accepted"] == {"generation": 1, "spec": policy_of("p", 1).spec}
    assert found["vms"] == 4


@pytest.mark.parametrize("known", [None, {"mode": "Enforce", "of-a-later-version": 1}])
def test_a_policy_without_any_accepted_spec_is_nowhere(known: Document | None) -> None:
    record = policy_of("p", 2, **BAD_SPEC)
    if known:
        record = replace(record, accepted_generation=1, accepted_spec=known)
    found = status_of(record=record)
    assert condition(found, "Accepted")["status"] == "False"
    assert condition(found, "Ready")["reason"] == "NotAccepted"
    assert (found["nodes"], found["vms"], found["worstNodes"]) == (0, 0, [])
    # Another version of the operator may understand it.
    assert found.get("accepted") == ({"generation": 1, "spec": known} if known else None)


def test_a_long_problem_fits_its_condition() -> None:
    problem = Acceptance(1, None, "x" * 5000)
    said = condition(status_of(acceptance=problem), "Accepted")
    assert len(said["message"]) == 4096


@pytest.mark.parametrize(
    ("mode", "adjusted"),
    [("Enforce", 3), ("Observe", 8)],
)
def test_counts_are_those_of_all_nodes(mode: str, adjusted: int) -> None:
    lists = [
        peace_list("a", adjusted=1, would_adjust=3),
        peace_list("b", adjusted=2, would_adjust=5),
    ]
    found = status_of(*lists, record=policy_of("p", mode=mode), vms=4)
    assert (found["nodes"], found["vms"], found["adjusted"]) == (2, 8, adjusted)
    assert (found["outranked"], found["outrankedBy"]) == (0, [])


def test_who_outranks_it_most_comes_first() -> None:
    record = policy_of("p")
    by = {f"q{n}": n + 1 for n in range(7)}
    counts = {
        "a": {"p": PolicyCount(0, by)},
        "b": {"p": PolicyCount(0, {"q0": 9, "q3": 3})},
        "c": {"q0": PolicyCount(0, {"p": 99})},
    }
    found = policy_status(record, Acceptor().accept(record), counts, {}, NOW)
    assert not list(violations(found, SCHEMA))
    assert found["outranked"] == 28 + 12
    assert [(each["name"], each["vms"]) for each in found["outrankedBy"]] == [
        *(("q0", 10), ("q3", 7), ("q6", 7), ("q5", 6), ("q4", 5)),
    ]


def test_the_worst_nodes_come_first() -> None:
    lists = [
        peace_list("fine"),
        peace_list("asleep", suspended="NodeExcluded", failed=9),
        peace_list("floored", floored=9),
        peace_list("contested-1", contested=1, floored=2),
        peace_list("contested-3", contested=3),
        peace_list("failed", failed=1, contested=4),
        peace_list("blind", missing_signals=("node.psi.some10", "vm.wait"), failed=1),
        peace_list("silent", ready=SILENT, failed=2),
        peace_list("old", None, reason="NotUnderstood", message="spec.rules[0].nice: unknown"),
    ]
    worst = status_of(*lists)["worstNodes"]
    assert [(each["name"], each["reason"], each["vms"]) for each in worst] == [
        ("old", "NotInForce", 2),
        ("silent", "AgentSilent", 2),
        ("blind", "MissingSignals", 2),
        ("failed", "Failed", 1),
        ("contested-3", "Contested", 3),
    ]
    assert worst[0]["message"] == "NotUnderstood: spec.rules[0].nice: unknown"
    assert worst[1]["message"] == "no word since 03:00"
    assert worst[2]["message"] == "missing: node.psi.some10, vm.wait"
    worst = status_of(*lists[:5])["worstNodes"]
    assert [each["name"] for each in worst] == ["contested-3", "contested-1", "floored"]


def test_nodes_alike_are_in_order_of_vms_then_name() -> None:
    lists = [peace_list(name, failed=vms) for name, vms in [("c", 1), ("b", 1), ("a", 1), ("z", 2)]]
    assert [each["name"] for each in status_of(*lists)["worstNodes"]] == ["z", "a", "b", "c"]


def test_a_long_message_of_a_node_fits() -> None:
    found = status_of(peace_list("a", None, reason="NotUnderstood", message="x" * 1024))
    assert len(found["worstNodes"][0]["message"]) == 256


def test_the_time_of_a_condition_is_that_of_its_last_transition() -> None:
    record = policy_of("p")
    first = status_of(peace_list("a", None), record=record, now=BEFORE)
    assert condition(first, "Ready")["lastTransitionTime"] == BEFORE
    told = replace(record, status=first)
    same = status_of(peace_list("a", None, reason="NotUnderstood"), record=told)
    assert condition(same, "Ready")["lastTransitionTime"] == BEFORE  # another reason, still False
    turned = status_of(peace_list("a"), record=told)
    assert condition(turned, "Ready")["lastTransitionTime"] == NOW
    assert condition(turned, "Accepted")["lastTransitionTime"] == BEFORE


def test_the_same_again_is_nothing_to_write() -> None:
    record = policy_of("p")
    lists = [peace_list("a"), peace_list("b", failed=1)]
    first = status_of(*lists, record=record, now=BEFORE)
    again = status_of(*reversed(lists), record=replace(record, status=first), now=NOW)
    assert status_patch(first, again) == {}
    assert not is_urgent(first, again)


@pytest.mark.parametrize(
    ("lists", "generation", "urgent"),
    [
        ([peace_list("a"), peace_list("b")], 1, False),  # one node more: figures
        ([peace_list("a", failed=1)], 1, False),
        ([peace_list("a", 2)], 1, True),
        ([peace_list("a", ready=SILENT)], 1, True),
        ([peace_list("a", 2)], 2, True),  # another generation, in force as the first was
    ],
)
def test_conditions_are_urgent_and_details_are_not(
    lists: list[PeaceListRecord], generation: int, urgent: bool
) -> None:
    first = status_of(peace_list("a"), now=BEFORE)
    record = replace(policy_of("p", generation), status=first)
    then = status_of(*lists, record=record)
    assert status_patch(first, then)
    assert is_urgent(first, then) is urgent


def test_the_first_status_is_urgent() -> None:
    assert is_urgent({}, status_of(peace_list("a")))


def merged(target: Document, patch: Document) -> Document:
    """RFC 7386."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
        ({"a": {"b": {"c": [1, 2]}}}, {"a": {"b": {"c": [1]}}}),
        ({"a": {"b": 1}}, {"a": [1]}),
        ({"a": [1]}, {"a": {"b": 1}}),
        ({"accepted": {"spec": {"rules": [], "bounds": {"min": 1}}}}, {"accepted": {"spec": {}}}),
    ],
)
def test_a_patch_makes_one_of_the_other(old: Document, new: Document) -> None:
    assert merged(old, status_patch(old, new)) == new
    assert status_patch(new, new) == {}


def test_twenty_policies_on_a_thousand_nodes() -> None:
    names = [f"p{number:02}" for number in range(20)]
    counts = {
        f"n{number}": {name: PolicyCount(10, {"p00": 1}) for name in names}
        for number in range(1000)
    }
    lists = {
        node: replace(
            peace_list(node), policies={name: PolicyRow(name, 1, floored=1) for name in names}
        )
        for node in counts
    }
    in_force = accepted("p")
    rounds = []
    for _ in range(3):
        started = time.thread_time()
        for name in names:
            listed = replace(in_force.listed, name=name)
            acceptance = Acceptance(1, replace(in_force, listed=listed))
            found = policy_status(policy_of(name), acceptance, counts, lists, NOW)
            assert len(json.dumps(found)) < 4096
        rounds.append(time.thread_time() - started)
    assert min(rounds) / len(names) < 0.05
