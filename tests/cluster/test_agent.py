"""The agent against a real API server, with real QEMUs: orders come as a PeaceList, and its status
tells what became of them.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import Cluster
from lab import Fleet, PodTree, wait_for
from lab.policy import policy, put, rule
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import API_VERSION, PEACE_LISTS, item, status
from tests.cluster.conftest import CRDS, is_established
from tests.kernel.cluster_scene import NODE, ClusterAgent, PodVm, listed_policy, pod_vm, spec

CRD = "peacelists.peacemaker.dev"
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TIMEOUT = 30.0
PROMPT = 3.0
"""Seconds within which an order is obeyed."""

SHORT = ("--status-interval", "3")
AT_5 = round(1000 * 335 / 1024)
"""The weight at nice 5 of a VM that came with 1000 (kernel/sched/core.c: 335)."""


class Node:
    """The node: its agent, and its PeaceList at the API server."""

    def __init__(self, api: Api, agent: ClusterAgent) -> None:
        self.api = api
        self.agent = agent

    def apply(self, spec: Document) -> None:
        """Create the PeaceList, or put this spec into it."""
        name = {"apiVersion": API_VERSION, "kind": "PeaceList", "metadata": {"name": NODE}}
        try:
            self.api.create(PEACE_LISTS, name | {"spec": spec}, fieldValidation="Strict")
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            whole = {"suspended": None, "maxClaimPercent": None, **spec}
            self.api.patch(item(PEACE_LISTS, NODE), {"spec": whole})

    def read(self) -> Document:
        return self.api.get(item(PEACE_LISTS, NODE))

    def delete(self) -> None:
        with suppress(ApiError):
            self.api.delete(item(PEACE_LISTS, NODE))

    def status(self) -> Document:
        return self.read().get("status") or {}

    def version(self) -> str:
        return str(self.read()["metadata"]["resourceVersion"])

    def wait_status(self, condition: Callable[[Document], Any], what: str) -> Document:
        def find() -> Document | None:
            self.agent.must_run()
            found = self.status()
            return found if found and condition(found) else None

        try:
            found = wait_for(find, TIMEOUT, f"the status to tell {what}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {self.status()}") from None
        assert found is not None
        return found

    def wait_ready(self, state: str, reason: str) -> Document:
        """The status, once its condition says so of the newest generation."""

        def says_so(found: Document) -> bool:
            [ready] = found["conditions"]
            return bool(
                (ready["status"], ready["reason"]) == (state, reason)
                and ready["observedGeneration"] == self.read()["metadata"]["generation"]
            )

        return self.wait_status(says_so, f"Ready={state}/{reason}")

    def wait_vm(self, vm: PodVm, **fields: object) -> Document:
        """The VM's entry in the status, once it has these fields."""

        def entry(found: Document) -> Document:
            return next((e for e in found.get("vms", ()) if e["uid"] == vm.listed["uid"]), {})

        found = self.wait_status(lambda s: fields.items() <= entry(s).items(), f"{fields}")
        return entry(found)


@pytest.fixture
def tree() -> Iterator[PodTree]:
    with PodTree() as tree:
        yield tree


@pytest.fixture
def fleet(tree: PodTree) -> Iterator[Fleet]:  # noqa: ARG001 (its processes end before the tree)
    with Fleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A control plane of its own, with the CRDs: its server is stopped here."""
    with Cluster() as own:
        api = Api.load(str(own.kubeconfig))
        api.create(CRD_PATH, yaml.safe_load((CRDS / "peacemaker.dev_peacelists.yaml").read_bytes()))
        wait_for(lambda: is_established(api.client, CRD), TIMEOUT, "the CRD")
        api.close()
        yield own


@pytest.fixture
def node(
    own: Cluster,
    tree: PodTree,
    fleet: Fleet,  # noqa: ARG001 (the agent ends before the VMs)
    tmp_path: Path,
) -> Iterator[Node]:
    with ClusterAgent(tmp_path, tree.root) as agent:
        agent.kubeconfig = own.kubeconfig
        node = Node(Api.load(str(own.kubeconfig)), agent)
        try:
            yield node
            if agent.is_started:
                agent.must_run()
        finally:
            node.delete()
            node.api.close()


@contextmanager
def away(own: Cluster) -> Iterator[None]:
    """The API server is killed, and comes back where it was."""
    own.stop_server()
    try:
        yield
    finally:
        own.start_server()


@pytest.fixture
def vm(tree: PodTree, fleet: Fleet) -> PodVm:
    return pod_vm(tree, fleet, "a")


def obeyed(vm: PodVm, weight: int, nice: int) -> None:
    """Wait until the kernel has these values; promptly."""
    wait_for(lambda: vm.values() == (weight, {nice}), PROMPT, f"weight {weight} and nice {nice}")


def test_a_policy_that_was_taken_over_is_told_at_once_whatever_was_told_just_before(
    node: Node, vm: PodVm
) -> None:
    node.agent.launch("--status-interval", "600")
    for generation in (1, 2, 3):
        node.apply(spec(vm, policies=(listed_policy(put(5), generation=generation),)))
        node.wait_status(partial(_has_in_force, generation), f"generation {generation}")


def _has_in_force(generation: int, status: Document) -> bool:
    return [each["generation"] for each in status.get("policies", ())] == [generation]


def test_a_peace_list_moves_a_vm_and_its_status_tells_so(node: Node, vm: PodVm) -> None:
    node.agent.launch(*SHORT)
    node.apply(spec(vm, policies=(listed_policy(put(5), generation=7),)))
    obeyed(vm, AT_5, 5)
    entry = node.wait_vm(vm, state="Managed", nice=5)
    assert (entry["namespace"], entry["name"]) == ("shop", "a")
    assert (entry["effectiveNice"], entry["weight"], entry["baseline"]) == (5, AT_5, 1000)
    assert entry["message"] == "test/adjust: nice 0 to 5"
    assert entry["since"].endswith("Z")
    assert "reason" not in entry
    found = node.wait_ready("True", "InForce")
    assert found["observedGeneration"] == node.read()["metadata"]["generation"]
    assert found["summary"] == {
        "managed": 1, "adjusted": 1, "deferred": 0, "excluded": 0, "floored": 0, "contested": 0,
        "failed": 0,
    }  # fmt: skip
    [told] = found["policies"]
    assert (told["name"], told["generation"], told["adjusted"]) == ("test", 7, 1)
    assert told["activeRules"] == ["adjust"]
    assert set(found["load"]) == {"load1", "load5", "load15"}


def test_an_edit_is_in_force_promptly_and_so_is_the_end_of_a_policy(node: Node, vm: PodVm) -> None:
    node.agent.launch(*SHORT)
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    obeyed(vm, AT_5, 5)
    node.apply(spec(vm, policies=(listed_policy(put(0), generation=2),)))
    obeyed(vm, 1000, 0)
    node.apply(spec(vm, policies=(listed_policy(put(5), generation=3),)))
    obeyed(vm, AT_5, 5)
    node.apply(spec({key: value for key, value in vm.listed.items() if key != "policy"}))
    obeyed(vm, 1000, 0)
    node.wait_vm(vm, state="Unmanaged", reason="NoPolicy", nice=0)


def test_an_observe_policy_moves_nothing_and_the_status_tells_what_it_would_do(
    node: Node, tree: PodTree, fleet: Fleet
) -> None:
    vm = pod_vm(tree, fleet, "a", policy=None, observers=["test"])
    shy = policy(rule({"set": 7}), rule({"set": 1}, when="node.psi.some10 > 2.0", name="never"),
                 mode="Observe")  # fmt: skip
    node.agent.launch(*SHORT)
    node.apply(spec(vm, policies=(listed_policy(shy),)))

    def would(found: Document) -> bool:
        return bool([told for told in found.get("policies", ()) if told.get("wouldAdjust")])

    [told] = node.wait_status(would, "what would be")["policies"]
    assert (told["wouldAdjust"], told["wouldBe"]) == (
        1, [{"namespace": "shop", "name": "a", "nice": 7}],
    )  # fmt: skip
    assert vm.values() == (1000, {0})


def test_a_deleted_peace_list_restores_everything_and_a_new_one_is_told_of_it_anew(
    node: Node, vm: PodVm
) -> None:
    orders = spec(vm, policies=(listed_policy(put(5)),))
    node.agent.launch(*SHORT)
    node.apply(orders)
    node.wait_vm(vm, nice=5)
    assert node.agent.remembered.exists()
    node.delete()
    obeyed(vm, 1000, 0)
    assert not node.agent.remembered.exists()
    [row] = node.agent.rows().values()
    assert (row["state"], row["vm"]) == ("Unmanaged", "shop/a")
    assert node.agent.status()["suspended"].startswith("NoPeaceList")
    node.apply(orders)
    obeyed(vm, AT_5, 5)
    node.wait_vm(vm, nice=5)


def test_without_a_peace_list_from_the_start_what_an_earlier_agent_left_is_restored(
    node: Node, vm: PodVm
) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch()
    obeyed(vm, AT_5, 5)
    node.agent.kill()
    node.delete()
    node.agent.launch()
    obeyed(vm, 1000, 0)


def test_suspended_restores_everything_and_says_so_at_once(node: Node, vm: PodVm) -> None:
    orders = spec(vm, policies=(listed_policy(put(5)),))
    node.apply(orders)
    node.agent.launch()  # details would wait half a minute: conditions do not
    node.wait_vm(vm, nice=5)
    node.apply({**orders, "suspended": {"reason": "SystemSuspended", "message": "by m"}})
    obeyed(vm, 1000, 0)
    found = node.wait_ready("True", "Suspended")
    assert found["conditions"][0]["message"] == "everything is restored: SystemSuspended: by m"
    [entry] = found["vms"]
    assert (entry["state"], entry["reason"], entry["nice"]) == ("Unmanaged", "SystemSuspended", 0)
    node.apply(orders)
    obeyed(vm, AT_5, 5)
    node.wait_ready("True", "InForce")


def test_the_stop_file_outranks_the_peace_list(node: Node, vm: PodVm) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch()
    obeyed(vm, AT_5, 5)
    Path(node.agent.run_dir.stop_file).touch()
    obeyed(vm, 1000, 0)
    node.wait_ready("False", "Stopped")


def test_a_policy_that_is_not_understood_is_told_with_its_position(node: Node, vm: PodVm) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch(*SHORT)
    node.wait_vm(vm, nice=5)
    later = listed_policy(policy(rule({"set": 9}, when="node.laod15 > 0.9")), generation=2)
    node.apply(spec(vm, policies=(later,)))
    found = node.wait_ready("False", "NotUnderstood")
    node.wait_vm(vm, state="Deferred", reason="NotUnderstood", nice=5)
    [told] = node.wait_status(lambda s: s["policies"][0].get("reason"), "why")["policies"]
    assert "generation" not in told
    assert "spec.rules[0].when: line 1, column 6" in told["message"]
    assert "spec.rules[0].when: line 1, column 6" in found["conditions"][0]["message"]
    assert vm.values() == (AT_5, {5})


def test_a_vm_without_qemu_is_listed_as_not_found(node: Node, tree: PodTree) -> None:
    uid = "0d4ff3f2-6a51-4d34-8b0c-5f3f1f0a9d01"
    waiting = {"uid": "u", "podUID": uid, "namespace": "shop", "name": "w", "state": "Managed"}
    node.apply(spec(waiting))
    node.agent.launch(*SHORT)
    [entry] = node.wait_status(lambda s: s.get("vms"), "its VM")["vms"]
    assert (entry["state"], entry["reason"]) == ("Deferred", "NotFound")
    assert entry["message"] == "no QEMU here, and its pod has no cgroup yet"
    tree.pod(uid)
    node.apply(spec({**waiting, "labels": {"a": "b"}}))
    node.wait_status(lambda s: s["vms"][0]["message"] == "no QEMU in its pod yet", "the pod")


def test_the_claim_may_grow_while_the_agent_runs(node: Node, vm: PodVm) -> None:
    orders = spec(vm, policies=(listed_policy(put(-5)),))
    node.apply(orders)
    node.agent.launch(*SHORT)
    node.wait_vm(vm, nice=-5)
    assert vm.values() == (1000, {0}), "alone it wins nothing"
    node.apply({**orders, "maxClaimPercent": 200})
    obeyed(vm, 2000, 0)
    node.apply({**orders, "maxClaimPercent": 100})
    obeyed(vm, 1000, 0)


def test_work_goes_on_while_the_api_server_is_away_and_after_it_is_back(
    node: Node, vm: PodVm, own: Cluster
) -> None:
    """A restart of the agent too: the last orders are known to it."""
    up = policy(rule({"add": 1}), bounds=(0, 19))
    node.apply(spec(vm, policies=(listed_policy(up),)))
    node.agent.launch(*SHORT)
    node.wait_status(lambda s: s["vms"][0]["nice"] >= 2, "nice 2")

    def nice() -> int:
        [row] = node.agent.rows().values()
        return int(row["nice"])

    with away(own):
        reached = nice() + 2
        node.agent.wait(lambda: nice() >= reached, "more steps")
        assert node.agent.stop() == 0
        node.agent.launch(*SHORT)
        node.agent.wait(lambda: nice() >= reached + 2, "steps after that")
    node.wait_status(lambda s: s["vms"][0]["nice"] >= reached + 2, "what happened meanwhile")
    node.apply(spec(vm, policies=(listed_policy(put(3), generation=2),)))
    node.wait_vm(vm, nice=3)


def test_without_any_orders_ever_heard_nothing_is_touched(
    node: Node, vm: PodVm, own: Cluster
) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch()
    obeyed(vm, AT_5, 5)
    node.agent.kill()
    node.agent.remembered.unlink()
    with away(own):
        node.agent.launch()
        [row] = node.agent.rows().values()
        assert (row["state"], row["nice"], row["weight"]) == ("Deferred", 5, AT_5)
        assert row["reason"].startswith("NoPeaceListYet")
    node.agent.wait(lambda: "shop/a" in node.agent.rows(), "its name")
    row = node.agent.rows()["shop/a"]
    assert (row["state"], row["nice"]) == ("Managed", 5)


def test_a_vm_that_is_moved_every_second_is_told_once_an_interval(node: Node, vm: PodVm) -> None:
    see_saw = policy(
        rule({"add": 1}, {"where": "vm.nice < 10"}, name="up"),
        rule({"set": 0}, {"where": "vm.nice >= 10"}, name="down"),
    )
    node.apply(spec(vm, policies=(listed_policy(see_saw),)))
    node.agent.launch(*SHORT)
    first = node.wait_status(lambda s: s.get("vms"), "its VM")
    versions = {node.version()}
    start = time.monotonic()

    def moved_on() -> bool:
        versions.add(node.version())
        return time.monotonic() - start > 12.0

    wait_for(moved_on, TIMEOUT, "twelve seconds")
    assert 3 <= len(versions) <= 5, "four intervals of a little more than three seconds"
    assert node.status()["vms"] != first["vms"]


def test_at_rest_nothing_is_written_nor_after_a_restart(node: Node, vm: PodVm) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch(*SHORT)
    node.wait_vm(vm, nice=5)
    settled = node.version()

    def passes(count: int) -> bool:
        return bool(node.agent.status()["policies"][0]["passes"] >= count)

    node.agent.wait(lambda: passes(10), "ten passes: three intervals")
    assert node.version() == settled
    node.agent.stop()
    node.agent.launch(*SHORT)
    node.agent.wait(lambda: passes(8), "eight passes of the next agent")
    assert node.version() == settled, f"{node.status()}"


@contextmanager
def another_schema(node: Node, edit: Callable[[Document], object]) -> Iterator[None]:
    """As if the CRD were of another version: with its status' properties edited like this."""
    path = item(CRD_PATH, CRD)
    before = node.api.get(path)
    after = copy.deepcopy(before)
    properties = after["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    edit(properties["status"]["properties"])
    node.api.replace(path, after)
    try:
        yield
    finally:
        now = node.api.get(path)
        node.api.replace(path, now | {"spec": before["spec"]})


def test_a_status_that_the_server_refuses_is_told_once_in_its_words(node: Node, vm: PodVm) -> None:
    orders = spec(vm, policies=(listed_policy(put(5)),))
    node.apply(orders)
    with another_schema(node, lambda status: status["vms"].update(maxItems=0)):
        wait_for(lambda: _is_refused(node), TIMEOUT, "the server to have this schema")
        node.agent.launch(*SHORT)
        told = node.agent.wait_event("status is not written")
        assert "status.vms: Too many: 1: must have at most 0 items" in told["why"]
        obeyed(vm, AT_5, 5)
        passes = node.agent.status()["policies"][0]["passes"]
        node.agent.wait(
            lambda: node.agent.status()["policies"][0]["passes"] >= passes + 8, "two intervals"
        )
        assert len(node.agent.events("status is not written")) == 1
    node.apply(orders | {"maxClaimPercent": 110})
    node.wait_vm(vm, nice=5)


def _is_refused(node: Node) -> bool:
    entry = {"uid": "u", "namespace": "n", "name": "n", "state": "Managed"}
    try:
        node.api.patch(status(PEACE_LISTS, NODE), {"status": {"vms": [entry]}}, dryRun="All")
    except ApiError:
        return True
    return False


def test_a_field_that_an_older_schema_does_not_have_is_not_written_for_ever(
    node: Node, vm: PodVm
) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))

    def without_message(status: Document) -> None:
        del status["vms"]["items"]["properties"]["message"]

    with another_schema(node, without_message):
        wait_for(lambda: not _keeps_message(node), TIMEOUT, "the server to have this schema")
        node.agent.launch(*SHORT)
        node.wait_vm(vm, nice=5)
        settled = node.version()
        passes = node.agent.status()["policies"][0]["passes"]
        node.agent.wait(
            lambda: node.agent.status()["policies"][0]["passes"] >= passes + 8, "two intervals"
        )
        assert "message" not in node.wait_vm(vm, nice=5)
        assert node.version() == settled


def _keeps_message(node: Node) -> bool:
    entry = {"uid": "u", "namespace": "n", "name": "n", "state": "Managed", "message": "m"}
    found = node.api.patch(status(PEACE_LISTS, NODE), {"status": {"vms": [entry]}}, dryRun="All")
    return "message" in found["status"]["vms"][0]


def test_an_agent_that_is_called_silent_answers(node: Node, vm: PodVm) -> None:
    node.apply(spec(vm, policies=(listed_policy(put(5)),)))
    node.agent.launch()
    found = node.wait_ready("True", "InForce")
    silent = found["conditions"][0] | {
        "status": "Unknown", "reason": "AgentSilent", "message": "no pod",
    }  # fmt: skip
    node.api.patch(status(PEACE_LISTS, NODE), {"status": {"conditions": [silent]}})
    node.wait_ready("True", "InForce")
