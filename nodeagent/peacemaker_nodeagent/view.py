"""What people and programs see of a VM: one row, and the tables made of rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from peacemaker_nodeagent.own_cgroup import CgroupEnded
from peacemaker_nodeagent.peace_list import State, Vm

Row = Mapping[str, object]

_TABLE: Final = (
    *(("VM", "vm"), ("PID", "pid"), ("STATE", "state"), ("POLICY", "policy"), ("NICE", "nice")),
    *(("EFFECTIVE", "effectiveNice"), ("WEIGHT", "weight"), ("BASELINE", "baseline")),
    *(("USAGE", "usage"), ("WAIT", "wait"), ("REASON", "reason")),
)
_WIDE: Final = (
    *_TABLE[:-1],
    *(("VCPUS", "vcpus"), ("WANTED", "wanted"), ("FLOORED", "floored"), ("SINCE", "since")),
    *(("REASSERTS", "reasserts"), ("REBASES", "rebases"), ("CGROUP", "cgroup")),
    _TABLE[-1],
)


def row(vm: Vm, signals: Mapping[str, object], now: float) -> Row:
    """All there is to say of a VM: `usage` in cores, `wait` 0-1, `since` in seconds."""
    governor = vm.governor
    return {
        "vm": vm.full_name,
        "namespace": vm.namespace,
        "name": vm.name,
        "pid": vm.pid,
        "uid": vm.uid,
        "state": vm.state.value,
        "policy": governor.name if governor else None,
        "nice": vm.nice,
        "effectiveNice": vm.effective_nice,
        "weight": _weight(vm),
        "baseline": vm.baseline_weight,
        "wanted": round(vm.share.wanted, 1) if vm.share else None,
        "floored": vm.share.floored if vm.share else False,
        "vcpus": vm.vcpus,
        "usage": signals.get("usage"),
        "wait": signals.get("wait"),
        "since": None if vm.changed_at is None else now - vm.changed_at,
        "reasserts": vm.drift.reasserts,
        "rebases": vm.drift.rebases,
        "cgroup": vm.placement.own or vm.placement.path,
        "reason": _reason(vm),
    }


def _weight(vm: Vm) -> int | None:
    try:
        return vm.own.read_weight() if vm.own else None
    except (CgroupEnded, OSError):
        return None


def _reason(vm: Vm) -> str:
    if vm.obstacle:
        return vm.obstacle.reason
    if vm.write_failure:
        return vm.write_failure
    if vm.hold and not vm.suspended:
        return vm.hold.reason
    if vm.state is State.UNMANAGED and not vm.reason:
        return vm.suspended.reason if vm.suspended else "no policy governs it"
    return vm.reason


def find_vm(vms: Iterable[Vm], wanted: str) -> Vm | str:
    """The VM of this name, namespace/name or pid; or what is wrong with the name."""
    found = [vm for vm in vms if wanted in (vm.name, vm.full_name, str(vm.pid))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{vm.full_name} (pid {vm.pid})" for vm in found)
        return f"{wanted!r} could be {names}: say which by its pid"
    return f"no VM {wanted!r} on this node: `peacemaker-agent list` shows those there are"


def render(rows: Sequence[Row], output: str) -> str:
    """Rows as a table, a wide one, or JSON."""
    if output == "json":
        return json.dumps(rows, indent=2)
    columns = _WIDE if output == "wide" else _TABLE
    return _aligned(columns, rows)


_POLICIES: Final = (
    *(("POLICY", "name"), ("MODE", "mode"), ("GOVERNS", "governs"), ("OBSERVES", "observes")),
    *(("PASSES", "passes"), ("NEXT", "nextPassIn"), ("ACTIVE", "activeRules")),
    *(("MISSING", "missingSignals"), ("WOULD ADJUST", "wouldAdjust")),
)


def render_status(status: Mapping[str, Any]) -> str:
    """The answer to `status` for people."""
    load1, load5, load15 = status["load"]
    vms = ", ".join(f"{count} {state}" for state, count in status["vms"].items()) or "none"
    lines = [
        f"node   {_cell(status['node'])}, {status['cpus']} CPUs"
        + (f", resting: {_cell(status['suspended'])}" if status["suspended"] else ""),
        f"load   {load1:.2f} {load5:.2f} {load15:.2f} for each CPU (1, 5, 15 minutes)",
        f"VMs    {vms}",
    ]
    return "\n".join([*lines, "", _aligned(_POLICIES, status["policies"])])


def _aligned(columns: Sequence[tuple[str, str]], rows: Sequence[Row]) -> str:
    lines = [[title for title, _ in columns]]
    lines += [[_cell(each[key]) for _, key in columns] for each in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{_cell(key)}: {_cell(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return printable(str(value))


def printable(text: str) -> str:
    """A tenant chooses names: nothing that moves a cursor reaches the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
