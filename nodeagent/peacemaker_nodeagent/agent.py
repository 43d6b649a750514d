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
from dataclasses import dataclass
from typing import Final, Protocol

from peacemaker.engine import Change
from peacemaker.peacelist import Suspension
from peacemaker.policy import Mode, PeacePolicy
from peacemaker_kube import log
from peacemaker_nodeagent.act import Actuator
from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.discover import Finder
from peacemaker_nodeagent.drift import Drift
from peacemaker_nodeagent.notify import notify, watchdog_interval
from peacemaker_nodeagent.orders import Orders
from peacemaker_nodeagent.passes import Passes, PolicyRun
from peacemaker_nodeagent.peace_list import State, Vm
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
"""Seconds between looks at everything, for what the quick looks may have missed."""

STOPPED: Final = Suspension("Stopped", "the stop file exists")


def clock() -> float:
    """Seconds since boot, suspension included: the clock that processes' start times count on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Options:
    """Where the agent works, and by what name of the node."""

    node: str
    below: str
    run_dir: RunDir


class Outlet(Protocol):
    """Who hears of the agent's work elsewhere."""

    def news(self, now: float) -> None:
        """Something may have changed."""
        ...

    def tick(self, now: float) -> None:
        """Called at least twice a second: the time for what was put off."""
        ...


class Agent:
    """Keeps the peace on one node, from `start` until a signal ends `run`.

    `selector` calls what is registered with it; `outlets` may be added before `run`.
    """

    def __init__(
        self, options: Options, hierarchy: Hierarchy, orders: Orders, finder: Finder
    ) -> None:
        """For whoever holds the lock of the run directory; nothing is adjusted yet."""
        self._options = options
        self._hierarchy = hierarchy
        self._orders = orders
        self._finder = finder
        journal = Journal(options.run_dir.journal, boot_id())
        actuator = Actuator(journal)
        self.tally = actuator.tally
        self.selector = selectors.DefaultSelector()
        self._roster = Roster(hierarchy, finder, journal, actuator, self.selector)
        self._settler = Settler(actuator, hierarchy, orders.max_claim_percent)
        self.vms = self._roster.vms
        self.sensors = self._roster.sensors
        self.passes = Passes()
        self.outlets: list[Outlet] = []
        self._stopped = False
        self._woken = False
        self._ends = False

    @property
    def suspended(self) -> Suspension | None:
        """Why everything is restored and left alone; None while policies are in force."""
        return self._orders.suspended or (STOPPED if self._stopped else None)

    @property
    def cgroup_version(self) -> int:
        return self._hierarchy.version

    @property
    def max_claim_percent(self) -> int:
        """How far the claims may grow (claim.guard)."""
        return self._orders.max_claim_percent

    def wake(self) -> None:
        """Have a look now: there may be other orders, or other VMs."""
        self._woken = True

    # --- the loop ---

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Values are left as they are: an upgrade changes no VM."""
        _raise_descriptor_limit()
        # A pass makes thousands of objects that die with it, and no cycles: look for those rarely.
        gc.set_threshold(50_000)
        wakeups = self._catch_signals()
        reporter = Reporter(
            self._options.node, self.vms, self.passes, self.sensors, clock, lambda: self.suspended
        )
        server = Server(self._options.run_dir.socket, reporter.answer, self.selector)
        try:
            self._start()
            notify("READY=1")
            self._loop()
        finally:
            notify("STOPPING=1")
            server.close()
            self.selector.unregister(wakeups)
            wakeups.close()
        log.info("stopped, values are left as they are", vms=len(self.vms))

    def _start(self) -> None:
        """Everything that is there is adopted before anything is decided."""
        now = clock()
        self._stopped = os.path.exists(self._options.run_dir.stop_file)
        self._orders.poll()
        self._take_orders(now)
        log.info(
            "started",
            node=self._options.node,
            cgroup=f"v{self._hierarchy.version}",
            policies=",".join(policy.name for policy in self.passes.policies()) or "-",
        )
        self._discover(now, everything=True)
        self._roster.restore_orphans(self._options.below)
        self._settle(now)
        self._orders.review(self.vms)

    def _loop(self) -> None:
        now = clock()
        look, alive = now, now
        housekeeping, search = now + HOUSEKEEPING_EVERY, now + SEARCH_EVERY
        watchdog = watchdog_interval()
        while not self._ends:
            until = min(look, housekeeping, self.passes.next_due(), self._finder.next_look())
            for key, _ in self.selector.select(max(0.0, until - clock())):
                key.data()
            now = clock()
            if self._roster.lost:
                self._roster.lost = False
                self._settle(now)
            if self._woken or now >= min(look, self._finder.next_look()):
                self._woken = False
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
            if due := self.passes.due(now):
                self._pass(due, now)
            for outlet in self.outlets:
                outlet.tick(now)

    def _catch_signals(self) -> socket.socket:
        """SIGTERM and SIGINT end the loop; a signal wakes the selector."""
        wakeups, writes = socket.socketpair()
        for end in (wakeups, writes):
            end.setblocking(False)
        signal.set_wakeup_fd(writes.detach(), warn_on_full_buffer=False)
        self.selector.register(wakeups, selectors.EVENT_READ, lambda: wakeups.recv(64))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        return wakeups

    def _end(self) -> None:
        self._ends = True

    # --- what may have changed ---

    def _look(self, now: float, everything: bool) -> None:
        """New VMs, looked for among new processes or all of them; new orders; the stop file."""
        stopped = os.path.exists(self._options.run_dir.stop_file)
        changed = stopped != self._stopped
        if changed:
            self._stopped = stopped
            log.warning("stop file is there: resting" if stopped else "stop file is gone")
        changed = self._orders.poll() or changed
        if changed:
            self._take_orders(now)
        if self._discover(now, everything) or changed:
            self._settle(now)
            self._orders.review(self.vms)

    def _take_orders(self, now: float) -> None:
        before = {policy.name: policy for policy in self.passes.policies()}
        self.passes.take(self._orders.policies(), now)
        self._settler.allow(self._orders.max_claim_percent)
        edited = {p.name for p in self.passes.policies() if before.get(p.name) != p}
        for vm in self.vms:
            governor = vm.standing.governor
            contested = vm.obstacle and vm.obstacle.state is State.CONTESTED
            if contested and (governor is None or governor.name in edited):
                vm.obstacle = None
                vm.drift = Drift(container_weight=vm.drift.container_weight)
            self._give_orders(vm)

    def _give_orders(self, vm: Vm) -> None:
        """What policies and others say of a VM: again whenever one of the two has changed."""
        self._orders.give(vm)
        vm.suspended = self.suspended

    def _discover(self, now: float, everything: bool) -> bool:
        """Take in VMs that have started; whether there were any."""
        started = self._roster.discover(now, everything)
        for vm in started:
            self._give_orders(vm)
            log.info(
                "vm added",
                vm=vm.full_name,
                pid=vm.pid,
                state=vm.state,
                cgroup=vm.placement.path,
                why=_why(vm),
            )
        return bool(started)

    # --- decide and act ---

    def _pass(self, due: Sequence[PolicyRun], now: float) -> None:
        """One pass of each policy that is due, on one reading."""
        begin = time.thread_time()
        views = {run.policy.name: self._seen_by(run.policy) for run in due}
        wanted = {vm.uid: vm for vms in views.values() for vm in vms}
        reading = self.sensors.read(now, wanted.values(), self.passes.needs(due))
        moved: set[str] = set()
        has_news = False
        for run in due:
            before, missing = run.activity
            decision = run.run(reading, views[run.policy.name], self._options.node, len(self.vms))
            has_news = has_news or bool(decision.changes) or run.activity != (before, missing)
            if run.missing and run.missing != missing:
                log.warning("signals are missing", policy=run.policy.name,
                            signals="; ".join(run.missing))  # fmt: skip
            for change in decision.changes:
                if self._take_change(run.policy, change, run.due):
                    moved.add(change.uid)
            run.schedule_next()
        if moved:
            self._settler.settle(self.vms, now, moved)
        if has_news:
            self._tell(now)
        self.passes.cpu_seconds += time.thread_time() - begin

    def _seen_by(self, policy: PeacePolicy) -> list[Vm]:
        if policy.mode is Mode.ENFORCE:
            return [vm for vm in self.vms if vm.governor is policy and not vm.write_failure]
        unheld = [vm for vm in self.vms if not (vm.obstacle or vm.hold)]
        return [vm for vm in unheld if any(each is policy for each in vm.standing.observers)]

    def _take_change(self, policy: PeacePolicy, change: Change, at: float) -> bool:
        vm = self.vms.get(change.uid)
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
        self._settler.settle(self.vms, now)
        self._tell(now)

    def _tell(self, now: float) -> None:
        for outlet in self.outlets:
            outlet.news(now)


def _why(vm: Vm) -> str:
    if vm.obstacle:
        return vm.obstacle.reason
    return vm.hold.reason if vm.hold else vm.reason or "new"


def _raise_descriptor_limit() -> None:
    """About ten descriptors a VM are kept: take all that the host allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
