"""Taking a VM into the peace_list: untouched, adopted where an earlier agent left it, or refused.

A record that is missing, torn or foreign never leads to a guess. Threads at nice 0 and no record
at all is an untouched VM; two whole records are adopted; anything else is left alone.
"""

from typing import Final

from peacemaker_nodeagent.act import thread_nices
from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.discover import Found
from peacemaker_nodeagent.drift import Drift
from peacemaker_nodeagent.own_cgroup import CgroupEnded, OwnCgroup, read_foreign_weight
from peacemaker_nodeagent.peace_list import Obstacle, State, Vm
from peacemaker_nodeagent.proc import ProcessEnded, is_sched_other
from peacemaker_nodeagent.records import Journal, RecordError

ADOPTED: Final = "adopted as an earlier run left it"


def adopt(
    found: Found,
    hierarchy: Hierarchy,
    journal: Journal,
    now: float,
    elder: Vm | None = None,
) -> Vm:
    """The VM of a discovered QEMU process.

    A cgroup is the own one of the VM that came first. What else calls itself QEMU in there shares
    that VM's weight, and is left alone: a tenant must not shake off a weight by starting it.

    Raises ProcessEnded, CgroupEnded; the process stays the caller's to close.
    """
    vm = Vm(
        process=found.process,
        uid=_uid(found, elder),
        name=found.name,
        namespace=found.namespace,
        started=found.started,
        placement=found.placement,
        own=None,
        vcpus=found.vcpus,
    )
    if found.placement.qos == "guaranteed":
        vm.obstacle = Obstacle(State.EXCLUDED, "GuaranteedQoS: its CPU time is promised to it")
    try:
        if elder:
            vm.obstacle = Obstacle(State.EXCLUDED, f"SharedCgroup: it is {elder.full_name}'s")
        elif found.placement.own is not None:
            vm.own = OwnCgroup.open(hierarchy, found.placement.own)
            vm.weight_found = vm.own.read_weight() if vm.own else None
        _take_records(vm, journal, now)
    except (RecordError, OSError) as error:
        vm.weight = vm.threads = None
        vm.obstacle = Obstacle(State.FAILED, f"UnknownBaseline: {error}")
    except (ProcessEnded, CgroupEnded):
        if vm.own:
            vm.own.close()
        raise
    if found.placement.container:
        container_weight = read_foreign_weight(hierarchy, found.placement.container)
        vm.drift = Drift(container_weight=container_weight)
    return vm


def _uid(found: Found, elder: Vm | None) -> str:
    """One name for as long as the process lives: in a pod found as such, the pod's uid."""
    key = found.process.key
    if found.name != found.placement.pod_uid:
        return f"{key.pid}-{key.start}"
    return f"{found.name}#{key.pid}" if elder else found.name


def _take_records(vm: Vm, journal: Journal, now: float) -> None:
    """Raises RecordError where records and threads do not tell one story."""
    weight = vm.own.read_record() if vm.own else None
    threads = journal.read(vm.process.key)
    if threads is None:
        _require_untouched_threads(vm)
    elif vm.own and weight is None and threads.nice != threads.baseline:
        # A nice of ours is recorded with the weight before it is with the threads.
        raise RecordError("the threads have a record of a nice and the cgroup has none")
    vm.weight, vm.threads = weight, threads
    if weight or threads:
        # A step under way when the last agent ended is finished: its nice is the VM's.
        vm.nice = weight.nice if weight else threads.nice if threads else 0
        vm.baseline_nice = threads.baseline if threads else 0
        vm.changed_at = now
        vm.reason = ADOPTED


def _require_untouched_threads(vm: Vm) -> None:
    for tid, nice in thread_nices(vm.process).items():
        if nice != 0 and is_sched_other(tid):
            raise RecordError(f"thread {tid} has nice {nice} and there is no record of it")


def close(vm: Vm) -> None:
    """Give back the VM's descriptors."""
    vm.process.close()
    if vm.own:
        vm.own.close()
        vm.own = None
