"""A node with its agent and its VMs: QEMU in pods of this host, and the objects that say so."""

import copy
import json
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab import Fleet, Group, Place, PodTree, Process, start
from lab.agent import Agent
from lab.policy import Fields, policy, rule
from lab.qemu import MONITOR
from peacemaker_kube import paths
from peacemaker_kube.api import ApiError, Document
from tests import kubevirt
from tests.cluster.deployment import AGENT, NAMESPACE, agent_pod, kubeconfig
from tests.cluster.e2e.site import Site, condition, eventually
from tests.kernel.scene import is_untouched, nices, start_with_qmp

BASELINE = 1000


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM: its QEMU in a pod of a node, and its VirtualMachineInstance."""

    namespace: str
    name: str
    qemu: Process
    place: Place
    pod: str
    """The pod's uid."""

    @property
    def own(self) -> Group:
        return self.place.own

    @property
    def path(self) -> str:
        return paths.item(vmis(self.namespace), self.name)

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    def values(self) -> tuple[int, set[int]]:
        """The weight of its pod and the nices of its threads, as the kernel has them."""
        return self.own.weight(), nices(self.qemu)

    def is_untouched(self) -> bool:
        return is_untouched(self.qemu, self.own, BASELINE)

    def wait_values(self, weight: int, nice: int) -> None:
        """Until the kernel has them; the weight may be rounded otherwise."""
        eventually(
            self.values,
            lambda found: abs(found[0] - weight) <= max(2, weight * 0.02) and found[1] == {nice},
            f"{self.name} to have weight {weight} and nice {nice}",
        )

    def wait_untouched(self) -> None:
        eventually(
            lambda: (self.is_untouched(), *self.values()),
            lambda found: found[0],
            f"{self.name} to be as it came",
        )


def weight_at(nice: int, baseline: int = BASELINE) -> int:
    """The weight of a VM at this nice (kernel/sched/core.c, sched_prio_to_weight)."""
    table = {0: 1024, 3: 526, 5: 335, 7: 215}
    return round(baseline * table[nice] / table[0])


class Node:
    """A Node, its agent with the token of its own pod, and the cgroups of the pods on it.

    A context manager; the agent is not started.
    """

    def __init__(self, site: Site, name: str, folder: Path) -> None:
        self.name = name
        self._site = site
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.tree = stack.enter_context(PodTree())
            self.fleet = stack.enter_context(Fleet())
            self._folder.mkdir()
            self.agent = stack.enter_context(Agent(self._folder, self.tree.root))
            stack.callback(self._remove)
            labels = {"kubevirt.io/schedulable": "true", "kubernetes.io/hostname": self.name}
            metadata = {"name": self.name, "labels": labels}
            self._site.api.create(paths.NODES, {"metadata": metadata})
            self._pod = agent_pod(self._site.api, self.name)["metadata"]["name"]
            self.say_ready(True)
            self._kubeconfig = kubeconfig(
                self._site.cluster, self._token(), self._folder / "agent.kubeconfig"
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.agent.is_started:
            self.agent.kill()
        self._stack.close()

    def start_agent(self) -> None:
        self.agent.start_in_cluster(self.name, self._kubeconfig, "--status-interval", "1")

    def say_ready(self, ready: bool) -> None:
        """What the kubelet says of the agent's pod."""
        pod = paths.item(paths.core(NAMESPACE, "pods"), self._pod)
        conditions = [{"type": "Ready", "status": str(ready)}]
        self._site.api.patch(f"{pod}/status", {"status": {"conditions": conditions}})

    def label(self, label: str) -> None:
        self._site.kubectl("label", "node", self.name, label)

    def peace_list(self) -> Document:
        """Empty while there is none."""
        return find(self._site, paths.item(paths.PEACE_LISTS, self.name))

    def wait_ready(self, status: str, reason: str) -> Document:
        """The PeaceList, once its agent says so of the newest spec."""
        return eventually(
            self.peace_list,
            lambda found: condition(found) == (status, reason) and (
                status == "Unknown"
                or found["status"]["observedGeneration"] == found["metadata"]["generation"]
            ),
            f"Ready={status}/{reason} of {self.name}",
        )  # fmt: skip

    def listed(self, vm: Vm) -> Document:
        """What the operator says of the VM; empty if nothing."""
        return _of(vm, self.peace_list().get("spec", {}))

    def told(self, vm: Vm) -> Document:
        """What the agent says of the VM; empty if nothing."""
        return _of(vm, self.peace_list().get("status", {}))

    def wait_listed(self, vm: Vm, **fields: object) -> Document:
        what = f"{self.name} to list {vm.name} with {fields}"
        return eventually(lambda: self.listed(vm), lambda each: _has(each, fields), what)

    def wait_told(self, vm: Vm, **fields: object) -> Document:
        what = f"the agent of {self.name} to say of {vm.name} {fields}"
        return eventually(lambda: self.told(vm), lambda each: _has(each, fields), what)

    def _token(self) -> str:
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", self._pod)
        return self._site.kubectl("create", "token", AGENT, "-n", NAMESPACE, *bound).strip()

    def _remove(self) -> None:
        pods = paths.core(NAMESPACE, "pods")
        remove(self._site, paths.item(pods, f"agent-{self.name}"), gracePeriodSeconds="0")
        remove(self._site, paths.item(paths.NODES, self.name))
        remove(self._site, paths.item(paths.PEACE_LISTS, self.name))  # if no operator did


class Scene:
    """One test's node, tenant and policies on a site that others use too. A context manager.

    tag: what is in their names, else nobody else's. tenant: its name, else one with the tag.
    """

    def __init__(
        self, site: Site, folder: Path, tag: str | None = None, tenant: str | None = None
    ) -> None:
        self.site = site
        self.api, self.kubectl, self.operator = site.api, site.kubectl, site.operator
        self._folder = folder
        self._stack = ExitStack()
        self._tag = tag or uuid.uuid4().hex[:6]
        self.tenant = tenant or self.named("tenant")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self.node = self.new_node("node")
            # It stays, as nobody here would finish its deletion.
            self.kubectl("create", "namespace", self.tenant)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def named(self, prefix: str) -> str:
        """A name with the tag."""
        return f"{prefix}-{self._tag}"

    def new_node(self, prefix: str) -> Node:
        node = Node(self.site, self.named(prefix), self._folder / prefix)
        return self._stack.enter_context(node)

    # --- VMs ---

    def vm(
        self,
        name: str = "vm",
        *,
        qmp: Path | None = None,
        weight: int = BASELINE,
        **labels: str,
    ) -> Vm:
        """A running VM on the node. qmp: where it takes commands."""
        vm = self.qemu(name, self.node, qmp=qmp, weight=weight)
        self.create_vmi(vm, self.running(vm, self.node, **labels))
        return vm

    def qemu(
        self,
        name: str,
        node: Node,
        pod: str | None = None,
        *,
        qmp: Path | None = None,
        weight: int = BASELINE,
    ) -> Vm:
        """A QEMU in a pod of a node, of which the API server knows nothing."""
        pod = pod or str(uuid.uuid4())
        place = node.tree.pod(pod, weight=weight)
        if qmp is None:
            qemu: Process = start(
                name, self.tenant, cgroup=place.leaf, paused=True, parent_comm=MONITOR
            )
        else:
            qemu = start_with_qmp(name, place.leaf, qmp, MONITOR)
        return Vm(self.tenant, name, node.fleet.keep(qemu), place, pod)

    def running(self, vm: Vm, node: Node, **labels: str) -> Document:
        """A VirtualMachineInstance as KubeVirt has it while its guest runs."""
        document = copy.deepcopy(kubevirt.RUNNING)
        document["metadata"] = {
            "name": vm.name,
            "namespace": vm.namespace,
            "labels": {"kubevirt.io/nodeName": node.name, **labels},
        }
        document["status"] |= {"nodeName": node.name, "activePods": {vm.pod: node.name}}
        return document

    def create_vmi(self, vm: Vm, document: Document) -> None:
        self.api.create(vmis(vm.namespace), document)
        self._stack.callback(remove, self.site, vm.path)

    def change_vmi(self, vm: Vm, document: Document) -> None:
        """Merge these fields into it, as KubeVirt changes its objects."""
        self.api.patch(vm.path, document)

    # --- policies ---

    def policy(self, *rules: Fields, name: str = "p", **spec: Any) -> Document:
        """A policy for this test's nodes. Its fields: see lab.policy."""
        document: Document = json.loads(policy(*rules, name=self.named(name), **spec))
        names = [self.named(prefix) for prefix in ("node", "target")]
        chosen = {"key": "kubernetes.io/hostname", "operator": "In", "values": names}
        document["spec"]["nodeSelector"] = {"matchExpressions": [chosen]}
        return document

    def put(self, nice: int, **spec: Any) -> Document:
        """A policy that puts VMs at this nice, once and for good."""
        return self.policy(rule({"set": nice}), **spec)

    def apply(self, document: Document) -> Document:
        """`kubectl apply` it; it goes with the scene."""
        self._stack.callback(remove, self.site, policy_path(document))
        self.kubectl.apply(document)
        return document

    def read(self, document: Document) -> Document:
        """The policy as it is now."""
        return self.api.get(policy_path(document))

    def wait_condition(
        self, document: Document, status: str, reason: str, kind: str = "Ready"
    ) -> Document:
        """The policy, once its newest generation is said to be so."""
        return eventually(
            lambda: self.read(document),
            lambda found: (
                condition(found, kind) == (status, reason)
                and found["status"]["observedGeneration"] == found["metadata"]["generation"]
            ),
            f"{kind}={status}/{reason}",
        )

    def wait_status(self, document: Document, **fields: object) -> Document:
        return eventually(
            lambda: self.read(document).get("status", {}),
            lambda found: _has(found, fields),
            f"the policy's status to have {fields}",
        )

    def events(self, namespace: str, name: str) -> list[tuple[str, str, str]]:
        """Type, reason and message of the Events about an object."""
        found = self.api.get(
            paths.core(namespace, "events"), fieldSelector=f"involvedObject.name={name}"
        )
        return [(each["type"], each["reason"], each["message"]) for each in found["items"]]


def vmis(namespace: str) -> str:
    return f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"


def policy_path(document: Document) -> str:
    return paths.item(paths.PEACE_POLICIES, document["metadata"]["name"])


def find(site: Site, path: str) -> Document:
    """An object; empty if it is not there."""
    try:
        return site.api.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return {}


def remove(site: Site, path: str, **query: str) -> None:
    """Delete an object, if it is there."""
    try:
        site.api.delete(path, **query)
    except ApiError as error:
        if error.status != 404:
            raise


def _of(vm: Vm, half: Mapping[str, Any]) -> Document:
    names = (vm.namespace, vm.name)
    return next(
        (each for each in half.get("vms", ()) if (each["namespace"], each["name"]) == names), {}
    )


def _has(found: Mapping[str, Any], fields: Mapping[str, object]) -> bool:
    return bool(found) and all(found.get(key) == value for key, value in fields.items())
