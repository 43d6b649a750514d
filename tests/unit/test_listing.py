"""What follows from a PeaceList for a VM, and what is kept of it across restarts."""

import json
from pathlib import Path
from typing import Any

import pytest

from peacemaker.peacelist import ListedPolicy, ListedVm, PeaceListSpec, Suspension, VmState
from peacemaker.policy import Mode
from peacemaker_nodeagent.last_known import LastKnown
from peacemaker_nodeagent.listed_orders import GONE, ListedOrders
from peacemaker_nodeagent.listing import (
    Listing,
    in_force,
    read_listing,
    seconds_since_epoch,
    standing_of,
    understand,
)
from peacemaker_nodeagent.peace_list import State

RULES = [{"name": "r", "when": "true", "pick": {}, "nice": {"add": 1}}]
ENFORCE = {"mode": "Enforce", "rules": RULES}
POLICIES = (
    ListedPolicy("gold", 3, {**ENFORCE, "priority": 1}),
    ListedPolicy("plain", 1, ENFORCE),
    ListedPolicy("shy", 1, {**ENFORCE, "mode": "Observe"}),
    ListedPolicy("later", 2, {**ENFORCE, "rules": [{**RULES[0], "when": "node.gpu > 1.0"}]}),
)
UNDERSTOOD = understand(POLICIES, {})


def listed(state: VmState = VmState.MANAGED, **fields: Any) -> ListedVm:
    return ListedVm("u", "ns", "vm", state, **({"policy": "gold"} | fields))


@pytest.mark.parametrize(
    ("vm", "governor", "hold"),
    [
        (listed(), "gold", None),
        (listed(policy=None), None, None),
        (listed(VmState.EXCLUDED, reason="Realtime"), None,
         (State.EXCLUDED, "Realtime", False, False)),
        (listed(VmState.DEFERRED, reason="Paused", message="by m"), "gold",
         (State.DEFERRED, "Paused: by m", True, False)),
        (listed(VmState.DEFERRED, reason="Paused", policy=None), None,
         (State.DEFERRED, "Paused", False, False)),
        (listed(VmState.DEFERRED, reason="Migrating"), "gold",
         (State.DEFERRED, "Migrating", True, True)),
        (listed(VmState.DEFERRED, reason="Migrating", policy=None), None,
         (State.DEFERRED, "Migrating", False, False)),
        (listed(VmState.DEFERRED, reason="MigrationTarget", policy="later"), None,
         (State.DEFERRED, "MigrationTarget", True, False)),
        (listed(policy="later"), None,
         (State.DEFERRED, "NotUnderstood: this agent does not understand policy later",
          True, False)),
        (listed(policy="shy"), None,
         (State.DEFERRED, "PolicyNotListed: the PeaceList has no Enforce policy shy",
          True, False)),
        (listed(policy="no"), None,
         (State.DEFERRED, "PolicyNotListed: the PeaceList has no Enforce policy no",
          True, False)),
    ],
)  # fmt: skip
def test_who_governs_a_listed_vm_and_what_holds_it(
    vm: ListedVm, governor: str | None, hold: tuple[State, str, bool, bool] | None
) -> None:
    standing, found = standing_of(vm, UNDERSTOOD)
    assert (standing.governor and standing.governor.name) == governor
    assert (found and (found.state, found.reason, found.keeps, found.drains)) == hold


def test_only_observe_policies_that_are_understood_observe() -> None:
    standing, _ = standing_of(listed(observers=("shy", "later", "gold", "no")), UNDERSTOOD)
    assert [(each.name, each.mode) for each in standing.observers] == [("shy", Mode.OBSERVE)]


def test_policies_in_force_are_those_understood_in_the_order_of_their_claims() -> None:
    assert [policy.name for policy in in_force(UNDERSTOOD)] == ["gold", "plain", "shy"]
    later = UNDERSTOOD["later"]
    assert later.policy is None
    assert later.problem.startswith("spec.rules[0].when: line 1, column 6: unknown signal node.gpu")


def test_a_policy_that_says_the_same_is_the_same_object_of_another_generation() -> None:
    edited = ListedPolicy("plain", 2, {**ENFORCE, "priority": 5})
    touched = ListedPolicy("gold", 4, dict(POLICIES[0].spec))
    again = understand((touched, edited), UNDERSTOOD)
    assert again["gold"].policy is UNDERSTOOD["gold"].policy
    assert again["gold"].listed.generation == 4
    assert again["plain"].policy != UNDERSTOOD["plain"].policy
    assert set(again) == {"gold", "plain"}


METADATA = {"uid": "l", "generation": 4, "resourceVersion": "77"}
ONE = {"vms": [{"uid": "u", "namespace": "ns", "name": "vm", "state": "Managed"}]}


@pytest.mark.parametrize(
    ("document", "vms", "problem"),
    [
        ({"metadata": METADATA, "spec": ONE, "status": {"a": 1}}, 1, ""),
        ({"metadata": METADATA, "spec": {}}, 0, ""),
        ({"metadata": METADATA}, 0, ""),
        ({"metadata": METADATA, "spec": {"vms": [{}]}}, None, "spec.vms[0].state: missing"),
        ({"metadata": METADATA, "spec": []}, 0, ""),
        ({"metadata": METADATA, "spec": "no"}, None, "spec: wrong type"),
        ({"metadata": None, "spec": ONE, "status": None}, 1, ""),
        ({}, 0, ""),
    ],
)
def test_any_document_reads_as_a_listing(
    document: dict[str, Any], vms: int | None, problem: str
) -> None:
    read = read_listing(document)
    assert (read.spec and len(read.spec.vms)) == vms
    assert read.problem.startswith(problem)
    assert bool(read.problem) is (vms is None)


def test_a_new_status_leaves_the_spec_that_was_read() -> None:
    first = read_listing({"metadata": METADATA, "spec": ONE})
    second = read_listing(
        {"metadata": {**METADATA, "resourceVersion": "78"}, "spec": ONE, "status": {"a": 1}}, first
    )
    assert second.spec is first.spec
    assert (second.version, second.status) == ("78", {"a": 1})
    assert second.same_orders(first)
    assert second != first
    third = read_listing({"metadata": {**METADATA, "generation": 5}, "spec": {}}, second)
    assert third.spec == PeaceListSpec()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01T00:00:10.5Z", 10.5),
        ("1970-01-01T00:00:10", 10.0),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_of_the_api(text: str | None, seconds: float | None) -> None:
    assert seconds_since_epoch(text) == seconds


FULL = PeaceListSpec(
    policies=POLICIES,
    vms=(listed(pod_uid="p", labels={"a": "ü"}, observers=("shy",)),),
    max_claim_percent=150,
    suspended=Suspension("NodeExcluded", "m"),
)


def test_the_last_known_peace_list_comes_back_as_it_was(tmp_path: Path) -> None:
    known = LastKnown(str(tmp_path / "peacelist.json"), "n1")
    assert known.read() is None
    listing = Listing("u", 7, FULL)
    known.write(listing)
    assert known.read() == listing
    assert LastKnown(str(tmp_path / "peacelist.json"), "n2").read() is None
    known.write(Listing("u", 8, None, "not understood"))
    assert known.read() == listing
    known.remove()
    known.remove()
    assert known.read() is None
    assert not list(tmp_path.iterdir())


WHOLE: dict[str, Any] = {"v": 1, "node": "n1", "uid": "u", "generation": 1, "spec": {}}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "7", json.dumps(WHOLE)[:-1],
        *(json.dumps({k: v for k, v in WHOLE.items() if k != name}) for name in WHOLE),
        json.dumps(WHOLE | {"v": 2}), json.dumps(WHOLE | {"generation": "x"}),
        json.dumps(WHOLE | {"generation": None}), json.dumps(WHOLE | {"spec": {"vms": [7]}}),
        json.dumps(WHOLE | {"spec": 7}), "[" * 5000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_counts_as_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "peacelist.json"
    path.write_text(text)
    assert LastKnown(str(path), "n1").read() is None


class Server:
    """What an API server has answered so far."""

    def __init__(self) -> None:
        self.listing: Listing | None = None
        self.answered = False

    def newest(self) -> Listing | None:
        return self.listing

    def has_answered(self) -> bool:
        return self.answered


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def last_known(tmp_path: Path) -> LastKnown:
    return LastKnown(str(tmp_path / "peacelist.json"), "n1")


def orders(server: Server, last_known: LastKnown) -> ListedOrders:
    return ListedOrders(server, last_known, lambda: 0.0)


ACTIVE = PeaceListSpec(policies=POLICIES[:1], vms=(listed(pod_uid="p"),))


def test_until_an_answer_comes_the_last_known_orders_are_in_force(
    server: Server, last_known: LastKnown
) -> None:
    last_known.write(Listing("l", 1, ACTIVE))
    told = orders(server, last_known)
    assert (not told.poll(), list(told.pods), told.suspended) == (True, ["p"], None)
    server.listing, server.answered = Listing("l", 1, ACTIVE, version="5"), True
    assert not told.poll(), "the same orders are no news"
    server.listing = Listing("l", 1, ACTIVE, version="6", status={"x": 1})
    assert not told.poll(), "nor is a status"
    server.listing = Listing("l", 2, FULL)
    assert told.poll()
    assert (told.max_claim_percent, told.suspended) == (150, FULL.suspended)
    assert last_known.read() == server.listing


def test_no_peace_list_is_an_order_only_where_the_server_says_so(
    server: Server, last_known: LastKnown
) -> None:
    last_known.write(Listing("l", 1, ACTIVE))
    told = orders(server, last_known)
    assert not told.poll()
    server.answered = True
    assert told.poll()
    assert (told.suspended, told.policies(), list(told.pods)) == (GONE, (), [])
    assert last_known.read() is None
    assert not told.poll()
    server.listing = Listing("l2", 1, ACTIVE)
    assert told.poll()
    assert (told.suspended, [p.name for p in told.policies()]) == (None, ["gold"])
    server.listing = None
    assert told.poll()
    assert told.suspended == GONE


def test_a_peace_list_that_is_not_understood_puts_no_policy_in_force(
    server: Server, last_known: LastKnown
) -> None:
    told = orders(server, last_known)
    server.listing, server.answered = Listing("l", 1, ACTIVE), True
    assert told.poll()
    server.listing = Listing("l", 2, None, "spec.vms[0].state: missing")
    assert told.poll()
    assert (told.policies(), told.suspended) == ((), None)
    assert told.listing is server.listing
