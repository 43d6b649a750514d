"""Discovery: QEMU is found wherever it runs, as the VM that it is, soon, and for as long."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab import Fleet, Naming, Place, PodTree, cgroup_version, start, start_many, wait_for
from lab.agent import Agent, Row
from lab.policy import policy, put, rule
from lab.processes import TIMEOUT, launch
from lab.qemu import BINARY, MONITOR
from tests.kernel.scene import cgroups, is_untouched, journal, launch_as, nices

PROMPT = 2.0
"""Seconds in which a look around, two a second, must have shown its result."""

BASELINE = 1234

Make = Callable[[PodTree], Place]

OWN: dict[str, Make] = {
    "kubelet, cgroupfs": lambda t: t.pod(weight=BASELINE),
    "kubelet, cgroupfs, besteffort": lambda t: t.pod(qos="besteffort", weight=BASELINE),
    "nested kubelet, cgroupfs": lambda t: t.pod(prefix="kubelet", weight=BASELINE),
    "kubelet, systemd, containerd": lambda t: t.pod(
        naming=Naming.SYSTEMD_CONTAINERD, weight=BASELINE
    ),
    "kubelet, systemd, CRI-O": lambda t: t.pod(naming=Naming.SYSTEMD_CRIO, weight=BASELINE),
    "kubelet, systemd, crun": lambda t: t.pod(naming=Naming.SYSTEMD_CRUN, weight=BASELINE),
    "nested kubelet, systemd": lambda t: t.pod(
        naming=Naming.SYSTEMD_CONTAINERD, prefix="kubelet", weight=BASELINE
    ),
    "libvirt's scope": lambda t: t.machine("a-vm", weight=BASELINE),
    "libvirt's scope, nested": lambda t: t.machine("vm", number=7, nested=True, weight=BASELINE),
}


class Seen(NamedTuple):
    """One VM of each place, as the agent lists it."""

    row: Row
    place: Place


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    """All places at once, each with one VM, seen by an agent that governs none of them."""
    with PodTree() as tree, Fleet() as fleet:
        places = {scheme: make(tree) for scheme, make in OWN.items()}
        guests = [fleet.keep(g) for g in start_many([p.leaf for p in places.values()], vcpus=1)]
        with Agent(tmp_path_factory.mktemp("agent"), tree.root) as agent:
            agent.start()
            rows = {row["pid"]: row for row in agent.rows().values()}
            yield {
                scheme: Seen(rows[guest.pid], place)
                for guest, (scheme, place) in zip(guests, places.items(), strict=True)
            }


@pytest.mark.parametrize("scheme", OWN)
def test_a_vm_has_the_cgroup_that_kubelets_and_libvirt_gave_it(
    scheme: str, seen: dict[str, Seen]
) -> None:
    row, place = seen[scheme]
    assert row["cgroup"] == place.own.path
    assert (row["weight"], row["baseline"]) == (BASELINE, BASELINE)
    assert (row["state"], row["reason"]) == ("Unmanaged", "no policy governs it")


def test_without_a_scheme_there_is_no_own_cgroup(tree: PodTree, fleet: Fleet, agent: Agent) -> None:
    plain = tree.group("some/where")
    fleet.keep(start("a", cgroup=plain, paused=True))
    agent.start()
    row = agent.row("a")
    assert (row["cgroup"], row["weight"], row["baseline"]) == (plain.path, None, None)


def test_name_namespace_and_vcpus_are_those_of_the_vm(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    named = fleet.keep(
        start("my_vm", "team", cgroup=tree.pod().leaf, vcpus=3, paused=True, parent_comm=MONITOR)
    )
    unnamed = fleet.keep(
        start("b", cgroup=tree.pod().leaf, vcpus=2, paused=True, debug_threads=False)
    )
    agent.start()
    rows = agent.rows()
    assert rows.keys() == {"team/my_vm", "default/b"}
    for row, pid, vcpus in (
        (rows["team/my_vm"], named.pid, 3),
        (rows["default/b"], unnamed.pid, 2),
    ):
        assert (row["pid"], row["vcpus"]) == (pid, vcpus)


def test_a_process_that_becomes_qemu_late_is_found_soon_after(
    tree: PodTree, fleet: Fleet, agent: Agent, tmp_path: Path
) -> None:
    agent.start()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # The shell is seen as a shell, by several looks, before it becomes QEMU.
    script = f'read _ < {gate}; exec "$@"'
    options = ("-nodefaults", "-display", "none", "-S", "-m", "8", "-accel", "tcg,tb-size=1")
    words = (BINARY, "-name", "guest=default_late", *options)
    shell = fleet.keep(launch(["sh", "-c", script, "sh", *words], cgroup=tree.pod().leaf))
    passes = agent.mark()
    agent.write_policy(put(0))
    agent.wait_event("policies read", since=passes)
    assert not agent.rows()
    gate.write_text("go\n")
    wait_for(lambda: shell.threads()[shell.pid].startswith("qemu"), TIMEOUT, "exec")
    agent.wait_row("late", PROMPT, pid=shell.pid)


def test_a_vm_is_in_the_list_soon_after_its_start_and_gone_soon_after_its_end(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    agent.start()
    ended = fleet.keep(start("ended", cgroup=tree.pod().leaf, paused=True))
    zombie = fleet.keep(start("zombie", cgroup=tree.pod().leaf, paused=True))
    for guest in (ended, zombie):
        agent.wait_row(guest.name, PROMPT, pid=guest.pid)
    ended.stop()
    os.kill(zombie.pid, signal.SIGKILL)
    agent.wait(lambda: not agent.rows(), "both to be gone", PROMPT)
    # Nobody has reaped it: it is there still, and is not found again.
    assert zombie.child.returncode is None
    state = Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z"
    agent.edit(put(0))
    assert not agent.rows()


def test_a_guaranteed_pod_is_excluded_and_never_written(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(qos="guaranteed", weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    other = fleet.keep(start("b", cgroup=tree.pod().leaf, paused=True))
    agent.write_policy(put(10))
    agent.start()
    agent.wait_row("b", nice=10)
    row = agent.row("a")
    assert (row["state"], row["policy"], row["nice"]) == ("Excluded", None, 0)
    assert "GuaranteedQoS" in row["reason"]
    assert is_untouched(guest, place.own, BASELINE)
    assert nices(other) == {10}


def test_a_second_qemu_in_a_pod_does_not_shake_off_the_pods_weight(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=BASELINE)
    first = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_row("a", nice=5, weight=404)
    second = fleet.keep(start("b", cgroup=place.leaf, paused=True))
    row = agent.wait_row("b", state="Excluded")
    assert row["reason"] == "SharedCgroup: it is default/a's"
    # A new agent finds both at once, and comes to the same.
    agent.kill()
    agent.start()
    agent.wait_row("a", state="Managed", nice=5, weight=404)
    agent.wait_row("b", state="Excluded")
    assert (nices(first), nices(second)) == ({5}, {0})
    # The second becomes the first when the first ends; the weight is its own from now on.
    first.stop()
    agent.wait_row("b", state="Managed", nice=5, weight=404, baseline=BASELINE)
    assert nices(second) == {5}
    agent.kill()
    assert agent.call("restore").status == 0
    assert is_untouched(second, place.own, BASELINE)


@pytest.mark.parametrize("becomes", ["an ordinary process", "another VM"])
def test_a_process_that_gets_a_vms_pid_is_never_adjusted(
    becomes: str, tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place, other = tree.pod(weight=BASELINE), tree.pod(weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(policy(rule({"add": 1}, {"where": 'vm.name == "a"'}), bounds=(0, 15)))
    agent.start()
    agent.wait_event("write", what="threads", new="2")
    # While the agent can see nothing, the VM ends and its pid is given out again.
    agent.send(signal.SIGSTOP)
    try:
        guest.stop()
        is_vm = becomes == "another VM"
        argv = ["sh", "-c", "read _", "-name", "guest=default_b"] if is_vm else ["sleep", "3600"]
        comm = BINARY if is_vm else None
        heir = fleet.keep(launch_as(guest.pid, argv, other.leaf, comm))
    finally:
        agent.send(signal.SIGCONT)
    agent.wait_event("vm ended", pid=str(heir.pid))
    if is_vm:
        agent.wait_row("b", pid=heir.pid, nice=0)
    mark = agent.mark()
    agent.edit(policy(rule({"add": 2}, {"where": 'vm.name == "a"'}), bounds=(0, 15)))
    assert is_untouched(heir, other.own, BASELINE)
    assert place.own.weight() == BASELINE, "the cgroup that outlives its VM gets its weight back"
    assert not agent.events("write", since=mark)
    assert not journal(agent)


def test_a_record_of_a_vm_that_had_the_pid_before_is_not_used(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place, other = tree.pod(weight=BASELINE), tree.pod(weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(5, "a"))
    agent.start()
    agent.wait_row("a", nice=5, weight=404)
    agent.kill()
    guest.stop()
    argv = ["sh", "-c", "read _", "-name", "guest=default_b"]
    heir = fleet.keep(launch_as(guest.pid, argv, other.leaf, BINARY))
    agent.start()
    row = agent.row("b")
    assert (row["state"], row["nice"], row["pid"]) == ("Managed", 0, guest.pid)
    assert is_untouched(heir, other.own, BASELINE)
    assert cgroups(tree)[place.own.path] == (BASELINE, None)


def test_both_cgroup_versions_are_told_apart(agent: Agent) -> None:
    agent.start()
    assert agent.wait_event("started")["cgroup"] == f"v{cgroup_version()}"
