"""What each node's PeaceList says: one function of all that is known."""

import itertools
import json
import random
import string
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.govern import rank, standing
from peacemaker.peacelist import (
    ListedVm,
    PeaceListSpec,
    Suspension,
    VmState,
    from_document,
    to_document,
)
from peacemaker_operator.acceptance import Accepted
from peacemaker_operator.reconcile import (
    NodeResult,
    PolicyCount,
    World,
    listed_nodes,
    reconcile,
)
from peacemaker_operator.records import PriorityClassRecord, VmiRecord, vmi_record
from peacemaker_operator.settings import Settings
from tests.kubevirt import Document
from tests.unit.operator_builders import (
    POLICY_SPEC,
    accepted,
    crd_schema,
    namespace,
    node,
    violations,
    vmi,
    world,
)
from tests.unit.test_operator_records import scrambled_documents

SPEC_SCHEMA = crd_schema("peacelists")["properties"]["spec"]
EXCLUDE = {"peacemaker.dev/exclude": "true"}


def on(found: World, name: str = "node1") -> NodeResult:
    """The result of one node, which is the same when all are reconciled."""
    alone = reconcile(found, [name])
    assert alone[name] == reconcile(found, found.nodes)[name]
    return alone[name]


def listed(found: World, name: str = "node1") -> dict[str, ListedVm]:
    return {vm.name: vm for vm in on(found, name).spec.vms}


def test_a_vm_is_listed_with_all_that_the_agent_needs() -> None:
    found = world(
        vmi("vm-a", labels={"tier": "gold"}, spec__priorityClassName="high"),
        policies=(accepted("p"), accepted("o", mode="Observe", priority=1)),
        priority_classes={"high": PriorityClassRecord("high", 1000, global_default=False)},
        settings=Settings(max_claim_percent=150),
    )
    spec = on(found).spec
    assert spec.vms == (
        ListedVm(
            uid="uid-vm-a",
            namespace="default",
            name="vm-a",
            state=VmState.MANAGED,
            pod_uid="pod-uid-vm-a",
            labels={"tier": "gold"},
            priority_class_value=1000,
            vcpus=2,
            creation_timestamp="2026-11-23T03:25:09Z",
            policy="p",
            observers=("o",),
        ),
    )
    assert [(each.name, each.generation) for each in spec.policies] == [("o", 1), ("p", 1)]
    assert spec.policies[1].spec == POLICY_SPEC
    assert spec.max_claim_percent == 150
    assert spec.suspended is None


@pytest.mark.parametrize(
    ("changes", "space", "state", "policy"),
    [
        ({}, {}, VmState.MANAGED, "p"),
        ({"status__phase": "Scheduled"}, {}, VmState.DEFERRED, "p"),
        ({"status__qosClass": "Guaranteed"}, {}, VmState.EXCLUDED, None),
        ({}, EXCLUDE, VmState.EXCLUDED, None),
    ],
)
def test_policies_govern_deferred_vms_and_no_excluded_ones(
    changes: Document, space: dict[str, str], state: VmState, policy: str | None
) -> None:
    found = world(
        vmi("vm-a", **changes),
        namespaces=(namespace("default", **space),),
        policies=(accepted("p"), accepted("o", mode="Observe", priority=1)),
    )
    vm = listed(found)["vm-a"]
    assert (vm.state, vm.policy) == (state, policy)
    assert vm.observers == (("o",) if policy else ())
    assert on(found).policies["p"] == PolicyCount(1 if policy else 0, {})


def test_a_vm_that_no_policy_selects_is_listed_all_the_same() -> None:
    vm = listed(world(vmi("vm-a")))["vm-a"]
    assert (vm.state, vm.policy, vm.reason) == (VmState.MANAGED, None, None)


@pytest.mark.parametrize(
    ("classes", "named", "value"),
    [
        ([], None, 0),
        ([("high", 1000, False)], "high", 1000),
        ([("high", 1000, False)], None, 0),
        ([("default", 7, True), ("high", 1000, False)], None, 7),
        ([("default", 7, True), ("other", 5, True)], None, 5),
        ([("default", 7, True)], "gone", 0),
        ([("low", -5, False)], "low", -5),
    ],
)
def test_the_value_of_a_priority_class(
    classes: list[tuple[str, int, bool]], named: str | None, value: int
) -> None:
    found = world(
        vmi("vm-a", spec__priorityClassName=named),
        priority_classes={each[0]: PriorityClassRecord(*each) for each in classes},
    )
    assert listed(found)["vm-a"].priority_class_value == value


@pytest.mark.parametrize(
    ("labels", "settings_", "suspended"),
    [
        ({}, Settings(), None),
        (EXCLUDE, Settings(), "NodeExcluded"),
        ({}, Settings(suspended=True), "SystemSuspended"),
        (EXCLUDE, Settings(suspended=True), "SystemSuspended"),
    ],
)
def test_a_node_is_suspended_with_its_reason(
    labels: dict[str, str], settings_: Settings, suspended: str | None
) -> None:
    found = world(
        vmi("vm-a"),
        nodes=(node("node1", **labels),),
        policies=(accepted("p"),),
        settings=settings_,
    )
    spec = on(found).spec
    assert (spec.suspended.reason if spec.suspended else None) == suspended
    assert isinstance(spec.suspended, Suspension) == bool(suspended)
    assert (spec.vms[0].policy, len(spec.policies)) == ("p", 1)  # for when it ends


def test_nodes_that_kubevirt_knows_or_that_have_vms_are_listed() -> None:
    bare = replace(node("bare"), labels={})
    found = world(
        vmi("vm-a", node="used"),
        vmi("vm-b", node="gone"),
        vmi("", node="nameless"),
        nodes=(
            node("known"),
            bare,
            replace(bare, name="used"),
            replace(bare, name="nameless"),
        ),
    )
    assert listed_nodes(found) == {"known", "used"}
    names = ["known", "bare", "used", "gone", "nameless", "never"]
    assert reconcile(found, names).keys() == {"known", "used"}


def test_a_migrating_vm_is_on_two_nodes_and_counts_on_one() -> None:
    moving = vmi(
        "vm-a",
        status__activePods={"s": "node1", "t": "node2"},
        status__migrationState={"sourceNode": "node1", "targetNode": "node2"},
    )
    found = world(moving, nodes=(node("node1"), node("node2")), policies=(accepted("p"),))
    source, target = listed(found, "node1")["vm-a"], listed(found, "node2")["vm-a"]
    assert (source.pod_uid, source.reason, source.policy) == ("s", "Migrating", "p")
    assert (target.pod_uid, target.reason, target.policy) == ("t", "MigrationTarget", "p")
    assert on(found, "node1").policies["p"].vms == 1
    assert on(found, "node2").policies["p"].vms == 0


def test_a_node_has_the_policies_that_select_it_in_order_of_name() -> None:
    policies = (
        accepted("b", nodeSelector={"matchLabels": {"pool": "x"}}),
        accepted("z"),
        accepted("a", mode="Observe"),
        accepted("c", nodeSelector={"matchLabels": {"pool": "y"}}),
    )
    found = world(nodes=(node("node1", pool="x"), node("node2")), policies=policies)
    assert [each.name for each in on(found, "node1").spec.policies] == ["a", "b", "z"]
    assert [each.name for each in on(found, "node2").spec.policies] == ["a", "z"]
    assert on(found, "node1").policies.keys() == {"a", "b", "z"}


def test_what_outranks_a_policy_is_counted() -> None:
    policies = (
        accepted("high", priority=2, selector={"matchLabels": {"tier": "gold"}}),
        accepted("low"),
        accepted("see-high", mode="Observe", priority=1),
        accepted("see-low", mode="Observe", priority=-1),
    )
    vmis = [vmi(f"g{n}", labels={"tier": "gold"}) for n in range(2)] + [vmi("plain")]
    assert on(world(*vmis, policies=policies)).policies == {
        "high": PolicyCount(2, {}),
        "low": PolicyCount(1, {"high": 2}),
        "see-high": PolicyCount(1, {"high": 2}),
        "see-low": PolicyCount(0, {"high": 2, "low": 1}),
    }


@pytest.mark.parametrize(
    ("labels", "omitted"),
    [
        ({}, None),
        ({"a": ""}, None),
        ({"example.com/a": "b", "A_b.c-1": "x" * 63}, None),
        ({f"k{n}": "v" for n in range(32)}, None),
        ({f"k{n}": "v" for n in range(33)}, "33 labels, allowed 32"),
        ({f"{n:013}": "v" * 51 for n in range(16)}, None),
        ({f"{n:013}": "v" * 52 for n in range(16)}, "1040 bytes of labels, allowed 1024"),
        ({"a": "x" * 64}, "not a label: 'a'"),
        ({"a": "ü"}, "not a label"),
        ({"ü": "a"}, "not a label"),
        ({"a": "\ud800"}, "not a label"),
        ({"a\n": "b"}, "not a label"),
        ({"a": "b\n"}, "not a label"),
        ({"": "b"}, "not a label"),
        ({"x" * 300: "b"}, "not a label"),
    ],
)
def test_labels_that_cannot_be_listed_are_not_but_still_select(
    labels: dict[str, str], omitted: str | None
) -> None:
    key = next(iter(labels), "a")
    wanted = replace(accepted("p").policy.selector, match_labels={key: labels.get(key, "")})
    policy = replace(accepted("p"), policy=replace(accepted("p").policy, selector=wanted))
    vm = listed(world(vmi("vm-a", labels=labels), policies=(policy,)))["vm-a"]
    assert vm.labels == ({} if omitted else labels)
    assert (vm.labels_omitted or "").startswith(omitted or "")
    assert (vm.labels_omitted is None) == (omitted is None)
    assert vm.policy == ("p" if labels else None)
    assert_valid(PeaceListSpec(vms=(vm,)))


def test_at_most_five_hundred_vms_in_order_of_uid() -> None:
    vmis = [vmi(f"v{n}", uid=f"{n:04}") for n in range(503)]
    random.Random(1).shuffle(vmis)
    found = on(world(*vmis, policies=(accepted("p"),)))
    assert [vm.uid for vm in found.spec.vms] == [f"{n:04}" for n in range(500)]
    assert found.policies["p"].vms == 500
    (remark,) = found.remarks
    assert remark.startswith("503 VMs are on the node, allowed 500")


def test_at_most_sixty_four_policies_those_of_highest_priority() -> None:
    policies = tuple(accepted(f"p{n:02}", priority=n) for n in range(66))
    found = on(world(vmi("vm-a"), policies=policies))
    assert [each.name for each in found.spec.policies] == [f"p{n:02}" for n in range(2, 66)]
    assert found.spec.vms[0].policy == "p65"
    (remark,) = found.remarks
    assert remark.startswith("66 policies select the node, allowed 64")
    assert_valid(found.spec)


def test_at_most_eight_observers_those_of_highest_priority() -> None:
    policies = tuple(accepted(f"o{n}", mode="Observe", priority=n) for n in range(10))
    found = on(world(vmi("vm-a"), policies=policies))
    assert found.spec.vms[0].observers == tuple(f"o{n}" for n in range(9, 1, -1))
    assert found.policies["o0"].vms == 1


def large(count: int, of_policies: int, rules: int, padding: str) -> World:
    labels = {f"{n:013}": "v" * 50 for n in range(16)}
    vmis = [vmi(f"{'n' * 200}{n:03}", uid=f"{n:036}", labels=labels) for n in range(count)]
    rule = POLICY_SPEC["rules"][0] | {"when": f"node.name != '{padding * 4000}'"}
    rules_ = [rule | {"name": f"r{n}"} for n in range(rules)]
    policies = tuple(accepted(f"p{n}", rules=rules_) for n in range(of_policies))
    return world(*vmis, policies=policies)


@pytest.mark.parametrize(
    ("count", "of_policies", "rules", "padding", "remarks"),
    [
        (300, 10, 1, " ", []),
        (500, 10, 8, " ", ["policies see no labels"]),
        (500, 20, 16, " ", ["policies see no labels", "may refuse it"]),
        (100, 10, 8, '"', ["policies see no labels", "may refuse it"]),  # twice escaped: four bytes
    ],
)
def test_a_list_that_is_too_large_goes_without_labels(
    count: int, of_policies: int, rules: int, padding: str, remarks: list[str]
) -> None:
    found = on(large(count, of_policies, rules, padding))
    size = len(json.dumps(to_document(found.spec), separators=(",", ":")))
    assert len(found.remarks) == len(remarks)
    for told, expected in zip(found.remarks, remarks, strict=True):
        assert expected in told
    assert all(bool(vm.labels) == (not remarks) for vm in found.spec.vms)
    assert all(bool(vm.labels_omitted) == bool(remarks) for vm in found.spec.vms)
    assert (size > 1024 * 1024) == (len(remarks) == 2)
    assert_valid(found.spec)


def test_messages_fit_whatever_names_are_in_them() -> None:
    long = "n" * 253
    moving = vmi("vm-a", status__migrationState={"targetNode": long, "sourceNode": "node1"})
    found = on(world(moving)).spec
    assert len(found.vms[0].message or "") == 256
    assert_valid(found)


def assert_valid(spec: PeaceListSpec) -> None:
    """The API server takes it, and what the agent reads is what was written."""
    document = json.loads(json.dumps(to_document(spec)))
    assert not list(violations(document, SPEC_SCHEMA))
    assert from_document(document) == spec


@settings(max_examples=200)
@given(st.lists(scrambled_documents(), min_size=1, max_size=4))
def test_malformed_vms_make_a_valid_peace_list(documents: list[Document]) -> None:
    records = [vmi_record(document) for document in documents] + [vmi("sound")]
    nodes = {name for record in records for name in record.nodes}
    found = world(*records, nodes=tuple(map(node, sorted(nodes))), policies=(accepted("p"),))
    for result in reconcile(found, nodes).values():
        assert_valid(result.spec)
    assert listed(found)["sound"].state is VmState.MANAGED


LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)


@st.composite
def selectors(draw: st.DrawFn) -> Document:
    key, value = draw(st.sampled_from("ab")), draw(st.sampled_from("xy"))
    drawn: Document = draw(
        st.sampled_from(
            [
                {},
                {"matchLabels": {key: value}},
                {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]},
                {"matchExpressions": [{"key": key, "operator": "Exists"}]},
                {"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]},
            ]
        )
    )
    return drawn


@st.composite
def policies_(draw: st.DrawFn) -> tuple[Accepted, ...]:
    names = draw(st.lists(st.sampled_from(string.ascii_lowercase[:6]), unique=True, max_size=6))
    return tuple(
        accepted(
            name,
            mode=draw(st.sampled_from(["Enforce", "Observe"])),
            priority=draw(st.integers(-1, 1)),
            nodeSelector=draw(selectors()),
            namespaceSelector=draw(selectors()),
            selector=draw(selectors()),
        )
        for name in names
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes = [replace(node(f"node{n}"), labels=draw(LABELS)) for n in range(2)]
    spaces = [replace(namespace(f"ns{n}"), labels=draw(LABELS)) for n in range(2)]
    vmis = [
        vmi(f"vm{n}", namespace=f"ns{n % 2}", node=f"node{n // 2 % 2}", labels=draw(LABELS))
        for n in range(draw(st.integers(1, 8)))
    ]
    return world(*vmis, nodes=tuple(nodes), namespaces=tuple(spaces), policies=draw(policies_()))


@settings(max_examples=100)
@given(worlds())
def test_standing_is_what_the_core_says(found: World) -> None:
    ranked = rank(each.policy for each in found.policies)
    for name, result in reconcile(found, found.nodes).items():
        governed: dict[str, int] = dict.fromkeys(result.policies, 0)
        outranked: dict[str, int] = dict.fromkeys(result.policies, 0)
        for vm in result.spec.vms:
            labels = found.namespaces[vm.namespace].labels
            expected = standing(ranked, found.nodes[name].labels, labels, vm.labels)
            assert vm.policy == (expected.governor.name if expected.governor else None)
            assert vm.observers == tuple(each.name for each in expected.observers)
            for each in (expected.governor, *expected.observers):
                if each is not None:
                    governed[each.name] += 1
            for each in expected.outranked:
                outranked[each.name] += 1
        for policy, count in result.policies.items():
            assert count.vms == governed[policy]
            if found.policies and is_enforced(found, policy):
                assert sum(count.outranked_by.values()) == outranked[policy]


def is_enforced(found: World, name: str) -> bool:
    return any(
        each.listed.name == name and each.policy.mode.value == "Enforce" for each in found.policies
    )


@settings(max_examples=50)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_known_makes_no_difference(
    found: World, shuffled: random.Random
) -> None:
    def mixed(items: Any) -> list[Any]:
        drawn = list(items)
        shuffled.shuffle(drawn)
        return drawn

    other = World(
        vmis={name: mixed(vmis) for name, vmis in mixed(found.vmis.items())},
        nodes=dict(mixed(found.nodes.items())),
        namespaces=dict(mixed(found.namespaces.items())),
        policies=tuple(mixed(found.policies)),
    )
    before, after = reconcile(found, found.nodes), reconcile(other, other.nodes)
    assert before == after
    for name, result in before.items():
        assert json.dumps(to_document(result.spec)) == json.dumps(to_document(after[name].spec))


def many(nodes: int) -> World:
    """Ten VMs a node, and twenty policies of many kinds."""
    tiers = itertools.cycle(["gold", "silver", "lead"])
    vmis: list[VmiRecord] = []
    for number in range(nodes * 10):
        name = f"vm-{number}"
        labels = {"tier": next(tiers), "kubevirt.io/vm": name}
        space, host = f"t{number % 50}", f"n{number % nodes}"
        vmis.append(vmi(name, namespace=space, node=host, labels=labels))
    policies = tuple(
        accepted(
            f"p{number:02}",
            mode="Observe" if number % 4 == 0 else "Enforce",
            priority=number % 6,
            nodeSelector={"matchLabels": {"pool": f"{number % 5}"}} if number % 3 else {},
            namespaceSelector={"matchLabels": {"team": f"{number % 7}"}} if number % 2 else {},
            selector={"matchLabels": {"tier": "gold"}} if number % 3 == 0 else {},
        )
        for number in range(20)
    )
    return world(
        *vmis,
        nodes=tuple(node(f"n{number}", pool=f"{number % 5}") for number in range(nodes)),
        namespaces=tuple(namespace(f"t{number}", team=f"{number % 7}") for number in range(50)),
        policies=policies,
    )


def test_the_cost_of_a_node_does_not_grow_with_the_number_of_nodes() -> None:
    """CPU time, the least of several rounds: other processes must not decide."""

    def cost(found: World) -> float:
        rounds = []
        for _ in range(7):
            started = time.thread_time()
            for number in range(20):
                reconcile(found, [f"n{number}"])
            rounds.append(time.thread_time() - started)
        return min(rounds) / 20

    small, large_ = cost(many(20)), cost(many(300))
    assert large_ < 0.002
    assert large_ < 2 * small
