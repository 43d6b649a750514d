"""A box: a machine's worth of namespaces, in which programs think that the machine is theirs.

It has mounts, processes, a network and a cgroup of its own, and of the host it shows the files. So
a kubelet can do there what kubelets do, and nothing of it is left on the host: when the box's first
process ends, the kernel ends the others and drops mounts and interfaces, also if the tests were
killed. What remains then, an empty cgroup and a folder, the next box removes.
"""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.measure import wait_for
from lab.processes import Process, launch
from node import cgroups
from node.init import READY, Plan

TIMEOUT: Final = 60.0
PREFIX: Final = "peacemaker-node"
FOLDERS: Final = Path("/var/tmp")  # a disk, where /tmp may be memory: images are unpacked there

_OWN: Final = ("/run", "/var/lib", "/var/log")
# Written by every kubelet, for all of the machine (pkg/kubelet/cm: setupKernelTunables).
_SETTINGS: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)

# Joins the cgroups whose directories come first, then becomes the command behind them. It must have
# no child before that: Box.launch takes the first one for the program.
_JOIN: Final = (
    'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"'
)


class BoxError(Exception):
    """A command in the box failed; the text is the command, and what it said."""


class Box:
    """A context manager for one box. Start it from the main thread, as root.

    `address` is its own, which the host reaches; `folder` holds what it has instead of the host's
    /run, /var/lib and /var/log; `cgroup` is its cgroup's path from the hierarchy's top.
    """

    def __init__(self) -> None:
        cgroups.sweep(PREFIX, FOLDERS)
        mark = secrets.token_hex(3)
        self.name = f"{PREFIX}-{os.getpid()}-{mark}"
        self.cgroup = f"/{self.name}"
        self.folder = FOLDERS / self.name
        # Two addresses of the range for tests of network devices (RFC 2544): nobody routes it.
        first = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
        last = 4 * random.randrange(64)
        self._host_address, self.address = f"{first}.{last + 1}", f"{first}.{last + 2}"
        self._interface = f"peacenode{mark}"
        self._unshare: Process | None = None
        self._keepers: list[Process] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def launch(self, argv: Sequence[str]) -> Process:
        """Start a program in the box. RuntimeError with its own words if it ends at once."""
        keeper = launch(self._inside(argv))
        self._keepers.append(keeper)

        def find() -> list[int]:
            keeper.must_run()
            return _children(keeper.pid)

        (pid,) = wait_for(find, TIMEOUT, f"{argv[0]} to start")
        return Process(pid, keeper.child, keeper.output)

    def call(self, *argv: str) -> str:
        """What a command in the box says on stdout. Raises BoxError."""
        return call(*self._inside(argv))

    @property
    def pid(self) -> int:
        """The box's first process, as the host numbers it."""
        assert self._unshare is not None
        (pid,) = _children(self._unshare.pid)
        return pid

    def _start(self) -> None:
        for place in _OWN:
            (self.folder / place.lstrip("/")).mkdir(parents=True)
        (self.folder / "settings").mkdir()
        cgroups.make(self.name)
        unshare = [
            *("unshare", "--mount", "--pid", "--net", "--cgroup", "--mount-proc"),
            *("--fork", "--kill-child", "--", sys.executable, "-I"),
            *(str(Path(__file__).with_name("init.py")), json.dumps(self._plan())),
        ]
        process = launch(_joining(cgroups.tops(self.name), unshare))
        self._unshare = process

        def is_ready() -> bool:
            process.must_run()
            return READY.encode() in os.pread(process.output.fileno(), 1000, 0)

        wait_for(is_ready, TIMEOUT, "the box to be there")
        cgroups.settle(self.name)
        self._connect()

    def _plan(self) -> Plan:
        present = [name for name in _SETTINGS if Path("/proc/sys", name).exists()]
        return {
            "binds": {place: str(self.folder / place.lstrip("/")) for place in _OWN},
            "cgroups": [
                (str(each.mount), each.kind, each.controllers) for each in cgroups.hierarchies()
            ],
            "settings": {
                f"/proc/sys/{name}": str(self.folder / "settings" / name.replace("/", "."))
                for name in present
            },
        }

    def _connect(self) -> None:
        """Lay a cable to the host; it goes with the box's network."""
        peer = ("peer", "name", "eth0", "netns", str(self.pid))
        call("ip", "link", "add", self._interface, "type", "veth", *peer)
        call("ip", "address", "add", f"{self._host_address}/30", "dev", self._interface)
        call("ip", "link", "set", self._interface, "up")
        self.call("ip", "address", "add", f"{self.address}/30", "dev", "eth0")
        for name in ("lo", "eth0"):
            self.call("ip", "link", "set", name, "up")

    def _end(self) -> None:
        if self._unshare is not None:
            # The first process first: the others end with it, each one reaped by its keeper, and
            # the kernel lets go of the first when the last of them is gone.
            for pid in _children(self._unshare.pid):
                os.kill(pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._unshare.child.wait(TIMEOUT)
            self._unshare.stop()
        for keeper in self._keepers:
            keeper.stop()
        wait_for(self._is_disconnected, TIMEOUT, f"{self._interface} to be gone")
        cgroups.remove(self.name)
        shutil.rmtree(self.folder)

    def _is_disconnected(self) -> bool:
        return not Path("/sys/class/net", self._interface).exists()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--cgroup", "--"]
        # nsenter forks to enter the processes' namespace; the program ends with this keeper of it.
        return _joining(
            cgroups.leaves(self.name), [*enter, "setpriv", "--pdeathsig", "KILL", "--", *argv]
        )


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def call(*argv: str) -> str:
    """What a command says on stdout. Raises BoxError."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode:
        raise BoxError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _joining(directories: Iterable[Path], argv: Sequence[str]) -> list[str]:
    # As in a machine of its own, whatever the nice of the tests.
    nice_0 = ["nice", "-n", str(-os.getpriority(os.PRIO_PROCESS, 0))]
    return ["sh", "-c", _JOIN, "sh", *map(str, directories), "--", *nice_0, *argv]
