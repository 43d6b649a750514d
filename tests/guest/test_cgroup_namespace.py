"""The agent in a cgroup namespace of its own, as in a container: it sees and moves the same VMs."""

import ctypes
import os
import subprocess
from collections.abc import Callable

import pytest

from lab import Fleet, Image, start
from lab.agent import Agent
from lab.policy import put
from peacemaker.nice import k
from tests.guest.systemd import Units, call

BASELINE = 1000
NICE = 5
OURS = round(BASELINE * k(NICE) / k(0))

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), f"unshare({flags:#x})")


def private_cgroups() -> None:
    unshare(CLONE_NEWCGROUP)


def private_cgroups_mounts_and_proc() -> None:
    unshare(CLONE_NEWCGROUP | CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)


@pytest.mark.parametrize("prepare", [private_cgroups, private_cgroups_mounts_and_proc])
def test_the_agent_sees_and_moves_the_same_vms_from_a_cgroup_namespace_of_its_own(
    units: Units, fleet: Fleet, machine_agent: Agent, prepare: Callable[[], None]
) -> None:
    pods = [units.pod(BASELINE) for _ in range(2)]
    early = fleet.keep(start("early", cgroup=pods[0].leaf, image=Image.IDLE))
    machine_agent.write_policy(put(NICE))
    machine_agent.start(prepare=prepare)
    enter = ["nsenter", f"--target={machine_agent.pid}", "--cgroup"]
    seen = call(*enter, "cat", f"/proc/{early.pid}/cgroup")
    assert seen.startswith("0::/../"), "the namespace is not private"
    machine_agent.wait_row("early", nice=NICE, weight=OURS, cgroup=pods[0].own.path)
    late = fleet.keep(start("late", cgroup=pods[1].leaf, image=Image.IDLE))
    machine_agent.wait_row("late", nice=NICE, weight=OURS, cgroup=pods[1].own.path)
    assert [pod.own.weight() for pod in pods] == [OURS, OURS]
    for guest in (early, late):
        assert {os.getpriority(os.PRIO_PROCESS, tid) for tid in guest.threads()} == {NICE}
    late.stop()
    machine_agent.wait_event("vm ended", vm="default/late")

    assert machine_agent.stop() == 0
    assert machine_agent.call("restore", prepare=prepare).status == 0
    assert [pod.own.weight() for pod in pods] == [BASELINE, BASELINE]
