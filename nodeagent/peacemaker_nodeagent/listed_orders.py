"""Orders from the PeaceList of the node, as the API server last showed it."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from peacemaker.claim import FULL_CLAIM_PERCENT
from peacemaker.govern import Standing
from peacemaker.peacelist import ListedVm, PeaceListSpec, Suspension
from peacemaker.policy import PeacePolicy
from peacemaker_kube import log
from peacemaker_nodeagent.last_known import LastKnown
from peacemaker_nodeagent.listing import (
    NOT_ANSWERED,
    NOT_LISTED,
    Listing,
    Understood,
    in_force,
    seconds_since_epoch,
    standing_of,
    understand,
)
from peacemaker_nodeagent.peace_list import Hold, State, Vm

GONE = Suspension("NoPeaceList", "the API server has no PeaceList of this node")


class Source(Protocol):
    """Where PeaceLists come from: a watch's view of the API server."""

    def newest(self) -> Listing | None: ...

    def has_answered(self) -> bool: ...


class ListedOrders:
    """What the newest PeaceList says, or the last known one until the API server answers.

    `listing` is the one whose orders are in force, `pods` are its VMs by the uid of their pod. One
    that is not understood freezes every VM.
    """

    def __init__(self, source: Source, last_known: LastKnown, clock: Callable[[], float]) -> None:
        """`clock` counts as processes' start times do: in seconds since boot."""
        self._source = source
        self._last_known = last_known
        self._clock = clock
        self._booted_at = 0.0
        self._frozen: Hold | None = Hold(State.DEFERRED, NOT_ANSWERED, keeps=True)
        self._has_answer = False
        self._suspended: Suspension | None = None
        self.pods: dict[str, ListedVm] = {}
        self._standings: dict[str, tuple[Standing, Hold | None]] = {}
        self._policies: tuple[PeacePolicy, ...] = ()
        self.understood: Mapping[str, Understood] = {}
        self.listing: Listing | None = None
        self.max_claim_percent = FULL_CLAIM_PERCENT
        if known := last_known.read():
            log.info("last known PeaceList in force", generation=known.generation)
            self._take(known)

    # --- what the agent asks ---

    @property
    def suspended(self) -> Suspension | None:
        return self._suspended

    def policies(self) -> tuple[PeacePolicy, ...]:
        return self._policies

    def poll(self) -> bool:
        newest = self._source.newest()
        if newest is None:
            return self._source.has_answered() and self._take_none()
        if newest.same_orders(self.listing):
            self._has_answer = True
            return False
        self._has_answer = True
        self._last_known.write(newest)
        self._take(newest)
        log.info(
            "PeaceList taken",
            generation=newest.generation,
            vms=len(self.pods),
            policies=",".join(self.understood) or "-",
            suspended=self._suspended.reason if self._suspended else "-",
        )
        return True

    def give(self, vm: Vm) -> None:
        if self._frozen:
            vm.standing, vm.hold = Standing(), self._frozen
            return
        listed = self.pods.get(vm.placement.pod_uid or "")
        if listed is None:
            vm.standing, vm.hold = Standing(), NOT_LISTED
            return
        vm.standing, vm.hold = self._standings[listed.uid]
        vm.name, vm.namespace, vm.labels = listed.name, listed.namespace, listed.labels
        vm.priority_class, vm.vcpus = listed.priority_class_value, listed.vcpus
        created = seconds_since_epoch(listed.creation_timestamp)
        if created is not None:
            vm.started = created - self._booted_at

    def review(self, vms: Iterable[Vm]) -> None:
        """A policy that selects nothing on one of many nodes is no news."""

    # --- what the API server says ---

    def _take(self, listing: Listing) -> None:
        self.listing = listing
        if listing.spec is None:
            reason = f"NotUnderstood: the PeaceList: {listing.problem}"
            log.error("PeaceList not understood", why=listing.problem)
            self._frozen = Hold(State.DEFERRED, reason, keeps=True)
            self._obey(PeaceListSpec(max_claim_percent=self.max_claim_percent))
        else:
            self._frozen = None
            self._obey(listing.spec)

    def _take_none(self) -> bool:
        """The API server has answered, and there is no PeaceList."""
        if self._has_answer and self.listing is None:
            return False
        log.warning("no PeaceList of this node: everything is restored")
        self._has_answer = True
        self.listing = None
        self._last_known.remove()
        self._frozen = None
        self._obey(PeaceListSpec(suspended=GONE))
        return True

    def _obey(self, spec: PeaceListSpec) -> None:
        before = self.understood
        self.understood = understand(spec.policies, before)
        for each in self.understood.values():
            known = before.get(each.listed.name)
            if each.problem and (known is None or known.problem != each.problem):
                log.error("policy not understood", policy=each.listed.name, why=each.problem)
        self._booted_at = time.time() - self._clock()
        self._policies = in_force(self.understood)
        self._suspended = spec.suspended
        self.max_claim_percent = spec.max_claim_percent
        self.pods.clear()
        self.pods.update({vm.pod_uid: vm for vm in spec.vms if vm.pod_uid})
        self._standings = {vm.uid: standing_of(vm, self.understood) for vm in spec.vms}
