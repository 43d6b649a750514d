"""What is to be done with a VM on a node, and why: every state, every reason, real sequences."""

from collections.abc import Iterator

import pytest

from peacemaker.peacelist import VmState
from peacemaker_operator.records import VmiRecord, vmi_record
from peacemaker_operator.vm_state import Reason, place
from tests.kubevirt import RUNNING, Document, course
from tests.unit.operator_builders import POD, namespace, vmi_document

TARGET_LABEL = "kubevirt.io/migrationTargetNodeName"
PAUSED = [{"type": "Paused", "status": "True"}]
TO_NODE2 = {"sourceNode": "node1", "targetNode": "node2"}
BOTH = {POD: "node1", "t": "node2"}

# What differs from a VM that runs on node1, then the reason on node1 and what the message names.
CASES: list[tuple[Document, Reason | None, str]] = [
    ({}, None, ""),
    ({"status__conditions": [{"type": "Paused", "status": "False"}]}, None, ""),
    ({"status__conditions": None}, None, ""),
    ({"status__migrationState": {**TO_NODE2, "failed": True}}, None, ""),
    ({"spec__domain__cpu__dedicatedCpuPlacement": True}, Reason.DEDICATED_CPU, "dedicatedCpu"),
    (
        {"spec__domain__cpu__isolateEmulatorThread": True},
        Reason.ISOLATED_EMULATOR_THREAD,
        "isolateEmulatorThread",
    ),
    ({"spec__domain__cpu__realtime": {}}, Reason.REALTIME, "realtime"),
    ({"status__qosClass": "Guaranteed"}, Reason.GUARANTEED_QOS, "Guaranteed"),
    ({"metadata__deletionTimestamp": "2026-11-23T03:25:09Z"}, Reason.DELETING, "deleted"),
    ({"status__migrationState": TO_NODE2}, Reason.MIGRATING, "to node2"),
    ({"metadata__labels": {TARGET_LABEL: "node2"}}, Reason.MIGRATING, "to node2"),
    ({"status__migrationState": {"sourceNode": "node1"}}, Reason.MIGRATING, "another node"),
    ({"status__nodeName": "node2"}, Reason.MIGRATION_TARGET, "runs on node2"),
    (
        {"status__nodeName": "node2", "status__migrationState": TO_NODE2},
        Reason.MIGRATED_AWAY,
        "node2 now",
    ),
    ({"status__conditions": PAUSED}, Reason.PAUSED, "paused"),
    ({"status__phase": "Scheduled"}, Reason.NOT_RUNNING, "Scheduled"),
    ({"status__phase": "Failed"}, Reason.NOT_RUNNING, "Failed"),
    ({"status__phase": None}, Reason.NOT_RUNNING, "absent"),
    ({"status__phase": "evil\nphase"}, Reason.NOT_RUNNING, r"evil\nphase"),
    ({"status__activePods": {}}, Reason.NO_POD, "node1"),
    ({"status__activePods": {"a": "node1", "b": "node1"}}, Reason.AMBIGUOUS_POD, "2 pods on node1"),
]

EXCLUDING = {
    *(Reason.NAMESPACE_EXCLUDED, Reason.DEDICATED_CPU, Reason.ISOLATED_EMULATOR_THREAD),
    *(Reason.REALTIME, Reason.GUARANTEED_QOS),
}


def expected_state(reason: Reason | None) -> VmState:
    if reason is None:
        return VmState.MANAGED
    return VmState.EXCLUDED if reason in EXCLUDING else VmState.DEFERRED


@pytest.mark.parametrize(("changes", "reason", "named"), CASES)
def test_a_vm_is_managed_unless_something_forbids_it(
    changes: Document, reason: Reason | None, named: str
) -> None:
    found = place(vmi_record(vmi_document("vm-a", **changes)), "node1", namespace())
    assert found.state is expected_state(reason)
    assert found.reason is reason
    assert named in (found.message or "")
    assert (found.message is None) == (reason is None)


def test_every_reason_is_met() -> None:
    met = {reason for _, reason, _ in CASES} | {Reason.NAMESPACE_EXCLUDED}
    assert met == {*Reason, None}


def test_of_several_reasons_the_first_in_their_order_is_told() -> None:
    """Each of these alone is a reason; together they are told one after the other."""
    together: list[tuple[Document, Reason]] = [
        ({"spec__domain__cpu__dedicatedCpuPlacement": True}, Reason.DEDICATED_CPU),
        ({"spec__domain__cpu__isolateEmulatorThread": True}, Reason.ISOLATED_EMULATOR_THREAD),
        ({"spec__domain__cpu__realtime": {}}, Reason.REALTIME),
        ({"status__qosClass": "Guaranteed"}, Reason.GUARANTEED_QOS),
        ({"metadata__deletionTimestamp": "2026-11-23T03:25:09Z"}, Reason.DELETING),
        ({"status__migrationState": TO_NODE2}, Reason.MIGRATING),
        ({"status__conditions": PAUSED}, Reason.PAUSED),
        ({"status__phase": "Failed"}, Reason.NOT_RUNNING),
        ({"status__activePods": {}}, Reason.NO_POD),
    ]
    excluded = namespace("default", **{"peacemaker.dev/exclude": "true"})
    for start in range(len(together)):
        changes: Document = {}
        for change, _ in together[start:]:
            changes |= change
        record = vmi_record(vmi_document("vm-a", **changes))
        assert place(record, "node1", namespace()).reason is together[start][1]
        assert place(record, "node1", excluded).reason is Reason.NAMESPACE_EXCLUDED


@pytest.mark.parametrize(
    ("pods", "pod_uid"),
    [
        ({POD: "node1"}, POD),
        (BOTH, POD),
        ({}, None),
        ({"a": "node1", "b": "node1"}, None),  # a guess might be the wrong one's QEMU
        ({"a": "", POD: "node1"}, POD),
    ],
)
def test_its_pod_is_the_only_active_one_on_the_node(pods: Document, pod_uid: str | None) -> None:
    record = vmi_record(vmi_document("vm-a", status__activePods=pods))
    assert place(record, "node1", namespace()).pod_uid == pod_uid


def test_a_vm_of_an_unknown_namespace_is_as_if_it_had_no_labels() -> None:
    assert place(vmi_record(RUNNING), "node1", None).state is VmState.MANAGED


def test_the_course_of_a_live_migration() -> None:
    label = {"metadata__labels": {TARGET_LABEL: "node2"}}
    state = {"status__migrationState": TO_NODE2}
    flipped = {"status__nodeName": "node2", "status__activePods": BOTH}
    done = {"status__migrationState": {**TO_NODE2, "completed": True}}
    course: list[tuple[Document, Reason | None, Reason | None]] = [
        ({}, None, None),
        ({"status__activePods": BOTH}, None, Reason.MIGRATION_TARGET),
        ({"status__activePods": BOTH} | label | state, Reason.MIGRATING, Reason.MIGRATION_TARGET),
        (flipped | label | state, Reason.MIGRATED_AWAY, Reason.MIGRATION_TARGET),
        (flipped | done, Reason.MIGRATED_AWAY, None),
        ({"status__nodeName": "node2", "status__activePods": {"t": "node2"}} | done, None, None),
    ]
    for changes, on_source, on_target in course:
        record = vmi_record(vmi_document("vm-a", **changes))
        if "node1" in record.nodes:
            assert place(record, "node1", namespace()).reason is on_source
        if "node2" in record.nodes:
            assert place(record, "node2", namespace()).reason is on_target
    assert record.nodes == ("node2",)


def test_a_migration_that_failed_leaves_the_vm_where_it_was() -> None:
    failed = {"status__migrationState": {**TO_NODE2, "failed": True}, "status__activePods": BOTH}
    record = vmi_record(vmi_document("vm-a", **failed))
    assert place(record, "node1", namespace()).state is VmState.MANAGED
    assert place(record, "node2", namespace()).reason is Reason.MIGRATION_TARGET


def replayed() -> Iterator[tuple[str, VmiRecord]]:
    """The records that a real KubeVirt's changes of vm-a make, with what happened."""
    for happened, document in course():
        yield happened, vmi_record(document)


def test_the_real_course_of_a_vm() -> None:
    """Paused, unpaused, deleted; then the same name again with a new uid, from Pending on."""
    course: list[tuple[str, VmState | None, Reason | None]] = []
    previous: VmiRecord | None = None
    for happened, record in replayed():
        if happened == "DELETED":
            course.append((happened, None, None))
        elif record == previous:
            course.append(("same", None, None))
        elif not record.nodes:
            course.append((record.phase, None, None))
        else:
            (node,) = record.nodes
            found = place(record, node, namespace())
            course.append((record.phase, found.state, found.reason))
        previous = record
    assert course == [
        ("Running", VmState.MANAGED, None),
        ("Running", VmState.DEFERRED, Reason.PAUSED),
        ("Running", VmState.MANAGED, None),
        ("Running", VmState.DEFERRED, Reason.DELETING),
        ("same", None, None),
        ("Failed", VmState.DEFERRED, Reason.DELETING),
        ("DELETED", None, None),
        ("Pending", None, None),
        ("same", None, None),
        ("Scheduling", VmState.DEFERRED, Reason.NOT_RUNNING),
        ("same", None, None),
        ("Scheduled", VmState.DEFERRED, Reason.NOT_RUNNING),
        ("same", None, None),
        ("Running", VmState.MANAGED, None),
        ("same", None, None),
        *2
        * [
            ("Running", VmState.DEFERRED, Reason.PAUSED),
            ("same", None, None),
            ("Running", VmState.MANAGED, None),
            ("same", None, None),
        ],
        ("Running", VmState.MANAGED, None),  # other labels
        ("same", None, None),
    ]


def test_a_vm_of_the_same_name_is_another_vm() -> None:
    uids = {record.uid for _, record in replayed()}
    assert len(uids) == 2
