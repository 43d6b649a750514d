"""What is wrong with a document is told with its place, its path, what was found and is allowed."""

import pytest

from peacemaker.parse import PolicyError, parse_policies

HERE = "§"  # stands before the place at which a problem must be told

VALID = """\
apiVersion: peacemaker.dev/v1alpha1
kind: PeacePolicy
metadata:
  name: p
spec:
  mode: Enforce
  priority: 3
  namespaceSelector: {}
  selector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [b]}]}
  interval: 15s
  bounds: {min: -5, max: 5}
  rules:
  - name: first
    when: node.load1 > 1
    for: 1m
    pick: {where: vm.nice < 5, highest: vm.usage, count: 2}
    nice: {toward: {value: 3, step: 1}}
    cooldown: 0s
"""

# old text, new text with the place marked, path, what the message says
CASES = [
    ("apiVersion: p", "apiVersion: §x", "apiVersion", "allowed peacemaker.dev/v1alpha1"),
    ("kind: Peace", "kind: §Pax", "kind", 'found "PaxPolicy", allowed PeacePolicy'),
    ("kind: PeacePolicy\n", "", "kind", "missing (allowed PeacePolicy)"),
    ("  name: p\n", "  §labels: {}\n", "metadata.name", "missing"),
    ("name: p\n", "name: §P_1\n", "metadata.name", 'found "P_1"'),
    ("name: p\n", "name: §p..q\n", "metadata.name", "DNS-1123 subdomain"),
    ("name: p\n", f"name: §{'p' * 64}\n", "metadata.name", "DNS-1123 subdomain"),
    ("name: p\n", f"name: §{'p.' * 127}p\n", "metadata.name", "253"),
    ("name: p\n", "name: §7\n", "metadata.name", "quote it"),
    ("name: p\n", "name: p\n  §namespace: x\n", "metadata.namespace", "unknown field"),
    ("  mode: Enforce\n", "  mode: Enforce\n  §priorty: 1\n", "spec.priorty", "mean priority?"),
    ("mode: Enforce\n  priority", "§priority", "spec.mode", "there is no default"),
    ("mode: Enforce", "mode: §enforce", "spec.mode", "did you mean Enforce?"),
    ("mode: Enforce", "mode: §true", "spec.mode", "found true, allowed Enforce or Observe"),
    ("priority: 3", "priority: §2147483648", "spec.priority", "-2147483648..2147483647"),
    ("priority: 3", "priority: §3.0", "spec.priority", "allowed an integer"),
    ("priority: 3", 'priority: §"3"', "spec.priority", 'found "3", allowed an integer'),
    ("priority: 3", "priority: §true", "spec.priority", "found true, allowed an integer"),
    ("priority: 3", "priority: §yes", "spec.priority", "found yes"),
    ("priority: 3", "priority: §0x10", "spec.priority", "found 0x10"),
    ("priority: 3", "priority: §010", "spec.priority", "found 010"),
    ("priority: 3", "priority: §1:10", "spec.priority", "found 1:10"),
    ("priority: 3", "priority:§", "spec.priority", "found null"),
    ("priority: 3", "priority: §[3]", "spec.priority", "found a list"),
    ("priority: 3", "priority: 3\n  §priority: 4", "spec.priority", "first is on line 7"),
    ("priority: 3", "§7: 3", "spec.7", "a key must be a string (found 7)"),
    ("  namespaceSelector: {}\n", "", "spec.namespaceSelector", "{} says all"),
    ("Selector: {}", "Selector: §[]", "spec.namespaceSelector", "found a list, allowed a map"),
    ("Selector: {}", "Selector: {§x: {}}", "spec.namespaceSelector.x", "unknown field"),
    ("{a: b}", "{a: §5}", "spec.selector.matchLabels.a", "quote it (found 5"),
    ("{a: b}", "{a: §b c}", "spec.selector.matchLabels.a", "label value"),
    ("{a: b}", "{§/a: b}", "spec.selector.matchLabels./a", "label key"),
    ("operator: In", "operator: §in", "spec.selector.matchExpressions[0].operator", "NotIn"),
    ("{key: a, op", "§{op", "spec.selector.matchExpressions[0].key", "missing"),
    ("{key: a, operator: In, ", "§{key: a, ", "spec.selector.matchExpressions[0].operator", "In"),
    (
        "{key: a, operator: In, values: [b]}",
        "§{key: a, operator: In}",
        "spec.selector.matchExpressions[0].values",
        "one or more values",
    ),
    (
        "In, values: [b]",
        "Exists, values: §[b]",
        "spec.selector.matchExpressions[0].values",
        "no values for Exists",
    ),
    ("[b]", "[§5]", "spec.selector.matchExpressions[0].values[0]", "quote it"),
    ("interval: 15s", "interval: §15", "spec.interval", "quote it (found 15"),
    ("interval: 15s", "interval: §5 parsecs", "spec.interval", 'found "5 parsecs"'),
    ("interval: 15s", "interval: §0s", "spec.interval", "allowed 1s to 1h"),
    ("interval: 15s", "interval: §1h1s", "spec.interval", "allowed 1s to 1h"),
    ("min: -5", "min: §-21", "spec.bounds.min", "found -21, allowed -20..0"),
    ("min: -5", "min: §1", "spec.bounds.min", "found 1, allowed -20..0"),
    ("max: 5", "max: §20", "spec.bounds.max", "found 20, allowed 0..19"),
    ("max: 5", "max: §-1", "spec.bounds.max", "found -1, allowed 0..19"),
    ("max: 5", "max: 5, §mid: 1", "spec.bounds.mid", "unknown field"),
    ("name: first", "name: §First", "spec.rules[0].name", "DNS-1123 label"),
    ("name: first", "name: §a.b", "spec.rules[0].name", "DNS-1123 label"),
    ("name: first", f"name: §{'a' * 64}", "spec.rules[0].name", "at most 63"),
    ("name: first\n    when", "§when", "spec.rules[0].name", "missing"),
    ("when: node.load1 > 1\n    for", "for", "spec.rules[0].when", "missing"),
    ("when: node.load1 > 1", "when: §true", "spec.rules[0].when", "quote it"),
    ("when: node.load1 > 1", "when: §node.load1", "spec.rules[0].when", "true or false"),
    ("when: node.load1 > 1", "when: §vm.nice > 1", "spec.rules[0].when", "only node and vms"),
    ("node.load1 > 1", "node.§laod1 > 1", "spec.rules[0].when", "did you mean node.load1?"),
    ("for: 1m", "for: §24h1s", "spec.rules[0].for", "allowed 0s to 24h"),
    ("for: 1m", "for: 1m\n    until: §vms", "spec.rules[0].until", "true or false"),
    ("where: vm.nice < 5", "where: §vm.nice", "spec.rules[0].pick.where", "true or false"),
    ("where: vm.nice < 5", "where: §node.cpus > 1", "spec.rules[0].pick.where", "only vm"),
    ("highest: vm.usage", "highest: §vm.name", "spec.rules[0].pick.highest", "a number"),
    ("pick: {", "pick: §{lowest: vm.nice, ", "spec.rules[0].pick", "lowest and highest"),
    (
        "highest: vm.usage, count: 2",
        "count: §2",
        "spec.rules[0].pick.count",
        "count without an order",
    ),
    ("count: 2", "count: §0", "spec.rules[0].pick.count", "found 0, allowed 1..1000"),
    ("count: 2", "count: §1001", "spec.rules[0].pick.count", "allowed 1..1000"),
    ("count: 2", "count: §true", "spec.rules[0].pick.count", "found true"),
    ("nice: {toward: {value: 3, step: 1}}", "nice: §{}", "spec.rules[0].nice", "one of add"),
    ("nice: {", "nice: §{set: 1, ", "spec.rules[0].nice", "several actions"),
    ("toward: {value: 3, step: 1}", "add: §0", "spec.rules[0].nice.add", "adds nothing"),
    ("toward: {value: 3, step: 1}", "add: §40", "spec.rules[0].nice.add", "allowed -39..39"),
    ("toward: {value: 3, step: 1}", "set: §6", "spec.rules[0].nice.set", "allowed -5..5"),
    ("toward: {value: 3, step: 1}", "set: §20", "spec.rules[0].nice.set", "allowed -20..19"),
    ("value: 3", "value: §-6", "spec.rules[0].nice.toward.value", "allowed -5..5, the bounds"),
    ("{value: 3, s", "§{s", "spec.rules[0].nice.toward.value", "missing (allowed -5..5"),
    ("step: 1", "step: §40", "spec.rules[0].nice.toward.step", "allowed 1..39"),
    ("cooldown: 0s", "cooldown: §1d", "spec.rules[0].cooldown", "not a duration"),
    ("cooldown: 0s", "§coldown: 0s", "spec.rules[0].coldown", "did you mean cooldown?"),
    ("    cooldown: 0s\n", "  - §text\n", "spec.rules[1]", 'found "text", allowed a map'),
]


def _problem_of(marked: str) -> tuple[tuple[int, int], tuple[int, int], str, str]:
    """Return where the mark is, and place, path and message of the one problem."""
    before, mark, after = marked.partition(HERE)
    with pytest.raises(PolicyError) as caught:
        parse_policies(before + after, "p.yaml")
    (problem,) = caught.value.problems
    assert str(problem) == str(caught.value)
    assert str(problem).startswith(f"p.yaml:{problem.line}:{problem.column}: ")
    lines = before.split("\n")
    wanted = (len(lines), len(lines[-1]) + 1) if mark else (problem.line, problem.column)
    return wanted, (problem.line, problem.column), problem.path, problem.message


@pytest.mark.parametrize(("old", "new", "path", "says"), CASES)
def test_a_wrong_field_is_the_one_problem_at_its_place(
    old: str, new: str, path: str, says: str
) -> None:
    assert VALID.count(old) >= 1
    parse_policies(VALID, "p.yaml")
    wanted, place, found_path, message = _problem_of(VALID.replace(old, new, 1))
    assert place == wanted
    assert found_path == path
    assert says in message


# Every style of YAML scalar, with an unknown signal somewhere inside.
STYLES = [
    "when: node.load1 > 1 && node.§nosuch > 1",
    "when: node.load1 > 1 &&\n      node.cpus > 1 &&\n\n      node.§nosuch > 1",
    "when: 'node.name == ''a'' && node.§nosuch > 1'",
    "when: 'node.name == ''a'' &&\n      node.§nosuch > 1'",
    'when: "node.name == \\"a\\" && node.§nosuch > 1"',
    'when: "node.name == \\"\\x41\\u0042\\U00000043\\" && node.§nosuch > 1"',
    'when: "node.name == \\"a\\" &&\\n\\n\\t node.§nosuch > 1"',
    'when: "node.name == \\"a\\" \\\n      &&\\x20node.§nosuch > 1"',
    "when: |\n      node.load1 > 1 &&\n        node.§nosuch > 1\n",
    "when: |-\n\n      node.load1 > 1 &&\n\n      node.§nosuch > 1",
    "when: |2-\n          node.load1 > 1 &&\n      node.§nosuch > 1",
    "when: | # why\n      // a comment\n      node.§nosuch > 1",
    "when: >\n      node.load1 > 1 &&\n      node.cpus > 1 &&\n\n      node.§nosuch > 1\n",
    "when: >-\n      node.load1 > 1 &&\n        node.§nosuch > 1 &&\n      node.cpus > 1",
    "when: &here node.load1 > 1 && node.§nosuch > 1",
    "? when\n    : node.§nosuch > 1",
    "when: \"node.name == 'é😀' && node.§nosuch > 1\"",
]


@pytest.mark.parametrize("style", STYLES)
def test_an_error_in_an_expression_points_into_the_file(style: str) -> None:
    marked = VALID.replace("when: node.load1 > 1", style)
    wanted, place, path, message = _problem_of(marked)
    assert message.startswith("unknown signal node.nosuch")
    assert place == wanted
    assert path == "spec.rules[0].when"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_do_not_move_the_place(ending: str) -> None:
    marked = VALID.replace("node.load1", "node.§laod1")
    before, _, after = marked.partition(HERE)
    with pytest.raises(PolicyError) as caught:
        parse_policies((before + after).replace("\n", ending).encode(), "p.yaml")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (14, 16)


def test_all_problems_are_told_at_once_in_order_of_position() -> None:
    text = (
        VALID.replace("mode: Enforce", "mode: Never")
        .replace("interval: 15s", "interval: 5 parsecs")
        .replace("node.load1", "node.laod1")
    )
    text += f"---\n{VALID}---\n[]\n---\nkind: [\n"
    with pytest.raises(PolicyError) as caught:
        parse_policies(text, "p.yaml")
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (6, "spec.mode"),
        (10, "spec.interval"),
        (14, "spec.rules[0].when"),
        (23, "metadata.name"),
        (39, ""),
        (42, ""),
    ]
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]


def test_names_of_rules_and_policies_are_taken_once() -> None:
    second = VALID.partition("  rules:\n")[2]
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"{VALID}{second}---\n{VALID}", "p.yaml")
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (19, "spec.rules[1].name"),
        (29, "metadata.name"),
    ]


def test_a_policy_has_at_most_16_rules() -> None:
    head, _, rule = VALID.partition("  rules:\n")
    many = [rule.replace("first", f"rule-{number}") for number in range(17)]
    assert len(parse_policies(f"{head}  rules:\n{''.join(many[:16])}", "p.yaml")[0].rules) == 16
    with pytest.raises(PolicyError, match=r"spec\.rules: .*\(found 17, allowed 1\.\.16\)"):
        parse_policies(f"{head}  rules:\n{''.join(many)}", "p.yaml")
    with pytest.raises(PolicyError, match=r"spec\.rules: .*\(found 0, allowed 1\.\.16\)"):
        parse_policies(f"{head}  rules: []\n", "p.yaml")


def test_something_else_is_told_by_its_kind_alone() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policies("kind: ConfigMap\nmetadata: {}\n", "p.yaml")
    (problem,) = caught.value.problems
    assert str(problem) == ('p.yaml:1:7: kind: not valid (found "ConfigMap", allowed PeacePolicy)')
