"""The trace tells rule by rule what happened to a VM, and why."""

from collections.abc import Mapping

import pytest

from peacemaker.engine import decide
from peacemaker.snapshot import VmView
from tests.unit.builders import policy, rule, snapshot, vm

LOAD = {"load15": 2.0, "load1": 0.5}
WAITS = "for: 1m, cooldown: 1m30s"


@pytest.mark.parametrize(
    ("rules", "node", "expected"),
    [
        (
            [rule("up", when="node.load15 > 1.0")],
            LOAD,
            [
                "  rule 1 up: `node.load15 > 1.0` holds, has held for 0s of 0s; active",
                "    picked and adjusted (nice 0 to 1)",
            ],
        ),
        (
            [rule("up", when="node.load15 > 1.0", waits=WAITS)],
            LOAD,
            ["  rule 1 up: `node.load15 > 1.0` holds, has held for 0s of 1m; not active"],
        ),
        (
            [rule("up", when="node.load15 < 1.0")],
            LOAD,
            ["  rule 1 up: `node.load15 < 1.0` does not hold; not active"],
        ),
        (
            [rule("up", when="node.psi.some10 > 0.1")],
            LOAD,
            ["  rule 1 up: `node.psi.some10 > 0.1` has no value (node.psi.some10); not active"],
        ),
        (
            [rule("up", waits="for: 0s, until: node.load1 < 1.0")],
            LOAD,
            [
                (
                    "  rule 1 up: `true` holds, has held for 0s of 0s, "
                    "until `node.load1 < 1.0` holds; not active"
                )
            ],
        ),
        (
            [rule("up", pick="where: vm.nice > 3"), rule("down", nice="add: -1")],
            {},
            [
                "  rule 1 up: `true` holds, has held for 0s of 0s; active",
                "    not picked: `where` does not hold",
                "  rule 2 down: `true` holds, has held for 0s of 0s; active",
                "    picked and adjusted (nice 0 to -1)",
            ],
        ),
    ],
)
def test_explain_tells_of_each_rule(
    rules: list[str], node: Mapping[str, object], expected: list[str]
) -> None:
    trace = decide(policy(*rules), snapshot([vm("a")], node)).trace
    assert trace.explain("a") == ["policy p (Enforce)", *expected]


@pytest.mark.parametrize(
    ("given_rule", "seen", "sentence"),
    [
        (rule(), vm("a", 15), "picked, held by the bound (nice 15, bounds -15..15)"),
        (rule(nice="set: 3"), vm("a", 3), "picked, but the action changes nothing (nice 3)"),
        (
            rule(waits=WAITS),
            vm("a", changed_at=970.0),
            "picked, held by the cooldown (changed 30s ago, cooldown 1m30s)",
        ),
        (rule(pick="lowest: vm.usage"), vm("a"), "not picked: no value (vm.usage)"),
        (rule(pick="lowest: vm.usage"), vm("a", usage=float("nan")), "not picked: no value (NaN)"),
        (rule(pick="where: vm.nice > 0"), vm("a"), "not picked: `where` does not hold"),
        (rule(pick="where: 'vm.labels.x == \"\"'"), vm("a"), "not picked: no value"),
        (rule(pick="lowest: vm.nice"), vm("a", 2), "not picked: others come first"),
    ],
)
def test_explain_says_what_held_a_vm(given_rule: str, seen: VmView, sentence: str) -> None:
    held = policy(given_rule.replace("for: 1m", "for: 0s"))
    trace = decide(held, snapshot([seen, vm("b", usage=1.0)])).trace
    assert trace.explain("a")[-1] == f"    {sentence}"


def test_explain_names_the_rule_that_came_first() -> None:
    both = policy(rule("up"), rule("down", nice="add: -1"))
    lines = decide(both, snapshot([vm("a")])).trace.explain("a")
    assert lines[-1] == ("    picked, but an earlier rule has adjusted it in this pass (by up)")


def test_explain_of_a_rule_that_goes_on_until_says_so() -> None:
    steered = policy(rule(when="node.load15 > 1.0", waits="for: 0s, until: node.load1 < 0.1"))
    first = decide(steered, snapshot([], LOAD))
    second = decide(steered, snapshot([], {"load1": 0.5}, now=1015.0), first.memory)
    assert second.trace.explain("a")[1:] == [
        "  rule 1 r: active until `node.load1 < 0.1` holds",
        "    not seen by this pass",
    ]


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ([rule()], ()),
        ([rule(when="node.load5 > 1.0")], ("node.load5",)),
        ([rule(waits="for: 0s, until: node.psi.some10 < 0.1")], ("node.psi.some10",)),
        ([rule(pick="lowest: vm.usage")], ("vm.usage",)),
        ([rule(pick="where: vm.wait > 0.1")], ("vm.wait",)),
        ([rule(when="vms.exists(v, v.wait > 0.1)")], ("vm.wait",)),
        # Told once, in the order in which they were met.
        (
            [rule(pick="lowest: vm.usage"), rule("s", when="node.load5 > 1.0")],
            ("vm.usage", "node.load5"),
        ),
        # A side that is missing and not needed is no news, nor is a label that a VM lacks.
        ([rule(when="node.load15 > 1.0 || node.load5 > 1.0")], ()),
        ([rule(pick='where: \'vm.labels["tier"] == "gold"\'')], ()),
        # What an idle rule would pick by is not asked.
        ([rule(when="false", pick="lowest: vm.usage")], ()),
    ],
)
def test_missing_signals_are_named(rules: list[str], missing: tuple[str, ...]) -> None:
    trace = decide(policy(*rules), snapshot([vm("a"), vm("b")], LOAD)).trace
    assert trace.missing == missing
