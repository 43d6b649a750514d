"""The paper's Table 1: a home for each of its thirteen functions, one test a row."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from peacemaker.engine import decide
from peacemaker_nodeagent.act import Actuator, thread_nices
from peacemaker_nodeagent.cgroup import Hierarchy, Membership, find_hierarchy, place
from peacemaker_nodeagent.discover import Scanner, describe
from peacemaker_nodeagent.passes import PolicyRun
from peacemaker_nodeagent.peace_list import PeaceList, Vm
from peacemaker_nodeagent.proc import Process, ProcessEnded, boot_id
from peacemaker_nodeagent.readings import Reading
from peacemaker_nodeagent.records import Journal
from peacemaker_nodeagent.sense import NodeSensor
from tests.unit.builders import moves, policy, rule, snapshot, vm

THREE = (vm("a", 0, usage=0.5), vm("b", 7, usage=0.1), vm("c", -7, usage=0.9))


def picked(pick: str) -> str:
    (uid,) = moves(decide(policy(rule(pick=pick)), snapshot(THREE)))
    return uid


@pytest.fixture
def scene() -> Iterator[ExitStack]:
    """Ends the processes that a test starts, by pid."""
    with ExitStack() as undo:
        yield undo


def start(scene: ExitStack, name: str = "sleep") -> subprocess.Popen[bytes]:
    """A real process that waits to be told to end, under a name of our choice."""
    code = f"open('/proc/self/comm', 'w').write({name!r}); print(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code, "-name", "guest=prod_web", "-smp", "4"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    scene.callback(child.__exit__, None, None, None)
    scene.callback(child.kill)
    assert child.stdout
    child.stdout.readline()
    return child


def listed(process: Process, uid: str | None = None) -> Vm:
    """A VM of the peace_list around a real process, without a cgroup of its own."""
    return Vm(
        process=process,
        uid=uid or f"{process.key.pid}-{process.key.start}",
        name="web",
        namespace="prod",
        labels={},
        started=0.0,
        placement=place("/"),
        own=None,
        vcpus=1,
    )


def reading() -> Reading:
    return Reading(NodeSensor().read(1.0), {})


def test_set_kvm_nice_is_the_nice_action_and_the_actuator(scene: ExitStack, tmp_path: Path) -> None:
    process = Process.open(start(scene).pid)
    scene.callback(process.close)
    asked = listed(process)
    (change,) = decide(policy(rule(nice="set: 4")), snapshot([vm(asked.uid)])).changes
    asked.nice = change.new
    actuator = Actuator(Journal(str(tmp_path), boot_id()))
    actuator.set_threads(asked, thread_nices(process), "test")
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 4


def test_get_kvm_nice_is_vm_nice_and_the_nice_of_its_threads(scene: ExitStack) -> None:
    child = start(scene)
    process = Process.open(child.pid)
    scene.callback(process.close)
    os.setpriority(os.PRIO_PROCESS, child.pid, 3)
    assert thread_nices(process) == {child.pid: 3}
    decision = decide(policy(rule(pick="where: vm.nice == 3")), snapshot([vm("a", 3), vm("b", 4)]))
    assert moves(decision) == {"a": (3, 4)}


def test_get_nr_kvms_is_the_length_of_the_peace_list_and_node_vmcount() -> None:
    process = Process.open(os.getpid())
    vms = PeaceList()
    assert len(vms) == 0
    vms.add(listed(process))
    assert len(vms) == 1
    run = PolicyRun(policy(rule(when="node.vmCount == 1")), due=0.0)
    run.run(reading(), [], "node", len(vms))
    assert run.trace
    assert run.trace.rules[0].when is True
    process.close()


def test_get_physical_cpus_loadavg_is_node_load1_load5_load15() -> None:
    per_cpu = [load / os.cpu_count() for load in os.getloadavg()]  # type: ignore[operator]
    close = " && ".join(
        f"node.{name} < {load + 1} && node.{name} > {load - 1}"
        for name, load in zip(("load1", "load5", "load15"), per_cpu, strict=True)
    )
    run = PolicyRun(policy(rule(when=close)), due=0.0)
    run.run(reading(), [], "node", 0)
    assert run.trace
    assert run.trace.rules[0].when is True


def test_get_max_kvms_nice_is_pick_highest_nice() -> None:
    assert picked("highest: vm.nice") == "b"


def test_get_min_kvms_nice_is_pick_lowest_nice() -> None:
    assert picked("lowest: vm.nice") == "c"


def test_get_max_kvms_prio_is_pick_highest_priority() -> None:
    assert picked("highest: vm.priority") == "c"


def test_get_min_kvms_prio_is_pick_lowest_priority() -> None:
    assert picked("lowest: vm.priority") == "b"


def test_get_max_kvms_usage_is_pick_highest_usage() -> None:
    assert picked("highest: vm.usage") == "c"


def test_get_min_kvms_usage_is_pick_lowest_usage() -> None:
    assert picked("lowest: vm.usage") == "b"


def test_search_pid_from_peace_list_is_find_pid(scene: ExitStack) -> None:
    vms = PeaceList()
    processes = [Process.open(pid) for pid in (os.getpid(), start(scene).pid)]
    for process in processes:
        scene.callback(process.close)
        vms.add(listed(process))
    for process in processes:
        found = vms.find_pid(process.pid)
        assert found
        assert found.process is process
        assert vms.get(found.uid) is found
    assert vms.find_pid(1) is None


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return find_hierarchy()


def test_add_kvm_list_is_discovery_at_the_start_of_a_vm(
    scene: ExitStack, hierarchy: Hierarchy
) -> None:
    scanner = Scanner()
    scanner.scan(0.0)
    child = start(scene, "qemu-system-x86")
    other = start(scene, "qemu-img")
    pids = set(scanner.scan(0.5))
    assert child.pid in pids
    assert other.pid not in pids
    (found,) = describe([child.pid, other.pid], Membership(hierarchy))
    scene.callback(found.process.close)
    assert (found.namespace, found.name, found.vcpus) == ("prod", "web", 4)
    assert found.process.pid == child.pid
    vms = PeaceList()
    vms.add(listed(found.process))
    assert vms.find_pid(child.pid)
    # Not reported again, unless everything is asked for.
    assert child.pid not in scanner.scan(1.0)
    assert child.pid in scanner.scan(1.5, everything=True)
    with pytest.raises(ValueError, match=r"prod/web .* is in the peace_list already"):
        vms.add(listed(found.process))
    with pytest.raises(ValueError, match="is in the peace_list already"):
        vms.add(listed(found.process, uid="another"))


def test_del_kvm_list_is_the_end_of_a_vm(scene: ExitStack) -> None:
    child = start(scene, "qemu-system-x86")
    process = Process.open(child.pid)
    scene.callback(process.close)
    vms = PeaceList()
    asked = listed(process)
    vms.add(asked)
    child.kill()
    child.wait()
    with pytest.raises(ProcessEnded):
        process.stat()
    vms.delete(asked)
    assert (len(vms), vms.find_pid(process.pid), vms.get(asked.uid)) == (0, None, None)
    with pytest.raises(KeyError):
        vms.delete(asked)


@pytest.mark.parametrize("ask", ["threads", "threads_if_changed"])
def test_del_kvm_list_a_process_that_has_ended_has_no_threads(scene: ExitStack, ask: str) -> None:
    child = start(scene)
    process = Process.open(child.pid)
    scene.callback(process.close)
    process.threads()
    child.kill()
    child.wait()
    with pytest.raises(ProcessEnded):
        getattr(process, ask)()
