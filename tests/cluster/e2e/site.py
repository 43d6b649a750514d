"""A cluster as an administrator makes it: everything applied with kubectl, and the operator."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube.api import Api, Document
from tests import kubevirt
from tests.cluster.deployment import NAMESPACE
from tests.cluster.kubectl import Kubectl
from tests.cluster.program import Program, is_ready, running

ROOT = Path(__file__).parents[3]
TIMEOUT = 30.0
"""Seconds to wait for what takes one or two."""

PROMPT = ("--status-interval", "1s")
"""The operator tells figures at once: half a minute later proves nothing more."""

T = TypeVar("T")


class Operator:
    """`peacemaker-operator run` with the token of its own service account; started or not."""

    def __init__(self, cluster: Cluster, api: Api, folder: Path) -> None:
        self._cluster = cluster
        self._api = api
        self._folder = folder
        self._stack = ExitStack()
        self._program: Program | None = None
        self._said = ""
        folder.mkdir()

    @property
    def program(self) -> Program:
        if self._program is None:
            raise ValueError("the operator was not started")
        return self._program

    @property
    def kubeconfig(self) -> Path:
        """What it may do, and no more."""
        return self._folder / "operator.kubeconfig"

    @property
    def is_started(self) -> bool:
        return self._program is not None

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it, and wait until it knows the whole cluster.

        The identity is always the same: after a kill it goes on where it was, and needs not wait
        for the end of its own lease.
        """
        identity = ("--identity", self._folder.name)
        manager = running(self._cluster, self._api, self._folder, *PROMPT, *identity, *options)
        self._program = self._stack.enter_context(manager)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for(lambda: is_ready(self.program), TIMEOUT, "the operator to be ready")

    def end(self) -> None:
        """Let it end, as the kubelet does."""
        assert self.program.end() == 0
        self.kill()

    def kill(self) -> None:
        """kill -9."""
        if self._program is not None:
            self._program.process.signal_end()
            self._program.process.child.wait(TIMEOUT)
            self._said += self._program.said()
            self._program = None
        self._stack.close()

    def said(self) -> str:
        """Its log, that of those before it too."""
        return self._said + (self._program.said() if self._program else "")


class Site:
    """A context manager: a control plane with CRDs, KubeVirt's too, deploy/base and an operator."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._folder = folder

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.cluster = stack.enter_context(Cluster())
            self.api = Api.load(str(self.cluster.kubeconfig))
            stack.callback(self.api.close)
            self.kubectl = Kubectl(self.cluster, ROOT, self._folder)
            install(self.kubectl)
            self.operator = Operator(self.cluster, self.api, self._folder / "one")
            stack.callback(self.operator.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def another_operator(self) -> Operator:
        """A second replica, not started, which ends with the site."""
        other = Operator(self.cluster, self.api, self._folder / f"other-{time.monotonic_ns()}")
        self._stack.callback(other.kill)
        return other

    def settings(self, **data: str) -> None:
        """Write these settings, and no others."""
        metadata = {"name": "peacemaker", "namespace": NAMESPACE}
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )


def install(kubectl: Kubectl) -> None:
    """What an administrator types, on a cluster where KubeVirt is."""
    kubectl("create", "-f", str(kubevirt.CRD))  # too large for `apply`
    kubectl("apply", "-f", "crds/")
    established = ("wait", "--for=condition=Established", "--timeout=30s", "-f")
    for crds in ("crds/", str(kubevirt.CRD)):
        # A CRD's conditions are null for its first moment, at which kubectl gives up.
        eventually(partial(kubectl.run, *established, crds), lambda said: said.status == 0, "CRDs")
    kubectl("apply", "-f", "deploy/base/")


def eventually(
    read: Callable[[], T], is_right: Callable[[T], object], what: str, timeout: float = TIMEOUT
) -> T:
    """What is read, once it is right. AssertionError with what is read instead."""
    deadline = time.monotonic() + timeout
    while True:
        value = read()
        if is_right(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; it is {value!r}")
        time.sleep(0.02)


def condition(document: Document, kind: str = "Ready") -> tuple[str, str]:
    """Status and reason of a condition; empty while there is none."""
    found = document.get("status", {}).get("conditions", ())
    return next(
        ((each["status"], each["reason"]) for each in found if each["type"] == kind), ("", "")
    )
