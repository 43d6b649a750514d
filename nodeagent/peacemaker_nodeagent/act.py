"""The writer: the one place where a nice or a weight is written.

Every step reads just before it writes, records before it writes, and confirms after. A value that
is neither ours nor the baseline is not overwritten: housekeeping judges it.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from peacemaker_kube import log
from peacemaker_nodeagent.own_cgroup import CgroupEnded, OwnCgroup
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.proc import Process, ProcessEnded, is_sched_other
from peacemaker_nodeagent.records import Journal, ThreadRecord, WeightRecord


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did to one actuator, for people: `what` is weight or threads."""

    what: str
    found: str
    now: str
    note: str = ""


@dataclass(slots=True)
class Tally:
    """How often what was done and found since the agent started.

    `thread_writes` counts threads. A record that was taken back is one restore. `failures` are
    VMs' attempts that the kernel refused.
    """

    weight_writes: int = 0
    thread_writes: int = 0
    weight_restores: int = 0
    thread_restores: int = 0
    failures: int = 0
    reasserts: int = 0
    rebases: int = 0
    thread_corrections: int = 0
    contests: int = 0


class Actuator:
    """Writes to VMs and keeps both records true. One audit line a write."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.tally = Tally()

    def set_weight(self, vm: Vm, own: OwnCgroup, weight: int, why: str) -> None:
        """Bring the VM's own cgroup to `weight` and its record to the VM's nice.

        Raises OSError where the kernel refuses, CgroupEnded where the cgroup is gone.
        """
        begin = time.perf_counter()
        found = own.read_weight()
        record = vm.weight or WeightRecord(baseline=found, confirmed=found, nice=vm.nice)
        if not record.is_ours(found) and found != record.baseline:
            return
        if found == weight:
            vm.weight = replace(record, confirmed=weight, pending=None, nice=vm.nice)
            own.write_record(vm.weight)
            return
        # The step starts from what was just read, also where the one before was not confirmed.
        pending = replace(record, confirmed=found).with_pending(weight, vm.nice)
        own.write_record(pending)
        vm.weight = pending
        own.write_weight(weight)
        vm.weight = pending.with_confirmed()
        own.write_record(vm.weight)
        vm.weight_found = weight
        self.tally.weight_writes += 1
        _audit(vm, "weight", found, weight, why, begin)

    def rebase(self, vm: Vm, own: OwnCgroup, found: int) -> None:
        """Take a weight that somebody else wrote as the VM's new baseline."""
        vm.weight = WeightRecord(baseline=found, confirmed=found, nice=vm.nice)
        own.write_record(vm.weight)

    def set_threads(self, vm: Vm, off: dict[int, int], why: str) -> None:
        """Bring the threads in `off` (tid: nice now) to the VM's thread nice.

        Raises OSError where the kernel refuses, ProcessEnded where QEMU has ended.
        """
        begin = time.perf_counter()
        target = vm.thread_nice
        record = vm.threads or self._new_thread_record(vm)
        if record.pending not in (None, target):
            # A step that an earlier agent did not end: threads may hold either value. Both stay
            # known as ours until all hold one.
            for tid in off:
                _set_nice(vm.process, tid, record.pending)
            record = record.with_confirmed()
        elif not off and record.confirmed == target and record.nice == vm.nice:
            return
        pending = record.with_pending(target, vm.nice)
        self._journal.write(pending)
        vm.threads = pending
        for tid in off:
            _set_nice(vm.process, tid, target)
        vm.threads = pending.with_confirmed()
        self._journal.write(vm.threads)
        self.tally.thread_writes += len(off)
        if off:
            old = ",".join(map(str, sorted(set(off.values()))))
            _audit(vm, "threads", old, target, why, begin, count=len(off))

    def _new_thread_record(self, vm: Vm) -> ThreadRecord:
        threads = {}
        for tid, nice in thread_nices(vm.process).items():
            with suppress(ProcessEnded):
                if is_sched_other(tid):
                    threads[tid] = (vm.process.thread_stat(tid).start, nice)
        return ThreadRecord(
            boot=self._journal.boot,
            key=vm.process.key,
            baseline=vm.baseline_nice,
            confirmed=vm.baseline_nice,
            nice=vm.nice,
            threads=threads,
        )

    def restore(self, vm: Vm, why: str) -> list[Restored]:
        """Put back what was recorded, where it is still ours, and forget the records.

        Threads first: a weight record without a thread record is a state that adoption knows.
        """
        done = self.restore_threads(vm, why)
        done += self.restore_weight(vm, why)
        vm.nice = vm.baseline_nice
        vm.changed_at = None
        vm.share = None
        return done

    def restore_threads(self, vm: Vm, why: str) -> list[Restored]:
        """Raises OSError where the kernel refuses."""
        if vm.threads is None:
            return []
        begin = time.perf_counter()
        done = restore_threads(vm.process, vm.threads)
        self._journal.remove(vm.process.key)
        vm.threads = None
        vm.settled_threads.clear()
        self.tally.thread_restores += 1
        _audit_restored(vm.full_name, done, why, begin)
        return done

    def restore_weight(self, vm: Vm, why: str) -> list[Restored]:
        """Raises OSError where the kernel refuses."""
        if vm.weight is None or vm.own is None:
            return []
        begin = time.perf_counter()
        done = restore_weight(vm.own, vm.weight)
        vm.weight_found = int(done[-1].now) if done else vm.weight.baseline
        vm.weight = None
        self.tally.weight_restores += 1
        _audit_restored(vm.full_name, done, why, begin)
        return done

    def forget_threads(self, vm: Vm) -> None:
        """QEMU has ended: its threads need nothing any more."""
        self._journal.remove(vm.process.key)
        vm.threads = None


def thread_nices(process: Process) -> dict[int, int]:
    """Nice of each thread, of real-time ones too (their nice means nothing).

    Raises ProcessEnded.
    """
    nices = {}
    for tid in process.threads_if_changed():
        try:
            nices[tid] = os.getpriority(os.PRIO_PROCESS, tid)
        except ProcessLookupError:
            return {tid: nice for tid in process.threads() if (nice := _nice(tid)) is not None}
    return nices


def _nice(tid: int) -> int | None:
    try:
        return os.getpriority(os.PRIO_PROCESS, tid)
    except ProcessLookupError:
        return None


def _set_nice(process: Process, tid: int, nice: int) -> None:
    """Real-time threads are never touched, nor who has the id of a thread that has just ended."""
    if process.has_thread(tid) and is_sched_other(tid):
        try:
            os.setpriority(os.PRIO_PROCESS, tid, nice)
        except ProcessLookupError:
            return
        except PermissionError as error:
            needs = "to change another user's nice takes CAP_SYS_NICE"
            raise PermissionError(error.errno, f"{error.strerror}: {needs}") from None


def restore_threads(process: Process, record: ThreadRecord) -> list[Restored]:
    """Give every thread that still has our nice the one it had. Raises OSError."""
    before: set[int] = set()
    after: set[int] = set()
    left: dict[int, int] = {}
    try:
        nices = thread_nices(process)
    except ProcessEnded:
        return []
    for tid, nice in nices.items():
        try:
            baseline = record.baseline_of(tid, process.thread_stat(tid).start)
        except ProcessEnded:
            continue
        if nice == baseline:
            continue
        if not record.is_ours(nice):
            left[tid] = nice
            continue
        _set_nice(process, tid, baseline)
        before.add(nice)
        after.add(baseline)
    note = f"left {left}: changed by somebody else" if left else ""
    return [Restored("threads", _numbers(before), _numbers(after), note)] if after or left else []


def restore_weight(own: OwnCgroup, record: WeightRecord) -> list[Restored]:
    """Write the baseline if the weight is still ours, and remove the record. Raises OSError."""
    try:
        found = own.read_weight()
        if record.is_ours(found) and found != record.baseline:
            own.write_weight(record.baseline)
            done = [Restored("weight", str(found), str(record.baseline))]
        elif found == record.baseline:
            done = []
        else:
            done = [Restored("weight", str(found), str(found), "left: changed by somebody else")]
        own.remove_record()
    except CgroupEnded:
        return []
    return done


def _numbers(values: set[int]) -> str:
    return ",".join(map(str, sorted(values)))


def _audit(
    vm: Vm, what: str, old: object, new: object, why: str, begin: float, **more: object
) -> None:
    took = round((time.perf_counter() - begin) * 1e6)
    log.info("write", vm=vm.full_name, what=what, old=old, new=new, why=why, us=took, **more)


def _audit_restored(name: str, done: list[Restored], why: str, begin: float) -> None:
    took = round((time.perf_counter() - begin) * 1e6)
    for step in done:
        log.info(
            "restore", vm=name, what=step.what, old=step.found, new=step.now, why=why, us=took,
            note=step.note or "-",
        )  # fmt: skip
