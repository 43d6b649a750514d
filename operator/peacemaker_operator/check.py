"""Check an installation: whether its parts are there and at work, and what to do where not.

What may come right by itself is waited for. It reads five objects, and writes nothing.
"""

import math
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_operator.leader import DEFAULT_TIMING, LEASE
from peacemaker_operator.reading import count, labels, number, section, sections, text
from peacemaker_operator.records import SCHEDULABLE_LABEL

AGENTS: Final = "peacemaker-agent"
"""The agents' DaemonSet."""

LEVEL: Final = "pod-security.kubernetes.io/enforce"
PRIVILEGED: Final = "privileged"
"""The one level of Pod Security that allows the agents' hostPID and hostPath."""

_KINDS: Final = {"PeacePolicies": paths.PEACE_POLICIES, "PeaceLists": paths.PEACE_LISTS}
_PERIOD: Final = 1.0
_NOT_FOUND: Final = 404
_INT64_MAX: Final = 2**63 - 1


class Result(StrEnum):
    """What came of one check."""

    OK = "ok"
    WARNING = "warning"
    NOT_YET = "not yet"
    """It may come right by itself."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, for people. `command`: what to type to mend it or to see more, or empty."""

    result: Result
    message: str
    command: str = ""

    @property
    def is_well(self) -> bool:
        return self.result in (Result.OK, Result.WARNING)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the API server has; None for what is not there."""

    namespace: Document | None
    lease: Document | None
    agents: Document | None
    unserved: tuple[str, ...]


class _Pulse:
    """Whether the leader renews its Lease while we look: no two clocks are compared."""

    def __init__(self) -> None:
        self._seen: str | None = None
        self._renewed_at = -math.inf

    def beats(self, lease: Document | None, now: float) -> bool:
        renewed = text(section(lease, "spec").get("renewTime")) or ""
        if self._seen not in (None, renewed):
            self._renewed_at = now
        self._seen = renewed
        return now - self._renewed_at <= DEFAULT_TIMING.lease


def check(
    api: Api, namespace: str, timeout: float, progress: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Look until all is well, or waiting does not help, at most so many seconds.

    Raises ApiError, also if a right to look is missing, and ApiUnreachable.
    """
    pulse, deadline = _Pulse(), time.monotonic() + timeout
    said: set[str] = set()
    while True:
        found = _look(api, namespace)
        leads = pulse.beats(found.lease, time.monotonic())
        findings = tuple(_findings(found, namespace, leads))
        waiting = [each for each in findings if each.result is Result.NOT_YET]
        if not waiting or any(each.result is Result.FAILED for each in findings):
            return findings
        if (left := deadline - time.monotonic()) <= 0:
            return tuple(
                replace(each, result=Result.FAILED) if each in waiting else each
                for each in findings
            )
        for each in waiting:
            if each.message not in said:
                progress(f"{each.result}: {each.message}")
                said.add(each.message)
        time.sleep(min(_PERIOD, left))


def _look(api: Api, namespace: str) -> _Found:
    apps, leases = (
        f"/apis/{group}/v1/namespaces/{namespace}" for group in ("apps", "coordination.k8s.io")
    )
    return _Found(
        namespace=_get(api, paths.item(paths.NAMESPACES, namespace)),
        lease=_get(api, paths.item(f"{leases}/leases", LEASE)),
        agents=_get(api, paths.item(f"{apps}/daemonsets", AGENTS)),
        unserved=tuple(kind for kind, path in _KINDS.items() if _get(api, path, limit="1") is None),
    )


def _get(api: Api, path: str, **query: str) -> Document | None:
    try:
        return api.get(path, **query)
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


def _findings(found: _Found, namespace: str, leads: bool) -> Iterator[Finding]:
    if found.namespace is None:
        yield Finding(Result.FAILED, f"there is no namespace {namespace}: name it by --namespace")
        return
    yield _kinds(found.unserved)
    level = labels(found.namespace).get(LEVEL)
    yield _pod_security(namespace, level)
    yield _leader(found.lease, namespace, leads)
    yield _agents(found.agents, namespace, level)


def _kinds(unserved: tuple[str, ...]) -> Finding:
    if unserved:
        message = f"the API server does not know {' and '.join(unserved)}: their CRDs are missing"
        command = "kubectl apply --server-side -f charts/peacemaker/crds/"
        return Finding(Result.NOT_YET, message, command)
    return Finding(Result.OK, "the API server knows PeacePolicies and PeaceLists")


def _pod_security(namespace: str, level: str | None) -> Finding:
    if level is None:
        return Finding(Result.OK, f"namespace {namespace} has no Pod Security level of its own")
    if level == PRIVILEGED:
        return Finding(Result.OK, f"namespace {namespace} has Pod Security level {PRIVILEGED}")
    message = (
        f"namespace {namespace} has Pod Security level {level}, which keeps agents' pods from "
        "being made: they have hostPID and hostPath"
    )
    return Finding(Result.FAILED, message, _label_command(namespace))


def _label_command(namespace: str) -> str:
    """The shell command after which a namespace may have agents."""
    return shlex.join(
        ["kubectl", "label", "--overwrite", "namespace", namespace, f"{LEVEL}={PRIVILEGED}"]
    )


def _leader(lease: Document | None, namespace: str, leads: bool) -> Finding:
    command = _pods_command(namespace, "operator")
    if lease is None:
        message = f"no operator has ever led: there is no Lease {LEASE}"
        return Finding(Result.NOT_YET, message, command)
    holder = text(section(lease, "spec").get("holderIdentity"))
    if holder is None:
        return Finding(Result.NOT_YET, f"no operator leads: nobody holds Lease {LEASE}", command)
    if not leads:
        message = f"no operator leads: {holder} holds Lease {LEASE}, and was not seen to renew it"
        return Finding(Result.NOT_YET, message, command)
    return Finding(Result.OK, f"operator {holder} leads")


def _agents(agents: Document | None, namespace: str, level: str | None) -> Finding:
    if agents is None:
        message = f"there is no DaemonSet {AGENTS} in namespace {namespace}: name it by --namespace"
        return Finding(Result.FAILED, message)
    status = section(agents, "status")
    generation = number(section(agents, "metadata").get("generation"), 0, _INT64_MAX) or 0
    if (number(status.get("observedGeneration"), 0, _INT64_MAX) or 0) < generation:
        return Finding(Result.NOT_YET, f"no controller has looked at DaemonSet {AGENTS} yet")
    wanted, made, ready = (
        count(status.get(field))
        for field in ("desiredNumberScheduled", "currentNumberScheduled", "numberReady")
    )
    if wanted == 0:
        return _no_agent(agents)
    if ready >= wanted:
        return Finding(Result.OK, f"{ready} of {wanted} agents are ready")
    return _unready(wanted, made, ready, namespace, level)


def _unready(wanted: int, made: int, ready: int, namespace: str, level: str | None) -> Finding:
    message = f"{ready} of {wanted} agents are ready"
    if made >= wanted:
        return Finding(Result.NOT_YET, message, _pods_command(namespace, "agent"))
    message += f", and {wanted - made} have no pod"
    if level is None:
        message += ": if the cluster enforces Pod Security by default, label the namespace"
        return Finding(Result.NOT_YET, message, _label_command(namespace))
    command = shlex.join(["kubectl", "--namespace", namespace, "describe", "daemonset", AGENTS])
    return Finding(Result.NOT_YET, message, command)


def _no_agent(agents: Document) -> Finding:
    """Why no node is to have one: by what the DaemonSet asks of nodes."""
    pod = section(agents, "spec", "template", "spec")
    required = section(
        pod, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"
    )
    keys = [
        str(expression.get("key"))
        for term in sections(required.get("nodeSelectorTerms"))
        for expression in sections(term.get("matchExpressions"))
    ]
    keys += section(pod, "nodeSelector")
    message = "no node is to have an agent"
    if not keys:
        return Finding(Result.WARNING, f"{message}: is none there whose taints they tolerate?")
    message += f": none that it could run on has the label {' and '.join(keys)}"
    if SCHEDULABLE_LABEL in keys:
        message += f" (KubeVirt gives {SCHEDULABLE_LABEL} to each node where it can run VMs)"
    return Finding(Result.WARNING, message, f"kubectl get nodes -L {','.join(keys)}")


def _pods_command(namespace: str, component: str) -> str:
    labels = f"app.kubernetes.io/name=peacemaker,app.kubernetes.io/component={component}"
    return shlex.join(
        ["kubectl", "--namespace", namespace, "get", "pods", "-o", "wide", "-l", labels]
    )
