"""systemd, asked the way that kubelets, container runtimes, libvirt and administrators ask it."""

import secrets
import subprocess
import uuid
from types import TracebackType
from typing import Self

from lab import Fleet, Group, Place, wait_for
from lab.processes import TIMEOUT, launch

_MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
_BURSTABLE = "kubepods.slice/kubepods-burstable.slice"

Property = tuple[str, ...]
"""A unit's property as busctl takes it: name, D-Bus type, value."""


def call(*command: str, status: int = 0) -> str:
    """Run a command and return what it said; RuntimeError if it ends with another status."""
    done = subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stdout}")
    return done.stdout


def show(unit: str, name: str) -> str:
    """A property of a unit, as systemctl prints it."""
    return call("systemctl", "show", f"--property={name}", "--value", unit).strip()


class Units:
    """A context manager for slices and scopes made over D-Bus: they are gone afterwards.

    A scope needs a process of its own to begin with: here, as in a pod, one that only sleeps.
    """

    def __init__(self) -> None:
        self._slices: list[str] = []
        self._pauses = Fleet()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pauses.__exit__(kind, error, traceback)
        for name in self._slices:
            call("systemctl", "stop", name)

    def pod(self, weight: int) -> Place:
        """A Burstable pod with one container, as a kubelet with the systemd driver and containerd
        make them: the pod is a slice, the container a scope in it.
        """
        uid = str(uuid.uuid4()).replace("-", "_")
        pod = f"kubepods-burstable-pod{uid}.slice"
        self._keep_slice("kubepods.slice")
        _start(
            pod,
            ("Description", "s", "a pod"),
            ("Wants", "as", "1", "kubepods-burstable.slice"),
            ("DefaultDependencies", "b", "false"),
            ("MemoryAccounting", "b", "true"),
            ("CPUAccounting", "b", "true"),
            ("CPUWeight", "t", str(weight)),
        )
        container = f"cri-containerd-{secrets.token_hex(32)}.scope"
        own = f"/{_BURSTABLE}/{pod}"
        leaf = self._scope(container, pod, own, ("Delegate", "b", "true"))
        return Place(Group(own), leaf)

    def machine(self, name: str, *properties: Property) -> Group:
        """A virtual machine's scope, named as systemd-machined names it for libvirt."""
        self._keep_slice("machine.slice")
        unit = rf"machine-qemu\x2d1\x2d{name}.scope"
        return self._scope(unit, "machine.slice", "/machine.slice", *properties)

    def _scope(self, unit: str, slice_: str, below: str, *properties: Property) -> Group:
        pause = self._pauses.keep(launch(["sleep", "infinity"]))
        _start(unit, ("Slice", "s", slice_), ("PIDs", "au", "1", str(pause.pid)), *properties)
        group = Group(f"{below}/{unit}")
        procs = group.directories[0] / "cgroup.procs"
        wait_for(lambda: procs.exists() and pause.pid in group.pids(), TIMEOUT, f"{unit} to start")
        return group

    def _keep_slice(self, name: str) -> None:
        if name not in self._slices:
            self._slices.append(name)


def _start(unit: str, *properties: Property) -> None:
    words = [word for each in properties for word in each]
    count = str(len(properties))
    signature = "ssa(sv)a(sa(sv))"
    arguments = [signature, unit, "replace", count, *words, "0"]
    call("busctl", "call", *_MANAGER, "StartTransientUnit", *arguments)
