"""The lab itself: its guests burn, share and sleep as it says, and it leaves nothing behind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import (
    Fleet,
    Group,
    Image,
    Naming,
    Place,
    PodTree,
    Process,
    cpu_time,
    shares,
    spinner,
    stand_in,
    start,
    start_many,
    thread_cpu_time,
    wait_for,
    wake_delays,
)
from lab.processes import TIMEOUT, launch
from lab.qemu import MONITOR

CPU = max(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1000, 1000), 0.5), ((3000, 1000), 0.75)],
    ids=["equal weights", "weights 3:1"],
)
def test_guests_on_one_cpu_share_it_by_the_weights_of_their_pods(
    weights: tuple[int, int], expected: float
) -> None:
    with PodTree() as tree, Fleet() as fleet:
        first, second = (
            fleet.keep(start(f"vm-{i}", cgroup=tree.pod(weight=weight).leaf, cpus={CPU}))
            for i, weight in enumerate(weights)
        )
        assert shares([first.pid, second.pid], 3.0)[first.pid] == pytest.approx(expected, abs=0.1)


def test_every_vcpu_of_a_spinning_guest_burns() -> None:
    with Fleet() as fleet:
        guest = fleet.keep(start("smp", vcpus=2))
        vcpus = guest.vcpu_tids()
        assert [guest.threads()[tid] for tid in vcpus] == ["CPU 0/TCG", "CPU 1/TCG"]
        then = {tid: thread_cpu_time(guest.pid, tid) for tid in vcpus}
        wait_for(
            lambda: all(thread_cpu_time(guest.pid, tid) > then[tid] + 0.2 for tid in vcpus),
            TIMEOUT,
            "both vCPUs to burn",
        )


def test_idle_and_paused_guests_use_next_to_no_cpu_beside_a_spinning_one() -> None:
    with Fleet() as fleet:
        busy = fleet.keep(start("busy", cpus={CPU}))
        idle = fleet.keep(start("idle", vcpus=2, image=Image.IDLE))
        paused = fleet.keep(start("paused", vcpus=2, paused=True))
        assert len(paused.vcpu_tids()) == 2
        pids = [busy.pid, idle.pid, paused.pid]
        # QEMU's own start goes on for a moment after its vCPU threads are there.
        wait_for(lambda: shares(pids, 1.0)[busy.pid] > 0.95, TIMEOUT, "the others to be quiet")


def test_a_periodic_guest_wakes_a_thousand_times_a_second_and_says_how_late() -> None:
    with Fleet() as fleet:
        guest = fleet.keep(start("periodic", image=Image.PERIODIC, cpus={CPU}))
        stamps = wait_for(lambda: (s := guest.wake_stamps())[5000:] and s, TIMEOUT, "1,000 wakes")
        delays = sorted(wake_delays(stamps[:5000]))
        assert len(delays) == 999
        # A grid of 1 ms, read right: most wakes are late by far less than a period.
        assert 0.0 < delays[len(delays) // 2] < 0.001


@pytest.mark.parametrize(
    ("place", "own", "leaf"),
    [
        (lambda t: t.pod("a-b"), "kubepods/burstable/poda-b", "*"),
        (lambda t: t.pod("a-b", qos="guaranteed"), "kubepods/poda-b", "*"),
        (
            lambda t: t.pod("a-b", naming=Naming.SYSTEMD_CONTAINERD),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice",
            "cri-containerd-*.scope",
        ),
        (
            lambda t: t.pod("a-b", naming=Naming.SYSTEMD_CRUN, qos="besteffort", prefix="kubelet"),
            (
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
                "/kubelet-kubepods-besteffort-poda_b.slice"
            ),
            "crio-*.scope/container",
        ),
        (lambda t: t.machine("my-vm"), r"machine.slice/machine-qemu\x2d1\x2dmy\x2dvm.scope", ""),
        (
            lambda t: t.machine("vm", number=7, nested=True),
            r"machine.slice/machine-qemu\x2d7\x2dvm.scope",
            "libvirt/emulator",
        ),
    ],
    ids=["cgroupfs", "guaranteed", "containerd", "crun below a prefix", "libvirt", "nested"],
)
def test_places_are_named_as_kubelets_and_libvirt_name_them(
    place: Callable[[PodTree], Place], own: str, leaf: str
) -> None:
    with PodTree() as tree:
        made = place(tree)
        assert made.own.path == f"{tree.root}/{own}"
        assert Path(made.leaf.path).match(made.own.path.replace("\\", "?") + f"/{leaf}")
        made.own.set_weight(2000)
        assert made.own.weight() == 2000


def test_a_guest_can_be_the_child_of_a_virt_launcher_monitor_in_its_pod() -> None:
    with PodTree() as tree, Fleet() as fleet:
        pod = tree.pod()
        for process in (
            fleet.keep(start("vm", "ns", cgroup=pod.leaf, parent_comm=MONITOR)),
            fleet.keep(stand_in("light", "ns", cgroup=pod.leaf, parent_comm=MONITOR)),
        ):
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"PPid:\t{process.child.pid}\n" in status
            assert Path(f"/proc/{process.child.pid}/comm").read_text() == "virt-launcher-m\n"
            assert process.threads()[process.pid] == "qemu-system-x86"
            assert {process.pid, process.child.pid} <= pod.leaf.pids()
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            assert command[command.index(b"-name") + 1].startswith(b"guest=ns_")
            process.stop()
        assert not pod.leaf.pids()


def _everything(tree: PodTree, fleet: Fleet) -> tuple[list[Process], list[Group]]:
    shared = tree.group("shared")
    pods = [tree.pod(naming=naming).leaf for naming in Naming]
    processes = [
        *start_many([*pods, shared], vcpus=2),
        start("monitored", cgroup=shared, parent_comm=MONITOR, image=Image.IDLE),
        stand_in("light", cgroup=shared),
        spinner(shared, cpus={CPU}),
    ]
    for process in processes:
        fleet.keep(process)
    return processes, [Group(tree.root), shared, *pods]


@pytest.mark.parametrize("fails", [False, True], ids=["the normal way", "by an exception"])
def test_nothing_is_left_when_the_contexts_are_left(fails: bool) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    caught = False
    try:
        with PodTree() as tree, Fleet() as fleet:
            processes, groups = _everything(tree, fleet)
            assert all(cpu_time(process.pid) > 0 for process in processes)
            assert all(directory.is_dir() for group in groups for directory in group.directories)
            if fails:
                raise KeyError("on purpose")
    except KeyError:
        caught = True
    assert caught == fails
    pids = {pid for process in processes for pid in (process.pid, process.child.pid)}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not [d for group in groups for d in group.directories if d.exists()]
    del processes
    # Those kept for all guests: an image for each kind and a silent standard input.
    assert len(os.listdir("/proc/self/fd")) <= fds + 4


def test_a_guest_that_cannot_start_says_why_and_is_gone() -> None:
    with PodTree() as tree:
        group = tree.pod().leaf
        with pytest.raises(RuntimeError, match="Invalid SMP CPUs 9999"):
            start("bad", vcpus=9999, cgroup=group)
        assert not group.pids()
        with pytest.raises(RuntimeError, match="could not enter /no/such/group"):
            start("bad", cgroup=Group("/no/such/group"))
        with pytest.raises(FileNotFoundError, match="no-such-program is not installed"):
            launch(["no-such-program"])


def test_a_process_in_the_way_is_named_when_the_tree_cannot_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.cgroups.REMOVE_TIMEOUT", 0.1)
    tree = PodTree()
    with Fleet() as fleet, tree:
        busy = fleet.keep(stand_in("busy", cgroup=tree.group("busy")))
        with pytest.raises(TimeoutError, match=rf"processes \[{busy.pid}\] in {tree.root}/busy"):
            tree.remove()
        busy.stop()
    assert not any(directory.exists() for directory in Group(tree.root).directories)
