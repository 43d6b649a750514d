"""What the operator keeps of objects: all that matters, nothing that churns; and none fails."""

import gc
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.peacelist import ListedVm, PeaceListSpec, Suspension, VmState, to_document
from peacemaker_operator.observed import (
    Condition,
    PolicyRow,
    Summary,
    VmRow,
    digests,
    peace_list_record,
    spec_patch,
)
from peacemaker_operator.records import (
    Exclusion,
    agent_pod_record,
    namespace_record,
    node_record,
    policy_record,
    priority_class_record,
    vmi_record,
)
from tests.kubevirt import RUNNING, Document
from tests.unit.operator_builders import POD, vmi_document

RECORDS = [
    vmi_record,
    node_record,
    namespace_record,
    priority_class_record,
    policy_record,
    agent_pod_record,
    peace_list_record,
]


def test_a_running_vm_as_kubevirt_has_it() -> None:
    found = vmi_record(RUNNING)
    assert found.uid == "135e6699-8296-433f-9197-8f4d6561bf5d"
    assert (found.namespace, found.name) == ("default", "vm-a")
    assert found.labels == {"app": "demo", "kubevirt.io/nodeName": "node1", "tier": "gold"}
    assert found.created == "2026-11-23T03:25:09Z"
    assert found.vcpus == 2
    assert found.node_name == found.home == "node1"
    assert found.active_pods == ((POD, "node1"),)
    assert found.nodes == ("node1",)
    assert found.phase == "Running"
    assert not any((found.paused, found.deleting, found.migrating, found.exclusion))


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata__resourceVersion": "921"},
        {"metadata__generation": 8},
        {"metadata__annotations": {"a": "b"}},
        {"metadata__managedFields": [{}]},
        {"status__guestOSInfo": {"name": "x"}},
        {"status__interfaces": [{"ipAddress": "10.0.0.1"}]},
        {"status__phaseTransitionTimestamps": []},
        {"status__conditions": []},
        {"status__qosClass": "BestEffort"},
        {"status__migrationState": {"completed": True}},
    ],
)
def test_a_change_that_matters_to_nothing_makes_an_equal_record(changes: Document) -> None:
    assert vmi_record(vmi_document(**changes)) == vmi_record(RUNNING)


@pytest.mark.parametrize(
    ("cpu", "topology", "vcpus"),
    [
        (None, None, 1),
        ({"cores": 2}, None, 2),
        ({"cores": 2, "sockets": 3, "threads": 2}, None, 12),
        ({"cores": 2}, {"cores": 2, "sockets": 4, "threads": 1}, 8),
        ({"cores": 2}, {"sockets": 4}, 4),
        ({"cores": 2}, {}, 2),
        ({"cores": 2}, {"cores": 0}, 2),
        ({"cores": 2}, {"cores": "4"}, 2),
        ({"cores": True}, {"cores": 1.5}, 1),
        ({"cores": 2**31}, [], 1),
        ({"cores": 2**20, "sockets": 2**20}, None, 1),
    ],
)
def test_vcpus_are_those_that_it_has_now(cpu: object, topology: object, vcpus: int) -> None:
    document = vmi_document(spec__domain__cpu=cpu, status__currentCPUTopology=topology)
    assert vmi_record(document).vcpus == vcpus


@pytest.mark.parametrize(
    ("pods", "node_name", "nodes", "home"),
    [
        ({}, None, (), None),
        (None, "n1", ("n1",), "n1"),
        ({"a": "n1"}, None, ("n1",), "n1"),
        ({"a": ""}, None, (), None),
        ({"a": "", "b": "n1"}, "n1", ("n1",), "n1"),
        ({"a": "n2", "b": "n1"}, "n1", ("n1", "n2"), "n1"),
        ({"b": "n1", "a": "n2"}, None, ("n1", "n2"), "n2"),
        ({"a": None, "b": ["n1"], "": "n1", "x" * 65: "n1"}, 7, (), None),
        (["n1"], "", (), None),
        ({"a": "n1\udcff"}, "x" * 254, (), None),
    ],
)
def test_a_vm_stands_where_it_has_a_pod_and_where_its_guest_runs(
    pods: object, node_name: object, nodes: tuple[str, ...], home: str | None
) -> None:
    found = vmi_record(vmi_document(status__activePods=pods, status__nodeName=node_name))
    assert found.nodes == nodes
    assert found.home == home


@pytest.mark.parametrize(
    ("changes", "exclusion"),
    [
        ({"spec__domain__cpu__dedicatedCpuPlacement": True}, Exclusion.DEDICATED_CPU),
        ({"spec__domain__cpu__isolateEmulatorThread": True}, Exclusion.ISOLATED_EMULATOR_THREAD),
        ({"spec__domain__cpu__realtime": {}}, Exclusion.REALTIME),
        ({"spec__domain__cpu__realtime": {"mask": "0"}}, Exclusion.REALTIME),
        ({"status__qosClass": "Guaranteed"}, Exclusion.GUARANTEED_QOS),
        (
            {"status__qosClass": "Guaranteed", "spec__domain__cpu__dedicatedCpuPlacement": True},
            Exclusion.DEDICATED_CPU,
        ),
        ({"spec__domain__cpu__dedicatedCpuPlacement": False}, None),
        ({"spec__domain__cpu__dedicatedCpuPlacement": "true"}, None),
        ({"spec__domain__cpu__realtime": None}, None),
    ],
)
def test_what_forbids_touching_a_vm(changes: Document, exclusion: Exclusion | None) -> None:
    assert vmi_record(vmi_document(**changes)).exclusion is exclusion


@pytest.mark.parametrize(
    ("state", "label", "migrating", "target"),
    [
        (None, None, False, None),
        ({}, None, False, None),
        ({"targetNode": "n2"}, None, True, "n2"),
        ({"targetNode": "n2"}, "n2", True, "n2"),
        (None, "n2", True, "n2"),
        ({"targetNode": "n2", "completed": True}, None, False, "n2"),
        ({"targetNode": "n2", "failed": True}, None, False, "n2"),
        ({"targetNode": "n2", "failed": True}, "n2", False, "n2"),  # its virt-handler is dead
        ({"targetNode": "n2", "completed": True}, "n3", True, "n3"),  # the next one begins
        ({"targetNode": "n2", "completed": "true"}, None, True, "n2"),
        ([], "", False, None),
    ],
)
def test_a_migration_is_under_way_from_its_first_sign_to_its_end(
    state: object, label: str | None, migrating: bool, target: str | None
) -> None:
    document = vmi_document(status__migrationState=state)
    if label is not None:
        document["metadata"]["labels"]["kubevirt.io/migrationTargetNodeName"] = label
    found = vmi_record(document)
    assert (found.migrating, found.migration_target) == (migrating, target)


@pytest.mark.parametrize(
    ("time", "created"),
    [
        ("2026-11-23T03:25:09Z", "2026-11-23T03:25:09Z"),
        ("2026-02-30T03:25:09Z", None),
        ("2026-11-23T03:25:09", None),
        ("2026-11-23 03:25:09Z", None),
        ("٢٠٢٦-11-23T03:25:09Z", None),
        (1795404309, None),
        (None, None),
    ],
)
def test_a_creation_time_that_is_none_reads_as_absent(time: object, created: str | None) -> None:
    assert vmi_record(vmi_document(metadata__creationTimestamp=time)).created == created


@pytest.mark.parametrize(
    ("labels", "excluded", "schedulable"),
    [
        ({}, False, False),
        ({"peacemaker.dev/exclude": "true"}, True, False),
        ({"peacemaker.dev/exclude": "True"}, False, False),
        ({"peacemaker.dev/exclude": ""}, False, False),
        ({"kubevirt.io/schedulable": "false"}, False, True),
        (None, False, False),
        (["peacemaker.dev/exclude"], False, False),
        ({"peacemaker.dev/exclude": True, "kubevirt.io/schedulable": None}, False, False),
    ],
)
def test_labels_of_nodes_and_namespaces(labels: object, excluded: bool, schedulable: bool) -> None:
    document = {"metadata": {"name": "x", "uid": "u", "labels": labels}}
    assert node_record(document).excluded is namespace_record(document).excluded is excluded
    assert node_record(document).schedulable is schedulable


def test_heartbeats_of_a_node_are_no_news() -> None:
    document = {"metadata": {"name": "x", "uid": "u", "labels": {"a": "b"}}}
    beaten = {
        "metadata": {**document["metadata"], "resourceVersion": "2", "annotations": {"x": "y"}},
        "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "now"}]},
    }
    assert node_record(document) == node_record(beaten)


@pytest.mark.parametrize(
    ("conditions", "deletion", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], None, True),
        ([{"type": "Ready", "status": "False"}], None, False),
        ([{"type": "Ready", "status": "True"}], "2026-11-23T03:25:09Z", False),
        ([{"type": "Initialized", "status": "True"}], None, False),
        (None, None, False),
        ("Ready", None, False),
    ],
)
def test_an_agent_pod_is_ready_until_it_is_deleted(
    conditions: object, deletion: object, ready: bool
) -> None:
    found = agent_pod_record(
        {
            "metadata": {"name": "agent-x", "deletionTimestamp": deletion},
            "spec": {"nodeName": "n1", "containers": [{"image": "agent:1"}, {"image": "other"}]},
            "status": {"conditions": conditions},
        }
    )
    assert (found.name, found.node, found.ready, found.image) == ("agent-x", "n1", ready, "agent:1")


def test_what_was_accepted_is_known_whole_or_not_at_all() -> None:
    for accepted, known in [
        ({"generation": 3, "spec": {"mode": "Enforce"}}, (3, {"mode": "Enforce"})),
        ({"generation": 3}, (None, None)),
        ({"spec": {}}, (None, None)),
        ({"generation": 0, "spec": {}}, (None, None)),
        ({"generation": "3", "spec": {}}, (None, None)),
        (None, (None, None)),
    ]:
        found = policy_record({"metadata": {"name": "p"}, "status": {"accepted": accepted}})
        assert (found.accepted_generation, found.accepted_spec) == known


PEACE_LIST: Document = {
    "metadata": {
        "name": "n1",
        "uid": "u1",
        "resourceVersion": "7",
        "generation": 4,
        "ownerReferences": [
            {"apiVersion": "v2", "kind": "Node", "uid": "other"},
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid"},
        ],
    },
    "spec": {"suspended": {"reason": "NodeExcluded"}},
    "status": {
        "observedGeneration": 3,
        "load": {"load1": "0.87"},
        "conditions": [
            {"type": "Other", "status": "True"},
            {
                "type": "Ready",
                "status": "True",
                "reason": "Suspended",
                "message": "all is restored",
                "lastTransitionTime": "2026-11-23T03:25:09Z",
                "observedGeneration": 3,
            },
        ],
        "summary": {"managed": 3, "adjusted": 2, "contested": 1, "failed": "1"},
        "policies": [
            {"name": "p", "generation": 2, "missingSignals": ["node.psi.some10"], "adjusted": 2},
            {"name": "q", "reason": "NotUnderstood", "message": "spec.rules", "wouldAdjust": -1},
            {"generation": 1},
        ],
        "vms": [
            {"uid": "a", "namespace": "n", "name": "x", "state": "Managed", "nice": 3, "since": ""},
            {"uid": "b", "namespace": "n", "name": "y", "state": "Unmanaged", "nice": 40},
            {"uid": "c", "namespace": "n"},
        ],
    },
}


def test_of_a_peace_list_is_kept_what_others_are_told_of_it() -> None:
    found = peace_list_record(PEACE_LIST)
    assert (found.name, found.uid, found.resource_version) == ("n1", "u1", "7")
    assert (found.generation, found.observed_generation) == (4, 3)
    assert found.owner_uid == "node-uid"
    assert found.suspended == "NodeExcluded"
    assert found.ready == Condition(
        "True", "Suspended", "all is restored", "2026-11-23T03:25:09Z", 3
    )
    assert found.summary == Summary(managed=3, adjusted=2, contested=1)
    assert found.policies == {
        "p": PolicyRow("p", 2, missing_signals=("node.psi.some10",), adjusted=2),
        "q": PolicyRow("q", reason="NotUnderstood", message="spec.rules"),
    }
    assert found.vms == {
        "a": VmRow("n", "x", "Managed", 3, moved=True),
        "b": VmRow("n", "y", "Unmanaged"),
    }


def test_load_is_no_news_of_a_peace_list() -> None:
    changed = json.loads(json.dumps(PEACE_LIST))
    changed["status"]["load"]["load1"] = "3.00"
    assert peace_list_record(changed) == peace_list_record(PEACE_LIST)


VM = ListedVm("u", "n", "x", VmState.MANAGED, labels={"b": "1", "a": "2"})


@pytest.mark.parametrize(
    ("wanted", "observed", "patch"),
    [
        (PeaceListSpec(), {}, {}),  # what the server has not is at its default
        (PeaceListSpec(vms=(VM,)), to_document(PeaceListSpec(vms=(VM,))), {}),
        (PeaceListSpec(max_claim_percent=200), {"maxClaimPercent": 100}, {"maxClaimPercent": 200}),
        (PeaceListSpec(), {"suspended": {"reason": "X"}}, {"suspended": None}),
        (
            PeaceListSpec(suspended=Suspension("X", "y")),
            {},
            {"suspended": {"reason": "X", "message": "y"}},
        ),
        (PeaceListSpec(), {"policies": [{"name": "p"}]}, {"policies": []}),
        (PeaceListSpec(vms=(VM,)), {}, {"vms": to_document(PeaceListSpec(vms=(VM,)))["vms"]}),
        (PeaceListSpec(), {"vms": "junk", "maxClaimPercent": None}, ...),
    ],
)
def test_only_the_fields_that_differ_are_written(
    wanted: PeaceListSpec, observed: Document, patch: object
) -> None:
    expected = {"vms": [], "maxClaimPercent": 100} if patch is ... else patch
    assert spec_patch(to_document(wanted), digests(observed)) == expected


def test_the_order_of_keys_makes_no_difference() -> None:
    document = to_document(PeaceListSpec(vms=(VM,)))
    turned = json.loads(json.dumps(document), object_pairs_hook=lambda pairs: dict(pairs[::-1]))
    assert digests(document) == digests(turned)


FIELDS = [
    *("metadata", "spec", "status", "name", "uid", "labels", "generation", "conditions", "type"),
    *("domain", "cpu", "cores", "activePods", "migrationState", "vms", "policies", "accepted"),
]

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["True", "Ready", "Running", "n1", "\ud800", "x" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def scrambled(document: object, draw: st.DrawFn) -> object:
    """The document with junk here and there."""
    if draw(st.integers(0, 7)) == 0:
        return draw(JUNK)
    if isinstance(document, dict):
        return {key: scrambled(value, draw) for key, value in document.items()}
    if isinstance(document, list):
        return [scrambled(item, draw) for item in document]
    return document


@st.composite
def scrambled_documents(draw: st.DrawFn) -> Document:
    document = draw(st.sampled_from([RUNNING, PEACE_LIST]))
    return {key: scrambled(value, draw) for key, value in document.items()}


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=8), JUNK, max_size=4) | scrambled_documents())
def test_no_document_makes_a_record_fail(document: Document) -> None:
    for record in RECORDS:
        assert record(document) == record(document)


def test_ten_thousand_vms_take_ten_megabytes() -> None:
    text = json.dumps(RUNNING)

    def document(number: int) -> Document:
        own = text.replace("vm-a", f"vm-{number}").replace("node1", f"node-{number % 100}")
        own = own.replace("135e6699", f"{number:08d}").replace("ceea7969", f"{number:08d}")
        found: Document = json.loads(own)
        return found

    vmi_record(document(0))
    gc.collect()
    tracemalloc.start()
    try:
        records = [vmi_record(document(number)) for number in range(1000)]
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(records) == 1000
    assert size / 1000 < 1100
