"""What kernel tests see and do in the kernel itself, beside what the agent says."""

import json
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import Group, PodTree, Process, wait_for
from lab.agent import Agent
from lab.processes import TIMEOUT, launch
from lab.qemu import BINARY

ATTRIBUTE = "user.peacemaker"


def thread_nices(process: Process) -> dict[int, int]:
    """The nice of each thread, by tid."""
    nices = {}
    for tid in process.threads():
        with suppress(ProcessLookupError):
            nices[tid] = os.getpriority(os.PRIO_PROCESS, tid)
    return nices


def nices(process: Process) -> set[int]:
    """The nice values that its threads have."""
    return set(thread_nices(process).values())


def raw_record(group: Group) -> bytes | None:
    """The extended attribute with the weight's record."""
    directory = group.directories[0]
    return os.getxattr(directory, ATTRIBUTE) if ATTRIBUTE in os.listxattr(directory) else None


def record(group: Group) -> Any:
    """The weight's record; None if there is none."""
    raw = raw_record(group)
    return None if raw is None else json.loads(raw)


def cgroups(tree: PodTree) -> dict[str, tuple[int, bytes | None]]:
    """Each cgroup of the tree, by path: its weight and the record on it."""
    top = Group(tree.root).directories[0]
    groups = [Group(tree.root + directory[len(str(top)) :]) for directory, _, _ in os.walk(top)]
    return {group.path: (group.weight(), raw_record(group)) for group in groups}


def is_untouched(process: Process, group: Group, weight: int) -> bool:
    """Whether threads and weight are as before the agent came, and no record is there."""
    return nices(process) == {0} and group.weight() == weight and raw_record(group) is None


def journal(agent: Agent) -> list[Path]:
    """The files with the threads' records."""
    folder = Path(agent.run_dir.journal)
    return sorted(folder.iterdir()) if folder.exists() else []


class Qmp:
    """QEMU's own control socket: how a running QEMU is made to start a thread."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw")
        self._ask("qmp_capabilities")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def start_thread(self, name: str) -> None:
        """An I/O thread, as QEMU starts them for disks that are plugged in."""
        self._ask("object-add", {"qom-type": "iothread", "id": name})

    def _ask(self, command: str, arguments: dict[str, str] | None = None) -> None:
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        for line in self._stream:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"QEMU refuses {command}: {answer['error']}")
            if "return" in answer:
                return
        raise RuntimeError(f"QEMU hung up at {command}")


def start_with_qmp(name: str, cgroup: Group, path: Path, parent_comm: str | None = None) -> Process:
    """A VM that does not run yet, and listens for a Qmp on the socket `path`."""
    options = {
        "name": f"guest=default_{name},debug-threads=on",
        "accel": "tcg,tb-size=1",
        "m": "8",
        "qmp": f"unix:{path},server=on,wait=off",
        **dict.fromkeys(("display", "vga", "serial", "parallel", "monitor", "net"), "none"),
    }
    words = [word for option, value in options.items() for word in (f"-{option}", value)]
    command = [BINARY, "-nodefaults", "-no-user-config", "-S", *words]
    process = launch(command, cgroup=cgroup, parent_comm=parent_comm)
    wait_for(lambda: _listens(path), TIMEOUT, f"QEMU to listen on {path}")
    return process


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionError):
        probe.connect(str(path))
        return True
    return False


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def launch_as(pid: int, argv: Collection[str], cgroup: Group, comm: str | None = None) -> Process:
    """Start a process that gets a pid which was somebody else's.

    The kernel gives out the next free pid after the last one, which can be written. Others start
    processes too, so it is tried again.
    """
    for _ in range(100):
        LAST_PID.write_text(str(pid - 1))
        process = launch(list(argv), cgroup=cgroup, comm=comm)
        if process.pid == pid:
            return process
        process.stop()
    raise RuntimeError(f"no new process got pid {pid}: somebody else has it")
