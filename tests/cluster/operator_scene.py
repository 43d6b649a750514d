"""A cluster as the operator sees it: nodes, VMs, policies, and controllers that look after them."""

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_operator.controller import Controller, Pace
from peacemaker_operator.leader import Timing
from tests.cluster.conftest import ESTABLISH_TIMEOUT

TIMEOUT = 30.0
"""Seconds to wait for what takes well under one."""

TIMING = Timing(lease=4, renew=3, retry=1)
PACE = Pace(details=3.0, silent_after=3.0)
LOUD = Pace(details=3.0, silent_after=3600.0)
"""Without agents, none of which is called silent."""

KUBEVIRT = Path(__file__).parents[1] / "data" / "kubevirt"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POLICY: Document = {
    "mode": "Enforce",
    "rules": [{"name": "r", "when": "node.load15 > 0.9", "pick": {}, "nice": {"add": 1}}],
}

T = TypeVar("T")


class Scene:
    """Objects on the tests' API server; those that are of no namespace go with the scene.

    Namespaces stay: nobody here would finish their deletion.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._kubeconfig = str(cluster.kubeconfig)
        self._made: list[str] = []
        self._stack = ExitStack()
        self.cluster = cluster
        self.api = Api.load(self._kubeconfig)
        self.namespace = ""

    def __enter__(self) -> Self:
        serve_vmis(self.api)
        self.namespace = self.new_namespace("operator")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        for path in reversed(self._made):
            self.delete(path)
        for document in self.api.get(paths.PEACE_LISTS)["items"]:
            self.delete(paths.item(paths.PEACE_LISTS, document["metadata"]["name"]))
        self.api.close()

    # --- objects ---

    def new_namespace(self, prefix: str = "tenant", **labels: str) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self.api.create(paths.NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        return name

    def node(self, name: str, **labels: str) -> Document:
        labels = {"kubevirt.io/schedulable": "true", **labels}
        return self._create(paths.NODES, {"metadata": {"name": name, "labels": labels}})

    def policy(self, name: str, **spec: Any) -> Document:
        document: Document = {"apiVersion": paths.API_VERSION, "kind": "PeacePolicy"}
        document |= {"metadata": {"name": name}, "spec": {**POLICY, **spec}}
        return self._create(paths.PEACE_POLICIES, document)

    def vmi(
        self, namespace: str, name: str, node: str, pod: str | None = None, **labels: str
    ) -> Document:
        """A running VM with a pod on the node."""
        document: Document = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "labels": labels},
            "spec": {"domain": {"devices": {}, "cpu": {"cores": 2}}},
            "status": {
                "phase": "Running",
                "nodeName": node,
                "activePods": {pod or f"pod-{uuid.uuid4()}": node},
            },
        }
        return self.create_vmi(namespace, document)

    def create_vmi(self, namespace: str, document: Document) -> Document:
        return self._create(vmis(namespace), document)

    def change(self, document: Document, **fields: Any) -> Document:
        """Merge these fields into an object."""
        return self.api.patch(self.path(document), fields)

    def path(self, document: Document) -> str:
        metadata = document["metadata"]
        collection = {
            "PeacePolicy": paths.PEACE_POLICIES,
            "PeaceList": paths.PEACE_LISTS,
            "Node": paths.NODES,
            "VirtualMachineInstance": vmis(metadata.get("namespace", "")),
        }[document["kind"]]
        return paths.item(collection, metadata["name"])

    def delete(self, path: str) -> None:
        with suppress(ApiError):  # it is gone already
            self.api.delete(path)

    def find(self, path: str) -> Document | None:
        try:
            return self.api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def settings(self, **data: str) -> None:
        path = paths.core(self.namespace, "configmaps")
        body = {"metadata": {"name": "peacemaker"}, "data": data}
        if self.find(paths.item(path, "peacemaker")) is None:
            self.api.create(path, body)
        else:
            self.api.replace(paths.item(path, "peacemaker"), body)

    def agent_pod(self, node: str, *, ready: bool) -> str:
        """An agent's pod, without an agent. Returns its path."""
        pods = paths.core(self.namespace, "pods")
        name = f"agent-{uuid.uuid4().hex[:8]}"
        labels = {
            "app.kubernetes.io/name": "peacemaker",
            "app.kubernetes.io/component": "agent",
        }
        spec = {"nodeName": node, "containers": [{"name": "agent", "image": "agent:1"}]}
        if self.find(f"{self._accounts}/default") is None:
            self.api.create(self._accounts, {"metadata": {"name": "default"}})
        self.api.create(pods, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        self.set_ready(paths.item(pods, name), ready)
        return paths.item(pods, name)

    def set_ready(self, pod: str, ready: bool) -> None:
        condition = {"type": "Ready", "status": str(ready)}
        self.api.patch(f"{pod}/status", {"status": {"conditions": [condition]}})

    def agent_says(self, node: str, **status: Any) -> Document:
        """What this node's agent writes."""
        return self.api.patch(paths.status(paths.PEACE_LISTS, node), {"status": status})

    @property
    def _accounts(self) -> str:
        return paths.core(self.namespace, "serviceaccounts")

    def _create(self, collection: str, document: Document) -> Document:
        created = self.api.create(collection, document)
        self._made.append(paths.item(collection, created["metadata"]["name"]))
        return created

    # --- what the operator made of them ---

    def peace_list(self, node: str) -> Document | None:
        return self.find(paths.item(paths.PEACE_LISTS, node))

    def spec(self, node: str) -> Document:
        """The spec of a node's PeaceList, empty while there is none."""
        found = self.peace_list(node)
        return found["spec"] if found else {}

    def listed(self, node: str, name: str) -> Document:
        """A VM in the PeaceList of a node, empty if it is not there."""
        return next((vm for vm in self.spec(node).get("vms", ()) if vm["name"] == name), {})

    def wait_until(self, condition: Callable[[], T], what: str) -> T:
        return wait_for(condition, TIMEOUT, what)

    def wait_listed(self, node: str, name: str, **fields: Any) -> Document:
        """A VM in a PeaceList, once it has these fields; None: not there."""

        def found() -> Document | None:
            vm = self.listed(node, name)
            holds = vm and all(vm.get(key) == value for key, value in fields.items())
            return vm if holds else None

        try:
            vm = wait_for(found, TIMEOUT, f"{name} on {node} with {fields}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {self.listed(node, name)}") from None
        assert vm is not None
        return vm

    def condition(self, policy: str, kind: str) -> Document:
        """A condition of a policy, empty while there is none."""
        status = self.api.get(paths.item(paths.PEACE_POLICIES, policy)).get("status") or {}
        return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})

    def wait_condition(self, policy: str, kind: str, **fields: Any) -> Document:
        def found() -> Document | None:
            condition = self.condition(policy, kind)
            holds = all(condition.get(key) == value for key, value in fields.items())
            return condition if condition and holds else None

        try:
            condition = wait_for(found, TIMEOUT, f"{kind} of {policy} with {fields}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {self.condition(policy, kind)}") from None
        assert condition is not None
        return condition

    def events(self, namespace: str, name: str) -> list[Document]:
        """The Events about an object, oldest first."""
        found = self.api.get(
            paths.core(namespace, "events"), fieldSelector=f"involvedObject.name={name}"
        )["items"]
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    # --- controllers ---

    def start(
        self, identity: str = "a", *, leader_elect: bool = False, pace: Pace = LOUD
    ) -> Controller:
        """A controller with a client of its own, which stops with the scene."""
        api = Api.load(self._kubeconfig)
        self._stack.callback(api.close)
        controller = Controller(
            api, self.namespace, identity, leader_elect=leader_elect, timing=TIMING, pace=pace
        )
        controller.start()
        self._stack.callback(controller.stop)
        wait_for(controller.is_ready, TIMEOUT, f"controller {identity} to know the cluster")
        return controller

    @contextmanager
    def controller(self, identity: str = "a", **options: Any) -> Iterator[Controller]:
        """The same, which stops with this context."""
        outer, self._stack = self._stack, ExitStack()
        try:
            yield self.start(identity, **options)
        finally:
            self._stack.close()
            self._stack = outer

    def wait_idle(self, controller: Controller) -> None:
        """Until all that a controller was told before is done, and a few seconds' details are."""
        answers: list[bool] = []

        def look() -> None:
            soon = time.monotonic() + 2 * PACE.details
            answers.append(
                not any(desk.due.next() < soon or desk.due._busy for desk in controller._desks)
            )

        def is_idle() -> bool:
            answers.clear()
            controller._post(look)
            wait_for(lambda: answers, TIMEOUT, "the worker to answer")
            return answers[0]

        wait_for(is_idle, TIMEOUT, "the controller to be idle")

    def writes(self) -> int:
        """Requests so far that changed anything, renewals of Leases aside, by whomever."""
        metrics = self.metrics()
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in metrics.splitlines()
            if line.startswith("apiserver_request_total{")
            and re.search(r'verb="(POST|PUT|PATCH|DELETE|APPLY)"', line)
            and 'resource="leases"' not in line
        )

    def metrics(self) -> str:
        answer = self.api.client.rest_client.request(
            "GET",
            f"{self.cluster.url}/metrics",
            headers={"Authorization": f"Bearer {self.cluster.token}"},
        )
        text: str = answer.read().decode()
        return text


def vmis(namespace: str) -> str:
    """The VMs of a namespace."""
    return f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"


def serve_vmis(api: Api) -> None:
    """Have the API server serve KubeVirt's own VirtualMachineInstances."""
    path = paths.item(CRDS, "virtualmachineinstances.kubevirt.io")
    try:
        api.get(path)
    except ApiError:
        text = (KUBEVIRT / "vmi-crd.yaml").read_bytes()
        api.create(CRDS, yaml.load(text, yaml.CSafeLoader))

    def is_established() -> bool:
        conditions = api.get(path)["status"].get("conditions") or ()
        return any(
            each["type"] == "Established" and each["status"] == "True" for each in conditions
        )

    wait_for(is_established, ESTABLISH_TIMEOUT, "VirtualMachineInstances to be served")
