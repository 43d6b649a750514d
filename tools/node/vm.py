"""VMs as KubeVirt runs them: a VirtualMachineInstance, its virt-launcher pod, and QEMU in it.

What KubeVirt's controllers do is done here, by hand and in their order: nothing of KubeVirt runs.
Pods, process trees, users and helper containers are those measured on KubeVirt 1.6.
"""

import copy
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from lab.cgroups import Group
from lab.measure import cpu_time
from lab.qemu import BINARY, MONITOR
from lab.spin import Image
from node.images import VM
from node.images.build import GUESTS
from node.node import Node

Document = dict[str, Any]

SCHEDULABLE: Final = "kubevirt.io/schedulable"
"""KubeVirt's label of nodes that run VMs."""

_DATA = Path(__file__).parents[2] / "tests" / "data" / "kubevirt"
_RESOURCE = "virtualmachineinstances.kubevirt.io"
_QEMU_USER = 107
_RESTRICTED: Final[Document] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": _QEMU_USER,
}
_COMM_LENGTH = 15
_SPINNING = 0.02  # CPU seconds by which a guest shows that it runs


@dataclass(frozen=True, slots=True)
class Vm:
    """A running VM. `own` is its pod's cgroup, `leaf` its compute container's; `qemu` is the pid of
    its QEMU as the host numbers it.
    """

    namespace: str
    name: str
    uid: str
    pod: str
    pod_uid: str
    own: Group
    leaf: Group
    qemu: int


def serve(node: Node) -> None:
    """Have the cluster serve KubeVirt's own VirtualMachineInstances, and the node run them."""
    node.kubectl("create", "-f", str(_DATA / "vmi-crd.yaml"))
    # `kubectl wait` fails while the conditions are null, as they are at first.
    node.wait(lambda: node.holds(f"crd/{_RESOURCE}", "Established"), f"{_RESOURCE} to be served")
    node.kubectl("label", "node", node.name, f"{SCHEDULABLE}=true")


def start(
    node: Node,
    name: str,
    *,
    namespace: str = "default",
    cpu: str = "100m",
    cpu_limit: str | None = None,
    vcpus: int = 1,
    labels: dict[str, str] | None = None,
    guest: Image = Image.SPIN,
) -> Vm:
    """Start a VM, and wait until its guest runs and its VirtualMachineInstance says so.

    cpu and cpu_limit are its compute container's; the pod's helpers request 6m more.
    """
    vmi = _create_vmi(node, namespace, name, vcpus, labels or {})
    uid = vmi["metadata"]["uid"]
    resources: Document = {"requests": {"cpu": cpu, "memory": "64Mi"}}
    if cpu_limit is not None:
        resources["limits"] = {"cpu": cpu_limit}
    made = node.json(*("create", "-f", "-"), documents=[_pod(vmi, vcpus, resources, guest)])
    pod, pod_uid = made["metadata"]["name"], made["metadata"]["uid"]
    update(
        node,
        namespace,
        name,
        {"status": {"activePods": {pod_uid: node.name}, "phase": "Scheduling"}},
    )
    node.wait_pod_ready(pod, namespace)
    own = Group(f"{node.box.cgroup}/kubepods/burstable/pod{pod_uid}")
    leaf, qemu = node.wait(
        partial(_find_qemu, own, guest), f"the guest of {namespace}/{name} to run"
    )
    label = {"labels": {"kubevirt.io/nodeName": node.name}}
    update(
        node,
        namespace,
        name,
        {"metadata": label, "status": {"phase": "Scheduled", "nodeName": node.name}},
    )
    ready = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
    update(node, namespace, name, {"status": {"phase": "Running", "conditions": [ready]}})
    return Vm(namespace, name, uid, pod, pod_uid, own, leaf, qemu)


def update(node: Node, namespace: str, name: str, change: Document) -> None:
    """Merge a change into a VirtualMachineInstance, as KubeVirt's controllers write it."""
    node.patch(f"{_RESOURCE}/{name}", change, "--namespace", namespace, "--type=merge")


def delete(node: Node, vm: Vm) -> None:
    """Delete a VM with its pod, and wait until both are gone."""
    where = ("--namespace", vm.namespace)
    node.kubectl("delete", _RESOURCE, vm.name, *where)
    node.kubectl("delete", "pod", vm.pod, *where, "--wait")


def _create_vmi(
    node: Node, namespace: str, name: str, vcpus: int, labels: dict[str, str]
) -> Document:
    document = copy.deepcopy(json.loads((_DATA / "vmi-running.json").read_bytes()))
    # The finalizer is KubeVirt's, which is not here to take it off.
    document["metadata"] = {"namespace": namespace, "name": name, "labels": labels}
    document["spec"]["domain"]["cpu"]["cores"] = vcpus
    document["status"] = {"phase": "Pending"}
    created: Document = node.json("create", "-f", "-", documents=[document])
    return created


def _pod(vmi: Document, vcpus: int, resources: Document, guest: Image) -> Document:
    metadata = vmi["metadata"]
    namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
    identity = ["--name", name, "--uid", uid, "--namespace", namespace]
    owner = {
        "apiVersion": vmi["apiVersion"],
        "kind": vmi["kind"],
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    compute = _container(
        "compute",
        [f"/usr/bin/{MONITOR}", *identity, "--", *_qemu(namespace, name, vcpus, guest)],
        resources,
    )
    console = _container(
        "guest-console-log",
        ["/usr/bin/virt-tail"],
        {"requests": {"cpu": "5m", "memory": "35M"}, "limits": {"cpu": "15m", "memory": "60M"}},
    )
    disk = _container(
        "volumekernel-boot-volume",
        ["/usr/bin/container-disk"],
        {"requests": {"cpu": "1m", "memory": "1M"}, "limits": {"cpu": "10m", "memory": "40M"}},
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"virt-launcher-{name}-",
            "namespace": namespace,
            "labels": {
                **metadata.get("labels", {}),
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": uid,
                "vm.kubevirt.io/name": name,
            },
            "ownerReferences": [owner],
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "nodeSelector": {SCHEDULABLE: "true"},
            "securityContext": {
                "runAsUser": _QEMU_USER,
                "runAsGroup": _QEMU_USER,
                "fsGroup": _QEMU_USER,
                "runAsNonRoot": True,
            },
            "initContainers": [{**console, "restartPolicy": "Always"}],
            "containers": [compute, disk],
        },
    }


def _container(name: str, command: list[str], resources: Document) -> Document:
    return {
        "name": name,
        "image": VM,
        "imagePullPolicy": "Never",
        "command": command,
        "resources": resources,
        "securityContext": _RESTRICTED,
    }


def _qemu(namespace: str, name: str, vcpus: int, guest: Image) -> list[str]:
    options = {
        "name": f"guest={namespace}_{name},debug-threads=on",
        "machine": "pc",
        "accel": "tcg,thread=multi,tb-size=1",
        "smp": str(vcpus),
        "m": "8",
        "bios": f"{GUESTS}/{guest.value}",
        **dict.fromkeys(("display", "vga", "serial", "parallel", "monitor", "net"), "none"),
    }
    words = [word for option, value in options.items() for word in (f"-{option}", value)]
    return [BINARY, "-nodefaults", "-no-user-config", *words]


def _find_qemu(own: Group, guest: Image) -> tuple[Group, int] | None:
    """The compute container's cgroup and QEMU's pid, once its guest runs."""
    for directory in own.directories[0].iterdir():
        if directory.is_dir():
            leaf = Group(f"{own.path}/{directory.name}")
            for pid in leaf.pids():
                if _comm(pid) == BINARY[:_COMM_LENGTH]:
                    is_running = guest is Image.IDLE or cpu_time(pid) > _SPINNING
                    return (leaf, pid) if is_running else None
    return None


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""
