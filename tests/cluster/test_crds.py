"""The CRDs on a real API server: what they fill in, show, keep apart and accept."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes.client import ApiClient

from tests.cluster.api import GROUP, LISTS, POLICIES, STRICT_TRIAL, TABLE, Document, ask
from tests.cluster.documents import LIST_STATUS, PEACE_LIST, POLICY, POLICY_STATUS, stored
from tests.unit.test_policy_model import SMALLEST

SHARED = Path(__file__).parents[2] / "policies"

ETCD_LIMIT = 1572864
"""Bytes of a request that etcd takes by default."""


def served(api: ApiClient, plural: str) -> Document:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd: Document = ask(api, "GET", f"{path}/{plural}.peacemaker.dev")
    return crd


BOTH = pytest.mark.parametrize("plural", ["peacepolicies", "peacelists"])


@BOTH
def test_a_crd_is_established_and_its_schema_structural(api: ApiClient, plural: str) -> None:
    # A schema that is not structural would be a third condition.
    conditions = served(api, plural)["status"]["conditions"]
    assert {each["type"]: each["status"] for each in conditions} == {
        "NamesAccepted": "True",
        "Established": "True",
    }


@pytest.mark.parametrize(
    ("plural", "kind", "short"),
    [("peacepolicies", "PeacePolicy", "pp"), ("peacelists", "PeaceList", "pl")],
)
def test_kubectl_finds_it_by_short_name_and_category(
    api: ApiClient, plural: str, kind: str, short: str
) -> None:
    resources = {each["name"]: each for each in ask(api, "GET", GROUP)["resources"]}
    found = resources[plural]
    assert (found["kind"], found["shortNames"], found["categories"]) == (
        *(kind, [short], ["peacemaker"]),
    )
    assert not found["namespaced"]
    assert resources[f"{plural}/status"]["kind"] == kind


def fields(schema: Document, path: str = "") -> Iterator[tuple[str, Document]]:
    """Every part of a schema, and its path."""
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from fields(each, f"{path}.{name}")
    for within in ("items", "additionalProperties"):
        if within in schema:
            yield from fields(schema[within], f"{path}[]")


BOUNDS = {
    "array": {"maxItems"},
    "string": {"maxLength", "enum", "format"},
    "integer": {"format"},
    "object": {"properties", "maxProperties", "x-kubernetes-preserve-unknown-fields"},
}


@BOTH
def test_every_field_is_described_and_bounded(api: ApiClient, plural: str) -> None:
    (version,) = served(api, plural)["spec"]["versions"]
    found = dict(fields(version["schema"]["openAPIV3Schema"]))
    # Of metadata a schema may say no more than what a name may be.
    assert [path for path, field in found.items() if "description" not in field] == [".metadata"]
    unbounded = {path for path, field in found.items() if not field.keys() & BOUNDS[field["type"]]}
    assert unbounded <= {".apiVersion", ".kind", ".metadata"}
    assert all(column["description"] for column in version["additionalPrinterColumns"])


def test_what_a_policy_leaves_out_has_its_default(api: ApiClient) -> None:
    said = yaml.safe_load(SMALLEST)
    rule = said["spec"]["rules"][0]
    said["spec"]["rules"].append(rule | {"name": "b", "nice": {"toward": {"value": 0}}})
    waits = {"for": "60s", "cooldown": "60s"}
    assert ask(api, "POST", POLICIES, said, **STRICT_TRIAL)["spec"] == {
        "mode": "Observe",
        "priority": 0,
        "interval": "15s",
        "bounds": {"min": 0, "max": 10},
        "rules": [
            rule | waits,
            rule | waits | {"name": "b", "nice": {"toward": {"value": 0, "step": 1}}},
        ],
    }


@pytest.mark.parametrize(
    ("said", "filled"), [({"min": -3}, {"min": -3, "max": 10}), ({"max": 3}, {"min": 0, "max": 3})]
)
def test_one_bound_alone_leaves_the_other_at_its_default(
    api: ApiClient, said: Document, filled: Document
) -> None:
    policy = yaml.safe_load(SMALLEST)
    policy["spec"] |= {"bounds": said, "namespaceSelector": {}}
    assert ask(api, "POST", POLICIES, policy, **STRICT_TRIAL)["spec"]["bounds"] == filled


def test_what_a_peace_list_leaves_out_has_its_default(api: ApiClient) -> None:
    said = PEACE_LIST | {"spec": {}}
    spec = ask(api, "POST", LISTS, said, **STRICT_TRIAL)["spec"]
    assert spec == {"policies": [], "vms": [], "maxClaimPercent": 100}
    vm = {"uid": "u", "namespace": "n", "name": "vm", "state": "Managed"}
    spec = ask(api, "POST", LISTS, said | {"spec": {"vms": [vm]}}, **STRICT_TRIAL)["spec"]
    assert spec["vms"] == [vm | {"vcpus": 1, "priorityClassValue": 0}]


# path, document, status, columns and cells of `kubectl get`, columns that `-o wide` adds
TABLES = [
    (
        *(POLICIES, POLICY, POLICY_STATUS),
        {
            "Name": "p",
            "Mode": "Enforce",
            "Priority": 3,
            "Ready": "True",
            "Nodes": 3,
            "VMs": 40,
            "Adjusted": 7,
        },
        {"Reason": "InForce", "Outranked": 2, "Interval": "15s"},
    ),
    (
        *(LISTS, PEACE_LIST, LIST_STATUS),
        {
            "Name": "node-1",
            "Managed": 9,
            "Adjusted": 4,
            "Load": "0.87",
            "Suspended": "NodeExcluded",
            "Ready": "True",
        },
        {
            "Reason": "InForce",
            "Deferred": 1,
            "Excluded": 2,
            "Floored": 3,
            "Contested": 5,
            "Failed": 6,
        },
    ),
]


@pytest.mark.parametrize(("path", "document", "status", "cells", "wide"), TABLES)
def test_kubectl_get_answers_the_first_questions(
    api: ApiClient,
    path: str,
    document: Document,
    status: Document,
    cells: Document,
    wide: Document,
) -> None:
    with stored(api, path, document) as created:
        name = f"{path}/{created['metadata']['name']}"
        ask(api, "PUT", f"{name}/status", created | {"status": status}, fieldValidation="Strict")
        table = ask(api, "GET", name, accept=TABLE)
    (row,) = table["rows"]
    columns = list(zip(table["columnDefinitions"], row["cells"], strict=True))
    shown = {column["name"]: cell for column, cell in columns if column["priority"] == 0}
    assert list(shown) == [*cells, "Age"]
    assert shown.pop("Age").endswith("s")
    assert shown == cells
    assert {column["name"]: cell for column, cell in columns if column["priority"] > 0} == wide


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [(POLICIES, POLICY, POLICY_STATUS), (LISTS, PEACE_LIST, LIST_STATUS)],
)
def test_spec_and_status_are_written_apart(
    api: ApiClient, path: str, document: Document, status: Document
) -> None:
    with stored(api, path, document | {"status": status}) as created:
        assert "status" not in created
        assert created["spec"] == document["spec"]
        name = f"{path}/{created['metadata']['name']}"
        other = copy.deepcopy(created["spec"]) | (
            {"priority": 4} if path == POLICIES else {"maxClaimPercent": 200}
        )
        both = created | {"spec": other, "status": status}
        after = ask(api, "PUT", f"{name}/status", both, fieldValidation="Strict")
        assert (after["spec"], after["status"]) == (document["spec"], status)
        assert after["metadata"]["generation"] == 1
        both = after | {"spec": other, "status": {}}
        after = ask(api, "PUT", name, both, fieldValidation="Strict")
        assert (after["spec"], after["status"]) == (other, status)
        assert after["metadata"]["generation"] == 2


def test_operator_and_agent_own_conditions_of_their_own(api: ApiClient) -> None:
    ready = LIST_STATUS["conditions"][0]
    with stored(api, LISTS, PEACE_LIST):
        for manager, kind in (("agent", "Ready"), ("operator", "Alive"), ("agent", "Ready")):
            said = {
                "apiVersion": PEACE_LIST["apiVersion"],
                "kind": "PeaceList",
                "status": {"conditions": [ready | {"type": kind}]},
            }
            after = ask(
                *(api, "PATCH", f"{LISTS}/node-1/status", said),
                content="application/apply-patch+yaml",
                fieldManager=manager,
            )
    assert [each["type"] for each in after["status"]["conditions"]] == ["Ready", "Alive"]


SHARED_POLICIES = sorted(SHARED.glob("*.yaml"))


@pytest.mark.parametrize("file", SHARED_POLICIES, ids=lambda file: file.stem)
def test_every_shared_policy_is_accepted(api: ApiClient, file: Path) -> None:
    created = ask(api, "POST", POLICIES, yaml.safe_load(file.read_bytes()), **STRICT_TRIAL)
    assert created["metadata"]["name"] == file.stem


def test_a_policy_of_16_rules_with_the_longest_expressions_is_stored(api: ApiClient) -> None:
    policy, long = copy.deepcopy(POLICY), "x" * 4096
    rule = {"when": long, "until": long, "pick": {"where": long, "highest": long}}
    policy["spec"]["rules"] = [
        POLICY["spec"]["rules"][0] | rule | {"name": f"rule-{number}"} for number in range(16)
    ]
    status = {"accepted": {"generation": 1, "spec": policy["spec"]}}
    with stored(api, POLICIES, policy) as created:
        after = ask(api, "PUT", f"{POLICIES}/p/status", created | {"status": status})
    assert after["status"] == status


def test_a_peace_list_of_500_large_vms_is_stored(api: ApiClient) -> None:
    name, text = "x" * 63, {"reason": "R" * 64, "message": "m" * 256}
    labels = {f"example.com/label-{number:02}": "v" * 44 for number in range(16)}
    assert sum(len(key) + len(value) for key, value in labels.items()) == 1024
    large = {"uid": "u" * 36, "namespace": name, "name": name, **text}
    vm_status = LIST_STATUS["vms"][0]
    vm = PEACE_LIST["spec"]["vms"][0] | {"podUID": "p" * 36, "labels": labels, "policy": name}
    spec = PEACE_LIST["spec"] | {"vms": [vm | large] * 500}
    status = LIST_STATUS | {"vms": [vm_status | large] * 500}
    with stored(api, LISTS, PEACE_LIST | {"spec": spec}) as created:
        after = ask(api, "PUT", f"{LISTS}/node-1/status", created | {"status": status})
    assert len(after["spec"]["vms"]) == len(after["status"]["vms"]) == 500
    assert 1_200_000 < len(json.dumps(after, separators=(",", ":"))) < ETCD_LIMIT
    # Who wrote which entry is not kept, or that alone would be as large as the entries.
    assert len(json.dumps(after["metadata"]["managedFields"])) < 4000
