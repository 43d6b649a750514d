"""What a valid document means: values, defaults, and the policies that are shared."""

from pathlib import Path

import pytest

from peacemaker.cel import Returns, Scope, compile_expression
from peacemaker.parse import parse_policies
from peacemaker.policy import Add, Bounds, Mode, PeacePolicy, Pick, Rule, Set, Toward
from peacemaker.selector import LabelSelector, Operator, Requirement

POLICIES = Path(__file__).parents[2] / "policies"

SMALLEST = """
apiVersion: peacemaker.dev/v1alpha1
kind: PeacePolicy
metadata: {name: small}
spec:
  mode: Observe
  rules:
  - name: only
    when: node.load1 > 1
    pick: {}
    nice: {set: 3}
"""


def test_what_is_absent_has_its_default() -> None:
    when = compile_expression("node.load1 > 1", Scope.NODE, Returns.BOOL)
    pick = Pick(where=None, order=None, highest=False, count=None)
    assert parse_policies(SMALLEST, "small.yaml") == (
        PeacePolicy(
            name="small",
            mode=Mode.OBSERVE,
            priority=0,
            node_selector=LabelSelector(),
            namespace_selector=LabelSelector(),
            selector=LabelSelector(),
            interval=15.0,
            bounds=Bounds(0, 10),
            rules=(Rule("only", when, 60.0, None, pick, Set(3), 60.0),),
        ),
    )


FULL = """\
apiVersion: peacemaker.dev/v1alpha1
kind: PeacePolicy
metadata:
  name: full.example
  labels: {team: a}
  annotations: {note: "x", kubectl.kubernetes.io/last-applied-configuration: "{}"}
  creationTimestamp: null
  resourceVersion: "7"
  uid: 0e2f
spec:
  mode: Enforce
  priority: -7
  nodeSelector: {matchLabels: {zone: a}}
  namespaceSelector:
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, ""]}
    - {key: trusted, operator: Exists}
  selector: {matchLabels: {tier: "5", empty: ""}}
  interval: 1h
  bounds: {min: -20, max: 19}
  rules:
  - name: a
    when: node.load1 > 1
    for: 1m30s
    until: node.load1 < 1
    pick: {where: vm.nice > 0, highest: vm.usage, count: 5}
    nice: {toward: {value: -20, step: 39}}
    cooldown: 24h
  - name: b
    when: node.load1 > 1
    pick: {lowest: vm.usage}
    nice: {add: -39}
status:
  anything: [1, {of: the kind}]
"""


def test_what_is_written_is_what_the_policy_says() -> None:
    (policy,) = parse_policies(FULL.encode(), "full.yaml")
    above = compile_expression("node.load1 > 1", Scope.NODE, Returns.BOOL)
    below = compile_expression("node.load1 < 1", Scope.NODE, Returns.BOOL)
    where = compile_expression("vm.nice > 0", Scope.VM, Returns.BOOL)
    usage = compile_expression("vm.usage", Scope.VM, Returns.NUMBER)
    names = frozenset({"kube-system", ""})
    assert policy == PeacePolicy(
        name="full.example",
        mode=Mode.ENFORCE,
        priority=-7,
        node_selector=LabelSelector({"zone": "a"}),
        namespace_selector=LabelSelector(
            {},
            (
                Requirement("kubernetes.io/metadata.name", Operator.NOT_IN, names),
                Requirement("trusted", Operator.EXISTS),
            ),
        ),
        selector=LabelSelector({"tier": "5", "empty": ""}),
        interval=3600.0,
        bounds=Bounds(-20, 19),
        rules=(
            Rule("a", above, 90.0, below, Pick(where, usage, True, 5), Toward(-20, 39), 86400.0),
            Rule("b", above, 60.0, None, Pick(None, usage, False, 1), Add(-39), 60.0),
        ),
    )


def test_one_text_may_hold_several_policies_and_empty_documents() -> None:
    other = SMALLEST.replace("name: small", "name: other")
    text = f"---\n# nothing\n---\n{SMALLEST}---\n---\n{other}"
    assert [policy.name for policy in parse_policies(text, "two.yaml")] == ["small", "other"]


def test_anchors_may_repeat_what_is_the_same() -> None:
    text = SMALLEST.replace("when: node.load1 > 1", "when: &load node.load1 > 1\n    until: *load")
    (rule,) = parse_policies(text, "alias.yaml")[0].rules
    assert rule.until == rule.when


@pytest.mark.parametrize(("nice", "clamped"), [(-30, -5), (-5, -5), (0, 0), (7, 7), (8, 7)])
def test_bounds_clamp(nice: int, clamped: int) -> None:
    assert Bounds(-5, 7).clamp(nice) == clamped


def test_the_seed_is_figure_7() -> None:
    file = POLICIES / "seed-figure-7.yaml"
    (policy,) = parse_policies(file.read_bytes(), file.name)
    priority = compile_expression("vm.priority", Scope.VM, Returns.NUMBER)
    assert (policy.mode, policy.interval, policy.bounds) == (Mode.ENFORCE, 15.0, Bounds(-15, 15))
    assert [
        (rule.when.text, rule.for_, rule.until, rule.pick, rule.action, rule.cooldown)
        for rule in policy.rules
    ] == [
        ("node.load15 > 0.9", 0.0, None, Pick(None, priority, False, 1), Add(1), 0.0),
        ("node.load15 < 0.1", 0.0, None, Pick(None, priority, True, 1), Add(-1), 0.0),
    ]


def test_every_shared_policy_is_valid_and_named_as_its_file() -> None:
    files = sorted(POLICIES.glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        (policy,) = parse_policies(file.read_bytes(), file.name)
        assert policy.name == file.stem
