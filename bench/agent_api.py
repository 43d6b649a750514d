"""What does the agent's part in a cluster cost a node with 500 VMs?

500 real QEMU processes of 4 vCPUs each, paused, in pods of their own as KubeVirt makes them; a
PeaceList that names them, on a real API server; `peacemaker-agent run --node` with the token of its
pod. Once without metrics, and once with, which are read every 15 s.

- adjusting: a policy moves every VM in every pass. How often the status is written.
- rest: the policy is there and moves nothing. The same, the agent's CPU time, and its memory.
"""

import argparse
import json
import re
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from apiserver import Cluster
from bench._cluster import Writes, cpu_seconds, create_node, memory, running_agent
from bench._report import Figure, arguments, run, say
from lab import Fleet, PodTree, start_many
from lab.agent import Agent
from lab.policy import Fields, policy, rule
from lab.qemu import MONITOR
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from tests.cluster.deployment import AGENT, deployed
from tests.cluster.program import LOCALHOST, free_ports

NODE = "node-0"
VCPUS = 4
STATUS_EVERY = 30.0
SCRAPE_EVERY = 15.0
QUIET = 45.0
"""Seconds without a write after which there is none to come: details come every 30 s and a bit."""
FAR = 5

# Rules see what was before the pass, so that each of them moves all VMs in every second pass.
MOVING = (
    rule({"set": FAR}, {"where": "vm.nice == 0"}, name="away"),
    rule({"set": 0}, {"where": f"vm.nice == {FAR}"}, name="back"),
)
STILL = (rule({"set": FAR}, {"where": "vm.wait > 2.0"}, name="never"),)


def measure(parsed: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    with deployed(audit=True) as (cluster, api), PodTree() as tree, Fleet() as fleet:
        say(f"{parsed.vms} VMs start")
        uids = [str(uuid.uuid4()) for _ in range(parsed.vms)]
        groups = [tree.pod(uid, weight=1000).leaf for uid in uids]
        for guest in start_many(groups, vcpus=VCPUS, parent_comm=MONITOR):
            fleet.keep(guest)
        pod = create_node(api, NODE)
        _create_list(api, uids)
        [port] = free_ports(1)
        for name, options in (
            ("", ()),
            ("with metrics, ", ("--metrics-address", f"{LOCALHOST}:{port}")),
        ):
            say(f"{name}the agent runs")
            words = ("--log-level", "warning", *options)
            with (
                running_agent(cluster, api, pod, tree.root, *words) as agent,
                _scraping(port if options else None),
            ):
                figures += _one_agent(cluster, api, agent, name, parsed)
    return figures


# --- the PeaceList ---


def _create_list(api: Api, pods: Sequence[str]) -> None:
    labels = {f"example.com/label-{number}": f"value-{number}" for number in range(10)}
    vms = [
        {
            "uid": f"{index:04}-{pod}",
            "podUID": pod,
            "namespace": f"tenant-{index % 20}",
            "name": f"vm-{index}",
            "labels": labels,
            "vcpus": VCPUS,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "policy": "bench",
            "state": "Managed",
        }
        for index, pod in enumerate(pods)
    ]
    document = {
        "apiVersion": paths.API_VERSION,
        "kind": "PeaceList",
        "metadata": {"name": NODE},
        "spec": {"policies": [_listed(STILL, 1)], "vms": vms},
    }
    api.create(paths.PEACE_LISTS, document, fieldValidation="Strict")


def _listed(rules: Sequence[Fields], generation: int) -> Document:
    document = json.loads(policy(*rules, name="bench", interval="15s"))
    return {"name": "bench", "generation": generation, "spec": json.dumps(document["spec"])}


def _put_policy(api: Api, rules: Sequence[Fields]) -> None:
    """As the operator does when the policy is edited."""
    path = paths.item(paths.PEACE_LISTS, NODE)
    found = api.get(path)["spec"]["policies"][0]["generation"]
    api.patch(path, {"spec": {"policies": [_listed(rules, found + 1)]}})


# --- what is measured ---


def _one_agent(
    cluster: Cluster, api: Api, agent: Agent, name: str, parsed: argparse.Namespace
) -> list[Figure]:
    writes = Writes(cluster, AGENT)
    agent.wait(lambda: _governed(agent) == parsed.vms, f"{parsed.vms} VMs to be governed")
    watches = _watches(api, cluster)
    _put_policy(api, MOVING)
    agent.wait(lambda: _at_nice(agent, FAR) == parsed.vms, "all VMs to be moved")
    say(f"all VMs move in every pass, for {parsed.seconds:g} s")
    before, cpu = writes.all(), cpu_seconds(agent.pid)
    time.sleep(parsed.seconds)
    written = (writes.all() - before).total()
    used = 100 * (cpu_seconds(agent.pid) - cpu) / parsed.seconds
    connections = len(psutil.Process(agent.pid).net_connections("tcp"))
    _put_policy(api, STILL)
    writes.wait_quiet(QUIET)
    say(f"rest for {parsed.rest:g} s")
    before, cpu = writes.all(), cpu_seconds(agent.pid)
    time.sleep(parsed.rest)
    at_rest = (writes.all() - before).total()
    resting = 100 * (cpu_seconds(agent.pid) - cpu) / parsed.rest
    agent.must_run()
    return [
        Figure(f"{name}watches", "", (watches,), at_most=1.0),
        Figure(f"{name}connections", "", (float(connections),)),
        Figure(
            f"{name}adjusting: status writes every {STATUS_EVERY:g} s",
            "",
            (written * STATUS_EVERY / parsed.seconds,),
            at_most=1.0,
            at_least=None,
        ),
        Figure(f"{name}adjusting: CPU of one core", "%", (used,)),
        Figure(f"{name}rest: status writes", "", (float(at_rest),), at_most=0.0),
        Figure(f"{name}rest: CPU of one core", "%", (resting,)),
        Figure(f"{name}memory (RSS) at rest", "MiB", (memory(agent.pid, "VmRSS"),), at_most=96.0),
        Figure(f"{name}most memory (RSS)", "MiB", (memory(agent.pid, "VmHWM"),), at_most=96.0),
    ]


def _governed(agent: Agent) -> int:
    return sum(each["governs"] for each in agent.status()["policies"])


def _at_nice(agent: Agent, nice: int) -> int:
    return sum(row["nice"] == nice for row in agent.rows().values())


def _watches(api: Api, cluster: Cluster) -> float:
    """How many watches of PeaceLists there are: nobody but the agent has any."""
    answer = api.client.rest_client.request(
        "GET",
        f"{cluster.url}/metrics",
        headers={"Authorization": f"Bearer {cluster.token}"},
    )
    return sum(
        float(line.rpartition(" ")[2])
        for line in answer.read().decode().splitlines()
        if re.match(r'apiserver_longrunning_requests\{.*resource="peacelists".*verb="WATCH"', line)
    )


@contextmanager
def _scraping(port: int | None) -> Iterator[None]:
    """Read the metrics now and then, as Prometheus does."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(SCRAPE_EVERY):
            with urllib.request.urlopen(f"http://{LOCALHOST}:{port}/metrics") as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    if port is not None:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if port is not None:
            thread.join()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vms", type=int, default=500, help="(default 500)")
    parser.add_argument("--seconds", type=float, default=150.0, help="of adjusting (default 150)")
    parser.add_argument("--rest", type=float, default=120.0, help="seconds (default 120)")
    run("API: the agent in cluster mode on a node with 500 VMs", measure, parser.parse_args())


if __name__ == "__main__":
    main()
