"""The node that the other tests stand on: VMs look as in KubeVirt there, and it leaves nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import wait_for
from node import Box, Node, Vm, cpu_shares, pin
from node.box import FOLDERS, PREFIX
from tests.node.scene import Scene

TIMEOUT = 60.0
ROOT = Path(__file__).parents[2]

MACHINE_WIDE = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory")
"""What a kubelet sets for the whole machine."""


def test_the_node_is_ready_and_its_pods_have_the_kernel_of_this_host(node: Node) -> None:
    (found,) = node.json("get", "nodes")["items"]
    assert found["metadata"]["name"] == node.name
    assert found["status"]["nodeInfo"]["kernelVersion"] == os.uname().release
    assert found["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://2.")
    assert "kubernetes.io/hostname" in found["metadata"]["labels"]


def test_a_vm_looks_as_it_does_in_kubevirt(node: Node, scene: Scene) -> None:
    vm = scene.vm("vm-a", cpu="100m", labels={"tier": "gold"})
    assert comm(vm.qemu) == "qemu-system-x86"
    assert comm(parent(vm.qemu)) == "virt-launcher-monitor"[:15]
    assert {"Uid:\t107\t107\t107\t107", "NoNewPrivs:\t1"} <= set(status(vm.qemu))
    command = Path(f"/proc/{vm.qemu}/cmdline").read_text().split("\0")
    assert "guest=default_vm-a,debug-threads=on" in command
    threads = {comm(int(task.name), vm.qemu) for task in Path(f"/proc/{vm.qemu}/task").iterdir()}
    assert {"qemu-system-x86", "CPU 0/TCG"} <= threads
    # All that is in the compute container, whose cgroup QEMU shares.
    assert {comm(pid) for pid in vm.leaf.pids()} == {
        "virt-launcher-m",
        "virt-launcher",
        "virtqemud",
        "virtlogd",
        "qemu-system-x86",
    }
    # The pod's weight counts its helpers' requests too (5m and 1m).
    assert (vm.own.weight(), vm.leaf.weight()) == (108, 102)
    # In the box, the kubelet's cgroups are at the top, where a node has them.
    inside = node.box.call("cat", f"/proc/{pid_inside(vm)}/cgroup")
    assert f":cpu:{vm.leaf.path.removeprefix(node.box.cgroup)}\n" in inside
    vmi = node.json("get", "vmi", "vm-a")
    assert vmi["metadata"]["labels"] == {"tier": "gold", "kubevirt.io/nodeName": node.name}
    assert vmi["status"]["activePods"] == {vm.pod_uid: node.name}
    assert (vmi["status"]["phase"], vmi["status"]["nodeName"]) == ("Running", node.name)
    assert vmi["metadata"]["uid"] == vm.uid


def test_a_container_ends_with_its_qemu(node: Node, scene: Scene) -> None:
    vm = scene.vm("short-lived")
    os.kill(vm.qemu, signal.SIGKILL)

    def states() -> Iterator[str]:
        for each in node.json("get", "pod", vm.pod)["status"]["containerStatuses"]:
            for state in each["state"]:
                yield f"{each['name']} {state}"

    wanted = {"compute terminated", "volumekernel-boot-volume running"}
    node.wait(lambda: wanted == set(states()), "the kubelet to say so", TIMEOUT)
    assert not Path(f"/proc/{vm.qemu}").exists()


def test_pods_share_a_cpu_by_their_requests_and_a_resize_in_place_moves_it(
    node: Node, scene: Scene
) -> None:
    small, large = scene.vm("small", cpu="100m"), scene.vm("large", cpu="300m")
    for vm in (small, large):
        pin(vm, {0})
    assert (small.own.weight(), large.own.weight()) == (108, 313)
    assert cpu_shares([small, large], seconds=3.0)["large"] == pytest.approx(0.74, abs=0.05)
    scene.resize(small, "900m")
    node.wait(lambda: small.own.weight() == 927, "the kubelet to resize the pod's cgroup")
    assert cpu_shares([small, large], seconds=3.0)["large"] == pytest.approx(0.25, abs=0.05)


def test_pods_run_on_without_the_kubelet_and_a_new_one_takes_them_over(
    node: Node, scene: Scene
) -> None:
    vm = scene.vm("steady")
    node.stop_kubelet()
    try:
        assert cpu_shares([vm], seconds=0.5) == {"steady": 1.0}
    finally:
        node.start_kubelet()
    later = scene.vm("later")
    assert Path(f"/proc/{vm.qemu}").exists()
    assert vm.own.weight() == later.own.weight()


def test_a_node_leaves_nothing(node: Node) -> None:
    """`node` is not used up by it: two nodes can be there at a time."""
    before = machine_wide()
    with Node("other") as other:
        name = other.box.name
        assert traces(name)
        assert machine_wide() == before
        # In the box, the kubelet has had its way.
        assert other.box.call("cat", "/proc/sys/kernel/panic").strip() == "10"
    assert traces(name) == []
    assert machine_wide() == before
    assert not Path("/sys/class/net/cni0").exists()
    node.must_run()


def test_a_node_whose_user_is_killed_dies_with_it_and_the_next_box_clears_up() -> None:
    path = os.pathsep.join(str(ROOT / folder) for folder in ("", "tools"))
    user = subprocess.Popen(
        [sys.executable, "-m", "node"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert user.stdout is not None
        assert user.stdout.readline().startswith("ready")
        (folder,) = FOLDERS.glob(f"{PREFIX}-{user.pid}-*")
        assert processes(folder.name)
    finally:
        user.kill()
        user.communicate()
    wait_for(lambda: not processes(folder.name), TIMEOUT, "its processes to end")
    with Box():
        assert traces(folder.name) == []


def traces(name: str) -> list[str]:
    """What there is of a box of this name: processes, cgroups, mounts, interfaces, folders."""
    mark = name.rpartition("-")[2]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [*processes(name), *(line for line in mounts if name in line)]
    found += map(str, Path("/sys/fs/cgroup").glob(f"**/{name}"))
    found += map(str, Path("/sys/class/net").glob(f"*{mark}*"))
    found += map(str, FOLDERS.glob(f"{name}*"))
    return found


def processes(name: str) -> list[str]:
    """The processes in the cgroup of a box."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{name}" in (directory / "cgroup").read_text():
                found.append(f"{directory.name} {(directory / 'comm').read_text().strip()}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def machine_wide() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text() for name in MACHINE_WIDE}


def status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def parent(pid: int) -> int:
    (line,) = (line for line in status(pid) if line.startswith("PPid:"))
    return int(line.split()[1])


def pid_inside(vm: Vm) -> int:
    """QEMU's pid as the box numbers it: of its three namespaces, the box's is the second."""
    (line,) = (line for line in status(vm.qemu) if line.startswith("NSpid:"))
    return int(line.split()[2])


def comm(tid: int, pid: int | None = None) -> str:
    return Path(f"/proc/{pid or tid}/task/{tid}/comm").read_text().rstrip("\n")
