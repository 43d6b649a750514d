"""Documents that the API server refuses, with a message that names the field."""

import pytest
from kubernetes.client import ApiClient

from tests.cluster.api import LISTS, POLICIES, STRICT_TRIAL, Document, Refused, ask
from tests.cluster.documents import LIST_STATUS, PEACE_LIST, POLICY, edited, stored

RULE = POLICY["spec"]["rules"][0]
READY = LIST_STATUS["conditions"][0]
FIRST = "spec.rules.0"
VM = "spec.vms.0"

# where, what to put there, the field that the API server names, what it says
WRONG_POLICIES = [
    ("metadata.name", "p" * 64, "metadata.name", "should match"),
    ("-spec", None, "spec", "Required"),
    ("-spec.mode", None, "spec.mode", "Required"),
    ("spec.mode", "Never", "spec.mode", '"Enforce", "Observe"'),
    ("spec.priority", 2**31, "spec.priority", "2147483647"),
    ("spec.interval", "5 parsecs", "spec.interval", "allowed 1s to 1h"),
    ("spec.interval", "61m", "spec.interval", "allowed 1s to 1h"),
    ("spec.bounds.min", -21, "spec.bounds.min", "-20"),
    ("spec.bounds.min", 1, "spec.bounds.min", "0"),
    ("spec.bounds.max", 20, "spec.bounds.max", "19"),
    ("-spec.namespaceSelector", None, "spec.namespaceSelector", "{} says all"),
    ("-spec.rules", None, "spec.rules", "Required"),
    ("spec.rules", [], "spec.rules", "at least 1"),
    ("spec.rules", [RULE | {"name": f"r{n}"} for n in range(17)], "spec.rules", "at most 16"),
    ("spec.rules", [RULE, RULE], "spec.rules[1]", "Duplicate"),
    (f"{FIRST}.name", "A", "spec.rules[0].name", "should match"),
    (f"-{FIRST}.when", None, "spec.rules[0].when", "Required"),
    (f"{FIRST}.when", "x" * 4097, "spec.rules[0].when", "4096"),
    (f"{FIRST}.when", "", "spec.rules[0].when", "at least 1"),
    (f"{FIRST}.for", "25h", "spec.rules[0].for", "allowed 0s to 24h"),
    (f"{FIRST}.cooldown", "1d", "spec.rules[0].cooldown", "allowed 0s to 24h"),
    (f"-{FIRST}.pick", None, "spec.rules[0].pick", "Required"),
    (f"{FIRST}.pick.lowest", "vm.nice", "spec.rules[0].pick", "lowest or highest, not both"),
    (f"-{FIRST}.pick.highest", None, "spec.rules[0].pick.count", "count without an order"),
    (f"{FIRST}.pick.count", 1001, "spec.rules[0].pick.count", "1000"),
    (f"{FIRST}.nice", {}, "spec.rules[0].nice", "exactly one of add, set, toward"),
    (f"{FIRST}.nice.add", 1, "spec.rules[0].nice", "exactly one of add, set, toward"),
    (f"{FIRST}.nice", {"add": 0}, "spec.rules[0].nice.add", "adds nothing"),
    (f"{FIRST}.nice", {"add": 40}, "spec.rules[0].nice.add", "39"),
    (f"{FIRST}.nice", {"set": 6}, "spec.rules", "nice.set of rule first is outside the bounds"),
    (f"{FIRST}.nice.toward.value", -6, "spec.rules", "nice.toward.value of rule first is outside"),
    (f"-{FIRST}.nice.toward.value", None, "spec.rules[0].nice.toward.value", "Required"),
    ("spec.selector.matchLabels", {"/": "x"}, "spec.selector.matchLabels", "no label key"),
    ("spec.selector.matchLabels.a", "b c", "spec.selector.matchLabels.a", "should match"),
    (
        *("spec.selector.matchExpressions", [{"key": "a", "operator": "In"}]),
        *("spec.selector.matchExpressions[0].values", "one or more, for In and NotIn"),
    ),
    (
        *("spec.selector.matchExpressions.0.operator", "Exists"),
        *("spec.selector.matchExpressions[0].values", "of no use for Exists"),
    ),
]

WRONG_LISTS = [
    ("-spec", None, "spec", "Required"),
    ("spec.vms", [PEACE_LIST["spec"]["vms"][0]] * 501, "spec.vms", "500"),
    ("spec.policies", [PEACE_LIST["spec"]["policies"][0]] * 65, "spec.policies", "64"),
    ("-spec.policies.0.generation", None, "spec.policies[0].generation", "Required"),
    (f"-{VM}.uid", None, "spec.vms[0].uid", "Required"),
    (f"{VM}.state", "Contested", "spec.vms[0].state", '"Managed", "Deferred", "Excluded"'),
    (f"{VM}.state", "Excluded", "spec.vms", "has a reason"),
    (f"{VM}.labels", {f"l{n}": "" for n in range(33)}, "spec.vms[0].labels", "at most 32"),
    (f"{VM}.vcpus", 0, "spec.vms[0].vcpus", "1"),
    (f"{VM}.creationTimestamp", "yesterday", "spec.vms[0].creationTimestamp", "date-time"),
    ("spec.maxClaimPercent", 99, "spec.maxClaimPercent", "100"),
    ("spec.maxClaimPercent", 10001, "spec.maxClaimPercent", "10000"),
    ("spec.suspended", {}, "spec.suspended.reason", "Required"),
]
WRONG = [(POLICIES, POLICY, *case) for case in WRONG_POLICIES]
WRONG += [(LISTS, PEACE_LIST, *case) for case in WRONG_LISTS]


@pytest.mark.parametrize(("path", "valid", "where", "value", "field", "says"), WRONG)
def test_a_wrong_document_is_refused_by_the_name_of_its_field(
    api: ApiClient, path: str, valid: Document, where: str, value: object, field: str, says: str
) -> None:
    ask(api, "POST", path, valid, **STRICT_TRIAL)
    wrong = edited(valid, where, value)
    with pytest.raises(Refused) as refused:
        ask(api, "POST", path, wrong, **STRICT_TRIAL)
    assert refused.value.code == 422
    messages = [cause.message for cause in refused.value.causes if cause.field == field]
    assert messages, refused.value.message
    assert says in " ".join(messages)


@pytest.mark.parametrize(
    ("where", "value", "field", "says"),
    [
        ("load.load1", "much", "status.load.load1", "should match"),
        ("summary.managed", -1, "status.summary.managed", "0"),
        ("vms.0.nice", 20, "status.vms[0].nice", "19"),
        ("vms.0.state", "Happy", "status.vms[0].state", "Contested"),
        ("conditions.0.status", "Yes", "status.conditions[0].status", "Unknown"),
        ("conditions", [READY, READY], "status.conditions[1]", "Duplicate"),
    ],
)
def test_a_wrong_status_is_refused_by_the_name_of_its_field(
    api: ApiClient, where: str, value: object, field: str, says: str
) -> None:
    wrong = {"status": edited(LIST_STATUS, where, value)}
    with stored(api, LISTS, PEACE_LIST) as created, pytest.raises(Refused) as refused:
        ask(api, "PUT", f"{LISTS}/node-1/status", created | wrong)
    assert says in " ".join(c.message for c in refused.value.causes if c.field == field)


def test_a_policy_that_breaks_several_rules_is_told_all_of_them(api: ApiClient) -> None:
    wrong = edited(POLICY, "-spec.namespaceSelector", None)
    wrong["spec"]["rules"][0] |= {"nice": {"add": 0}, "for": "2 days"}
    with pytest.raises(Refused) as refused:
        ask(api, "POST", POLICIES, wrong, **STRICT_TRIAL)
    assert {cause.field for cause in refused.value.causes} == {
        *("spec.namespaceSelector", "spec.rules[0].nice.add", "spec.rules[0].for"),
    }
