"""Libvirt's machines, in scopes that systemd made: with a weight of their own, and without."""

import os

from lab import Fleet, Image, start, wait_for
from lab.agent import Agent
from lab.policy import put
from peacemaker.nice import k
from tests.guest.systemd import Units

BASELINE = 1000
NICE = 5


def test_a_machine_has_its_scope_as_its_own_cgroup(
    units: Units, fleet: Fleet, machine_agent: Agent
) -> None:
    # systemd-machined asks for delegation, so that the scope has all controllers.
    scope = units.machine("vm", ("Delegate", "b", "true"), ("CPUWeight", "t", str(BASELINE)))
    guest = fleet.keep(start("vm", cgroup=scope, image=Image.IDLE))
    machine_agent.write_policy(put(NICE))
    machine_agent.start()
    ours = round(BASELINE * k(NICE) / k(0))
    row = machine_agent.wait_row("vm", nice=NICE, weight=ours, baseline=BASELINE)
    assert row["cgroup"] == scope.path
    assert nices(guest.threads()) == {NICE}

    assert machine_agent.stop() == 0
    assert scope.weight() == ours
    done = machine_agent.call("restore")
    assert done.status == 0, done
    assert scope.weight() == BASELINE
    assert nices(guest.threads()) == {0}


def test_a_machine_whose_scope_has_no_weight_shares_a_cgroup_so_its_nice_alone_acts(
    units: Units, fleet: Fleet, machine_agent: Agent
) -> None:
    # No property of CPU anywhere in machine.slice: systemd leaves the cpu controller off in it,
    # and all machines' threads compete in one cgroup, where nice counts.
    scope = units.machine("vm")
    assert not scope.weight_file.exists()
    guest = fleet.keep(start("vm", cgroup=scope, image=Image.IDLE))
    machine_agent.write_policy(put(-NICE))
    machine_agent.start()
    row = machine_agent.wait_row("vm", nice=-NICE, weight=None, baseline=None)
    assert row["cgroup"] == scope.path
    wait_for(lambda: nices(guest.threads()) == {-NICE}, 10.0, "its threads to have the nice")

    assert machine_agent.stop() == 0
    assert machine_agent.call("restore").status == 0
    assert nices(guest.threads()) == {0}


def nices(threads: dict[int, str]) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, tid) for tid in threads}
