"""Where pods are made, and how deep: the cgroups that the scanner of pods watches and compares."""

import pytest

from peacemaker_nodeagent.pod_cgroups import depth, is_for_pods

UID = "0b1c7a52-4c8e-4f0a-9d2e-1f4c8e6a7b90"
SLICE = UID.replace("-", "_")
KIND = "/kubelet.slice/kubelet-kubepods.slice"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/kubepods", True),
        ("/kubepods/burstable", True),
        ("/kubepods/besteffort", True),
        ("/kubelet/kubepods", True),
        ("/docker/0a1b/kubelet/kubepods/burstable", True),
        ("/kubepods.slice", True),
        ("/kubepods.slice/kubepods-burstable.slice", True),
        (KIND, True),
        (f"{KIND}/kubelet-kubepods-besteffort.slice", True),
        ("", False),
        ("/kubelet", False),
        ("/kubelet.slice", False),
        ("/system.slice", False),
        ("/machine.slice", False),
        ("/burstable", False),
        ("/kubepods/gold", False),
        ("/notkubepods", False),
        ("/kubepods.slice/kubepods-gold.slice", False),
        # inside a pod
        (f"/kubepods/pod{UID}", False),
        (f"/kubepods/pod{UID}/0a1b/kubepods", False),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice/kubepods.slice", False),
    ],
)
def test_pods_are_made_in_kubepods_and_its_qos_classes(path: str, expected: bool) -> None:
    assert is_for_pods(path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/kubepods/pod{UID}", 1),
        (f"/kubepods/burstable/pod{UID}", 1),
        (f"/kubepods/besteffort/pod{UID}", 1),
        (f"/kubelet/kubepods/pod{UID}", 2),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice", 1),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice", 1),
        (f"{KIND}/kubelet-kubepods-pod{SLICE}.slice", 2),
        (
            f"{KIND}/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{SLICE}.slice",
            2,
        ),
    ],
)
def test_a_pod_is_as_deep_as_its_kubepods(path: str, expected: int) -> None:
    assert depth(path) == expected
