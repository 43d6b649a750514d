"""What admission says of a policy: warnings, and how much of what is wrong."""

import copy
from typing import Any

import kopf
import pytest
import yaml

from peacemaker.parse import policy_from_document
from peacemaker_operator.webhook import judge, unlikely, within

POLICY: dict[str, Any] = yaml.safe_load("""
metadata: {name: p}
spec:
  mode: Enforce
  bounds: {min: 0, max: 10}
  rules:
  - {name: up, when: node.load1 > 1.0, pick: {}, nice: {add: 1}}
  - {name: back, when: node.load1 < 0.5, pick: {}, nice: {add: -1}}
""")


def policy(bounds: dict[str, int], *actions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(POLICY["spec"]) | {"bounds": bounds} | fields
    rule = spec["rules"][0]
    spec["rules"] = [{**rule, "name": f"r{n}", "nice": action} for n, action in enumerate(actions)]
    return spec


RESTRAIN = {"min": 0, "max": 10}
BOTH = {"min": -5, "max": 5}
TRUSTED = {"matchLabels": {"trusted": "yes"}}

ANY_TENANT = "any tenant's VM may be favoured"
STAYS_RESTRAINED = "a VM that was restrained stays so"
STAYS_FAVOURED = "a VM that was favoured stays so"


@pytest.mark.parametrize(
    ("spec", "warnings"),
    [
        (POLICY["spec"], []),
        (policy(BOTH, {"add": 1}, {"add": -1}, namespaceSelector={}), [ANY_TENANT]),
        (policy(BOTH, {"add": 1}, {"add": -1}, namespaceSelector=TRUSTED), []),
        (policy(RESTRAIN, {"add": 1}), [STAYS_RESTRAINED]),
        (policy(RESTRAIN, {"set": 5}, {"set": 10}), [STAYS_RESTRAINED]),
        (policy(RESTRAIN, {"add": 1}, {"set": 0}), []),
        (policy(RESTRAIN, {"add": 1}, {"toward": {"value": 0}}), []),
        (policy(BOTH, {"add": -1}, namespaceSelector=TRUSTED), [STAYS_FAVOURED]),
        (policy(BOTH, {"set": -5}, {"toward": {"value": 0}}, namespaceSelector=TRUSTED), []),
        (policy(BOTH, {"set": -5}, namespaceSelector={}), [ANY_TENANT, STAYS_FAVOURED]),
    ],
)
def test_a_warning_tells_what_is_legal_but_seldom_meant(
    spec: dict[str, Any], warnings: list[str]
) -> None:
    found = unlikely(policy_from_document("p", spec))
    assert len(found) == len(warnings)
    for text, part in zip(found, warnings, strict=True):
        assert part in text
        assert len(text) <= 256  # the API server cuts a longer one


WRONG = copy.deepcopy(POLICY)
WRONG["spec"]["rules"][0]["when"] = "node.laod1 > 1.0"


@pytest.mark.parametrize(
    ("new", "old", "is_refused"),
    [
        (POLICY, None, False),
        (WRONG, None, True),
        (WRONG, POLICY, True),
        (WRONG, WRONG, False),
        (POLICY, WRONG, False),
    ],
    ids=["good", "wrong", "made-wrong", "still-wrong", "repaired"],
)
def test_a_spec_is_judged_when_it_is_new(
    new: dict[str, Any], old: dict[str, Any] | None, is_refused: bool
) -> None:
    try:
        judge(new, old, lambda _: None)
    except kopf.AdmissionError as error:
        text = str(error)
    else:
        text = ""
    assert text.startswith("spec.rules[0].when: line 1, column ") is is_refused
    assert bool(text) is is_refused


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["one"], "one"),
        (["one", "two"], "one\ntwo"),
        (["1" * 10, "2" * 10, "3" * 10], "1111111111\n... and 2 more"),
        (["ü" * 20], "ü" * 13 + "..."),
    ],
)
def test_what_is_too_long_is_cut_after_a_whole_line(lines: list[str], text: str) -> None:
    assert within(lines, limit=30) == text
    assert len(text.encode()) <= 30
