"""What the agent tells Prometheus: one scrape.

The figures are read and gathered in the agent's own loop, at its next turn (half a second at most),
and rendered in the metrics server's thread: nothing that the loop changes is read beside it, and
without a scrape nothing is done.
"""

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector

from peacemaker import __version__
from peacemaker.policy import Mode
from peacemaker.trace import Verdict
from peacemaker_kube.metrics import Family, Scrape, Unanswered
from peacemaker_nodeagent.agent import Agent, clock
from peacemaker_nodeagent.metrics_table import METRICS, PREFIX
from peacemaker_nodeagent.passes import PolicyRun
from peacemaker_nodeagent.peace_list import State, Vm
from peacemaker_nodeagent.readings import Reading
from peacemaker_nodeagent.view import printable

if TYPE_CHECKING:  # it brings the API client
    from peacemaker_nodeagent.cluster import Contact

_PATIENCE: Final = 5.0
"""Seconds after which a loop that does not turn is no news, but no figures either."""

_LONGEST_TURN: Final = 15.0
"""Seconds; two a second is the rule, and the first settling of many VMs takes longest."""

_LONGEST_NAME: Final = 253
_RELISTS: Final = ("expired", "error", "unreachable")
_STATUS_WRITES: Final = ("written", "refused", "unreachable")
_BLOCKS: Final = (Verdict.BOUND, Verdict.COOLDOWN, Verdict.ALREADY_ADJUSTED, Verdict.UNMOVED)
_NS: Final = 1_000_000_000


class AgentMetrics(Collector):
    """An outlet of the agent, which gathers, and a collector, which asks for it in any thread."""

    def __init__(self, agent: Agent, contact: "Contact | None", per_vm: bool) -> None:
        self._agent = agent
        self._contact = contact
        self._per_vm = per_vm
        self._asked: Future[Scrape] | None = None
        self._asking = threading.Lock()
        self._turned_at = -math.inf

    def is_alive(self) -> bool:
        """Whether the agent has started, and its loop turns; asking costs it nothing."""
        return clock() - self._turned_at < _LONGEST_TURN

    def collect(self) -> Iterable[Family]:
        """Who asks before the loop's next turn gets one answer with the others.

        Raises Unanswered while the agent starts, or if it hangs.
        """
        with self._asking:
            if self._asked is None:
                self._asked = Future()
            asked = self._asked
        try:
            return asked.result(_PATIENCE).families()
        except TimeoutError:
            raise Unanswered("the agent has not come round to it yet") from None

    def news(self, now: float) -> None:
        """Nobody is told before he asks."""

    def tick(self, now: float) -> None:
        self._turned_at = now
        asked = self._asked
        if asked is None:
            return
        with self._asking:
            self._asked = None
        try:
            asked.set_result(self._gather(now))
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            asked.set_exception(error)

    def _gather(self, now: float) -> Scrape:
        agent = self._agent
        vms = list(agent.vms)
        reading = agent.sensors.read(now, vms if self._per_vm else (), frozenset())
        scrape = Scrape(PREFIX, METRICS)
        _put_node(scrape, agent, reading, vms)
        _put_policies(scrape, list(agent.passes), agent.vms)
        _put_work(scrape, agent)
        if self._contact is not None:
            _put_contact(scrape, self._contact)
        if self._per_vm:
            for (namespace, name), vm in _named(vms).items():
                wait = agent.sensors.recent(vm).get("wait")
                _put_vm(scrape, vm, reading, wait, namespace, name)
        return scrape


def _put_node(scrape: Scrape, agent: Agent, reading: Reading, vms: list[Vm]) -> None:
    scrape.put("build_info", 1, __version__, f"v{agent.cgroup_version}")
    node = reading.node
    for name, load in zip(("node_load1", "node_load5", "node_load15"), node.load, strict=True):
        scrape.put(name, load / node.cpus)
    scrape.put("node_cpus", node.cpus)
    scrape.put("suspended", agent.suspended is not None)
    states = Counter(vm.state for vm in vms)
    for state in State:
        scrape.put("vms", states[state], state)
    claiming = [vm for vm in vms if vm.share]
    scrape.put("claim_weight", sum(vm.weight_found or 0 for vm in claiming))
    scrape.put("claim_baseline_weight", sum(vm.baseline_weight or 0 for vm in claiming))
    scrape.put("max_claim_ratio", agent.max_claim_percent / 100)


def _put_policies(scrape: Scrape, runs: list[PolicyRun], vms: Iterable[Vm]) -> None:
    found = Counter(
        (policy, figure) for vm in vms for policy, figure in _figures(vm)
    )  # one look at each VM, however many policies there are
    baselines = {vm.uid: vm.baseline_nice for vm in vms}
    for run in runs:
        name = run.policy.name
        for figure in _FIGURES:
            scrape.put(figure, found[name, figure], name)
        shadows = run.memory.shadows.items()
        would = sum(1 for uid, shadow in shadows if baselines.get(uid, shadow.nice) != shadow.nice)
        scrape.put("would_adjust_vms", would, name)
        scrape.put("missing_signals", len(run.missing), name)
        scrape.put("passes_total", run.passes, name)
        scrape.put("pass_seconds_total", run.seconds, name)
        _put_rules(scrape, run)


def _put_rules(scrape: Scrape, run: PolicyRun) -> None:
    name = run.policy.name
    active = {trace.rule.name for trace in run.trace.rules if trace.active} if run.trace else set()
    enforces = run.policy.mode is Mode.ENFORCE
    changes = "adjustments_total" if enforces else "would_adjust_total"
    for rule in (rule.name for rule in run.policy.rules):
        scrape.put("rule_active", rule in active, name, rule)
        scrape.put(changes, run.picks[rule, Verdict.ADJUSTED], name, rule)
        for block in _BLOCKS:
            scrape.put("blocked_picks_total", run.picks[rule, block], name, rule, block)


_FIGURES: Final = (
    *("governed_vms", "observed_vms", "adjusted_vms"),
    *("floored_vms", "contested_vms", "failed_vms"),
)


def _figures(vm: Vm) -> Iterator[tuple[str, str]]:
    """In which figures of which policies a VM counts."""
    for observer in vm.standing.observers:
        yield observer.name, "observed_vms"
    policy = vm.standing.governor
    if policy is None:
        return
    state = vm.state
    if state is State.CONTESTED:
        yield policy.name, "contested_vms"
    if state is State.FAILED:
        yield policy.name, "failed_vms"
    if vm.governor is None:
        return
    yield policy.name, "governed_vms"
    if vm.nice != vm.baseline_nice:
        yield policy.name, "adjusted_vms"
    if vm.share and vm.share.floored:
        yield policy.name, "floored_vms"


def _put_work(scrape: Scrape, agent: Agent) -> None:
    tally = agent.tally
    scrape.put("pass_cpu_seconds_total", agent.passes.cpu_seconds)
    scrape.put("weight_writes_total", tally.weight_writes)
    scrape.put("thread_nice_writes_total", tally.thread_writes)
    scrape.put("restores_total", tally.weight_restores, "weight")
    scrape.put("restores_total", tally.thread_restores, "threads")
    scrape.put("write_failures_total", tally.failures)
    scrape.put("reasserts_total", tally.reasserts)
    scrape.put("rebases_total", tally.rebases)
    scrape.put("thread_corrections_total", tally.thread_corrections)
    scrape.put("contests_total", tally.contests)


def _put_contact(scrape: Scrape, contact: "Contact") -> None:
    """Numbers that other threads count; reading one takes no lock."""
    if contact.watch.heard_at is not None:
        scrape.put("watch_heard_timestamp_seconds", contact.watch.heard_at)
    for reason in _RELISTS:
        scrape.put("watch_restarts_total", contact.watch.relists[reason], reason)
    for result in _STATUS_WRITES:
        scrape.put("status_writes_total", contact.writer.outcomes[result], result)


def _named(vms: Iterable[Vm]) -> Mapping[tuple[str, str], Vm]:
    """VMs by namespace and name, as they may be shown; of several with one name a single one.

    A VM that was made anew may start before the one that had its name has ended: that one is in no
    PeaceList any more, and comes second. Otherwise the elder comes first.
    """
    named: dict[tuple[str, str], Vm] = {}
    for vm in sorted(vms, key=lambda vm: vm.state is State.UNMANAGED):
        namespace, name = (printable(each)[:_LONGEST_NAME] for each in (vm.namespace, vm.name))
        named.setdefault((namespace, name), vm)
    return named


def _put_vm(scrape: Scrape, vm: Vm, reading: Reading, wait: object, *labels: str) -> None:
    """What cannot be had is absent."""
    scrape.put("vm_nice", vm.nice, *labels)
    scrape.put("vm_effective_nice", vm.effective_nice, *labels)
    if vm.own and vm.weight_found is not None and vm.baseline_weight is not None:
        scrape.put("vm_weight", vm.weight_found, *labels)
        scrape.put("vm_baseline_weight", vm.baseline_weight, *labels)
    now = reading.vms.get(vm.uid)
    if now is not None and now.usage is not None:
        scrape.put("vm_cpu_seconds_total", now.usage / _NS, *labels)
    if isinstance(wait, float):
        scrape.put("vm_wait_ratio", wait, *labels)
