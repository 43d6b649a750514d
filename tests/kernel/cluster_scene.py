"""What tests of the agent in cluster mode have: a PeaceList, VMs in pods, and that agent."""

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import Fleet, Group, Guest, Place, PodTree, start
from lab.agent import Agent, Row
from lab.qemu import MONITOR
from tests.kernel.scene import nices

NODE = "the-node"

Document = dict[str, Any]

NOBODY_LISTENS = "https://127.0.0.1:1"
"""Port 1 is below those that anybody may open, and nothing of ours is there."""


class ClusterAgent(Agent):
    """The agent of NODE. Without another kubeconfig its API server never answers."""

    def __init__(self, directory: Path, below: str) -> None:
        super().__init__(directory, below)
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(kubeconfig(NOBODY_LISTENS)))

    def launch(self, *options: str) -> None:
        """Start it for NODE, and wait until it has adopted all VMs and answers."""
        self.start_in_cluster(NODE, self.kubeconfig, *options)

    def relaunch(self, spec: Document) -> None:
        """As if the agent had been updated while its PeaceList changed to this."""
        self.kill()
        self.remember(spec)
        self.launch()

    def wait_vm(self, name: str, **fields: object) -> Row:
        """The row of a VM of namespace shop, once it is there and has these fields."""

        def find() -> Row | None:
            row = self.rows().get(f"shop/{name}")
            return row if row is not None and fields.items() <= row.items() else None

        try:
            row = self.wait(find, f"{name} to have {fields}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; there are {self.rows()}") from None
        assert row is not None
        return row

    @property
    def remembered(self) -> Path:
        """The file with the last known PeaceList."""
        return Path(self.run_dir.peace_list)

    def remember(self, spec: Document, generation: int = 1) -> None:
        """Put a PeaceList there, as an earlier agent would have kept it."""
        known = {"v": 1, "node": NODE, "uid": "u", "generation": generation, "spec": spec}
        self.remembered.parent.mkdir(exist_ok=True)
        self.remembered.write_text(json.dumps(known))


def kubeconfig(server: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@dataclass(frozen=True, slots=True)
class PodVm:
    """A VM in a virt-launcher pod: its QEMU, its cgroups, and how a PeaceList lists it."""

    guest: Guest
    place: Place
    pod_uid: str
    listed: Document = field(repr=False)

    @property
    def name(self) -> str:
        """Its namespace and name in the PeaceList, which its command line does not know."""
        return f"{self.listed['namespace']}/{self.listed['name']}"

    @property
    def own(self) -> Group:
        return self.place.own

    def values(self) -> tuple[int, set[int]]:
        """The weight of its pod and the nices of its threads, as the kernel has them."""
        return self.own.weight(), nices(self.guest)


def pod_vm(tree: PodTree, fleet: Fleet, name: str, weight: int = 1000, **fields: object) -> PodVm:
    """A paused VM in a pod of its own, listed as the operator would: Managed by policy `test`."""
    pod_uid = str(uuid.uuid4())
    place = tree.pod(pod_uid, weight=weight)
    guest = fleet.keep(start("forged", cgroup=place.leaf, paused=True, parent_comm=MONITOR))
    listed: Document = {
        "uid": f"uid-of-{name}",
        "podUID": pod_uid,
        "namespace": "shop",
        "name": name,
        "state": "Managed",
        "policy": "test",
        **fields,
    }
    return PodVm(guest, place, pod_uid, {k: v for k, v in listed.items() if v is not None})


def listed_policy(text: str, generation: int = 1) -> Document:
    """A PeacePolicy's text (lab.policy) as a PeaceList lists it."""
    document = json.loads(text)
    return {
        "name": document["metadata"]["name"],
        "generation": generation,
        "spec": document["spec"],
    }


def spec(*vms: PodVm | Document, policies: tuple[Document, ...] = (), **fields: object) -> Document:
    """A PeaceList's spec; that of a policy may be a document still."""
    texts = [{**each, "spec": json.dumps(each["spec"])} for each in policies]
    listed = [vm.listed if isinstance(vm, PodVm) else vm for vm in vms]
    return {"policies": texts, "vms": listed, **fields}


def relisted(vm: PodVm, **fields: object) -> Document:
    """How the VM is listed now; a field that is None is left out."""
    return {k: v for k, v in (vm.listed | fields).items() if v is not None}
