"""The status of a PeaceList: what it says of a VM, of a policy and of the node."""

from collections.abc import Mapping
from typing import Any

import pytest

from peacemaker.claim import Share
from peacemaker.govern import Standing
from peacemaker.memory import Memory, Shadow
from peacemaker.peacelist import ListedPolicy, ListedVm, PeaceListSpec, Suspension, VmState
from peacemaker.policy import PeacePolicy
from peacemaker_nodeagent.adopt import ADOPTED
from peacemaker_nodeagent.agent import STOPPED
from peacemaker_nodeagent.agent_status import Ready, Work, cut, load_of, ready, status_of
from peacemaker_nodeagent.cgroup import place
from peacemaker_nodeagent.listing import NOT_LISTED, Understood
from peacemaker_nodeagent.own_cgroup import OwnCgroup
from peacemaker_nodeagent.passes import PolicyRun
from peacemaker_nodeagent.peace_list import Hold, Obstacle, PeaceList, State, Vm
from peacemaker_nodeagent.proc import Process, ProcessKey
from peacemaker_nodeagent.records import WeightRecord
from tests.unit.builders import policy, rule

GOLD = policy(rule(), name="gold")
SHY = policy(rule(), name="shy", mode="Observe")
GOVERNED = Standing(governor=GOLD)
SUSPENDED = Suspension("SystemSuspended", "by m")
NOW = 1_000_000.0
BOOTED = 999_000.0


def vm(number: int = 1, **fields: Any) -> Vm:
    known: dict[str, Any] = {
        "process": Process(ProcessKey(number, 1), -1, -1, -1),
        "uid": f"pod-{number}",
        "name": f"vm-{number}",
        "namespace": "ns",
        "started": 0.0,
        "placement": place("/"),
        "own": OwnCgroup("/p", -1, -1),
        "vcpus": 1,
        "weight_found": 102,
        "standing": GOVERNED,
    }
    return Vm(**(known | fields))


def listed(number: int = 1, state: VmState = VmState.MANAGED, **fields: Any) -> ListedVm:
    return ListedVm(
        f"u-{number}", "ns", f"vm-{number}", state, **({"pod_uid": f"pod-{number}"} | fields)
    )


def understood(*policies: PeacePolicy | str) -> dict[str, Understood]:
    """Policies, and names of such as are not understood."""
    return {
        name: Understood(ListedPolicy(name, 3, {}), None, "spec.mode: no")
        if isinstance(each, str)
        else Understood(ListedPolicy(name, 3, {}), each)
        for each in policies
        for name in [each if isinstance(each, str) else each.name]
    }


def work(*vms: Vm, listing: tuple[ListedVm, ...] | None = None, **fields: Any) -> Work:
    peace_list = PeaceList()
    for each in vms:
        peace_list.add(each)
    known: dict[str, Any] = {
        "generation": 5,
        "spec": PeaceListSpec(vms=(listed(),) if listing is None else listing),
        "problem": "",
        "understood": understood(GOLD),
        "suspended": None,
        "vms": peace_list,
        "runs": {},
        "pods": {"pod-1"},
        "booted_at": BOOTED,
    }
    return Work(**(known | fields))


AS_IT_CAME = {"nice": 0, "effectiveNice": 0, "weight": 102, "baseline": 102}
AT_5 = WeightRecord(baseline=102, confirmed=33, nice=5)


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({}, {"state": "Managed"}),
        ({"nice": 5, "weight": AT_5, "weight_found": 33, "changed_at": 60.4,
          "reason": "gold/r: nice 4 to 5", "share": Share(33.4, 33, False, 5)},
         {"state": "Managed", "nice": 5, "effectiveNice": 5, "weight": 33,
          "since": "1970-01-12T13:31:00Z", "message": "gold/r: nice 4 to 5"}),
        ({"nice": 15, "share": Share(1.9, 2, True, 14), "weight_found": 2, "weight": AT_5},
         {"state": "Managed", "nice": 15, "effectiveNice": 14, "weight": 2, "wanted": 1,
          "reason": "Floored"}),
        ({"own": None, "nice": 3}, {"state": "Managed", "nice": 3, "effectiveNice": 3,
                                    "weight": None, "baseline": None}),
        ({"weight_found": 0}, {"state": "Managed", "weight": None, "baseline": None}),
        ({"standing": Standing()},
         {"state": "Unmanaged", "reason": "NoPolicy", "message": "no policy governs it"}),
        ({"standing": Standing(), "reason": "restored: no policy governs it"},
         {"state": "Unmanaged", "reason": "NoPolicy",
          "message": "restored: no policy governs it"}),
        ({"hold": Hold(State.DEFERRED, "Paused: by m", keeps=True), "nice": 2},
         {"state": "Deferred", "reason": "Paused", "message": "by m", "nice": 2,
          "effectiveNice": 2}),
        ({"hold": Hold(State.EXCLUDED, "Realtime")}, {"state": "Excluded", "reason": "Realtime"}),
        ({"hold": Hold(State.EXCLUDED, "x y: z")},
         {"state": "Excluded", "reason": "Other", "message": "x y: z"}),
        ({"obstacle": Obstacle(State.CONTESTED, "Contested: somebody: else")},
         {"state": "Contested", "reason": "Contested", "message": "somebody: else"}),
        ({"write_failure": "WriteFailed: no", "hold": Hold(State.DEFERRED, "Paused")},
         {"state": "Failed", "reason": "WriteFailed", "message": "no"}),
        ({"suspended": SUSPENDED, "hold": Hold(State.DEFERRED, "Paused")},
         {"state": "Unmanaged", "reason": "SystemSuspended", "message": "by m"}),
        ({"reason": "x" * 300}, {"state": "Managed", "message": "x" * 255 + "…"}),
    ],
)  # fmt: skip
def test_what_is_told_of_a_vm(fields: dict[str, Any], entry: dict[str, Any]) -> None:
    [found] = status_of(work(vm(**fields)), {}, NOW)["vms"]
    expected = {"uid": "u-1", "namespace": "ns", "name": "vm-1", **AS_IT_CAME, **entry}
    assert found == {key: value for key, value in expected.items() if value is not None}


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (listed(), ("Deferred", "NotFound", "no QEMU in its pod yet")),
        (listed(pod_uid="pod-7"),
         ("Deferred", "NotFound", "no QEMU here, and its pod has no cgroup yet")),
        (listed(state=VmState.DEFERRED, reason="NoPod", message="m", pod_uid=None),
         ("Deferred", "NoPod", "m")),
        (listed(state=VmState.EXCLUDED, reason="Realtime"), ("Excluded", "Realtime", None)),
    ],
)  # fmt: skip
def test_what_is_told_of_a_vm_without_qemu(
    one: ListedVm, told: tuple[str, str, str | None]
) -> None:
    [found] = status_of(work(listing=(one,)), {}, NOW)["vms"]
    assert (found["state"], found["reason"], found.get("message")) == told
    assert "nice" not in found


def test_what_is_not_in_the_peace_list_is_not_told() -> None:
    stranger = vm(2, hold=NOT_LISTED, standing=Standing())
    status = status_of(work(vm(1), stranger), {}, NOW)
    assert [each["uid"] for each in status["vms"]] == ["u-1"]
    assert status["summary"]["managed"] == 1


def test_an_adopted_vm_is_told_of_as_before() -> None:
    """Its nice is older than this agent: a restart is no news."""
    before = {"vms": [
        {"uid": "u-1", "nice": 5, "since": "2026-01-01T00:00:00Z", "message": "gold/r: nice 4 to 5"}
    ]}  # fmt: skip
    adopted = vm(nice=5, changed_at=50.0, reason=ADOPTED)
    [found] = status_of(work(adopted), before, NOW)["vms"]
    assert (found["since"], found["message"]) == ("2026-01-01T00:00:00Z", "gold/r: nice 4 to 5")
    adopted.nice = 4
    [found] = status_of(work(adopted), before, NOW)["vms"]
    assert (found["since"], found["message"]) == ("1970-01-12T13:30:50Z", ADOPTED)


def test_the_summary_and_each_policy_count_the_vms() -> None:
    vms = [
        vm(1),
        vm(2, nice=5),
        vm(3, nice=15, share=Share(1.2, 2, True, 14)),
        vm(4, obstacle=Obstacle(State.CONTESTED, "Contested: x")),
        vm(5, write_failure="WriteFailed: x", nice=3),
        vm(6, hold=Hold(State.DEFERRED, "Paused", keeps=True), nice=3),
        vm(7, hold=Hold(State.EXCLUDED, "Realtime"), standing=Standing()),
        vm(8, standing=Standing()),
    ]
    listing = tuple(listed(number) for number in range(1, 10))
    status = status_of(work(*vms, listing=listing), {}, NOW)
    assert status["summary"] == {
        "managed": 3, "adjusted": 2, "deferred": 2, "excluded": 1, "floored": 1, "contested": 1,
        "failed": 1,
    }  # fmt: skip
    assert status["policies"] == [
        {"name": "gold", "generation": 3, "activeRules": [], "missingSignals": [],
         "adjusted": 2, "floored": 1, "contested": 1, "failed": 1}
    ]  # fmt: skip


def test_an_observe_policy_tells_the_vms_that_it_would_have_moved_farthest() -> None:
    run = PolicyRun(SHY, 0.0, missing=("x" * 300, *(f"s{n}" for n in range(40))))
    run.memory = Memory(shadows={
        **{f"pod-{n}": Shadow(n - 6, 1.0) for n in range(1, 13)},
        "pod-gone": Shadow(9, 1.0),
    })  # fmt: skip
    vms = [vm(n, standing=Standing(observers=(SHY,))) for n in range(1, 13)]
    told = work(*vms, understood=understood(SHY), runs={"shy": run})
    [entry] = status_of(told, {}, NOW)["policies"]
    assert entry["wouldAdjust"] == 11
    assert [(each["name"], each["nice"]) for each in entry["wouldBe"]] == [
        ("vm-12", 6), ("vm-1", -5), ("vm-11", 5), ("vm-10", 4), ("vm-2", -4), ("vm-3", -3),
        ("vm-9", 3), ("vm-4", -2), ("vm-8", 2), ("vm-5", -1),
    ]  # fmt: skip
    assert entry["missingSignals"] == ["x" * 255 + "…", *(f"s{n}" for n in range(31))]


def test_a_policy_that_is_not_understood_has_no_generation_in_force() -> None:
    assert status_of(work(understood=understood("later")), {}, NOW)["policies"] == [
        {"name": "later", "reason": "NotUnderstood", "message": "spec.mode: no"}
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (work(vm()), Ready("True", "InForce")),
        (work(understood=understood(GOLD, "later")),
         Ready("False", "NotUnderstood", "policy later: spec.mode: no")),
        (work(spec=None, problem="spec.vms[0].state: missing", suspended=STOPPED),
         Ready("False", "NotUnderstood", "spec.vms[0].state: missing")),
        (work(vm(), spec=PeaceListSpec(suspended=SUSPENDED), suspended=SUSPENDED),
         Ready("True", "Suspended", "everything is restored: SystemSuspended: by m")),
        (work(vm(weight=AT_5, write_failure="WriteFailed: no"),
              spec=PeaceListSpec(suspended=SUSPENDED), suspended=SUSPENDED),
         Ready("False", "RestoreFailed", "ns/vm-1 (WriteFailed: no)")),
        (work(*(vm(n, weight=AT_5) for n in range(9)), suspended=STOPPED),
         Ready("False", "RestoreFailed",
               ", ".join(f"ns/vm-{n} (at work)" for n in range(5)) + " and 4 more")),
        (work(vm(), suspended=STOPPED),
         Ready("False", "Stopped", "everything is restored: Stopped: the stop file exists")),
    ],
)  # fmt: skip
def test_the_condition_tells_whether_the_agent_does_all_that_spec_says(
    told: Work, expected: Ready
) -> None:
    assert ready(told) == expected


def condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    [found] = status["conditions"]
    assert isinstance(found, dict)
    return found


def test_the_time_of_the_last_transition_moves_with_the_status_alone() -> None:
    first = status_of(work(), {}, NOW)
    assert condition(first)["lastTransitionTime"] == "1970-01-12T13:46:40Z"
    assert condition(first)["observedGeneration"] == first["observedGeneration"] == 5
    suspended = work(spec=PeaceListSpec(suspended=SUSPENDED), suspended=SUSPENDED)
    second = status_of(suspended, first, NOW + 60)
    assert condition(second)["lastTransitionTime"] == "1970-01-12T13:46:40Z"
    third = status_of(work(suspended=STOPPED), second, NOW + 60)
    assert condition(third)["lastTransitionTime"] == "1970-01-12T13:47:40Z"


def test_of_a_peace_list_that_is_not_understood_only_the_condition_is_told() -> None:
    assert set(status_of(work(spec=None), {}, NOW)) == {"observedGeneration", "conditions"}


@pytest.mark.parametrize(
    "before",
    [{"conditions": 7}, {"conditions": [7, {"type": "Ready"}]}, {"vms": [7, {"uid": "u-1"}]}],
)
def test_what_others_wrote_into_the_status_breaks_nothing(before: dict[str, Any]) -> None:
    assert status_of(work(vm(reason=ADOPTED)), before, NOW)["observedGeneration"] == 5


def test_load_is_told_with_two_decimals() -> None:
    assert load_of((0.874, 12.0, 0.005)) == {"load1": "0.87", "load5": "12.00", "load15": "0.01"}


@pytest.mark.parametrize(("text", "most", "left"), [("abc", 3, "abc"), ("abcd", 3, "ab…")])
def test_texts_are_cut_where_the_schema_ends(text: str, most: int, left: str) -> None:
    assert cut(text, most) == left
