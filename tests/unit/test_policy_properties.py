"""Whatever a document says is what the policy says, and nothing breaks the parser."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.cel import Returns, Scope, compile_expression
from peacemaker.duration import format_duration
from peacemaker.parse import PolicyError, Problem, parse_policies
from peacemaker.policy import Action, Add, Bounds, Mode, PeacePolicy, Pick, Rule, Set, Toward
from peacemaker.selector import LabelSelector, Operator, Requirement

CONDITIONS = (
    "node.load1 > 1",
    'node.name == "it\'s" || node.load5 < 0.25',
    "vms.exists(v, v.wait > 0.2)\n  && size(vms) > 2",
    "// why: because\nnode.cpus >= 4",
)
FILTERS = ("vm.nice < 15 && vm.sinceChange > 60", '"tier" in vm.labels', 'vm.name == "é\\n"')
ORDERS = ("vm.priority", "-vm.usage", "vm.wait / vm.usage")

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
label_values = st.from_regex(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,9}[A-Za-z0-9])?)?", fullmatch=True)
label_keys = st.from_regex(r"([a-z]{1,9}\.[a-z]{2}/)?[A-Za-z0-9]{1,9}", fullmatch=True)

Document = dict[str, Any]


@st.composite
def requirements(draw: st.DrawFn) -> tuple[Document, Requirement]:
    key, operator = draw(label_keys), draw(st.sampled_from(Operator))
    if operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST):
        return {"key": key, "operator": operator.value}, Requirement(key, operator)
    values = draw(st.lists(label_values, min_size=1, max_size=3))
    document = {"key": key, "operator": operator.value, "values": values}
    return document, Requirement(key, operator, frozenset(values))


@st.composite
def selectors(draw: st.DrawFn) -> tuple[Document, LabelSelector]:
    labels = draw(st.dictionaries(label_keys, label_values, max_size=3))
    chosen = draw(st.lists(requirements(), max_size=2))
    document = {"matchLabels": labels, "matchExpressions": [said for said, _ in chosen]}
    return document, LabelSelector(labels, tuple(meant for _, meant in chosen))


@st.composite
def actions(draw: st.DrawFn, bounds: Bounds) -> tuple[Document, Action]:
    kind = draw(st.sampled_from(("add", "set", "toward")))
    if kind == "add":
        add = draw(st.integers(-39, 39).filter(bool))
        return {"add": add}, Add(add)
    value = draw(st.integers(bounds.min, bounds.max))
    if kind == "set":
        return {"set": value}, Set(value)
    step = draw(st.integers(1, 39))
    return {"toward": {"value": value, "step": step}}, Toward(value, step)


@st.composite
def picks(draw: st.DrawFn) -> tuple[Document, Pick]:
    document: Document = {}
    where = order = count = None
    highest = draw(st.booleans())
    if draw(st.booleans()):
        document["where"] = draw(st.sampled_from(FILTERS))
        where = compile_expression(document["where"], Scope.VM, Returns.BOOL)
    if highest or draw(st.booleans()):
        text, count = draw(st.sampled_from(ORDERS)), draw(st.integers(1, 1000))
        document |= {"highest" if highest else "lowest": text, "count": count}
        order = compile_expression(text, Scope.VM, Returns.NUMBER)
    return document, Pick(where, order, highest, count)


@st.composite
def rules(draw: st.DrawFn, name: str, bounds: Bounds) -> tuple[Document, Rule]:
    when, until = draw(st.sampled_from(CONDITIONS)), draw(st.sampled_from(CONDITIONS))
    for_, cooldown = draw(st.integers(0, 86400)), draw(st.integers(0, 86400))
    pick, meant_pick = draw(picks())
    nice, action = draw(actions(bounds))
    document = {
        "name": name,
        "when": when,
        "for": format_duration(for_),
        "until": until,
        "pick": pick,
        "nice": nice,
        "cooldown": format_duration(cooldown),
    }
    begins = compile_expression(when, Scope.NODE, Returns.BOOL)
    ends = compile_expression(until, Scope.NODE, Returns.BOOL)
    return document, Rule(name, begins, for_, ends, meant_pick, action, cooldown)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Document, PeacePolicy]:
    bounds = Bounds(draw(st.integers(-20, 0)), draw(st.integers(0, 19)))
    name, mode = draw(names), draw(st.sampled_from(Mode))
    priority, interval = draw(st.integers(-(2**31), 2**31 - 1)), draw(st.integers(1, 3600))
    nodes, namespaces, vms = draw(selectors()), draw(selectors()), draw(selectors())
    rule_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    chosen = [draw(rules(rule_name, bounds)) for rule_name in rule_names]
    document = {
        "apiVersion": "peacemaker.dev/v1alpha1",
        "kind": "PeacePolicy",
        "metadata": {"name": name},
        "spec": {
            "mode": mode.value,
            "priority": priority,
            "nodeSelector": nodes[0],
            "namespaceSelector": namespaces[0],
            "selector": vms[0],
            "interval": format_duration(interval),
            "bounds": {"min": bounds.min, "max": bounds.max},
            "rules": [said for said, _ in chosen],
        },
    }
    meant = PeacePolicy(
        name,
        mode,
        priority,
        nodes[1],
        namespaces[1],
        vms[1],
        interval,
        bounds,
        tuple(rule for _, rule in chosen),
    )
    return document, meant


def _dump(document: Document, draw_style: tuple[bool | None, str | None, int]) -> str:
    flow, style, width = draw_style
    return yaml.safe_dump(
        document, default_flow_style=flow, default_style=style, width=width, allow_unicode=True
    ).replace("!!int ", "")


# A style of quotes for everything would quote the integers too, so it is left to the dumper.
styles = st.tuples(st.sampled_from((True, False, None)), st.none(), st.sampled_from((20, 80, 4096)))


@given(policies(), styles)
def test_a_valid_document_means_what_it_says(
    policy: tuple[Document, PeacePolicy], style: tuple[bool | None, str | None, int]
) -> None:
    document, meant = policy
    assert parse_policies(_dump(document, style), "p.yaml") == (meant,)


junk = st.one_of(
    st.sampled_from(["", "\x00", "\t", "§", "'", '"', "{", "}", "[", "]", ": ", "- ", "&a ", "*a"]),
    st.sampled_from(
        ["\n", "|", ">", "\\", "---\n", "true", "9" * 30, "!!int ", "%", "é", "\ud800"]
    ),
    st.text(max_size=8),
)


@given(policies(), styles, st.data())
def test_a_mutated_document_is_a_policy_or_a_policy_error(
    policy: tuple[Document, PeacePolicy],
    style: tuple[bool | None, str | None, int],
    data: st.DataObject,
) -> None:
    text = _dump(policy[0], style)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(junk) + text[end:]
    lines = text.count("\n") + text.count("\r") + 1
    problems = _problems(text)
    assert list(problems) == sorted(problems)
    for problem in problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert "\n" not in str(problem)


def _problems(text: str | bytes) -> tuple[Problem, ...]:
    try:
        parse_policies(text, "p.yaml")
    except PolicyError as error:
        return error.problems
    return ()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_policy_error(data: bytes) -> None:
    assert _problems(data)
