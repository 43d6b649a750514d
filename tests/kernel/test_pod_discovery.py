"""Discovery in pods: QEMU is found by cgroup, name and parent, and rest costs nothing."""

import errno
import os
import select
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from lab import Fleet, Group, Naming, Place, PodTree, stand_in, start, start_many, wait_for
from lab.processes import TIMEOUT, Process, launch
from lab.qemu import BINARY, MONITOR, Guest
from peacemaker_nodeagent.cgroup import find_hierarchy
from peacemaker_nodeagent.discover import Found
from peacemaker_nodeagent.pods import POLL_EVERY, YOUNG, PodScanner

MAX_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")


class Eyes:
    """A scanner, the VMs that it has found and that have not ended, and a clock that tests turn."""

    def __init__(self, below: str) -> None:
        self.scanner = PodScanner(find_hierarchy(), below)
        self.now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.listed: set[str] = set()
        self.known: dict[int, Found] = {}

    def close(self) -> None:
        for pid in list(self.known):
            self.end(pid, forget=False)
        self.scanner.close()

    def look(self, after: float = POLL_EVERY, *, everything: bool = False) -> list[Found]:
        """What a scan finds so many seconds after the last one."""
        self.now += after
        found = self.scanner.scan(self.now, everything, self.listed, self.known.keys())
        for each in found:
            assert each.process.pid not in self.known
            self.known[each.process.pid] = each
        return found

    def pids(self, after: float = POLL_EVERY, *, everything: bool = False) -> dict[int, str]:
        """The pod uids of what a scan finds, by pid."""
        found = self.look(after, everything=everything)
        return {each.process.pid: each.name for each in found}

    def end(self, pid: int, *, forget: bool = True) -> None:
        """What the agent does when the process has ended."""
        self.known.pop(pid).process.close()
        if forget:
            self.scanner.forget(pid)

    def are_told(self) -> bool:
        """Whether the scanner's descriptor wants a scan."""
        return bool(select.select([self.scanner.fd], [], [], 0)[0])

    def watches(self) -> int:
        """How many the kernel keeps, those on cgroups that are gone among them."""
        return Path(f"/proc/self/fdinfo/{self.scanner.fd}").read_text().count("inotify wd:")

    def rest(self) -> bool:
        """Whether nothing but an event or a change of the list leads to a scan."""
        return self.scanner.next_poll() == float("inf") and not self.are_told()


Open = Callable[..., Eyes]


@pytest.fixture
def eyes(tree: PodTree, fleet: Fleet) -> Iterator[Open]:  # noqa: ARG001
    """Opens a scanner of the tree, or of a part; those opened end before the processes do."""
    opened = []

    def open_eyes(below: str = tree.root) -> Eyes:
        opened.append(Eyes(below))
        return opened[-1]

    yield open_eyes
    for each in opened:
        each.close()


def new_uid() -> str:
    return str(uuid.uuid4())


def vm(place: Place, fleet: Fleet, name: str = "vm", vcpus: int = 1) -> Guest:
    """A real QEMU, as the child of a monitor, in a pod's container."""
    return fleet.keep(start(name, cgroup=place.leaf, paused=True, vcpus=vcpus, parent_comm=MONITOR))


def remove(*groups: Group) -> None:
    """Remove cgroups, the inner first, as soon as the processes in them have ended."""
    for directory in (directory for group in groups for directory in group.directories):
        wait_for(partial(is_removed, directory), TIMEOUT, f"{directory} to be empty")


def is_removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


MAKE: dict[str, Callable[[PodTree, str], Place]] = {
    "cgroupfs": lambda t, uid: t.pod(uid),
    "cgroupfs, besteffort": lambda t, uid: t.pod(uid, qos="besteffort"),
    "cgroupfs, guaranteed": lambda t, uid: t.pod(uid, qos="guaranteed"),
    "cgroupfs, static": lambda t, uid: t.pod(uid.replace("-", "")),
    "cgroupfs, nested": lambda t, uid: t.pod(uid, prefix="kubelet"),
    "systemd, containerd": lambda t, uid: t.pod(uid, naming=Naming.SYSTEMD_CONTAINERD),
    "systemd, guaranteed": lambda t, uid: t.pod(uid, naming=Naming.SYSTEMD_CRIO, qos="guaranteed"),
    "systemd, CRI-O": lambda t, uid: t.pod(uid, naming=Naming.SYSTEMD_CRIO),
    "systemd, crun": lambda t, uid: t.pod(uid, naming=Naming.SYSTEMD_CRUN),
    "systemd, nested": lambda t, uid: t.pod(
        uid, naming=Naming.SYSTEMD_CONTAINERD, prefix="kubelet"
    ),
}


@pytest.mark.parametrize("made", ["before the scanner", "after the scanner"])
def test_qemu_is_found_in_the_pod_that_its_cgroup_says(
    made: str, tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    seer = eyes() if made == "after the scanner" else None
    uids = {scheme: new_uid() for scheme in MAKE}
    places = {scheme: make(tree, uids[scheme]) for scheme, make in MAKE.items()}
    guests = start_many([p.leaf for p in places.values()], vcpus=2, parent_comm=MONITOR)
    for guest in guests:
        fleet.keep(guest)
    found = {each.process.pid: each for each in (seer or eyes()).look()}
    assert found.keys() == {guest.pid for guest in guests}
    for guest, (scheme, place) in zip(guests, places.items(), strict=True):
        each = found[guest.pid]
        uid = uids[scheme].replace("-", "") if "static" in scheme else uids[scheme]
        assert (each.namespace, each.name, each.vcpus) == ("", uid, 2), scheme
        assert each.placement.pod_uid == uid, scheme
        assert each.placement.own == place.own.path, scheme
        assert each.placement.path == each.placement.container == place.leaf.path, scheme


def test_a_qemu_that_starts_seconds_after_its_pod_is_found_by_the_next_poll(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    seer = eyes()
    seer.look()
    assert seer.rest()
    uid = new_uid()
    place = tree.pod(uid)
    assert seer.are_told()
    assert not seer.look()
    assert not seer.are_told()
    for _ in range(7):
        assert seer.scanner.next_poll() == seer.now + POLL_EVERY
        assert not seer.look()
    guest = vm(place, fleet)
    assert not seer.look(POLL_EVERY / 2), "polls are not closer than this, whatever else happens"
    assert seer.pids(seer.scanner.next_poll() - seer.now) == {guest.pid: uid}
    assert seer.rest()


def test_a_pod_is_polled_while_it_is_young_or_listed_and_has_no_qemu(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    place = tree.pod(uid)
    seer = eyes()
    seer.look()
    assert not seer.rest()
    seer.look(YOUNG)
    assert seer.rest()
    seer.listed = {uid}
    seer.look()
    assert not seer.rest()
    seer.look(10 * YOUNG)
    assert not seer.rest()
    guest = vm(place, fleet)
    assert seer.pids() == {guest.pid: uid}
    assert seer.rest()
    seer.end(guest.pid)
    guest.stop()
    assert not seer.rest()
    seer.listed = set()
    seer.look()
    assert not seer.rest(), "a pod that had a VM may get another before the list knows"
    seer.look(YOUNG)
    assert seer.rest()


Suspect = Callable[[PodTree, Fleet, str], Process]
"""Starts what looks like the QEMU of the pod with this uid."""


def start_in(cgroup: Group, fleet: Fleet) -> Guest:
    return fleet.keep(start("b", cgroup=cgroup, paused=True, parent_comm=MONITOR))


def below(tree: PodTree, place: Place, path: str) -> Group:
    """A cgroup that a tenant makes in the container."""
    return tree.group(f"{place.leaf.path.removeprefix(tree.root)}/{path}")


def without_monitor(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    return fleet.keep(start("b", cgroup=tree.pod(uid).leaf, paused=True))


def with_another_parent(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    cgroup = tree.pod(uid).leaf
    return fleet.keep(start("b", cgroup=cgroup, paused=True, parent_comm="virt-launcher"))


def with_a_monitor_in_another_pod(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    guest = start_in(tree.pod().leaf, fleet)
    tree.pod(uid).leaf.attach(guest.pid)
    return guest


def of_another_name(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    words = ["sh", "-c", "read _", "-name", "guest=default_b"]
    return fleet.keep(
        launch(words, comm="qemu-img", parent_comm=MONITOR, cgroup=tree.pod(uid).leaf)
    )


def outside_pods(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    tree.pod(uid)
    return start_in(tree.group("some/where"), fleet)


def in_a_users_slice(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    prefix = "user.slice/user-1000.slice/user@1000.service"
    return start_in(tree.pod(uid, prefix=prefix).leaf, fleet)


def in_a_service_that_has_a_user(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    place = tree.pod(uid, prefix="service")
    os.chown(Group(f"{tree.root}/service").directories[0], 1000, 1000)
    return start_in(place.leaf, fleet)


def in_a_pod_in_a_pod(tree: PodTree, fleet: Fleet, uid: str) -> Process:
    return start_in(below(tree, tree.pod(), f"kubepods/burstable/pod{uid}/x"), fleet)


@pytest.mark.parametrize("when", ["there before", "made later"])
@pytest.mark.parametrize(
    ("suspect", "is_pod"),
    [
        (without_monitor, True),
        (with_another_parent, True),
        (with_a_monitor_in_another_pod, True),
        (of_another_name, True),
        (outside_pods, True),
        (in_a_users_slice, False),
        (in_a_service_that_has_a_user, False),
        (in_a_pod_in_a_pod, False),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_no_qemu_of_a_pod_is_not_found(
    suspect: Suspect, is_pod: bool, when: str, tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    honest, uid = new_uid(), new_uid()
    guest = vm(tree.pod(honest), fleet)
    if when == "made later" and suspect is in_a_service_that_has_a_user:
        # Its user makes cgroups there when it is the user's already.
        os.chown(tree.group("service").directories[0], 1000, 1000)
    seer = eyes() if when == "made later" else None
    suspect(tree, fleet, uid)
    seer = seer or eyes()
    assert seer.pids() == {guest.pid: honest}
    assert not seer.look(everything=True)
    assert (uid in seer.scanner.pod_uids) is is_pod
    assert honest in seer.scanner.pod_uids


def test_a_look_into_a_pod_or_at_nothing_sees_no_pods(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    place = tree.pod()
    start_in(below(tree, place, f"kubepods/pod{new_uid()}/x"), fleet)
    for seer in (eyes(place.leaf.path), eyes(f"{tree.root}/nothing")):
        assert not seer.look(everything=True)
        assert not seer.scanner.pod_uids


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_of_two_cgroups_of_one_pod_the_outermost_counts(
    first: str, tree: PodTree, fleet: Fleet, eyes: Open, caplog: pytest.LogCaptureFixture
) -> None:
    uid = new_uid()
    seer = eyes()
    prefixes = {"outer": "", "inner": "kubelet"}
    other = next(name for name in prefixes if name != first)
    places = {name: tree.pod(uid, prefix=prefixes[name]) for name in (first, other)}
    guests = {name: vm(place, fleet, name) for name, place in places.items()}
    assert seer.pids() == {guests["outer"].pid: uid}
    assert not seer.look(everything=True)
    [said] = [each for each in caplog.records if each.message == "two cgroups of one pod"]
    fields = vars(said)["fields"]
    assert fields["kept"] == places["outer"].own.path
    assert fields["ignored"] == places["inner"].own.path
    # The other one is the pod's when it alone is left.
    seer.end(guests["outer"].pid)
    guests["outer"].stop()
    remove(places["outer"].leaf, places["outer"].own)
    assert seer.pids() == {guests["inner"].pid: uid}


def test_a_second_qemu_in_a_pod_is_found_with_the_first_or_after_its_end_or_by_a_whole_look(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    place = tree.pod(uid)
    seer = eyes()
    both = [vm(place, fleet, name) for name in "ab"]
    assert seer.pids() == {guest.pid: uid for guest in both}
    third = vm(place, fleet, "c")
    assert seer.rest()
    assert not seer.look()
    assert seer.pids(everything=True) == {third.pid: uid}
    fourth = vm(place, fleet, "d")
    for guest in (*both, third):
        seer.end(guest.pid)
        guest.stop()
    assert seer.pids() == {fourth.pid: uid}


def test_a_qemu_that_was_started_again_in_its_pod_is_found_again(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    place = tree.pod(uid)
    seer = eyes()
    seer.look()
    seer.look(YOUNG)
    assert seer.rest()
    seer.listed = {uid}
    for _ in range(3):
        guest = vm(place, fleet)
        assert seer.pids() == {guest.pid: uid}
        assert seer.rest()
        guest.stop()
        seer.end(guest.pid)
        assert not seer.rest()


def test_a_qemu_that_was_not_taken_in_is_found_again(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    guest = vm(tree.pod(uid), fleet)
    seer = eyes()
    assert seer.pids() == {guest.pid: uid}
    seer.look(YOUNG)
    seer.end(guest.pid)
    assert seer.pids() == {guest.pid: uid}


def test_a_zombie_is_not_found(tree: PodTree, fleet: Fleet, eyes: Open) -> None:
    # A monitor that does not wait for its child.
    script = f"{BINARY} -S -display none -accel tcg & echo $!; read _"
    monitor = fleet.keep(
        launch(["sh", "-c", script], comm=MONITOR, cgroup=tree.pod(new_uid()).leaf)
    )
    pid = int(wait_for(lambda: os.pread(monitor.output.fileno(), 64, 0), TIMEOUT, "a pid"))
    seer = eyes()
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text().startswith("qemu"), TIMEOUT, "exec")
    assert list(seer.pids()) == [pid]
    os.kill(pid, 9)
    wait_for(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text(), TIMEOUT, "its end")
    seer.end(pid)
    assert not seer.look()
    assert not seer.look(everything=True)


def test_a_pod_that_is_gone_is_neither_there_nor_polled(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid, other = new_uid(), new_uid()
    place, quiet = tree.pod(uid), tree.pod(other)
    seer = eyes()
    guest = vm(place, fleet)
    assert seer.pids() == {guest.pid: uid}
    seer.listed = {uid, other}
    guest.stop()
    seer.end(guest.pid)
    remove(place.leaf, place.own, quiet.leaf)
    seer.look()
    assert seer.scanner.pod_uids == {other}
    remove(quiet.own)
    assert seer.are_told()
    seer.look()
    assert not seer.scanner.pod_uids
    assert seer.rest()


@pytest.mark.parametrize("naming", [Naming.CGROUPFS, Naming.SYSTEMD_CONTAINERD])
@pytest.mark.parametrize("prefix", ["", "kubelet"])
def test_a_kubepods_that_is_made_later_or_anew_is_seen_at_once(
    naming: Naming, prefix: str, tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    seer = eyes()
    seer.look()
    watches = seer.watches()
    for _ in range(2):
        uid = new_uid()
        place = tree.pod(uid, naming=naming, prefix=prefix)
        guest = vm(place, fleet)
        # The first scan adds a watch to what is new, and sees what is in it already.
        assert seer.pids() == {guest.pid: uid}
        another = new_uid()
        second = tree.pod(another, naming=naming, prefix=prefix)
        seer.look()
        assert seer.scanner.pod_uids == {uid, another}
        guest.stop()
        seer.end(guest.pid)
        remove(second.leaf, second.own, place.leaf, place.own)
        top = Path(place.own.path).parent
        while str(top) != tree.root:
            remove(Group(str(top)))
            top = top.parent
        assert seer.watches() > watches
        seer.look()
        assert not seer.scanner.pod_uids
        assert seer.watches() == watches


def test_a_kubepods_deep_in_the_tree_is_found_by_a_whole_look(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    tree.group("docker")
    seer = eyes()
    uid, later = new_uid(), new_uid()
    guest = vm(tree.pod(uid, prefix="docker/0a1b/kubelet"), fleet)
    assert seer.pids(everything=True) == {guest.pid: uid}
    # It is watched from now on.
    second = vm(tree.pod(later, prefix="docker/0a1b/kubelet"), fleet)
    assert seer.pids() == {second.pid: later}


def test_lost_events_are_made_up_for(tree: PodTree, fleet: Fleet, eyes: Open) -> None:
    gone, stays = new_uid(), new_uid()
    place = tree.pod(gone)
    before = MAX_EVENTS.read_text()
    MAX_EVENTS.write_text("3")  # the kernel takes it over when a descriptor is made
    try:
        seer = eyes()
    finally:
        MAX_EVENTS.write_text(before)
    seer.look()
    assert seer.scanner.pod_uids == {gone}
    others = [tree.pod() for _ in range(8)]
    for other in others:
        remove(other.leaf, other.own)
    remove(place.leaf, place.own)
    guest = vm(tree.pod(stays, naming=Naming.SYSTEMD_CRIO), fleet)
    assert seer.pids() == {guest.pid: stays}
    assert seer.scanner.pod_uids == {stays}


def test_a_container_that_took_another_ones_place_is_looked_at(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    place = tree.pod(uid)
    seer = eyes()
    seer.look()
    remove(place.leaf)
    guest = start_in(tree.group(f"{place.own.path.removeprefix(tree.root)}/other"), fleet)
    # As many cgroups as before: that the known one is gone shows at one poll, what is new at the
    # next.
    assert not seer.look()
    assert seer.pids() == {guest.pid: uid}


def test_the_cgroup_that_crun_nests_is_looked_at_when_it_comes(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    uid = new_uid()
    place = tree.pod(uid, naming=Naming.SYSTEMD_CRIO)
    seer = eyes()
    seer.look()
    guest = start_in(below(tree, place, "container"), fleet)
    [found] = seer.look()
    assert found.process.pid == guest.pid
    assert found.placement.container == f"{place.leaf.path}/container"


@pytest.mark.parametrize("listed", [True, False])
def test_a_process_that_becomes_qemu_late_is_found(
    listed: bool, tree: PodTree, fleet: Fleet, eyes: Open, tmp_path: Path
) -> None:
    uid = new_uid()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f'read _ < {gate}; exec "$@"'
    words = (BINARY, "-nodefaults", "-display", "none", "-S", "-m", "8", "-accel", "tcg,tb-size=1")
    shell = fleet.keep(
        launch(["sh", "-c", script, "sh", *words], parent_comm=MONITOR, cgroup=tree.pod(uid).leaf)
    )
    seer = eyes()
    seer.listed = {uid} if listed else set()
    for _ in range(100 if listed else 10):
        assert not seer.look()
    gate.write_text("go\n")
    wait_for(lambda: shell.threads()[shell.pid].startswith("qemu"), TIMEOUT, "exec")
    assert seer.pids() == {shell.pid: uid}


def test_a_vm_without_names_of_threads_counts_one_vcpu(
    tree: PodTree, fleet: Fleet, eyes: Open
) -> None:
    fleet.keep(stand_in("a", cgroup=tree.pod().leaf, parent_comm=MONITOR))
    [found] = eyes().look()
    assert found.vcpus == 1
