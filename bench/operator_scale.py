"""What does the operator cost a cluster with 10,000 VMs on 1,000 nodes?

A real API server with KubeVirt's own CRD, as many VirtualMachineInstances as KubeVirt would have
there, nodes with the labels and images of real ones, 20 policies, an agent's pod on each node, and
`peacemaker-operator run` with the rights of its role. Measured with a tenth of it and with all:

- cold: no PeaceList is there; from the operator's start until all are, and say what they should.
- changes: VMs change a label, every second one is also paused or unpaused, 50 a second. From the
  sending of the change until a watch tells of the PeaceList that has it.
- the same while every node's agent writes its status every 30 s.
- rest: nothing changes. What the operator writes, and its CPU time. Then all agents fall silent.

Writes are counted in the API server's audit log, renewals of the Lease left out.
"""

import argparse
import copy
import itertools
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from apiserver import Cluster
from bench._cluster import (
    CONNECTIONS,
    Writes,
    at_once,
    cpu_seconds,
    create_node,
    create_vmi,
    memory,
    percentile,
    poll,
    running_operator,
    server_cpu_seconds,
    vmis,
)
from bench._report import Figure, arguments, run, say
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from peacemaker_kube.watch import Change, Watch
from tests import kubevirt
from tests.cluster.deployment import NAMESPACE, OPERATOR, deployed, token

NAMESPACES = 50
POLICIES = 20
TEAMS = 16
"""The first 14 teams have a policy of their own; for the others there is one of lower priority."""
PHASES = 3
STRIDE = 7919
"""From one changed VM to the next, so that neighbours are not changed together."""
STATUS_EVERY = 30.0
QUIET = 35.0
"""Seconds without a write after which there is none to come: details come every 30 s."""
COLD_TIMEOUT = 300.0
CHANGES_TIMEOUT = 180.0
WEBHOOK = "patch validatingwebhookconfigurations"
"""The one write after a restart: here the operator serves its webhook at another port each time."""
BACKLOG = 20.0
"""Seconds of changes that may wait for the API server before the benchmark gives up."""

_ROOT = Path(__file__).parents[1]
_POLICY: Document = yaml.safe_load((_ROOT / "policies/restrain-noisy.yaml").read_text())
OBSERVERS = ("policy-18", "policy-19")
_SERIAL = "bench.example.com/serial"


@dataclass(frozen=True, slots=True)
class Vm:
    """One VirtualMachineInstance on the API server."""

    namespace: str
    name: str
    uid: str
    pod: str
    node: str
    team: int


@dataclass(frozen=True, slots=True)
class Listed:
    """What a PeaceList says of a VM, as far as it is measured here."""

    pod: str
    policy: str
    observers: tuple[str, ...]
    state: str
    serial: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What an operator used for a number of VMs: CPU seconds, cold and for each change."""

    vms: int
    cold: float
    change: float


class Bench:
    """What there is on the API server, and what a watch told of PeaceLists."""

    def __init__(self, cluster: Cluster, api: Api, per_node: int) -> None:
        self.cluster = cluster
        self.per_node = per_node
        self.api = api
        self.bearer = token(api, OPERATOR)
        self.writes = Writes(cluster, OPERATOR)
        self.nodes: list[str] = []
        self.vms: list[Vm] = []
        self.wanted: dict[str, dict[str, Listed]] = {}
        self.lists: dict[str, dict[str, Listed]] = {}
        self.last_change = 0.0
        self.serials = itertools.count(1)
        self.sent: dict[int, float] = {}
        self.delays: dict[int, float] = {}

    def wait_right(self, timeout: float) -> None:
        """Until the PeaceLists are there and say what they should."""
        try:
            poll(lambda: self.lists == self.wanted, 0.3, timeout, "all PeaceLists to be right")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self._first_wrong()}") from None

    def _first_wrong(self) -> str:
        """What a PeaceList says of a VM, and should not."""
        for node, wanted in self.wanted.items():
            found = self.lists.get(node, {})
            for uid, vm in wanted.items():
                if found.get(uid) != vm:
                    return f"on {node} {uid} is {found.get(uid)}, not {vm}"
        return f"there are PeaceLists of {self.lists.keys() - self.wanted.keys()}"


def measure(parsed: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    costs: list[Cost] = []
    with deployed(audit=True) as (cluster, api):
        bench = Bench(cluster, api, parsed.per_node)
        _create_common(api)
        for vms in (parsed.vms // 10, parsed.vms):
            _grow(bench, vms)
            with _following(bench):
                begin = time.monotonic()
                with running_operator(cluster, bench.bearer) as program:
                    operator = program.process.pid
                    found, cost = _one_size(bench, operator, begin, parsed)
                    figures += found
                    costs.append(cost)
                    if vms == parsed.vms:
                        figures += _rest(bench, operator, parsed.rest)
                        figures += _silence(bench)
        figures += _restart(bench)
    return [*figures, *_growth(*costs)]


# --- what is there ---


def _create_common(api: Api) -> None:
    """Namespaces and policies; nobody answers for the webhook yet, so a policy waits a while."""
    at_once(
        lambda index: api.create(paths.NAMESPACES, {"metadata": {"name": _namespace(index)}}),
        range(NAMESPACES),
    )
    at_once(lambda index: api.create(paths.PEACE_POLICIES, _policy(index)), range(POLICIES))


def _grow(bench: Bench, count: int) -> None:
    """Nodes with their agents' pods, and VMs, up to this number; no PeaceList is left."""
    say(f"{count:,} VMs on {count // bench.per_node:,} nodes are made")
    begin = time.monotonic()
    api = bench.api
    api.delete(paths.PEACE_LISTS)
    nodes = [f"node-{index:04}" for index in range(len(bench.nodes), count // bench.per_node)]
    at_once(lambda node: create_node(api, node), nodes)
    bench.nodes += nodes
    bench.vms += at_once(
        lambda index: _create_vm(api, index, bench.nodes[index // bench.per_node]),
        range(len(bench.vms), count),
    )
    wanted = bench.wanted
    bench.wanted = {node: {} for node in bench.nodes}
    for vm in bench.vms:
        known = wanted.get(vm.node, {}).get(vm.uid)
        bench.wanted[vm.node][vm.uid] = known or Listed(
            vm.pod, _governor(vm.team), OBSERVERS, "Managed", 0
        )
    say(f"made in {time.monotonic() - begin:.0f} s")


def _namespace(index: int) -> str:
    return f"tenant-{index:02}"


def _policy(index: int) -> Document:
    """policy-00 to -13 for a team each, -14 to -17 for all; -18 and -19 observe all VMs."""
    policy = copy.deepcopy(_POLICY)
    policy["metadata"] = {"name": f"policy-{index:02}"}
    policy["spec"]["mode"] = "Enforce" if index < 18 else "Observe"
    policy["spec"]["priority"] = 10 if index < 14 else 0 if index < 18 else 20
    if index < 14:
        policy["spec"]["selector"] = {"matchLabels": {"team": f"team-{index:02}"}}
    return policy


def _governor(team: int) -> str:
    """Of policies alike the first by name."""
    return f"policy-{min(team, 14):02}"


def _create_vm(api: Api, index: int, node: str) -> Vm:
    """A VM with ten labels."""
    team, pod, name = index % TEAMS, str(uuid.uuid4()), f"vm-{index:05}"
    namespace = _namespace(index % NAMESPACES)
    labels = {f"example.com/label-{number}": f"value-{number}" for number in range(6)}
    labels |= {"team": f"team-{team:02}", "app.kubernetes.io/instance": name, _SERIAL: "0"}
    created = create_vmi(api, namespace, name, node, pod, labels)
    return Vm(namespace, name, created["metadata"]["uid"], pod, node, team)


# --- what the PeaceLists say ---


@contextmanager
def _following(bench: Bench) -> Iterator[None]:
    """Have a watch tell how PeaceLists change."""
    bench.lists.clear()

    def changed(change: Change[dict[str, Listed]]) -> None:
        _take(bench, change, time.monotonic())

    watch = Watch(bench.api, paths.PEACE_LISTS, _listed, changed)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def _listed(document: Document) -> dict[str, Listed]:
    return {
        vm["uid"]: Listed(
            vm.get("podUID", ""),
            vm.get("policy", ""),
            tuple(vm.get("observers", ())),
            vm["state"],
            int(vm.get("labels", {}).get(_SERIAL, -1)),
        )
        for vm in document["spec"].get("vms", ())
    }


def _take(bench: Bench, change: Change[dict[str, Listed]], now: float) -> None:
    node, old, new = change.key, change.old or {}, change.new
    bench.last_change = now
    if new is None:
        del bench.lists[node]
        return
    bench.lists[node] = new
    for uid, vm in new.items():
        if vm != old.get(uid) and vm.serial in bench.sent:
            bench.delays.setdefault(vm.serial, now - bench.sent[vm.serial])


# --- what is measured ---


def _one_size(
    bench: Bench, operator: int, begin: float, parsed: argparse.Namespace
) -> tuple[list[Figure], Cost]:
    count = len(bench.vms)
    name = f"{count:,} VMs"
    bench.wait_right(COLD_TIMEOUT)
    cold, cold_cpu = bench.last_change - begin, cpu_seconds(operator)
    say(f"cold after {cold:.1f} s")
    bench.writes.wait_quiet(5.0)
    figures = [
        Figure(f"{name}, cold: all PeaceLists are right", "s", (cold,), at_most=60.0),
        Figure(f"{name}, cold: the operator's CPU time", "s", (cold_cpu,)),
    ]
    alone = _changes(bench, operator, parsed)
    with _agents_writing(bench, parsed):
        beside = _changes(bench, operator, parsed)
    what = f"{name}, {parsed.rate:g} changes a second"
    figures += _figures(what, alone, 1.0)
    figures += _figures(f"{what}, and agents' statuses", beside, None)
    figures.append(
        Figure(f"{name}: most memory (RSS)", "MiB", (memory(operator, "VmHWM"),), at_most=256.0)
    )
    per_change = percentile([each.operator for each in alone], 50) / parsed.rate
    return figures, Cost(count, cold_cpu, per_change)


@dataclass(frozen=True, slots=True)
class Changes:
    """Seconds until changes were in PeaceLists; CPU time meanwhile, of one core."""

    p50: float
    p99: float
    operator: float
    server: float
    """The API server and its etcd."""


def _changes(bench: Bench, operator: int, parsed: argparse.Namespace) -> list[Changes]:
    """Some phases of changes, each seen in the PeaceLists before the next begins."""
    found = []
    for _ in range(PHASES):
        first = next(bench.serials)
        begin, cpu, server = time.monotonic(), cpu_seconds(operator), server_cpu_seconds()
        _at_rate(parsed.rate, parsed.seconds / PHASES, lambda _: _change(bench))
        bench.wait_right(CHANGES_TIMEOUT)
        end = time.monotonic()
        # One that was never seen was followed by another of the same VM.
        delays = [
            bench.delays.get(serial, end - sent)
            for serial, sent in bench.sent.items()
            if serial > first
        ]
        changes = Changes(
            percentile(delays, 50),
            percentile(delays, 99),
            (cpu_seconds(operator) - cpu) / (end - begin),
            (server_cpu_seconds() - server) / (end - begin),
        )
        say(f"{len(delays):,} changes: {changes}")
        found.append(changes)
    return found


def _figures(name: str, found: list[Changes], at_most: float | None) -> list[Figure]:
    operator = tuple(100 * each.operator for each in found)
    server = tuple(100 * each.server for each in found)
    return [
        Figure(f"{name}: p50", "s", tuple(each.p50 for each in found)),
        Figure(f"{name}: p99", "s", tuple(each.p99 for each in found), at_most=at_most),
        Figure("  operator's CPU, of one core", "%", operator),
        Figure("  API server's CPU, of one core", "%", server),
    ]


def _change(bench: Bench) -> None:
    """Change a VM's label; every second time pause it, too, or unpause it."""
    serial = next(bench.serials)
    vm = bench.vms[serial * STRIDE % len(bench.vms)]
    old = bench.wanted[vm.node][vm.uid]
    new = replace(old, serial=serial)
    patch: Document = {"metadata": {"labels": {_SERIAL: str(serial)}}}
    if serial % 2:
        new = replace(new, state="Managed" if old.state == "Deferred" else "Deferred")
        paused = [{"type": "Paused", "status": "True"}] if new.state == "Deferred" else []
        patch["status"] = {"conditions": [*kubevirt.RUNNING["status"]["conditions"], *paused]}
    bench.wanted[vm.node][vm.uid] = new
    bench.sent[serial] = time.monotonic()
    bench.api.patch(paths.item(vmis(vm.namespace), vm.name), patch)


@contextmanager
def _agents_writing(bench: Bench, parsed: argparse.Namespace) -> Iterator[None]:
    """Every agent writes its status every 30 s, as while all its VMs are being adjusted."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(
            _at_rate,
            len(bench.nodes) / STATUS_EVERY,
            parsed.seconds + COLD_TIMEOUT,
            lambda number: _write_status(bench, number),
            ended,
        )
        try:
            yield
        finally:
            ended.set()
            writing.result()


def _write_status(bench: Bench, number: int) -> None:
    """What the agent of one node has to say when each of its VMs was adjusted."""
    node = bench.nodes[number % len(bench.nodes)]
    nice = 1 + number // len(bench.nodes) % 10
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    vms = [
        {
            "uid": vm.uid,
            "namespace": vm.namespace,
            "name": vm.name,
            "state": "Managed",
            "nice": nice,
            "effectiveNice": nice,
            "weight": 100 - nice,
            "baseline": 100,
            "since": now,
            "message": f"rule restrain of {_governor(vm.team)}",
        }
        for vm in bench.vms[number % len(bench.nodes) * bench.per_node :][: bench.per_node]
    ]
    rows = [
        {"name": f"policy-{index:02}", "generation": 1, "adjusted": nice % 2, "wouldAdjust": 0}
        for index in range(POLICIES)
    ]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "InForce",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    status = {
        "observedGeneration": 1,
        "load": {"load1": "1.00", "load5": "1.00", "load15": "1.00"},
        "conditions": [ready],
        "summary": {"managed": len(vms), "adjusted": len(vms)},
        "policies": rows,
        "vms": vms,
    }
    bench.api.patch(paths.status(paths.PEACE_LISTS, node), {"status": status})


def _at_rate(
    rate: float,
    seconds: float,
    do: Callable[[int], None],
    ended: threading.Event | None = None,
) -> None:
    """Call it so many times a second, with 0, 1, 2…, whether or not the calls before have ended.

    RuntimeError if the machine cannot keep up.
    """
    ended = ended or threading.Event()
    begin = time.monotonic()
    calls: deque[Future[None]] = deque()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for number in range(int(rate * seconds)):
            if ended.wait(max(0.0, begin + number / rate - time.monotonic())):
                break
            calls.append(threads.submit(do, number))
            while calls and calls[0].done():
                calls.popleft().result()
            if len(calls) > BACKLOG * rate + CONNECTIONS:
                raise RuntimeError(f"the API server does not take {rate:g} writes a second")
        for call in calls:
            call.result()


def _rest(bench: Bench, operator: int, seconds: float) -> list[Figure]:
    bench.writes.wait_quiet(QUIET)
    say(f"all quiet for {seconds:g} s")
    writes, cpu = bench.writes.all(), cpu_seconds(operator)
    time.sleep(seconds)
    written = bench.writes.all() - writes
    if written:
        say(f"written at rest: {written}")
    used = 100 * (cpu_seconds(operator) - cpu) / seconds
    return [
        Figure(f"rest for {seconds:g} s: writes", "", (float(written.total()),), at_most=0.0),
        Figure("rest: CPU of one core", "%", (used,), at_most=0.5),
        Figure("rest: memory (RSS)", "MiB", (memory(operator, "VmRSS"),), at_most=256.0),
    ]


def _silence(bench: Bench) -> list[Figure]:
    """All agents fall silent, which after a minute each PeaceList and each policy says."""
    say("all agents fall silent")
    writes = bench.writes.all()
    bench.api.delete(paths.core(NAMESPACE, "pods"), gracePeriodSeconds="0")
    patched = f"patch {paths.PEACE_LISTS.rpartition('/')[2]}/status"
    poll(
        lambda: (bench.writes.all() - writes)[patched] >= len(bench.nodes),
        1.0,
        180.0,
        "the silence of all agents to be told",
    )
    bench.writes.wait_quiet(QUIET)
    written = bench.writes.all() - writes
    say(f"written: {written}")
    each = written.total() / len(bench.nodes)
    return [Figure("all agents fall silent: writes for each node", "", (each,), at_most=1.1)]


def _restart(bench: Bench) -> list[Figure]:
    """The operator is started anew, and finds all as it should be."""
    say("the operator is started anew")
    writes = bench.writes.all()
    with running_operator(bench.cluster, bench.bearer) as program:
        wait_for(lambda: "msg=leading" in program.said(), 60.0, "the operator to lead")
        wait_for(lambda: "all lists are there" in program.said(), 60.0, "it to know all")
        time.sleep(QUIET)
        most = memory(program.process.pid, "VmHWM")
    written = bench.writes.all() - writes
    del written[WEBHOOK]
    if written:
        say(f"written after the restart: {written}")
    return [
        Figure("restart: writes", "", (float(written.total()),), at_most=0.0),
        Figure("restart: most memory (RSS)", "MiB", (most,), at_most=256.0),
    ]


def _growth(small: Cost, large: Cost) -> list[Figure]:
    cold = (large.cold / large.vms) / (small.cold / small.vms)
    name = f"of {large.vms:,} VMs ÷ of {small.vms:,}"
    return [
        Figure(f"cold CPU time for each VM, {name}", "×", (cold,), at_most=1.25),
        Figure(
            f"CPU time for each change, {name}", "×", (large.change / small.change,), at_most=1.25
        ),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vms", type=int, default=10_000, help="(default 10000)")
    parser.add_argument("--per-node", type=int, default=10, help="VMs on a node (default 10)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of changes, each time (default 60)"
    )
    parser.add_argument("--rate", type=float, default=50.0, help="changes a second (default 50)")
    parser.add_argument("--rest", type=float, default=300.0, help="seconds (default 300)")
    run("Scale: the operator in a large cluster", measure, parser.parse_args())


if __name__ == "__main__":
    main()
