"""The systemd unit as it is shipped: installed, started, ended in every way, and never in the way.

The VMs are pods' QEMUs of another user, as KubeVirt's are.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Fleet, Guest, Image, Place, start, wait_for
from lab.policy import policy, put, rule
from lab.processes import TIMEOUT
from lab.qemu import BINARY
from peacemaker.nice import k
from peacemaker_nodeagent.run_dir import RunDir
from peacemaker_nodeagent.server import ask
from tests.guest.systemd import Units, call, show
from tests.metrics import Samples

UNIT = "peacemaker-agent.service"
SHIPPED = Path(__file__).parents[2] / "nodeagent/systemd" / UNIT
INSTALLED = Path("/etc/systemd/system") / UNIT
POLICIES = Path("/etc/peacemaker/policies")
POLICY = POLICIES / "test.yaml"
RUN_DIR = RunDir()

MOST_EXPOSED = 3.0
"""On systemd-analyze's scale of 0 to 10; a service without any hardening has 9.6."""
CAP_SYS_NICE = 1 << 23  # include/uapi/linux/capability.h

DOCUMENTED_PORT = 9464

QEMU_USER = 107
BASELINE = 1000
NICE = 5
OURS = round(BASELINE * k(NICE) / k(0))


@dataclass(frozen=True, slots=True)
class Vm:
    """A pod and the QEMU in it, which the unit's agent is to adjust."""

    pod: Place
    guest: Guest

    def weight(self) -> int:
        return self.pod.own.weight()

    def thread_nices(self) -> set[int]:
        return {os.getpriority(os.PRIO_PROCESS, tid) for tid in self.guest.threads()}

    def is_adjusted(self) -> bool:
        return self.weight() == OURS and self.thread_nices() == {NICE}

    def is_untouched(self) -> bool:
        return self.weight() == BASELINE and self.thread_nices() == {0}


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    shutil.copy(SHIPPED, INSTALLED)
    call("systemctl", "daemon-reload")
    yield
    INSTALLED.unlink()
    call("systemctl", "daemon-reload")


@pytest.fixture
def vm(units: Units, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vm]:
    """A VM of QEMU_USER. The service ends, and what it leaves on disk goes, before the VM does."""
    user = f"--reuid={QEMU_USER} --regid={QEMU_USER} --clear-groups"
    binary = tmp_path / BINARY
    binary.write_text(
        f'#!/bin/sh\nexec setpriv {user} --pdeathsig=KILL -- {shutil.which(BINARY)} "$@"\n'
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    pod = units.pod(BASELINE)
    guest = fleet.keep(start("vm", cgroup=pod.leaf, image=Image.IDLE))
    assert f"\nUid:\t{QEMU_USER}\t" in Path(f"/proc/{guest.pid}/status").read_text()
    POLICIES.mkdir(parents=True, exist_ok=True)
    yield Vm(pod, guest)
    call("systemctl", "stop", UNIT)
    call("systemctl", "reset-failed")  # the count of starts too: its limit is not for tests
    POLICY.unlink(missing_ok=True)
    shutil.rmtree(RUN_DIR.path, ignore_errors=True)


def test_the_service_adjusts_vms_of_another_user_rests_while_told_to_and_leaves_values_behind(
    vm: Vm,
) -> None:
    POLICY.write_text(put(NICE))
    call("systemctl", "start", UNIT)  # returns when the agent has said that it is ready
    assert show(UNIT, "ActiveState") == "active"
    status = Path(f"/proc/{main_pid()}/status").read_text()
    assert f"\nCapEff:\t{CAP_SYS_NICE:016x}\n" in status
    wait_until(vm.is_adjusted, "the VM to be adjusted")
    assert row()["nice"] == NICE

    stop_file = Path(RUN_DIR.stop_file)
    stop_file.touch()
    wait_until(vm.is_untouched, "the VM to be restored")
    stop_file.unlink()
    wait_until(vm.is_adjusted, "the VM to be adjusted again")

    call("systemctl", "stop", UNIT)
    assert show(UNIT, "Result") == "success"
    assert vm.is_adjusted()
    said = call("peacemaker-agent", "restore")
    assert vm.is_untouched()
    assert said.splitlines()[-1] == "2 restored, 0 left alone"


def test_values_and_records_outlive_a_restart_and_a_kill(vm: Vm) -> None:
    POLICY.write_text(put(NICE))
    call("systemctl", "start", UNIT)
    wait_until(vm.is_adjusted, "the VM to be adjusted")
    first = main_pid()

    call("systemctl", "restart", UNIT)
    assert vm.is_adjusted()
    second = main_pid()
    assert second != first
    assert_adopted(vm)

    call("systemctl", "kill", "--signal=KILL", UNIT)
    wait_until(lambda: main_pid() not in (0, second), "systemd to start it again")
    assert vm.is_adjusted()
    wait_until(lambda: show(UNIT, "ActiveState") == "active", "the agent to be ready")
    assert show(UNIT, "NRestarts") == "1"
    assert_adopted(vm)

    POLICY.unlink()
    wait_until(vm.is_untouched, "the VM that no policy governs to be restored")


def test_a_wrong_policy_fails_the_start_and_the_journal_says_what_is_wrong(vm: Vm) -> None:
    POLICY.write_text(policy(rule({"set": NICE}, when="node.laod1 > 0.9")))
    call("systemctl", "start", UNIT, status=1)
    assert show(UNIT, "Result") == "exit-code"
    assert show(UNIT, "ExecMainStatus") == "2"
    assert show(UNIT, "ActiveState") == "failed"  # not activating: it is not started again
    assert show(UNIT, "NRestarts") == "0"
    call("journalctl", "--sync")
    invocation = f"_SYSTEMD_INVOCATION_ID={show(UNIT, 'InvocationID')}"
    journal = call("journalctl", "--output=cat", invocation)
    assert re.search(rf"{re.escape(str(POLICY))}:\d+:\d+: .*laod1", journal), journal
    assert vm.is_untouched()


def test_with_the_documented_drop_in_the_service_has_metrics(vm: Vm) -> None:
    document = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    drop_in = INSTALLED.with_name(f"{UNIT}.d") / "metrics.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(document.split("```ini\n")[1].split("```")[0])
    POLICY.write_text(put(NICE))
    try:
        call("systemctl", "daemon-reload")
        call("systemctl", "start", UNIT)
        wait_until(vm.is_adjusted, "the VM to be adjusted")
        nice = Samples.scrape(DOCUMENTED_PORT).value(
            "peacemaker_agent_vm_nice", namespace="default", name="vm"
        )
        assert nice == NICE
    finally:
        call("systemctl", "stop", UNIT)
        shutil.rmtree(drop_in.parent)
        call("systemctl", "daemon-reload")


def test_systemd_finds_little_that_the_service_could_do() -> None:
    said = call("systemd-analyze", "security", "--no-pager", UNIT)
    level = re.search(rf"Overall exposure level for {re.escape(UNIT)}: ([\d.]+)", said)
    assert level is not None, said
    assert float(level[1]) <= MOST_EXPOSED, said


def main_pid() -> int:
    return int(show(UNIT, "MainPID"))


def row() -> Mapping[str, Any]:
    """The VM as the service's agent lists it."""
    answer: Any = ask(RUN_DIR.socket, {"ask": "list"})
    (only,) = answer["vms"]
    assert isinstance(only, dict)
    return only


def assert_adopted(vm: Vm) -> None:
    adopted = row()
    assert adopted["pid"] == vm.guest.pid
    assert (adopted["nice"], adopted["weight"], adopted["baseline"]) == (NICE, OURS, BASELINE)
    assert adopted["reason"] == "adopted as an earlier run left it"
    assert vm.is_adjusted()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    wait_for(condition, TIMEOUT, what)
