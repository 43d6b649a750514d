"""Which VMs there are: taken in when they start, let go when they end."""

import selectors
from contextlib import ExitStack

from peacemaker_kube import log
from peacemaker_nodeagent.act import Actuator
from peacemaker_nodeagent.adopt import adopt, close
from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.discover import Finder, Found
from peacemaker_nodeagent.own_cgroup import CgroupEnded
from peacemaker_nodeagent.peace_list import PeaceList, Vm
from peacemaker_nodeagent.proc import ProcessEnded
from peacemaker_nodeagent.records import Journal
from peacemaker_nodeagent.restore import restore_records
from peacemaker_nodeagent.sense import Sensors


class Roster:
    """Keeps the peace_list and the sensors in step with the QEMU processes below one cgroup.

    `lost` tells that a VM has ended since it was last set to False.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        finder: Finder,
        journal: Journal,
        actuator: Actuator,
        selector: selectors.BaseSelector,
    ) -> None:
        self.vms = PeaceList()
        self.sensors = Sensors(hierarchy)
        self.lost = False
        self._hierarchy = hierarchy
        self._finder = finder
        self._journal = journal
        self._actuator = actuator
        self._selector = selector

    def discover(self, now: float, everything: bool = False) -> list[Vm]:
        """Look for VMs that have started, and take them in; the elder of two comes first.

        Their orders are not theirs yet.
        """
        found = self._finder.find(now, everything, self.vms.pids())
        found.sort(key=lambda each: (each.started, each.process.pid))
        taken = (self._take_in(each, now) for each in found)
        return [vm for vm in taken if vm]

    def _take_in(self, found: Found, now: float) -> Vm | None:
        own = found.placement.own
        elder = next((vm for vm in self.vms if own and vm.placement.own == own), None)
        with ExitStack() as undo:
            undo.callback(found.process.close)
            try:
                vm = adopt(found, self._hierarchy, self._journal, now, elder)
                undo.pop_all()
                undo.callback(close, vm)
                self.sensors.add(vm, now)
            except (ProcessEnded, CgroupEnded):
                self._finder.forget(found.process.pid)
                return None
            undo.pop_all()
        self.vms.add(vm)
        self._selector.register(vm.process.pidfd, selectors.EVENT_READ, lambda: self._end(vm))
        return vm

    def _end(self, vm: Vm) -> None:
        """QEMU has ended. A cgroup that survives it gets its weight back."""
        self._actuator.forget_threads(vm)
        try:
            self._actuator.restore_weight(vm, "its QEMU has ended")
        except OSError as error:
            log.error("write failed", vm=vm.full_name, why=error.strerror)
        log.info("vm ended", vm=vm.full_name, pid=vm.pid)
        own = vm.placement.own
        self._let_go(vm)
        # What came second in its cgroup is now the first, and is taken in anew.
        for other in [other for other in self.vms if own and other.placement.own == own]:
            self._let_go(other)

    def _let_go(self, vm: Vm) -> None:
        self._selector.unregister(vm.process.pidfd)
        self.sensors.delete(vm)
        self.vms.delete(vm)
        self._finder.forget(vm.pid)
        close(vm)
        self.lost = True

    def restore_orphans(self, below: str) -> None:
        """Restore what an earlier agent wrote to VMs, or their cgroups below one, that are gone."""
        outcomes = restore_records(
            self._hierarchy,
            self._journal,
            below,
            keep_paths={vm.placement.own for vm in self.vms if vm.placement.own},
            keep_keys={vm.process.key for vm in self.vms},
        )
        for outcome in outcomes:
            for step in outcome.steps:
                log.info(
                    "restore",
                    subject=outcome.subject,
                    what=step.what,
                    old=step.found,
                    new=step.now,
                    why="its VM is gone",
                )
            if outcome.problem:
                log.warning("record left alone", subject=outcome.subject, why=outcome.problem)
