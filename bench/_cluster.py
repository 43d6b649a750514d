"""The operator as it is installed, beside a real API server, and what it writes there."""

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from apiserver import Cluster
from lab.measure import wait_for
from lab.processes import TIMEOUT, Process, launch
from tests.cluster.deployment import NAMESPACE, kubeconfig

CONNECTIONS = 8

_READ_ONLY = frozenset({"get", "list", "watch"})

T = TypeVar("T")
R = TypeVar("R")


class Writes:
    """What one service account wrote, from the API server's audit log: how often, by verb and
    resource. Renewals of Leases are left out.
    """

    def __init__(self, cluster: Cluster, account: str) -> None:
        self._log = cluster.audit_log
        self._user = f"system:serviceaccount:{NAMESPACE}:{account}"
        self._at = 0
        self._counts: Counter[str] = Counter()

    def all(self) -> Counter[str]:
        """Those since this was made."""
        with self._log.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the server is writing it
                self._at += len(line)
                self._take(json.loads(line))
        return Counter(self._counts)

    def _take(self, event: dict[str, object]) -> None:
        user, what = event["user"], event.get("objectRef")
        assert isinstance(user, dict)
        if user["username"] != self._user or event["verb"] in _READ_ONLY:
            return
        assert isinstance(what, dict)
        resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
        if resource != "leases":
            self._counts[f"{event['verb']} {resource}"] += 1


@contextmanager
def running_operator(cluster: Cluster, bearer: str) -> Iterator[Process]:
    """`peacemaker-operator run` with this token, from its start on. SIGTERM ends it with the
    context; its log goes to stderr if an exception does.
    """
    metrics, health, webhook = (f"127.0.0.1:{port}" for port in _free_ports(3))
    with tempfile.TemporaryDirectory(prefix="peacemaker-bench-") as scratch:
        file = kubeconfig(cluster, bearer, Path(scratch, "kubeconfig"))
        process = launch(
            [
                *(installed("peacemaker-operator"), "run"),
                *("--kubeconfig", str(file), "--namespace", NAMESPACE),
                *("--metrics-address", metrics, "--health-address", health),
                *("--webhook-address", webhook, "--webhook-url", f"https://{webhook}"),
            ]
        )
        try:
            yield process
            process.must_run()
        except BaseException:
            print(log_of(process)[-10_000:], file=sys.stderr)
            raise
        finally:
            _end(process)


def log_of(process: Process) -> str:
    """All that it said."""
    output = process.output.fileno()
    return os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace")


def _end(process: Process) -> None:
    """Ask it to end; end it if it does not."""
    try:
        if process.child.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            wait_for(lambda: process.child.poll() is not None, TIMEOUT, "the operator to end")
    finally:
        process.stop()


def installed(program: str) -> str:
    """The console script of this interpreter's environment."""
    places = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    command = shutil.which(program, path=places)
    if command is None:
        raise FileNotFoundError(f"no {program} in {places}: make install")
    return command


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


def poll(condition: Callable[[], bool], every: float, timeout: float, what: str) -> None:
    """Wait for what costs too much to be asked all the time. TimeoutError."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(every)


def at_once(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results for all items, a few at a time: most of the time is the API server's."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(do, items))


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which so many percent are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
