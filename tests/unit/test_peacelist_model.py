"""The PeaceList's spec as both sides read it."""

from typing import Any

import pytest

from peacemaker.peacelist import (
    UNKNOWN_STATE,
    ListedPolicy,
    ListedVm,
    MalformedPeaceList,
    PeaceListSpec,
    Suspension,
    VmState,
    from_document,
    to_document,
)

VM: dict[str, Any] = {"uid": "u", "namespace": "ns", "name": "vm", "state": "Managed"}

FULL = PeaceListSpec(
    policies=(ListedPolicy("p", 3, {"mode": "Observe"}),),
    vms=(
        ListedVm(
            uid="u",
            namespace="ns",
            name="vm",
            state=VmState.DEFERRED,
            pod_uid="pod",
            labels={"tier": "gold"},
            labels_omitted="41 labels, allowed 32",
            priority_class_value=-5,
            vcpus=4,
            creation_timestamp="2026-01-01T00:00:00Z",
            policy="p",
            observers=("o", "q"),
            reason="Paused",
            message="paused by its user",
        ),
        ListedVm("v", "ns", "other", VmState.MANAGED),
    ),
    max_claim_percent=250,
    suspended=Suspension("NodeExcluded", "by its label"),
)


@pytest.mark.parametrize("spec", [FULL, PeaceListSpec()], ids=["everything", "nothing"])
def test_what_is_written_is_read_back(spec: PeaceListSpec) -> None:
    assert from_document(to_document(spec)) == spec


def test_what_is_absent_is_not_written() -> None:
    [vm] = to_document(PeaceListSpec(vms=(ListedVm("u", "ns", "vm", VmState.MANAGED),)))["vms"]
    assert vm == {**VM, "priorityClassValue": 0, "vcpus": 1}


def test_fields_of_a_newer_version_are_passed_over() -> None:
    spec = from_document({"vms": [{**VM, "colour": "red"}], "ioWeight": {}})
    assert spec == from_document({"vms": [VM]})


def test_a_state_of_a_newer_version_freezes_the_vm() -> None:
    [vm] = from_document({"vms": [{**VM, "state": "Boosted"}]}).vms
    assert (vm.state, vm.reason) == (VmState.DEFERRED, UNKNOWN_STATE)
    assert "'Boosted'" in (vm.message or "")


def policy(spec: object) -> dict[str, Any]:
    return {"policies": [{"name": "p", "generation": 1, "spec": spec}]}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"vms": {}}, "spec.vms"),
        ({"vms": [1]}, r"spec.vms\[0\]"),
        ({"vms": [{**VM, "uid": None}]}, r"spec.vms\[0\].uid: missing"),
        ({"vms": [{**VM, "labels": {"a": 1}}]}, r"spec.vms\[0\].labels.a"),
        ({"vms": [{**VM, "vcpus": True}]}, r"spec.vms\[0\].vcpus"),
        ({"policies": [{"name": "p", "generation": 1}]}, r"spec.policies\[0\].spec: missing"),
        (policy({}), r"spec.policies\[0\].spec: wrong type"),
        (policy("{"), r"spec.policies\[0\].spec: no JSON"),
        (policy("[" * 5000), r"spec.policies\[0\].spec: no JSON"),
        (policy("[]"), r"spec.policies\[0\].spec: wrong type \(found list, allowed dict\)"),
        ({"maxClaimPercent": "200"}, "spec.maxClaimPercent"),
        ({"suspended": {}}, "spec.suspended.reason: missing"),
    ],
    ids=str,
)
def test_what_is_malformed_is_named(document: dict[str, Any], place: str) -> None:
    with pytest.raises(MalformedPeaceList, match=place):
        from_document(document)
