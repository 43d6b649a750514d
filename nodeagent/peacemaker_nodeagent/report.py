"""What the agent tells the command line: its VMs, why a VM is as it is, and how it does itself."""

from collections.abc import Callable, Mapping

from peacemaker.peacelist import Suspension
from peacemaker.policy import Mode
from peacemaker_nodeagent.passes import Passes, PolicyRun
from peacemaker_nodeagent.peace_list import PeaceList, State, Vm
from peacemaker_nodeagent.sense import Sensors
from peacemaker_nodeagent.server import Answer
from peacemaker_nodeagent.view import find_vm, printable, row


class Reporter:
    """Answers questions from what the agent holds; changes nothing."""

    def __init__(
        self,
        node: str,
        vms: PeaceList,
        passes: Passes,
        sensors: Sensors,
        clock: Callable[[], float],
        suspension: Callable[[], Suspension | None] = lambda: None,
    ) -> None:
        self._node = node
        self._vms = vms
        self._passes = passes
        self._sensors = sensors
        self._clock = clock
        self._suspension = suspension

    def answer(self, request: Mapping[str, object]) -> Answer:
        match request:
            case {"ask": "list"}:
                return self._list()
            case {"ask": "status"}:
                return self._status()
            case {"ask": "explain", "vm": str(name)}:
                return self._explain(name)
            case _:
                return {"error": f"unknown question {request!r}"}

    def _list(self) -> Answer:
        now = self._clock()
        self._sensors.read(now, self._vms, frozenset())
        return {"vms": [row(vm, self._sensors.recent(vm), now) for vm in self._vms]}

    def _status(self) -> Answer:
        now = self._clock()
        reading = self._sensors.read(now, (), frozenset()).node
        states = [vm.state for vm in self._vms]
        return {
            "node": self._node,
            "cpus": reading.cpus,
            "load": [load / reading.cpus for load in reading.load],
            "vms": {state.value: states.count(state) for state in State if state in states},
            "suspended": _in_words(self._suspension()),
            "passCpuSeconds": self._passes.cpu_seconds,
            "policies": [self._policy_status(run, now) for run in self._passes],
        }

    def _policy_status(self, run: PolicyRun, now: float) -> Answer:
        rules = run.trace.rules if run.trace else ()
        return {
            "name": run.policy.name,
            "mode": run.policy.mode.value,
            "governs": sum(1 for vm in self._vms if vm.governor is run.policy),
            "observes": sum(1 for vm in self._vms if run.policy in vm.standing.observers)
            if run.policy.mode is Mode.OBSERVE
            else 0,
            "passes": run.passes,
            "nextPassIn": max(0.0, run.due - now),
            "activeRules": [trace.rule.name for trace in rules if trace.active],
            "missingSignals": list(run.missing),
            "wouldAdjust": {
                vm.full_name: shadow.nice
                for uid, shadow in run.memory.shadows.items()
                if shadow.changed_at is not None and (vm := self._vms.get(uid))
            },
        }

    def _explain(self, name: str) -> Answer:
        vm = find_vm(self._vms, name)
        if isinstance(vm, str):
            return {"error": vm}
        return {"lines": [printable(line) for line in self._explanation(vm)]}

    def _explanation(self, vm: Vm) -> list[str]:
        nices = f"nice {vm.nice}, effective nice {vm.effective_nice}"
        lines = [
            f"{vm.full_name} (pid {vm.pid}): {vm.state}, {nices}",
            f"last change: {vm.reason or 'none'}",
        ]
        if vm.obstacle:
            lines.append(f"left alone: {vm.obstacle.reason}")
        if vm.suspended:
            lines.append(f"left alone: {_in_words(vm.suspended)}")
        elif vm.hold:
            lines.append(f"{'frozen' if vm.is_frozen else 'left alone'}: {vm.hold.reason}")
        runs = {run.policy.name: run for run in self._passes}
        policies = [p for p in (vm.standing.governor, *vm.standing.observers) if p]
        for policy in policies:
            trace = runs[policy.name].trace
            lines += trace.explain(vm.uid) if trace else [f"policy {policy.name}: no pass yet"]
        lines += [
            f"policy {policy.name} selects it too and is outranked"
            for policy in vm.standing.outranked
        ]
        if not policies:
            lines.append("no policy in force selects it")
        return lines


def _in_words(suspension: Suspension | None) -> str | None:
    if suspension is None:
        return None
    return f"{suspension.reason}: {suspension.message}" if suspension.message else suspension.reason
