"""What VM owners are told: first adjustment, Contested, restored; and nothing else."""

from dataclasses import replace

import pytest

from peacemaker_operator.observed import PeaceListRecord, VmRow, peace_list_record
from peacemaker_operator.vm_events import VmEvent, VmReason, vm_events

EMPTY = peace_list_record({"metadata": {"name": "node1"}})


def row(
    state: str, nice: int | None = 0, *, moved: bool = False, message: str | None = None
) -> VmRow:
    return VmRow("ns", "vm", state, nice, moved, message)


def with_vm(vm: VmRow | None, suspended: str | None = None) -> PeaceListRecord:
    return replace(EMPTY, suspended=suspended, vms={"u": vm} if vm else {})


FRESH = row("Managed")
UP = row("Managed", 3, moved=True)
AGAIN_0 = row("Managed", 0, moved=True)
ADOPTED = row("Managed", 3)  # by an agent that was restarted
OWN_5 = row("Managed", 5)  # its own baseline

# before, after, whether spec.suspended came with it, what is told
CASES: list[tuple[VmRow | None, VmRow | None, bool, VmReason | None]] = [
    (None, None, False, None),
    (None, FRESH, False, None),
    (None, row("Managed", None), False, None),
    (FRESH, UP, False, VmReason.ADJUSTED),
    (FRESH, replace(UP, nice=-3), False, VmReason.ADJUSTED),
    (None, UP, False, VmReason.ADJUSTED),  # moved before the first status named it
    (row("Unmanaged"), UP, False, VmReason.ADJUSTED),
    (row("Deferred"), UP, False, VmReason.ADJUSTED),
    (UP, replace(UP, nice=4), False, None),
    (UP, AGAIN_0, False, None),  # its policy moved it there
    (AGAIN_0, UP, False, None),
    (ADOPTED, replace(UP, nice=4), False, None),
    (None, ADOPTED, False, None),
    (OWN_5, OWN_5, False, None),
    (OWN_5, row("Unmanaged", 5), False, None),
    (ADOPTED, row("Unmanaged"), False, VmReason.RESTORED),
    (UP, row("Unmanaged"), False, VmReason.RESTORED),
    (UP, row("Excluded", moved=True), False, VmReason.RESTORED),
    (row("Deferred", 3, moved=True), row("Excluded"), False, VmReason.RESTORED),
    (UP, row("Managed", moved=True), True, VmReason.RESTORED),
    (UP, UP, True, None),  # not restored yet
    (AGAIN_0, row("Unmanaged"), False, None),  # nothing was left to restore
    (FRESH, row("Unmanaged"), False, None),
    (UP, row("Deferred", 3, moved=True), False, None),
    (UP, row("Failed", 3), False, None),
    (UP, row("Contested"), False, VmReason.CONTESTED),
    (FRESH, row("Contested"), False, VmReason.CONTESTED),
    (None, row("Contested"), False, VmReason.CONTESTED),
    (row("Contested"), row("Contested", 3), False, None),
    (row("Contested"), row("Unmanaged"), False, None),
    (UP, None, False, None),  # its QEMU ended
    (UP, row("OfALaterVersion"), False, VmReason.RESTORED),
]


@pytest.mark.parametrize(("before", "after", "suspended", "reason"), CASES)
def test_what_a_change_tells_the_owner(
    before: VmRow | None, after: VmRow | None, suspended: bool, reason: VmReason | None
) -> None:
    then = with_vm(after, "SystemSuspended" if suspended else None)
    found = vm_events(with_vm(before), then)
    assert [each.reason for each in found] == ([reason] if reason else [])
    for each in found:
        assert (each.namespace, each.name, each.uid) == ("ns", "vm", "u")
        assert each.type == ("Warning" if reason is VmReason.CONTESTED else "Normal")
        assert "node1" in each.message


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        (
            replace(UP, message="rule restrain of policy p"),
            "nice 3 on node node1, for less CPU when it is scarce: rule restrain of policy p",
        ),
        (replace(UP, nice=-2), "nice -2 on node node1, for more CPU when it is scarce"),
        (
            row("Contested", message="written by somebody else"),
            "peacemaker leaves its CPU share alone on node node1: written by somebody else",
        ),
    ],
)
def test_the_message_is_for_the_owner(vm: VmRow, message: str) -> None:
    (found,) = vm_events(with_vm(FRESH), with_vm(vm))
    assert found.message == message


def test_what_is_there_at_a_start_is_no_news() -> None:
    assert vm_events(None, with_vm(UP)) == []
    assert vm_events(with_vm(UP), None) == []


def test_events_are_in_order_of_uid() -> None:
    vms = {uid: replace(UP, name=uid) for uid in ("c", "a", "b")}
    found = vm_events(EMPTY, replace(EMPTY, vms=vms))
    assert [each.uid for each in found] == ["a", "b", "c"]
    assert all(isinstance(each, VmEvent) for each in found)
