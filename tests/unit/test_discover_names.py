"""What QEMU's names and command line say: which process is a VM, which thread a vCPU, its name."""

import pytest

from peacemaker_nodeagent.discover import guest_name
from peacemaker_nodeagent.proc import Stat, is_qemu, is_vcpu, parse_stat


@pytest.mark.parametrize(
    ("comm", "expected"),
    [
        # the kernel cuts a comm at 15 characters; /proc/PID/comm ends with a line feed
        *(("qemu-system-x86", True), ("qemu-system-x86\n", True), ("qemu-kvm", True)),
        *(("qemu-system-aar", True), ("qemu-img", False), ("qemu-nbd", False)),
        *(("qemu-ga", False), ("xqemu-system-x86", False), ("QEMU-system-x86", False)),
        *(("virtqemud", False), ("virt-launcher", False), ("", False)),
    ],
)
def test_qemu_is_known_by_its_comm(comm: str, expected: bool) -> None:
    assert is_qemu(comm) is expected


@pytest.mark.parametrize(
    ("comm", "expected"),
    [
        *(("CPU 0/KVM", True), ("CPU 63/TCG", True), ("CPU 0/MSHV", True), ("ALL CPUs/TCG", True)),
        *(("CPU /KVM", False), ("CPU 0", False), ("xCPU 0/KVM", False), ("IO mon_iothread", False)),
        *(("qemu-system-x86", False), ("call_rcu", False), ("worker", False), ("", False)),
    ],
)
def test_vcpus_are_known_by_their_comm(comm: str, expected: bool) -> None:
    assert is_vcpu(comm) is expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("guest=default_vm-a,debug-threads=on", ("default", "vm-a")),
        ("default_vm-a,debug-threads=on", ("default", "vm-a")),
        ("debug-threads=on,guest=default_vm-a", ("default", "vm-a")),
        ("guest=default_vm-a", ("default", "vm-a")),
        # the first underscore splits: a VM's name has none, a namespace neither
        ("guest=prod_web_1", ("prod", "web_1")),
        # what is not KubeVirt's has no namespace
        *(("web", ("default", "web")), ("guest=web", ("default", "web"))),
        *(("guest=_web", ("default", "_web")), ("guest=web_", ("default", "web_"))),
        *(("guest=_", ("default", "_")), ("guest=a=b", ("default", "a=b"))),
        # nothing to go by: the pid
        *(("", ("default", "qemu-77")), ("debug-threads=on", ("default", "qemu-77"))),
        *(("guest=", ("default", "qemu-77")), (",,", ("default", "qemu-77"))),
        # hostile: kept as text, and made harmless where it is shown
        ("guest=a_b\nc", ("a", "b\nc")),
    ],
)
def test_a_vms_namespace_and_name(option: str, expected: tuple[str, str]) -> None:
    assert guest_name(option, 77) == expected


FIELDS = "S 12 1 1 0 -1 4194304 1 2 3 4 {utime} {stime} 9 9 20 0 5 0 {start} 1000 200 18446"


@pytest.mark.parametrize(
    "comm", ["qemu-system-x86", "CPU 0/KVM", "a) S 99 (b", "((", "))", ") ", "x\ny", ""]
)
def test_a_stat_line_is_read_after_the_last_parenthesis(comm: str) -> None:
    line = f"77 ({comm}) " + FIELDS.format(utime=30, stime=12, start=8_412)
    assert parse_stat(line) == Stat(comm, "S", ppid=12, cpu=42, start=8_412)
