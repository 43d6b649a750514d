"""What the agent is told to do, wherever that comes from."""

from collections.abc import Iterable
from typing import Protocol

from peacemaker.govern import rank, standing
from peacemaker.peacelist import Suspension
from peacemaker.policy import PeacePolicy
from peacemaker_kube import log
from peacemaker_nodeagent.labels import Labels
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.policy_files import PolicyFiles


class Orders(Protocol):
    """The policies in force, and what they and others say of each VM.

    `max_claim_percent` is as `claim.guard` takes it; `suspended` tells why everything is to be
    restored, None while policies are in force.
    """

    @property
    def max_claim_percent(self) -> int: ...

    @property
    def suspended(self) -> Suspension | None: ...

    def policies(self) -> tuple[PeacePolicy, ...]: ...

    def poll(self) -> bool:
        """Whether they are others now than at the last call."""
        ...

    def give(self, vm: Vm) -> None:
        """Tell the VM what they say of it: labels, standing, hold."""
        ...

    def review(self, vms: Iterable[Vm]) -> None:
        """Every VM has been told: say what is to be said of all of them together."""
        ...


class FileOrders:
    """Orders of a host without a cluster: policy files, and labels from a file."""

    suspended: Suspension | None = None

    def __init__(
        self, files: PolicyFiles, labels: Labels, node: str, max_claim_percent: int
    ) -> None:
        self.max_claim_percent = max_claim_percent
        self._files = files
        self._labels = labels
        self._node = {"kubernetes.io/hostname": node}
        self._idle: frozenset[str] = frozenset()
        self._policies = rank(files.policies())

    def policies(self) -> tuple[PeacePolicy, ...]:
        return self._policies

    def poll(self) -> bool:
        edited = self._files.poll()
        if edited:
            self._policies = rank(self._files.policies())
        return self._labels.poll() or edited

    def give(self, vm: Vm) -> None:
        vm.labels = self._labels.of(vm.full_name)
        namespace = {"kubernetes.io/metadata.name": vm.namespace}
        vm.standing = standing(self._policies, self._node, namespace, vm.labels)

    def review(self, vms: Iterable[Vm]) -> None:
        """Say once of a policy that it selects none of the VMs that are there."""
        standings = [vm.standing for vm in vms]
        spoken_for = {
            policy.name
            for each in standings
            for policy in (each.governor, *each.observers, *each.outranked)
            if policy
        }
        idle = frozenset(policy.name for policy in self._policies) - spoken_for
        for name in sorted(idle - self._idle):
            log.warning("policy selects no VM", policy=name, vms=len(standings))
        self._idle = idle
