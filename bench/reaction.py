"""How soon does the kernel have what an administrator wants?

A real API server, `peacemaker-operator run`, `peacemaker-agent run --node`, and a few real QEMU
processes in pods as KubeVirt makes them. Time runs from the sending of a request until the VMs have
what it means for them: the nice of every thread, and the weight of the pod's cgroup.

- created: a policy is created, and moves all VMs.
- edited: its bounds become narrower than the VMs' nice. A rule acts at the next pass, but bounds
  hold as soon as the edit is in force.
- deselected: one VM loses the label that the policy selects by, and is restored.
- deleted: the policy is deleted, and the other VMs are restored.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from bench._cluster import create_node, create_vmi, poll, running_agent, running_operator, vmis
from bench._report import Figure, arguments, run, say
from lab import Fleet, Guest, Place, PodTree, start
from lab.policy import policy, rule
from lab.qemu import MONITOR
from peacemaker.nice import k
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from tests.cluster.deployment import OPERATOR, deployed, token
from tests.kernel.scene import is_untouched, nices

NODE = "node-0"
TENANT = "tenant"
LABEL = "tier"
BASELINE = 1000
FAR, NEAR = 7, 3
TARGET = 3.0
TIMEOUT = 60.0
LOOK_EVERY = 0.005


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM: its QEMU in a pod, and its VirtualMachineInstance."""

    name: str
    guest: Guest
    place: Place

    def is_at(self, nice: int) -> bool:
        """Whether all its threads and its weight are."""
        weight = BASELINE * k(nice) / k(0)
        off = abs(self.place.own.weight() - weight)
        return off <= max(1, 0.02 * weight) and nices(self.guest) == {nice}

    def is_restored(self) -> bool:
        return is_untouched(self.guest, self.place.own, BASELINE)


def measure(parsed: argparse.Namespace) -> list[Figure]:
    samples: dict[str, list[float]] = {}
    with (
        deployed(audit=True) as (cluster, api),
        PodTree() as tree,
        Fleet() as fleet,
        running_operator(cluster, token(api, OPERATOR)),
    ):
        pod = create_node(api, NODE)
        api.create(paths.NAMESPACES, {"metadata": {"name": TENANT}})
        vms = [_start_vm(api, tree, fleet, f"vm-{number}") for number in range(parsed.vms)]
        with running_agent(cluster, api, pod, tree.root) as agent:
            agent.wait(lambda: len(agent.rows()) == len(vms), "the VMs to be in the peace_list")
            for number in range(parsed.samples):
                for name, seconds in _one_round(api, vms).items():
                    samples.setdefault(name, []).append(seconds)
                    say(f"round {number + 1} of {parsed.samples}: {name} after {seconds:.2f} s")
                agent.must_run()
    return [
        figure
        for name, seconds in samples.items()
        for figure in (
            Figure(name, "s", tuple(seconds)),
            Figure(f"{name}: longest", "s", (max(seconds),), at_most=TARGET),
        )
    ]


def _start_vm(api: Api, tree: PodTree, fleet: Fleet, name: str) -> Vm:
    pod = str(uuid.uuid4())
    place = tree.pod(pod, weight=BASELINE)
    guest = start(name, TENANT, cgroup=place.leaf, paused=True, parent_comm=MONITOR)
    create_vmi(api, TENANT, name, NODE, pod, {LABEL: "bronze"})
    return Vm(name, fleet.keep(guest), place)


def _one_round(api: Api, vms: list[Vm]) -> dict[str, float]:
    """Seconds that each of the changes took; in the end all is as it was before."""
    first, *others = vms
    item = paths.item(paths.PEACE_POLICIES, "bench")
    vmi = paths.item(vmis(TENANT), first.name)
    narrower = {"spec": {"bounds": {"min": 0, "max": NEAR}}}
    gold, bronze = ({"metadata": {"labels": {LABEL: tier}}} for tier in ("gold", "bronze"))
    found = {
        "policy created, VMs moved": _timed(
            lambda: api.create(paths.PEACE_POLICIES, _policy()),
            lambda: all(vm.is_at(FAR) for vm in vms),
        ),
        "policy edited, VMs within its new bounds": _timed(
            lambda: api.patch(item, narrower), lambda: all(vm.is_at(NEAR) for vm in vms)
        ),
        "VM deselected and restored": _timed(lambda: api.patch(vmi, gold), first.is_restored),
        "policy deleted, VMs restored": _timed(
            lambda: api.delete(item), lambda: all(vm.is_restored() for vm in others)
        ),
    }
    api.patch(vmi, bronze)
    return found


def _policy() -> Document:
    selector = {"matchLabels": {LABEL: "bronze"}}
    rules = (rule({"add": FAR}),)
    text = policy(*rules, name="bench", bounds=(0, FAR), interval="15s", selector=selector)
    document: Document = json.loads(text)
    return document


def _timed(do: Callable[[], object], is_done: Callable[[], bool]) -> float:
    """Seconds from now until it is done. TimeoutError."""
    begin = time.monotonic()
    do()
    poll(is_done, LOOK_EVERY, TIMEOUT, "the kernel to have it")
    return time.monotonic() - begin


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vms", type=int, default=3, help="two or more (default 3)")
    parser.add_argument("--samples", type=int, default=20, help="of each (default 20)")
    run("Reaction: from a request to the kernel", measure, parser.parse_args())


if __name__ == "__main__":
    main()
