"""A policy as the API server hands it out: the same model, errors placed within expressions."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from peacemaker.parse import PolicyError, parse_policies, policy_from_document

POLICIES = Path(__file__).parents[2] / "policies"

SPEC: dict[str, Any] = {
    "mode": "Enforce",
    "rules": [{"name": "r", "when": "node.load1 > 0.9", "pick": {}, "nice": {"add": 1}}],
}


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_document_and_its_file_are_one_policy(path: Path) -> None:
    documents = [each for each in yaml.safe_load_all(path.read_text()) if each]
    read = [policy_from_document(each["metadata"]["name"], each["spec"]) for each in documents]
    assert tuple(read) == parse_policies(path.read_text(), str(path))


def rule(**fields: object) -> dict[str, Any]:
    return {**SPEC, "rules": [{**SPEC["rules"][0], **fields}]}


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        (rule(when="node.laod1 > 0.9"), "spec.rules[0].when: line 1, column 6: "),
        (rule(when="node.load1 > 0.9 &&\n  vms.size(1)"), "spec.rules[0].when: line 2, column "),
        ({**SPEC, "mode": "enforce"}, "spec.mode: not valid"),
        ({**SPEC, "colour": 1}, "spec.colour: unknown field"),
        ({**SPEC, "priority": 0.5}, "spec.priority: wrong type (found 0.5,"),
        ({**SPEC, "priority": True}, "spec.priority: wrong type (found true,"),
        ({**SPEC, "rules": None}, "spec.rules: wrong type (found null,"),
        ({}, "spec.mode: missing"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_errors_name_the_field_and_the_place_in_its_expression(
    spec: dict[str, Any], start: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from_document("p", spec)
    assert any(line.startswith(start) for line in str(caught.value).splitlines())


def test_a_document_nested_without_end_is_an_error() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    with pytest.raises(PolicyError, match="nested too deeply"):
        policy_from_document("p", deep)
