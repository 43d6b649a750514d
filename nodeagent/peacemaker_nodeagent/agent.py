"""The agent's one loop: discover, sense, decide, act, report.

Everything happens in one thread, at its time: two looks a second at what may have changed, a pass
when a policy is due, housekeeping every 15 seconds, an answer when the command line asks.
"""

import gc
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from peacemaker.claim import FULL_CLAIM_PERCENT
from peacemaker.engine import Change
from peacemaker.govern import standing
from peacemaker.policy import Mode, PeacePolicy
from peacemaker_kube import log
from peacemaker_nodeagent.act import Actuator
from peacemaker_nodeagent.cgroup import DEFAULT_MOUNT, find_hierarchy
from peacemaker_nodeagent.drift import Drift
from peacemaker_nodeagent.labels import Labels
from peacemaker_nodeagent.notify import notify, watchdog_interval
from peacemaker_nodeagent.passes import Passes, PolicyRun
from peacemaker_nodeagent.peace_list import State, Vm
from peacemaker_nodeagent.policy_files import PolicyFiles
from peacemaker_nodeagent.proc import boot_id
from peacemaker_nodeagent.records import Journal
from peacemaker_nodeagent.report import Reporter
from peacemaker_nodeagent.roster import Roster
from peacemaker_nodeagent.run_dir import RunDir
from peacemaker_nodeagent.server import Server
from peacemaker_nodeagent.settle import Settler

LOOK_EVERY: Final = 0.5
HOUSEKEEPING_EVERY: Final = 15.0
SEARCH_EVERY: Final = 60.0
"""Seconds between looks at every process of the host, for what the quick looks may have missed."""


def clock() -> float:
    """Seconds since boot, suspension included: the clock that processes' start times count on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    policies: Sequence[str]
    labels: str | None = None
    node: str = field(default_factory=socket.gethostname)
    cgroup_mount: str = DEFAULT_MOUNT
    below: str = "/"
    run_dir: RunDir = field(default_factory=RunDir)
    max_claim_percent: int = FULL_CLAIM_PERCENT


class Agent:
    """Keeps the peace on one node, from `start` until a signal ends `run`."""

    def __init__(self, options: Options) -> None:
        """Raises PolicyError, LabelsError, CgroupError, AgentRuns; nothing is adjusted yet."""
        self._options = options
        self._files = PolicyFiles(options.policies)
        self._labels = Labels(options.labels)
        self._hierarchy = find_hierarchy(options.cgroup_mount)
        self._lock = options.run_dir.lock()
        journal = Journal(options.run_dir.journal, boot_id())
        actuator = Actuator(journal)
        self._selector = selectors.DefaultSelector()
        self._roster = Roster(
            self._hierarchy, options.below, journal, actuator, self._labels, self._selector
        )
        self._vms = self._roster.vms
        self._settler = Settler(actuator, self._hierarchy, options.max_claim_percent)
        self._passes = Passes()
        self._suspended = False
        self._ends = False
        self._idle_policies: frozenset[str] = frozenset()

    # --- the loop ---

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Values are left as they are: an upgrade changes no VM."""
        _raise_descriptor_limit()
        # A pass makes thousands of objects that die with it, and no cycles: look for those rarely.
        gc.set_threshold(50_000)
        wakeups = self._catch_signals()
        reporter = Reporter(
            self._options.node, self._vms, self._passes, self._roster.sensors, clock
        )
        server = Server(self._options.run_dir.socket, reporter.answer, self._selector)
        try:
            self._start()
            notify("READY=1")
            self._loop()
        finally:
            notify("STOPPING=1")
            server.close()
            self._selector.unregister(wakeups)
            wakeups.close()
        log.info("stopped, values are left as they are", vms=len(self._vms))

    def _start(self) -> None:
        """Everything that is there is adopted before anything is decided."""
        now = clock()
        self._suspended = os.path.exists(self._options.run_dir.stop_file)
        self._passes.take(self._files.policies(), now)
        log.info(
            "started",
            node=self._options.node,
            cgroup=f"v{self._hierarchy.version}",
            policies=",".join(policy.name for policy in self._passes.policies()) or "-",
        )
        self._discover(now, everything=True)
        self._roster.restore_orphans()
        self._settle(now)
        self._tell_idle_policies()

    def _loop(self) -> None:
        now = clock()
        look, alive = now, now
        housekeeping, search = now + HOUSEKEEPING_EVERY, now + SEARCH_EVERY
        watchdog = watchdog_interval()
        while not self._ends:
            until = min(look, housekeeping, self._passes.next_due())
            for key, _ in self._selector.select(max(0.0, until - clock())):
                key.data()
            now = clock()
            if self._roster.lost:
                self._roster.lost = False
                self._settle(now)
            if now >= look:
                look = now + LOOK_EVERY
                self._look(now, everything=now >= search)
                if now >= search:
                    search = now + SEARCH_EVERY
            if watchdog and now >= alive:
                alive = now + watchdog
                notify("WATCHDOG=1")
            if now >= housekeeping:
                housekeeping = now + HOUSEKEEPING_EVERY
                self._settle(now)
            if due := self._passes.due(now):
                self._pass(due, now)

    def _catch_signals(self) -> socket.socket:
        """SIGTERM and SIGINT end the loop; a signal wakes the selector."""
        wakeups, writes = socket.socketpair()
        for end in (wakeups, writes):
            end.setblocking(False)
        signal.set_wakeup_fd(writes.detach(), warn_on_full_buffer=False)
        self._selector.register(wakeups, selectors.EVENT_READ, lambda: wakeups.recv(64))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        return wakeups

    def _end(self) -> None:
        self._ends = True

    # --- what may have changed ---

    def _look(self, now: float, everything: bool) -> None:
        """New VMs, looked for among new processes or all of them; edited files; the stop file."""
        suspended = os.path.exists(self._options.run_dir.stop_file)
        changed = suspended != self._suspended
        if changed:
            self._suspended = suspended
            log.warning("stop file is there: resting" if suspended else "stop file is gone")
        if self._files.poll():
            self._take_policies(now)
            changed = True
        if self._labels.poll():
            changed = True
            self._roster.label_anew()
        if changed:
            for vm in self._vms:
                self._stand(vm)
        if self._discover(now, everything) or changed:
            self._settle(now)
            self._tell_idle_policies()

    def _take_policies(self, now: float) -> None:
        before = {policy.name: policy for policy in self._passes.policies()}
        self._passes.take(self._files.policies(), now)
        edited = {p.name for p in self._passes.policies() if before.get(p.name) != p}
        for vm in self._vms:
            governor = vm.standing.governor
            contested = vm.obstacle and vm.obstacle.state is State.CONTESTED
            if contested and (governor is None or governor.name in edited):
                vm.obstacle = None
                vm.drift = Drift(container_weight=vm.drift.container_weight)

    def _discover(self, now: float, everything: bool) -> bool:
        """Take in VMs that have started; whether there were any."""
        started = self._roster.discover(now, everything)
        for vm in started:
            self._stand(vm)
            log.info(
                "vm added",
                vm=vm.full_name,
                pid=vm.pid,
                state=vm.state,
                cgroup=vm.placement.path,
                why=vm.obstacle.reason if vm.obstacle else vm.reason or "new",
            )
        return bool(started)

    def _stand(self, vm: Vm) -> None:
        """What the policies say about a VM: again whenever one of the two has changed."""
        node = {"kubernetes.io/hostname": self._options.node}
        namespace = {"kubernetes.io/metadata.name": vm.namespace}
        vm.standing = standing(self._passes.policies(), node, namespace, vm.labels)
        vm.suspended = self._suspended

    def _tell_idle_policies(self) -> None:
        """Say once of a policy that it selects none of the VMs that are there."""
        spoken_for = {
            policy.name
            for vm in self._vms
            for policy in (vm.standing.governor, *vm.standing.observers, *vm.standing.outranked)
            if policy
        }
        idle = frozenset(policy.name for policy in self._passes.policies()) - spoken_for
        for name in sorted(idle - self._idle_policies):
            log.warning("policy selects no VM", policy=name, vms=len(self._vms))
        self._idle_policies = idle

    # --- decide and act ---

    def _pass(self, due: Sequence[PolicyRun], now: float) -> None:
        """One pass of each policy that is due, on one reading."""
        begin = time.thread_time()
        views = {run.policy.name: self._seen_by(run.policy) for run in due}
        wanted = {vm.uid: vm for vms in views.values() for vm in vms}
        reading = self._roster.sensors.read(now, wanted.values(), self._passes.needs(due))
        moved: set[str] = set()
        for run in due:
            missing = run.missing
            decision = run.run(reading, views[run.policy.name], self._options.node, len(self._vms))
            if run.missing and run.missing != missing:
                log.warning("signals are missing", policy=run.policy.name,
                            signals="; ".join(run.missing))  # fmt: skip
            for change in decision.changes:
                if self._take_change(run.policy, change, run.due):
                    moved.add(change.uid)
            run.schedule_next()
        if moved:
            self._settler.settle(self._vms, now, moved)
        self._passes.cpu_seconds += time.thread_time() - begin

    def _seen_by(self, policy: PeacePolicy) -> list[Vm]:
        if policy.mode is Mode.ENFORCE:
            return [vm for vm in self._vms if vm.governor is policy and not vm.write_failure]
        return [
            vm for vm in self._vms
            if not vm.obstacle and any(each is policy for each in vm.standing.observers)
        ]  # fmt: skip

    def _take_change(self, policy: PeacePolicy, change: Change, at: float) -> bool:
        vm = self._vms.get(change.uid)
        if vm is None:
            return False
        if policy.mode is Mode.OBSERVE:
            log.info("would adjust", vm=vm.full_name, policy=policy.name, rule=change.rule,
                     old=change.old, new=change.new)  # fmt: skip
            return False
        vm.nice = change.new
        vm.changed_at = at
        vm.reason = f"{policy.name}/{change.rule}: nice {change.old} to {change.new}"
        return True

    def _settle(self, now: float) -> None:
        self._settler.settle(self._vms, now)


def _raise_descriptor_limit() -> None:
    """About ten descriptors a VM are kept: take all that the host allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
