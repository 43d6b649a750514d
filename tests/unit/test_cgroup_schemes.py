"""The table of cgroup names: whose cgroup a path is, by kubelet, container runtime or libvirt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker_nodeagent.cgroup import Placement, place

UID = "0b1c7a52-4c8e-4f0a-9d2e-1f4c8e6a7b90"
OTHER = "ffffffff-4c8e-4f0a-9d2e-1f4c8e6a7b90"
STATIC = "0123456789abcdef0123456789abcdef"
SLICE = UID.replace("-", "_")
CID = "3f" * 32

CGROUPFS = "kubelet, cgroupfs driver"
SYSTEMD = "kubelet, systemd driver"
MACHINED = "libvirt, systemd-machined"
LIBVIRT = "libvirt, cgroupfs"

BURSTABLE = "/kubepods.slice/kubepods-burstable.slice"
POD = f"{BURSTABLE}/kubepods-burstable-pod{SLICE}.slice"
KIND = "/kubelet.slice/kubelet-kubepods.slice"
KIND_POD = f"{KIND}/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{SLICE}.slice"
CONTAINER = "cri-containerd-3f.scope"
NESTED = "/machine.slice/machine-qemu\\x2d1\\x2da.scope"


@pytest.mark.parametrize(
    ("path", "scheme", "own", "container", "uid", "qos"),
    [
        # cgroupfs: containerd and CRI-O, docker, guaranteed directly below kubepods
        (f"/kubepods/burstable/pod{UID}/{CID}", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
        (f"/kubepods/besteffort/pod{UID}/{CID}", CGROUPFS,
         f"/kubepods/besteffort/pod{UID}", f"/{CID}", UID, "besteffort"),
        (f"/kubepods/pod{UID}/{CID}", CGROUPFS,
         f"/kubepods/pod{UID}", f"/{CID}", UID, "guaranteed"),
        (f"/kubepods/burstable/pod{UID}/crio-{CID}", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/crio-{CID}", UID, "burstable"),
        (f"/kubepods/burstable/pod{UID}", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", None, UID, "burstable"),
        # a static pod's uid is a hash
        (f"/kubepods/burstable/pod{STATIC}/{CID}", CGROUPFS,
         f"/kubepods/burstable/pod{STATIC}", f"/{CID}", STATIC, "burstable"),
        # nested kubelets: kind's /kubelet, docker in docker
        (f"/kubelet/kubepods/burstable/pod{UID}/{CID}", CGROUPFS,
         f"/kubelet/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
        (f"/docker/{CID}/kubelet/kubepods/pod{UID}/{CID}", CGROUPFS,
         f"/docker/{CID}/kubelet/kubepods/pod{UID}", f"/{CID}", UID, "guaranteed"),
        # crun: a cgroup `container` in the container's; KubeVirt: threaded `housekeeping`
        (f"/kubepods/burstable/pod{UID}/crio-{CID}/container", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/crio-{CID}/container", UID, "burstable"),
        (f"/kubepods/burstable/pod{UID}/{CID}/housekeeping", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
        # systemd: containerd, CRI-O, docker, crun
        (f"{POD}/{CONTAINER}", SYSTEMD, POD, f"/{CONTAINER}", UID, "burstable"),
        (f"{POD}/crio-{CID}.scope", SYSTEMD, POD, f"/crio-{CID}.scope", UID, "burstable"),
        (f"{POD}/docker-{CID}.scope", SYSTEMD, POD, f"/docker-{CID}.scope", UID, "burstable"),
        (f"{POD}/crio-{CID}.scope/container", SYSTEMD,
         POD, f"/crio-{CID}.scope/container", UID, "burstable"),
        (f"{POD}/crio-{CID}.scope/container/housekeeping", SYSTEMD,
         POD, f"/crio-{CID}.scope/container", UID, "burstable"),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice/{CONTAINER}", SYSTEMD,
         f"/kubepods.slice/kubepods-pod{SLICE}.slice", f"/{CONTAINER}", UID, "guaranteed"),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/x",
         SYSTEMD,
         f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice",
         "/x", UID, "besteffort"),
        (f"{BURSTABLE}/kubepods-burstable-pod{STATIC}.slice/{CONTAINER}", SYSTEMD,
         f"{BURSTABLE}/kubepods-burstable-pod{STATIC}.slice", f"/{CONTAINER}", STATIC,
         "burstable"),
        # kind with the systemd driver
        (f"{KIND_POD}/{CONTAINER}", SYSTEMD, KIND_POD, f"/{CONTAINER}", UID, "burstable"),
        (f"/system.slice/docker-{CID}.scope{KIND_POD}/{CONTAINER}", SYSTEMD,
         f"/system.slice/docker-{CID}.scope{KIND_POD}", f"/{CONTAINER}", UID, "burstable"),
        # libvirt: machined's scope, with systemd's escapes; its own cgroups below; v1's cgroupfs
        (NESTED, MACHINED, NESTED, None, None, None),
        (f"{NESTED}/libvirt/emulator", MACHINED, NESTED, None, None, None),
        (f"{NESTED}/libvirt/vcpu0", MACHINED, NESTED, None, None, None),
        ("/machine.slice/machine-prod.slice/machine-qemu\\x2d7\\x2dweb\\x2d1.scope/libvirt",
         MACHINED, "/machine.slice/machine-prod.slice/machine-qemu\\x2d7\\x2dweb\\x2d1.scope",
         None, None, None),
        ("/machine/qemu-3-web.libvirt-qemu/emulator", LIBVIRT,
         "/machine/qemu-3-web.libvirt-qemu", None, None, None),
        ("/machine/prod.partition/web.libvirt-qemu", LIBVIRT,
         "/machine/prod.partition/web.libvirt-qemu", None, None, None),
        # libvirt in a pod: the pod is the VM's own
        (f"/kubepods/burstable/pod{UID}/{CID}{NESTED}/libvirt/emulator", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
        (f"{POD}/{CONTAINER}{NESTED}", SYSTEMD, POD, f"/{CONTAINER}", UID, "burstable"),
        (f"{POD}/{CONTAINER}/machine/qemu-1-a.libvirt-qemu", SYSTEMD,
         POD, f"/{CONTAINER}", UID, "burstable"),
        # a pod's tenant makes cgroups that look like another pod's: the outer one is the VM's own
        (f"/kubepods/burstable/pod{UID}/{CID}/kubepods/burstable/pod{OTHER}/x", CGROUPFS,
         f"/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
        (f"{POD}/{CONTAINER}{BURSTABLE}/kubepods-burstable-pod{STATIC}.slice/x", SYSTEMD, POD,
         f"/{CONTAINER}", UID, "burstable"),
        (f"/kubepods/burstable/pod{UID}/{CID}{BURSTABLE}/kubepods-burstable-pod{STATIC}.slice/x",
         CGROUPFS, f"/kubepods/burstable/pod{UID}", f"/{CID}", UID, "burstable"),
    ],
)  # fmt: skip
def test_whose_cgroup_it_is(
    path: str, scheme: str, own: str, container: str | None, uid: str | None, qos: str | None
) -> None:
    found = place(path)
    assert found == Placement(path, scheme, own, own + container if container else None, uid, qos)
    assert found.parent == own.rpartition("/")[0]


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/init.scope", "/system.slice/ssh.service"),
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-virt.scope",
        # QoS-level and top slices are nobody's own
        *("/kubepods", "/kubepods/burstable", BURSTABLE, "/kubepods.slice", "/machine.slice"),
        *("/machine", "/kubelet/kubepods/besteffort"),
        # names that only look like a pod's
        f"/kubepods/burstable/pod{UID}x/{CID}",
        f"/kubepods/burstable/pod{UID[:-1]}/{CID}",
        f"/kubepods/burstable/pod{UID.upper()}/{CID}",
        f"/kubepods/burstable/xpod{UID}/{CID}",
        f"/kubepods/burstable/pod/{UID}",
        f"/kubepods/gold/pod{UID}/{CID}",
        f"/notkubepods/burstable/pod{UID}/{CID}",
        f"/kubepods-x/burstable/pod{UID}/{CID}",
        f"kubepods/burstable/pod{UID}/{CID}",
        f"{BURSTABLE}/kubepods-burstable-pod{SLICE}/{CONTAINER}",
        f"{BURSTABLE}/kubepods-burstable-pod{SLICE}.slicex/{CONTAINER}",
        f"{BURSTABLE}/notkubepods-burstable-pod{SLICE}.slice/{CONTAINER}",
        f"/notkubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/x",
        f"/kubepods.slice/kubepods-gold.slice/kubepods-gold-pod{SLICE}.slice/{CONTAINER}",
        f"/kubepods/burstable/pod{UID}\n/x",
        # machined has other machines than QEMU's
        "/machine.slice/machine-lxc\\x2d1\\x2da.scope",
        "/machine.slice/systemd-nspawn@a.service",
        "/machine.slice/machine-qemu\\x2d1\\x2da.scope.d/x",
        "/machine/qemu-1-a.libvirt-lxc",
        "/../../kubepods.slice",
        f"/docker/{CID}",
    ],
)
def test_a_cgroup_that_is_nobodys_own(path: str) -> None:
    assert place(path) == Placement(path)
    assert place(path).parent is None


@given(st.text(st.sampled_from("/abkubepods.slice-pod0123_xburstablemachine\\qe\n"), max_size=80))
def test_any_path_is_parsed_and_an_own_cgroup_is_a_part_of_it(path: str) -> None:
    found = place(path)
    if found.own is not None:
        assert f"{path}/".startswith(f"{found.own}/")
        assert found.own.count("/") > 1
    if found.container is not None:
        assert f"{path}/".startswith(f"{found.container}/")


def test_the_outermost_pod_is_the_vms_own_whatever_the_drivers_are() -> None:
    found = place(f"{POD}/{CONTAINER}/kubepods/burstable/pod{OTHER}/x")
    assert (found.own, found.pod_uid) == (POD, UID)
