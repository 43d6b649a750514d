"""What the benchmarks of the control plane share: objects as a real cluster has them, operator and
agent with the rights of their roles, and what these wrote.
"""

import copy
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from apiserver import Cluster
from lab.agent import Agent
from peacemaker_kube import paths
from peacemaker_kube.api import Api, Document
from tests import kubevirt
from tests.cluster.deployment import AGENT, NAMESPACE, agent_pod, kubeconfig, token
from tests.cluster.program import Program, running_with

CONNECTIONS = 8

_READ_ONLY = frozenset({"get", "list", "watch"})

T = TypeVar("T")
R = TypeVar("R")


# --- objects ---


def create_node(api: Api, name: str) -> Document:
    """A Node with as many labels and images as a real one has. Returns its agent's pod, ready."""
    labels = {f"cpu-feature.node.kubevirt.io/feature-{index}": "true" for index in range(80)}
    labels |= {"kubevirt.io/schedulable": "true", "kubernetes.io/hostname": name}
    images = [
        {
            "names": [f"registry.example.com/team/image-{index}@sha256:{index:064x}"],
            "sizeBytes": 10**8 + index,
        }
        for index in range(50)
    ]
    node = {"metadata": {"name": name, "labels": labels}, "status": {"images": images}}
    api.create(paths.NODES, node)
    pod = agent_pod(api, name)
    path = paths.item(paths.core(NAMESPACE, "pods"), pod["metadata"]["name"])
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    return api.patch(f"{path}/status", ready)


def vmis(namespace: str) -> str:
    """Where the VirtualMachineInstances of a namespace are."""
    return f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"


def create_vmi(
    api: Api, namespace: str, name: str, node: str, pod: str, labels: dict[str, str]
) -> Document:
    """A running VirtualMachineInstance as KubeVirt writes it, in this pod of the node."""
    document = copy.deepcopy(kubevirt.RUNNING)
    kept = {key: document["metadata"][key] for key in ("annotations", "finalizers")}
    labels = {"kubevirt.io/nodeName": node, **labels}
    document["metadata"] = {**kept, "namespace": namespace, "name": name, "labels": labels}
    document["status"] |= {"nodeName": node, "activePods": {pod: node}}
    return api.create(vmis(namespace), document)


def at_once(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results for all items, a few at a time: most of the time is the API server's."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(do, items))


# --- programs ---


@contextmanager
def running_operator(cluster: Cluster, bearer: str) -> Iterator[Program]:
    """`peacemaker-operator run` with this token, from its start on; its log goes to stderr if an
    exception ends it.
    """
    with tempfile.TemporaryDirectory(prefix="peacemaker-bench-") as scratch:
        file = kubeconfig(cluster, bearer, Path(scratch, "kubeconfig"))
        with running_with(file) as program:
            try:
                yield program
                program.process.must_run()
            except BaseException:
                print(program.said()[-10_000:], file=sys.stderr)
                raise


@contextmanager
def running_agent(
    cluster: Cluster, api: Api, pod: Document, below: str, *options: str
) -> Iterator[Agent]:
    """`peacemaker-agent run --node` with the token of its pod, for VMs below this cgroup, from when
    it answers on. It is ended with the context, and what it wrote is put back; RuntimeError if that
    cannot be done.
    """
    with (
        tempfile.TemporaryDirectory(prefix="peacemaker-bench-") as scratch,
        Agent(Path(scratch), below) as agent,
    ):
        file = kubeconfig(cluster, token(api, AGENT, pod), Path(scratch, "kubeconfig"))
        # An interpreter of its own: one forked from here would share this one's memory.
        command = [
            *(sys.executable, "-m", "peacemaker_nodeagent", "run"),
            *("--node", pod["spec"]["nodeName"], "--kubeconfig", str(file)),
            *("--run-dir", agent.run_dir.path, "--below", below, *options),
        ]
        agent.start(prepare=partial(os.execv, sys.executable, command))
        yield agent
        agent.stop()
        done = agent.call("restore")
        if done.status != 0:
            raise RuntimeError(f"not all is restored: {done.stdout}{done.stderr}")


# --- what they do ---


class Writes:
    """What a service account wrote, from the API server's audit log: how often, by verb and
    resource. Renewals of Leases are left out.
    """

    def __init__(self, cluster: Cluster, account: str) -> None:
        self._log = cluster.audit_log
        self._user = f"system:serviceaccount:{NAMESPACE}:{account}"
        self._at = 0
        self._counts: Counter[str] = Counter()

    def all(self) -> Counter[str]:
        """Those since the API server was started."""
        with self._log.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the server is writing it
                self._at += len(line)
                self._take(json.loads(line))
        return Counter(self._counts)

    def wait_quiet(self, seconds: float, timeout: float = 300.0) -> None:
        """Until nothing was written for so long. TimeoutError."""
        deadline = time.monotonic() + timeout
        before = self.all()
        while True:
            time.sleep(seconds)
            if (now := self.all()) == before:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._user} goes on writing: {now - before}")
            before = now

    def _take(self, event: Document) -> None:
        if event["user"]["username"] != self._user or event["verb"] in _READ_ONLY:
            return
        what = event["objectRef"]
        resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
        if resource != "leases":
            self._counts[f"{event['verb']} {resource}"] += 1


def memory(pid: int, field: str) -> float:
    """MiB of a process. `field`: VmRSS, what is resident now; VmHWM, the most that ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(f"/proc/{pid}/status has no {field}")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, of its ended threads as well; in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_cpu_seconds() -> float:
    """CPU time of the API server and the etcd that this process started."""
    return sum(
        cpu_seconds(child.pid)
        for child in psutil.Process().children()
        if child.name() in ("kube-apiserver", "etcd")
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which so many percent are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def poll(condition: Callable[[], bool], every: float, timeout: float, what: str) -> None:
    """Wait until it holds, asked once in so many seconds. TimeoutError."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(every)
