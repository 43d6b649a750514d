"""Processes that start in a cgroup, on chosen CPUs, and never outlive the one that started them.

Start them from the main thread: the kernel's parent-death signal fires when the *thread* ends that
made the child.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from lab.cgroups import Group
from lab.measure import cpu_time, wait_for

TIMEOUT = 60.0
"""Seconds to wait for what takes well under one: QEMU in QEMU is twenty times slower."""

_COMM_LENGTH = 15
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the lab. Nobody else gets its pid before stop(), which reaps it."""

    pid: int
    child: subprocess.Popen[bytes] = field(repr=False)
    """The process itself, or its monitor."""
    output: BinaryIO = field(repr=False)
    """What it wrote to stdout and stderr, in memory."""

    def threads(self) -> dict[int, str]:
        """Its threads' names (comm) by tid; none once it has ended."""
        names = {}
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    names[int(task.name)] = (task / "comm").read_text().rstrip("\n")
        return names

    def must_run(self) -> None:
        """Raise RuntimeError, with what it said, if it has ended."""
        if (status := self.child.poll()) is not None:
            said = os.pread(self.output.fileno(), 10_000, 0).decode(errors="replace").strip()
            raise RuntimeError(f"process {self.pid} ended with status {status}: {said}")

    def signal_end(self) -> None:
        """Kill it if it runs, without waiting."""
        if self.pid == self.child.pid:
            self.child.kill()
        elif self.pid in _children(self.child.pid):
            with suppress(ProcessLookupError):  # its monitor was quicker to reap it
                os.kill(self.pid, signal.SIGKILL)  # its monitor then ends by itself

    def stop(self) -> None:
        """Kill it if it runs; wait until it and its monitor are gone."""
        self.signal_end()
        self.child.wait(TIMEOUT)
        self.output.close()


def launch(
    argv: Sequence[str],
    *,
    comm: str | None = None,
    parent_comm: str | None = None,
    cgroup: Group | None = None,
    cpus: Collection[int] | None = None,
    fds: Collection[int] = (),
) -> Process:
    """Start argv, already in the cgroup and on the CPUs when it is executed.

    comm: its process name, else that of argv[0] (the kernel keeps 15 characters). parent_comm: it
    is the child of a monitor with this name, in the same cgroup, that ends with it and takes it
    along. fds: descriptors that it inherits. FileNotFoundError if argv[0] is not installed.
    """
    program = shutil.which(argv[0])
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    parent = os.getpid()

    def enter() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the signal was asked for
        if cgroup is not None:
            cgroup.attach(os.getpid())
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    with tempfile.TemporaryDirectory(prefix="lab-") as links:
        # The kernel takes a comm from the name that is executed, and a link's will do.
        if comm is not None:
            program = _link(links, comm, program)
        command = [comm or argv[0], *argv[1:]]
        if parent_comm is not None:
            # Without the command after it the shell would become the process, not its parent.
            script = 'setpriv --pdeathsig KILL -- "$@"; exit'
            command = [parent_comm, "-c", script, parent_comm, program, *argv[1:]]
        executable = program if parent_comm is None else _link(links, parent_comm, "/bin/sh")
        output = os.fdopen(os.memfd_create("lab-output"), "rb")
        try:
            child = subprocess.Popen(
                command,
                executable=executable,
                stdin=_silence(),
                stdout=output,
                stderr=output,
                pass_fds=fds,
                preexec_fn=enter,  # noqa: PLW1509 - nothing that starts guests has threads
                process_group=0,  # Ctrl-C on a terminal is for the one who started it
            )
        except subprocess.SubprocessError as error:
            output.close()
            where = "its cgroup" if cgroup is None else cgroup.path
            raise RuntimeError(f"{argv[0]} could not enter {where} on CPUs {cpus}") from error
        if parent_comm is None:
            return Process(child.pid, child, output)
        monitor = Process(child.pid, child, output)
        try:
            return Process(_child_named(monitor, os.path.basename(program)), child, output)
        except BaseException:
            monitor.stop()
            raise


def spinner(cgroup: Group | None = None, cpus: Collection[int] | None = None) -> Process:
    """An ordinary busy process, not a VM: one thread that spins."""
    process = launch(["sh", "-c", "while :; do :; done"], cgroup=cgroup, cpus=cpus)
    wait_for(lambda: cpu_time(process.pid) > 0.01, TIMEOUT, f"spinner {process.pid} to spin")
    return process


_Kept = TypeVar("_Kept", bound=Process)


class Fleet:
    """A context manager for processes: it stops, all at once, those that it was given to keep."""

    def __init__(self) -> None:
        self._kept: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._kept:
            process.signal_end()
        for process in self._kept:
            process.stop()
        self._kept.clear()

    def keep(self, process: _Kept) -> _Kept:
        """The same process, which ends with this context. It may end or be stopped before."""
        self._kept.append(process)
        return process


def _link(directory: str, name: str, target: str) -> str:
    path = os.path.join(directory, name)
    os.symlink(target, path)
    return path


@cache
def _silence() -> int:
    """The end to read of a pipe to which nobody writes: a standard input that blocks, and ends with
    this process.
    """
    reader, _writer = os.pipe()
    return reader


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _child_named(monitor: Process, name: str) -> int:
    """The pid of the monitor's child, once it is executing the program of this name."""

    def find() -> int | None:
        monitor.must_run()
        for pid in _children(monitor.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == name[:_COMM_LENGTH]:
                    return pid
        return None

    pid = wait_for(find, TIMEOUT, f"monitor {monitor.pid} to start {name}")
    assert pid is not None
    return pid
