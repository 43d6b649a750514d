"""Expressions: what is accepted, what is refused and where, what a missing signal does."""

import math
from collections.abc import Mapping

import pytest

from peacemaker.cel import (
    MAX_LENGTH,
    Expression,
    ExpressionError,
    Missing,
    Returns,
    Scope,
    Variables,
    compile_expression,
)
from peacemaker.signals import SIGNALS, SignalType

PSI = {"some10": 0.5, "some60": 0.25, "some300": 0.125}
NODE = {
    "load1": 2.5,
    "load5": 1.5,
    "load15": 1.0,
    "cpus": 4,
    "busy": 0.75,
    "vmCount": 3,
    "name": "n1",
    "psi": PSI,
}
VM = {
    "name": "x1",
    "namespace": "lab",
    "labels": {"tier": "gold"},
    "priorityClass": 0,
    "age": 3600.0,
    "nice": 5,
    "priority": 15,
    "vcpus": 2,
    "sinceChange": 61.0,
    "usage": 1.5,
    "usagePerVcpu": 0.75,
    "wait": 0.3,
    "psi": PSI,
    "throttled": 0.0,
}
CALM = VM | {"name": "x2", "labels": {}, "wait": 0.0, "nice": 0}
VARIABLES: Mapping[Scope, Mapping[str, object]] = {
    Scope.NODE: {"node": NODE, "vms": [VM, VM, VM, CALM]},
    Scope.VM: {"vm": VM},
}


def _without(values: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}


def _compile(text: str, scope: Scope, returns: Returns = Returns.BOOL) -> Expression:
    return compile_expression(text, scope, returns)


@pytest.mark.parametrize(
    ("scope", "text", "value"),
    [
        (Scope.NODE, "node.load15 > 1", False),
        (Scope.NODE, "node.load15 >= 1", True),
        (Scope.NODE, "node.load15 > 0.9", True),
        (Scope.NODE, "node.cpus >= 4", True),
        (Scope.NODE, "node.cpus < 4.5", True),
        (Scope.NODE, "2 < 2.5", True),
        (Scope.NODE, "uint(3) < 3.5", True),
        (Scope.NODE, "size(vms) / node.cpus > 0.5", True),
        (Scope.NODE, "vms.exists(v, v.wait > 0.2)", True),
        (Scope.NODE, "vms.all(v, v.wait < 1)", True),
        (Scope.NODE, "vms.filter(v, v.wait > 0.2).size() > 2", True),
        (Scope.NODE, "size(vms) > 2 && node.load1 > 1", True),
        (Scope.NODE, "node.psi.some10 > 0.4", True),
        (Scope.NODE, "has(node.psi.some10)", True),
        (Scope.NODE, 'node.name.startsWith("n") && node.name < "o"', True),
        (Scope.NODE, "true", True),
        (Scope.VM, "vm.nice < 15 && vm.sinceChange > 60", True),
        (Scope.VM, "vm.usage * 2.0 > 1.0", True),
        (Scope.VM, 'vm.labels["tier"] == "gold"', True),
        (Scope.VM, 'vm.labels.tier == "gold"', True),
        (Scope.VM, '"tier" in vm.labels', True),
        (Scope.VM, "has(vm.labels.tier)", True),
        (Scope.VM, "has(vm.labels.team)", False),
        (Scope.VM, 'vm.name.startsWith("x")', True),
        (Scope.VM, 'vm.namespace in ["lab", "shop"]', True),
        (Scope.VM, "double(vm.nice) * 0.5 > 2", True),
    ],
)
def test_conditions_hold_by_their_meaning(scope: Scope, text: str, value: bool) -> None:
    assert _compile(text, scope).evaluate(VARIABLES[scope]) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("vm.wait / vm.usage", 0.2),
        ("vm.nice", 5),
        ("vm.priority", 15),
        ("-vm.usage", -1.5),
        ("vm.wait > 0.2 ? 1.0 : 0.0", 1.0),
        ("vm.usage / 0.0", math.inf),
    ],
)
def test_orders_are_numbers(text: str, value: float) -> None:
    found = _compile(text, Scope.VM, Returns.NUMBER).evaluate(VARIABLES[Scope.VM])
    assert found == pytest.approx(value)
    assert type(found) is type(value)


def test_an_order_that_is_not_a_number_of_its_own_is_nan() -> None:
    order = _compile("vm.throttled / vm.throttled", Scope.VM, Returns.NUMBER)
    found = order.evaluate(VARIABLES[Scope.VM])
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=lambda signal: str(signal.name))
def test_every_signal_can_be_used_and_has_its_declared_type(signal: object) -> None:
    known = SIGNALS[getattr(signal, "name", "")]
    scope = Scope.NODE if known.name.startswith("node.") else Scope.VM
    text, python_type = {
        SignalType.INTEGER: (f"{known.name} > -100", int),
        SignalType.NUMBER: (f"{known.name} + 1.0 > 0.0", float),
        SignalType.TEXT: (f'{known.name} != ""', str),
        SignalType.LABELS: (f'"tier" in {known.name}', dict),
    }[known.type]
    value: object = VARIABLES[scope]
    for part in known.name.split("."):
        assert isinstance(value, Mapping)
        value = value[part]
    assert type(value) is python_type
    expression = _compile(text, scope)
    assert expression.signals == {known.name}
    assert expression.evaluate(VARIABLES[scope]) is True


@pytest.mark.parametrize(
    ("scope", "returns", "text", "line", "column", "says"),
    [
        (Scope.NODE, Returns.BOOL, "node.laod15 > 1", 1, 6, "did you mean node.load15"),
        (Scope.NODE, Returns.BOOL, "node.psi.some11 > 1.0", 1, 10, "node.psi.some11"),
        (Scope.NODE, Returns.BOOL, "vms.exists(v, v.weit > 0.2)", 1, 17, "did you mean vm.wait"),
        (Scope.NODE, Returns.BOOL, "node.load1 > 1 &&\n  node.x > 1", 2, 8, "node.x"),
        (Scope.NODE, Returns.BOOL, 'node.name == "é" && foo', 1, 21, "unknown name foo"),
        (Scope.NODE, Returns.BOOL, "foo", 1, 1, "unknown name foo"),
        (Scope.NODE, Returns.BOOL, "recursion", 1, 1, "unknown name recursion"),
        (Scope.NODE, Returns.BOOL, "vms.exist(v, v.wait > 0.2)", 1, 5, "did you mean exists"),
        (Scope.NODE, Returns.BOOL, "vm.wait > 0.2", 1, 1, "vms.exists"),
        (Scope.VM, Returns.BOOL, "vm.nice > 1 && node.load1 > 1", 1, 16, "only vm"),
        (Scope.VM, Returns.BOOL, "size(vms) > 1", 1, 6, "only vm"),
        (Scope.NODE, Returns.BOOL, "node.load1", 1, 1, "double, allowed true or false"),
        (Scope.NODE, Returns.BOOL, "node", 1, 1, "all of node, allowed true or false"),
        (Scope.VM, Returns.NUMBER, "vm.nice > 1", 1, 1, "bool, allowed a number"),
        (Scope.VM, Returns.NUMBER, "vm.name", 1, 1, "string, allowed a number"),
        (Scope.VM, Returns.BOOL, "vm.usage * 2 > 1.0", 1, 10, "write 2.0"),
        (Scope.VM, Returns.BOOL, "vm.usage == 1", 1, 10, "write 2.0"),
        (Scope.VM, Returns.BOOL, "vm.nice + 0.5 > 1.0", 1, 9, "write 2.0"),
        (Scope.VM, Returns.BOOL, "vm.name > 1", 1, 9, "string and int"),
        (Scope.VM, Returns.BOOL, "vm.psi > 1", 1, 8, "all of vm.psi and int"),
        (Scope.VM, Returns.BOOL, "1 +", 1, 4, "<EOF>"),
        (Scope.VM, Returns.BOOL, "", 1, 1, "<EOF>"),
        (Scope.VM, Returns.BOOL, 'vm.name == "x', 1, 12, "token"),
        (Scope.VM, Returns.BOOL, "vm.nice > 1 \x00", 1, 13, "token"),
        (Scope.VM, Returns.BOOL, 'vm.name == "\ud800"', 1, 1, "surrogates"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    scope: Scope, returns: Returns, text: str, line: int, column: int, says: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, scope, returns)
    assert says in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "text",
    [
        "dyn(node).laod15 > 1.0",
        "[1, 2.0][0] + 1.0 > 1.0",
        "[1, 'a'].exists(x, x > 2)",
        "node.cpus > 1 && [1, 'a'].exists(x, x > 2)",
        "{'a': 1, 'b': 'c'}.b > 1",
        "google.protobuf.Value{number_value: 1.0} > 'a'",
        "google.protobuf.Int64Value{value: 1} == 'a'",
        "peacemaker.Node{cpus: 1}.cpus > 1",
        "in.Node{cpus: 1}.cpus > 1",
        ".in.Node{cpus: 1}.cpus > 1",
        "`in`.Node{cpus: 1}.cpus > 1",
        "Node{cpus: 1}.cpus > 1",
        "type(node) == in.Node",
        "node.cpus == null",
    ],
)
def test_what_would_fail_for_its_type_whenever_it_runs_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        _compile(text, Scope.NODE)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "1" + "+1" * 50_000,
        "x" * (MAX_LENGTH + 1),
        *(opening * MAX_LENGTH for opening in ("(", "[", "{", "!", "-", "'", '"', "\n", "é")),
        "(" * 40 + "true" + ")" * 40,
        "1" + " + 1" * 1000 + " > 0",
        "true ? true : " * 200 + "true",
        "vms.exists(v, " * 31 + "true" + ")" * 31,
        "has(" * 900,
        "a." * 2000,
    ],
    ids=lambda text: f"{text[:8]!a}*{len(text)}",
)
@pytest.mark.timeout(5)
def test_hostile_expressions_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        _compile(text, Scope.NODE)


@pytest.mark.parametrize(
    ("scope", "text", "signals"),
    [
        (Scope.NODE, "node.psi.some10 > 0.5", {"node.psi.some10"}),
        (Scope.NODE, "vms.exists(v, v.wait > 0.2)", {"vm.wait"}),
        (Scope.NODE, "vms[0].psi.some60 > 0.2", {"vm.psi.some60"}),
        (
            Scope.NODE,
            'vms.exists(v, v.name == "v.age") && node.load1 > 1',
            {"vm.name", "node.load1"},
        ),
        (Scope.NODE, "size(vms) > 2", set()),
        (Scope.NODE, "has(node.psi)", {f"node.psi.some{seconds}" for seconds in (10, 60, 300)}),
        (
            Scope.NODE,
            "vms.map(v, v.psi).exists(p, p.some10 > 1.0)",
            {f"vm.psi.some{seconds}" for seconds in (10, 60, 300)},
        ),
        (Scope.VM, "vm.labels.wait == 'vm.usage'", {"vm.labels"}),
    ],
)
def test_signals_are_those_that_the_expression_refers_to(
    scope: Scope, text: str, signals: set[str]
) -> None:
    assert _compile(text, scope).signals == signals


NO_PSI = {"node": _without(NODE, "psi"), "vms": [VM]}
NO_SOME10 = {"node": NODE | {"psi": _without(PSI, "some10")}, "vms": [VM]}
NO_WAIT = {"vm": _without(VM, "wait", "psi")}


@pytest.mark.parametrize(
    ("scope", "text", "variables", "value"),
    [
        (Scope.NODE, "node.psi.some10 > 0.1", NO_PSI, Missing("signal", "node.psi.some10")),
        (Scope.NODE, "node.psi.some10 < 0.1", NO_PSI, Missing("signal", "node.psi.some10")),
        (Scope.NODE, "node.psi.some10 > 0.1", NO_SOME10, Missing("signal", "node.psi.some10")),
        (Scope.NODE, "!(node.psi.some10 > 0.1)", NO_PSI, Missing("signal", "node.psi.some10")),
        (Scope.NODE, "node.psi.some10 > 0.1 || node.load1 > 1", NO_PSI, True),
        (Scope.NODE, "node.load1 > 1 || node.psi.some10 > 0.1", NO_PSI, True),
        (
            Scope.NODE,
            "node.psi.some10 > 0.1 || node.load1 > 9",
            NO_PSI,
            Missing("signal", "node.psi.some10"),
        ),
        (Scope.NODE, "node.psi.some10 > 0.1 && node.load1 > 9", NO_PSI, False),
        (Scope.NODE, "has(node.psi) && node.psi.some10 > 0.1", NO_PSI, False),
        (
            Scope.NODE,
            "vms.exists(v, v.wait > 0.9)",
            {"node": NODE, "vms": [VM, _without(VM, "wait")]},
            Missing("signal", "vm.wait"),
        ),
        (
            Scope.NODE,
            "vms.exists(v, v.wait > 0.2)",
            {"node": NODE, "vms": [_without(VM, "wait"), VM]},
            True,
        ),
        (Scope.NODE, "vms.exists(v, v.wait > 0.2)", {"node": NODE, "vms": []}, False),
        (Scope.VM, "vm.wait > 0.1", NO_WAIT, Missing("signal", "vm.wait")),
        (
            Scope.VM,
            "vm.wait > 0.1 && vm.psi.some10 > 0.1",
            NO_WAIT,
            Missing("signal", "vm.psi.some10, vm.wait"),
        ),
        (Scope.VM, 'vm.labels["team"] == "a"', {"vm": VM}, Missing("label", "team")),
        (Scope.VM, 'vm.labels["wait"] == "a"', {"vm": VM}, Missing("label", "wait")),
        (Scope.VM, "vm.nice / (vm.nice - 5) > 1", {"vm": VM}, Missing("error", "divide by zero")),
        (Scope.VM, '{"a": 1}["b"] > 1', {"vm": VM}, None),
        (Scope.NODE, "vms[7].wait > 0.1", {"node": NODE, "vms": [VM]}, None),
        (Scope.VM, "vm.nice > 1", {}, None),
    ],
)
def test_what_is_missing_is_not_zero(
    scope: Scope, text: str, variables: Mapping[str, object], value: bool | Missing | None
) -> None:
    found = _compile(text, scope).evaluate(variables)
    if value is None:
        assert isinstance(found, Missing)
        assert found.kind == "error"
        assert found.text
    else:
        assert found == value


def test_more_steps_than_the_budget_are_an_error_and_no_crash() -> None:
    nested = _compile("vms.exists(v, vms.exists(w, w.wait > v.wait + 1.0))", Scope.NODE)
    found = nested.evaluate({"node": NODE, "vms": [VM] * 500})
    assert found == Missing("error", "Iteration budget exceeded")


def test_prepared_variables_serve_several_expressions_with_the_same_results() -> None:
    prepared = Variables(VARIABLES[Scope.VM])
    for text in ("vm.nice == 5", "vm.wait > 0.2", 'vm.labels["team"] == "a"'):
        expression = _compile(text, Scope.VM)
        assert expression.evaluate(prepared) == expression.evaluate(VARIABLES[Scope.VM])


def test_expressions_are_equal_by_text_scope_and_result() -> None:
    one = _compile("vm.nice > 1", Scope.VM)
    assert one == _compile("vm.nice > 1", Scope.VM)
    assert hash(one) == hash(_compile("vm.nice > 1", Scope.VM))
    assert one != _compile("vm.nice > 2", Scope.VM)
    assert _compile("1 > 0", Scope.VM) != _compile("1 > 0", Scope.NODE)
    assert one != "vm.nice > 1"
