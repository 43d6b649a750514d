"""Signals from two readings: what a pass sees, what is missing, and what is said of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from peacemaker_nodeagent.cgroup import place
from peacemaker_nodeagent.passes import Passes, PolicyRun
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.proc import Process, ProcessKey
from peacemaker_nodeagent.readings import (
    NodeReading,
    Reading,
    VmReading,
    node_signals,
    vm_signals,
)
from tests.unit.builders import moves, policy, rule

S = 1_000_000_000
NODE = NodeReading(at=100.0, load=(1.0, 2.0, 3.0), cpus=2, busy=1000, total=4000, psi=None)
VCPUS = (11, 12)
READ = VmReading(at=100.0, usage=50 * S, delay=20 * S, vcpus=VCPUS)
VM = Vm(
    process=Process(ProcessKey(11, 1), -1, -1, -1),
    uid="11-1",
    name="web",
    namespace="prod",
    labels={"tier": "gold"},
    started=0.0,
    placement=place("/"),
    own=None,
    vcpus=2,
)


def later(seconds: float = 10.0, **fields: Any) -> VmReading:
    return READ._replace(at=READ.at + seconds, **fields)


def test_the_load_is_per_online_cpu_and_needs_no_earlier_reading() -> None:
    assert node_signals(NODE, None, "n1", 3) == {
        "name": "n1",
        "cpus": 2,
        "vmCount": 3,
        "load1": 0.5,
        "load5": 1.0,
        "load15": 1.5,
    }


@pytest.mark.parametrize(
    ("busy", "total", "expected"),
    [
        *((1000, 4400, 0.0), (1400, 4400, 1.0), (1100, 4400, 0.25)),
        # no tick has passed
        (1000, 4000, None),
    ],
)
def test_busy_is_the_share_of_ticks_since_the_policys_last_pass(
    busy: int, total: int, expected: float | None
) -> None:
    now = replace(NODE, at=110.0, busy=busy, total=total)
    assert node_signals(now, NODE, "n1", 0).get("busy") == expected


def test_pressure_is_there_or_missing_and_never_zero() -> None:
    psi = {"some10": 0.1, "some60": 0.2, "some300": 0.3}
    assert "psi" not in node_signals(NODE, NODE, "n1", 0)
    assert node_signals(replace(NODE, psi=psi), None, "n1", 0)["psi"] == psi
    assert "psi" not in vm_signals(VM, READ, None)
    assert vm_signals(VM, READ._replace(psi=psi), None)["psi"] == psi


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        # one core for ten seconds, on two vCPUs that waited five seconds each
        (later(usage=60 * S, delay=30 * S), READ,
         {"usage": 1.0, "usagePerVcpu": 0.5, "wait": 0.5}),
        (later(), READ, {"usage": 0.0, "usagePerVcpu": 0.0, "wait": 0.0}),
        (later(2.5, usage=55 * S), READ, {"usage": 2.0, "usagePerVcpu": 1.0, "wait": 0.0}),
        # the first reading, the same reading, no reading
        *((READ, None, {}), (READ, READ, {}), (None, READ, {}), (None, None, {})),
        # counters that could not be read, in either reading
        *((later(usage=None), READ, {"wait": 0.0}), (later(), READ._replace(usage=None),
                                                     {"wait": 0.0})),
        (later(delay=None), READ, {"usage": 0.0, "usagePerVcpu": 0.0}),
        # other vCPU threads than before: their delays cannot be compared
        (later(vcpus=(11, 13)), READ, {"usage": 0.0, "usagePerVcpu": 0.0}),
        # a counter that went back is not negative; more wait than time is all of it
        (later(usage=40 * S, delay=10 * S), READ, {"usage": 0.0, "usagePerVcpu": 0.0, "wait": 0.0}),
        (later(delay=90 * S), READ, {"usage": 0.0, "usagePerVcpu": 0.0, "wait": 1.0}),
    ],
)  # fmt: skip
def test_usage_and_wait_since_the_last_pass(
    now: VmReading | None, before: VmReading | None, expected: Mapping[str, float]
) -> None:
    found = vm_signals(VM, now, before)
    deltas = ("usage", "usagePerVcpu", "wait", "throttled")
    assert {name: found[name] for name in deltas if name in found} == expected
    assert (found["name"], found["namespace"], found["vcpus"]) == ("web", "prod", 2)
    assert found["labels"] == {"tier": "gold"}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"pod": (100, 0)}, {"pod": (200, 0)}, 0.0),
        ({"pod": (100, 0)}, {"pod": (200, 50)}, 0.5),
        # the container throttles and its pod does not: the largest counts
        ({"pod": (100, 0), "c": (100, 50)}, {"pod": (200, 0), "c": (150, 100)}, 1.0),
        ({"pod": (100, 9), "c": (0, 0)}, {"pod": (100, 9), "c": (0, 0)}, 0.0),
        # a container that is new has had all its periods since
        ({"pod": (100, 0)}, {"pod": (200, 0), "c": (40, 10)}, 0.25),
        ({"pod": (100, 0), "c": (40, 10)}, {"pod": (200, 0)}, 0.0),
        *((None, {"pod": (1, 1)}, None), ({"pod": (1, 1)}, None, None)),
    ],
)
def test_throttled_is_the_largest_share_of_periods_of_the_pod_and_its_containers(
    before: Mapping[str, tuple[int, int]] | None,
    now: Mapping[str, tuple[int, int]] | None,
    expected: float | None,
) -> None:
    found = vm_signals(VM, later(periods=now), READ._replace(periods=before))
    assert found.get("throttled") == expected


def reading(at: float, vm: VmReading | None = READ, **node: Any) -> Reading:
    ticks = int(at)
    known = replace(NODE, at=at, busy=ticks, total=4 * ticks, **node)
    return Reading(known, {VM.uid: vm._replace(at=at)} if vm else {})


def run_for(*rules: str) -> PolicyRun:
    return PolicyRun(policy(*rules), due=100.0)


def play(run: PolicyRun, *readings: Reading) -> list[tuple[str, ...]]:
    """Passes at their due times; what each reported as missing."""
    found = []
    for each in readings:
        run.due = each.node.at
        run.run(each, [VM], "n1", 1)
        found.append(run.missing)
    return found


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        # signals that need a delta are no news at the first pass, and there at the second
        ([rule(pick="lowest: vm.usage")], [(), ()]),
        ([rule(when="node.busy > 0.5")], [(), ()]),
        # what the node cannot give is told at each pass
        ([rule(when="node.psi.some10 > 0.1")], [("node.psi.some10",)] * 2),
        ([rule(pick="lowest: vm.psi.some10")], [("vm.psi.some10",)] * 2),
        ([rule(pick="lowest: vm.throttled")], [(), ("vm.throttled",)]),
    ],
)
def test_a_pass_reports_what_the_node_cannot_give_but_not_a_first_reading(
    rules: list[str], missing: list[tuple[str, ...]]
) -> None:
    assert play(run_for(*rules), reading(100.0), reading(115.0)) == missing


def test_deltas_span_the_policys_own_last_pass() -> None:
    run = run_for(rule(pick="where: vm.usage == 2.0"))
    play(run, reading(100.0))
    decision = run.run(reading(110.0, READ._replace(usage=70 * S)), [VM], "n1", 1)
    assert moves(decision) == {VM.uid: (0, 1)}


def test_a_vm_that_was_not_read_has_no_measured_signals() -> None:
    run = run_for(rule(pick="lowest: vm.usage"))
    play(run, reading(100.0), reading(115.0))
    assert not run.run(reading(130.0, None), [VM], "n1", 1).changes


def test_a_policy_is_due_at_once_and_then_each_interval() -> None:
    passes = Passes()
    assert passes.next_due() == float("inf")
    passes.take([policy(rule(), name="a"), policy(rule(), name="b", interval="1m")], 100.0)
    assert {run.policy.name for run in passes.due(100.0)} == {"a", "b"}
    for run in passes.due(100.0):
        run.schedule_next()
    assert passes.next_due() == 115.0
    assert [run.policy.name for run in passes.due(115.0)] == ["a"]
    assert [run.policy.name for run in passes.due(114.9)] == []
    assert {run.policy.name for run in passes.due(160.0)} == {"a", "b"}


@pytest.mark.parametrize(("interval", "due"), [("15s", 115.0), ("5s", 105.0), ("1h", 115.0)])
def test_an_edited_policy_acts_at_its_next_due_pass(interval: str, due: float) -> None:
    passes = Passes()
    passes.take([policy(rule())], 100.0)
    for run in passes:
        run.schedule_next()
    passes.take([policy(rule(nice="add: 2"), interval=interval)], 101.0)
    assert passes.next_due() == due


def test_an_edit_keeps_timers_and_a_change_of_mode_forgets_shadows() -> None:
    passes = Passes()
    passes.take([policy(rule(), mode="Observe")], 100.0)
    (run,) = passes
    run.run(reading(100.0), [VM], "n1", 1)
    assert run.memory.shadows
    passes.take([policy(rule(), mode="Observe", high=3)], 101.0)
    assert run.memory.shadows
    passes.take([policy(rule())], 102.0)
    assert not run.memory.shadows
    assert run.memory.rules


def test_a_policy_that_is_gone_has_no_passes_and_a_new_one_no_memory() -> None:
    passes = Passes()
    passes.take([policy(rule())], 100.0)
    (run,) = passes
    run.run(reading(100.0), [VM], "n1", 1)
    passes.take([], 101.0)
    assert (list(passes), passes.policies(), passes.due(999.0)) == ([], (), [])
    passes.take([policy(rule())], 102.0)
    (fresh,) = passes
    assert not fresh.memory.rules
    assert fresh.due == 102.0


@pytest.mark.parametrize(
    ("rules", "needs"),
    [
        ([rule()], set()),
        ([rule(pick="lowest: vm.usage")], set()),
        ([rule(pick="lowest: vm.psi.some60")], {"vm.psi"}),
        ([rule(pick="where: vm.throttled > 0.1")], {"vm.throttled"}),
        ([rule(when="vms.exists(v, v.throttled > 0.1)")], {"vm.throttled"}),
        ([rule(waits="for: 0s, until: 'vms.all(v, v.psi.some10 < 0.1)'")], {"vm.psi"}),
        ([rule(), rule("s", pick="highest: vm.throttled + vm.psi.some10")],
         {"vm.psi", "vm.throttled"}),
        ([rule(when="node.psi.some10 > 0.1")], set()),
    ],
)  # fmt: skip
def test_only_what_a_due_policy_speaks_of_is_read(rules: list[str], needs: set[str]) -> None:
    passes = Passes()
    passes.take([policy(*rules, name="due")], 100.0)
    assert passes.needs(passes.due(100.0)) == needs


def test_a_first_reading_is_no_news_also_for_two_signals_in_one_expression() -> None:
    run = run_for(rule(pick="where: vm.usage > 0.5 && vm.wait > 0.1"))
    assert play(run, reading(100.0), reading(115.0)) == [(), ()]


def test_what_the_node_cannot_give_is_named_without_what_is_only_early() -> None:
    run = run_for(rule(pick="where: vm.usage > 0.5 && vm.psi.some10 > 0.1"))
    assert play(run, reading(100.0)) == [("vm.psi.some10",)]


def test_busy_is_never_more_than_all() -> None:
    # iowait may go backwards (proc(5)): then more ticks are busy than have passed.
    now = replace(NODE, at=110.0, busy=NODE.busy + 400, total=NODE.total + 390)
    assert node_signals(now, NODE, "n1", 0)["busy"] == 1.0


def due_passes(passes: Passes, now: float) -> list[float]:
    """What the agent's loop does at this time: the due times of the passes it makes."""
    made = []
    while due := passes.due(now):
        for run in due:
            made.append(run.due)
            run.run(reading(now), [VM], "n1", 1)
            run.schedule_next()
    return made


def test_after_a_stall_one_pass_is_made_and_not_two() -> None:
    passes = Passes()
    passes.take([policy(rule())], 100.0)
    due_passes(passes, 100.0)
    assert len(due_passes(passes, 700.0)) == 1


@pytest.mark.parametrize("stalls", [True, False])
def test_for_is_not_passed_over_in_two_readings_of_one_moment(stalls: bool) -> None:
    """After a stall (or suspension), or an edit that shortens the interval."""
    steady = rule(when="node.load1 > 0.1", waits="for: 60s, cooldown: 0s")
    passes = Passes()
    passes.take([policy(steady, interval="15s" if stalls else "1h")], 100.0)
    (run,) = passes
    calm = reading(100.0, load=(0.0, 0.0, 0.0))
    run.run(calm, [VM], "n1", 1)
    run.schedule_next()
    if not stalls:
        passes.take([policy(steady, interval="1s")], 1900.0)
    due_passes(passes, 1900.0)
    assert run.trace
    assert not run.trace.rules[0].active, "it has held for no time at all"


def test_a_cooldown_of_nothing_holds_nothing() -> None:
    """A clamp at 100.2 s, and the pass that was due at 100.0 s a moment later."""
    run = PolicyRun(policy(rule()), due=100.0)
    clamped = replace(VM, changed_at=100.2)
    assert moves(run.run(reading(100.2), [clamped], "n1", 1))
