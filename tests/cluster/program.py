"""The operator's program as it is started in a cluster, with its own account's token."""

import http.client
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiserver import Cluster
from lab import Process, wait_for
from lab.processes import launch
from peacemaker_kube.api import Api
from tests.cluster.deployment import NAMESPACE, OPERATOR, TIMEOUT, kubeconfig, token

LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Program:
    """A running `peacemaker-operator run`."""

    process: Process
    health: int
    webhook: int
    metrics: int

    def asks(self, port: int, path: str) -> int:
        """The status of the answer, 0 if there is none."""
        connection = http.client.HTTPConnection(LOCALHOST, port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def said(self) -> str:
        return os.pread(self.process.output.fileno(), 1_000_000, 0).decode()

    def end(self) -> int:
        """Ask it to end, as the kubelet does; its exit status."""
        self.process.child.send_signal(signal.SIGTERM)
        return self.process.child.wait(TIMEOUT)


@contextmanager
def running(cluster: Cluster, api: Api, folder: Path, *options: str) -> Iterator[Program]:
    """The operator, started and ended; it need not be ready yet."""
    config = kubeconfig(cluster, token(api, OPERATOR), folder / "operator.kubeconfig")
    with running_with(config, *options) as program:
        yield program


@contextmanager
def running_with(config: Path, *options: str) -> Iterator[Program]:
    """The operator with a kubeconfig; its API server need not be there yet."""
    health, webhook, metrics = free_ports(3)
    command = [
        *(sys.executable, "-m", "peacemaker_operator", "run", *options),
        *("--kubeconfig", str(config), "--namespace", NAMESPACE),
        *("--health-address", f"{LOCALHOST}:{health}"),
        *("--metrics-address", f"{LOCALHOST}:{metrics}"),
        *("--webhook-address", f"{LOCALHOST}:{webhook}"),
    ]
    if "--no-webhook" not in options:
        command += ["--webhook-url", f"https://{LOCALHOST}:{webhook}"]
    process = launch(command)
    program = Program(process, health, webhook, metrics)
    try:
        yield program
        if process.child.poll() is None:
            program.end()  # and give the Lease back: the next one need not wait for its end
    finally:
        process.stop()


def is_ready(program: Program) -> bool:
    program.process.must_run()
    return program.asks(program.health, "/readyz") == http.client.OK


@contextmanager
def ready(cluster: Cluster, api: Api, folder: Path, *options: str) -> Iterator[Program]:
    """The operator, once it knows the whole cluster."""
    with running(cluster, api, folder, *options) as program:
        wait_for(lambda: is_ready(program), TIMEOUT, "the operator to be ready")
        yield program


def free_ports(count: int) -> list[int]:
    """Below the range from which the kernel takes the ports of outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as listener, suppress(OSError):
            listener.bind((LOCALHOST, random.choice(range(20_000, 32_000))))
            ports.append(listener.getsockname()[1])
    return ports
