"""Settling: bring every VM to what its governor's nice means, and keep it there.

Called after anything that may move a weight (a VM, a policy, a decision) and every 15 seconds for
its own sake: read back, judge what others wrote, guard the claim, write what differs.
"""

import errno
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from typing import Final, TypeVar

from peacemaker.claim import Claimant, Share, guard, is_off
from peacemaker.nice import effective_nice
from peacemaker_kube import log
from peacemaker_nodeagent.act import Actuator, thread_nices
from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.drift import THREAD_CORRECTIONS, Finding, judge
from peacemaker_nodeagent.own_cgroup import (
    IDLE_WEIGHTS,
    CgroupEnded,
    OwnCgroup,
    read_foreign_weight,
)
from peacemaker_nodeagent.peace_list import Obstacle, State, Vm
from peacemaker_nodeagent.proc import ProcessEnded, is_sched_other

_T = TypeVar("_T")
_Claim = list[tuple[str, int, int, int | None]]
"""What the guard's answer below one parent depends on: each VM's uid, baseline, nice and, if it is
frozen, weight."""

_CPU_IDLE: Final = "CpuIdle: cpu.idle is set on its cgroup, which then has no weight"


class Settler:
    """Holds what settling needs from one time to the next: the writer and the hierarchy."""

    def __init__(self, actuator: Actuator, hierarchy: Hierarchy, max_claim_percent: int) -> None:
        self._actuator = actuator
        self._tally = actuator.tally
        self._hierarchy = hierarchy
        self._max_claim_percent = max_claim_percent
        self._claims: dict[str, _Claim] = {}

    def allow(self, max_claim_percent: int) -> None:
        """How far the claims may grow from the next settling on."""
        if max_claim_percent != self._max_claim_percent:
            self._max_claim_percent = max_claim_percent
            self._claims.clear()

    def settle(self, vms: Iterable[Vm], now: float, moved: Container[str] | None = None) -> None:
        """One settling of all the node's VMs; `now` in seconds since boot.

        After a decision, `moved` names the VMs (uids) whose nice has changed: they are read back,
        and the others only written where the claim moves their weight.
        """
        governed = []
        frozen = []
        for vm in vms:
            self._check_idle(vm)
            if vm.is_frozen:
                frozen.append(vm)
            elif self._take_over(vm, now):
                governed.append(vm)
        if moved is None:
            for vm in frozen:
                self._attempt(vm, self._look_at_frozen, now)
        looked_at = [vm for vm in governed if moved is None or vm.uid in moved]
        findings = {vm.uid: self._attempt(vm, self._read_back, now) for vm in looked_at}
        self._share_claims(governed, frozen)
        for vm in governed:
            if vm.uid not in findings:
                if not (vm.share and is_off(vm.weight_found or 0, vm.share.weight)):
                    continue
                findings[vm.uid] = self._attempt(vm, self._read_back, now)
            if vm.governor is not None:
                self._attempt(vm, self._write, findings[vm.uid])

    def _attempt(
        self, vm: Vm, step: Callable[[Vm, _T], Finding | None], argument: _T
    ) -> Finding | None:
        """One VM's trouble is its own: it is told, and the others go on."""
        try:
            return step(vm, argument)
        except ProcessEnded:
            return None  # its pidfd tells of its end
        except CgroupEnded:
            vm.write_failure = "CgroupEnded: its cgroup, or the weight of it, is gone"
            return None
        except OSError as error:
            if error.errno == errno.EINVAL and vm.own and vm.own.is_idle():
                vm.obstacle = Obstacle(State.EXCLUDED, _CPU_IDLE)
                return None
            self._tally.failures += 1
            failure = f"WriteFailed: {error.strerror}"
            if vm.write_failure != failure:
                log.error("write failed", vm=vm.full_name, why=failure)
            vm.write_failure = failure
            return None

    def _check_idle(self, vm: Vm) -> None:
        if vm.obstacle and vm.obstacle.reason == _CPU_IDLE and vm.own and not vm.own.is_idle():
            vm.obstacle = None

    def _take_over(self, vm: Vm, now: float) -> bool:
        """Hand-over, clamping, restoring: whether the VM is governed."""
        governor = vm.governor
        if governor is None:
            if vm.is_touched:
                self._attempt(vm, self._restore, _why_restored(vm))
            else:
                vm.write_failure = None
            return False
        nice = governor.bounds.clamp(vm.nice)
        if nice != vm.nice:
            vm.reason = f"{governor.name}: nice {vm.nice} clamped to its bounds"
            vm.nice = nice
            vm.changed_at = now
        return True

    def _look_at_frozen(self, vm: Vm, now: float) -> None:
        """Nothing is judged and nothing written, but for one that is to drain."""
        if vm.own:
            vm.weight_found = vm.own.read_weight()
        if vm.hold and vm.hold.drains:
            self._free(vm, vm.hold.reason, now)
        vm.write_failure = None

    def _free(self, vm: Vm, why: str, now: float) -> None:
        """Where its nice or weight holds it back, it gets its baseline."""
        if vm.nice > vm.baseline_nice:
            vm.reason = f"{why}: nice {vm.nice} back to {vm.baseline_nice}"
            vm.nice = vm.baseline_nice
            vm.changed_at = now
        if vm.own and vm.weight and vm.weight_found is not None:
            weight = max(vm.weight_found, vm.weight.baseline)
            if weight != vm.weight_found or vm.weight.nice != vm.nice:
                self._actuator.set_weight(vm, vm.own, weight, why)
        if vm.threads:
            held_back = {
                tid: nice
                for tid, nice in thread_nices(vm.process).items()
                if nice > vm.thread_nice and vm.threads.is_ours(nice) and is_sched_other(tid)
            }
            self._actuator.set_threads(vm, held_back, why)

    def _restore(self, vm: Vm, why: str) -> None:
        self._actuator.restore(vm, why)
        vm.write_failure = None
        vm.reason = f"restored: {why}"

    def _read_back(self, vm: Vm, now: float) -> Finding | None:
        """Judge the weight found."""
        if vm.own is None:
            return None
        found = vm.own.read_weight()
        if found in IDLE_WEIGHTS and vm.own.is_idle():
            vm.obstacle = Obstacle(State.EXCLUDED, _CPU_IDLE)
            return None
        vm.weight_found = found
        if vm.weight is None or vm.weight.is_ours(found):
            return Finding.OURS
        container = vm.placement.container
        container_weight = read_foreign_weight(self._hierarchy, container) if container else None
        finding, vm.drift = judge(vm.weight, found, container_weight, vm.drift, now)
        if finding is Finding.REBASE:
            self._tally.rebases += 1
            log.info("rebase", vm=vm.full_name, old=vm.weight.baseline, new=found)
            self._actuator.rebase(vm, vm.own, found)
            vm.reason = f"new baseline {found}: somebody else wrote the weight"
        elif finding is Finding.REASSERT:
            self._tally.reasserts += 1
            log.info("reassert", vm=vm.full_name, found=found, ours=vm.weight.confirmed)
        elif finding is Finding.CONTESTED:
            self._contest(vm, f"weight {found} is not ours, for the third time in ten minutes")
        return finding

    def _share_claims(self, governed: Iterable[Vm], frozen: Iterable[Vm]) -> None:
        parents: dict[str, list[Vm]] = defaultdict(list)
        for vm in (*governed, *frozen):
            takes_part = vm.governor or vm.is_frozen
            if takes_part and vm.placement.parent and vm.own and vm.baseline_weight:
                parents[vm.placement.parent].append(vm)
            else:
                vm.share = None
        claims = {}
        for parent, members in parents.items():
            claim = claims[parent] = [
                (vm.uid, vm.baseline_weight or 0, vm.nice, vm.weight_found if vm.hold else None)
                for vm in members
            ]
            if claim == self._claims.get(parent):
                continue  # nothing that it depends on has changed
            claimants = [
                Claimant(uid, baseline, nice, vm.baseline_nice, frozen_weight)
                for (uid, baseline, nice, frozen_weight), vm in zip(claim, members, strict=True)
            ]
            shares = guard(claimants, self._hierarchy.weights, self._max_claim_percent)
            for vm in members:
                vm.share = shares.get(vm.uid) or _share_of_frozen(vm)
        self._claims = claims

    def _write(self, vm: Vm, finding: Finding | None) -> None:
        if vm.own and vm.share:
            self._write_weight(vm, vm.own, vm.share.weight, finding)
        self._write_threads(vm)
        vm.write_failure = None

    def _write_threads(self, vm: Vm) -> None:
        target = vm.thread_nice
        nices = thread_nices(vm.process)
        off = {tid: nice for tid, nice in nices.items() if nice != target and is_sched_other(tid)}
        if off and (moved := self._moved_by_others(vm, off)):
            if vm.drift.thread_corrections >= THREAD_CORRECTIONS:
                self._contest(vm, f"somebody else sets its threads' nice again: {moved}")
                return
            log.warning("thread nice corrected", vm=vm.full_name, found=moved, ours=target)
            vm.drift = vm.drift.with_thread_correction()
            self._tally.thread_corrections += 1
        if off or vm.threads:
            self._actuator.set_threads(vm, off, vm.reason)
        vm.settled_threads = set(nices)

    def _write_weight(self, vm: Vm, own: OwnCgroup, weight: int, finding: Finding | None) -> None:
        """Write the weight if it is off, or if it stands for another nice than recorded."""
        is_new_nice = vm.nice != (vm.weight.nice if vm.weight else vm.baseline_nice)
        if finding is Finding.WAIT and not is_new_nice:
            return
        if is_new_nice or is_off(vm.weight_found or 0, weight):
            reassert = "put back after a reset to the baseline"
            why = reassert if finding is Finding.REASSERT else vm.reason
            self._actuator.set_weight(vm, own, weight, why)

    def _moved_by_others(self, vm: Vm, off: dict[int, int]) -> str:
        """Threads that we left at our nice and find at another, in words; empty if none."""
        moved = (
            f"{tid} at {nice}"
            for tid, nice in off.items()
            if tid in vm.settled_threads
            and not (vm.threads.is_ours(nice) if vm.threads else nice == vm.baseline_nice)
        )
        return ", ".join(moved)

    def _contest(self, vm: Vm, why: str) -> None:
        """Hands off: what is ours goes back, what is somebody else's stays as it was found."""
        self._tally.contests += 1
        reason = f"Contested: {why}"
        log.warning("contested", vm=vm.full_name, why=why)
        self._actuator.restore(vm, reason)
        vm.obstacle = Obstacle(State.CONTESTED, reason)
        vm.reason = reason


def _why_restored(vm: Vm) -> str:
    if vm.obstacle:
        return vm.obstacle.reason
    if vm.suspended:
        return vm.suspended.reason
    return vm.hold.reason if vm.hold else "no policy governs it"


def _share_of_frozen(vm: Vm) -> Share:
    """What it has is what it is granted."""
    weight, baseline = vm.weight_found or 0, vm.baseline_weight or 1
    return Share(weight, weight, False, effective_nice(weight, baseline, vm.baseline_nice))
