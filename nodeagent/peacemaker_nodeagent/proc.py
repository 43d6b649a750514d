"""/proc: one QEMU process and its threads, held so that a reused pid is never taken for it.

Kept descriptors refer to the process, not to the number: once it has ended, every reading through
them fails, even if the number was given to another process since (fs/proc/base.c).
"""

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Self

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_VCPU = re.compile(r"(?:CPU \d+|ALL CPUs)/")
_SCHED_RESET_ON_FORK: Final = 0x40000000  # include/uapi/linux/sched.h


class ProcessEnded(Exception):
    """The process, or the thread, is gone."""


def boot_id() -> str:
    """/proc/sys/kernel/random/boot_id: one value for each boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@dataclass(frozen=True, slots=True, order=True)
class ProcessKey:
    """One process of this boot: its pid and its start time in clock ticks since boot."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that the agent uses; times in clock ticks (proc(5))."""

    comm: str
    state: str
    ppid: int
    cpu: int
    start: int


def parse_stat(text: str) -> Stat:
    """Parse a `stat` line. A comm may hold spaces and parentheses: fields follow the last `)`."""
    comm = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return Stat(comm, rest[0], int(rest[1]), int(rest[11]) + int(rest[12]), int(rest[19]))


@dataclass(slots=True)
class Process:
    """A live process, by kept descriptors. `pidfd` turns readable when it ends."""

    key: ProcessKey
    pidfd: int
    _directory: int
    _tasks: int
    _thread_count: int = field(default=0)
    _threads: tuple[int, ...] = field(default=())

    @classmethod
    def open(cls, pid: int) -> Self:
        """Raises ProcessEnded."""
        with ExitStack() as undo:
            try:
                pidfd = os.pidfd_open(pid)
                undo.callback(os.close, pidfd)
                directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, directory)
                tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
                undo.callback(os.close, tasks)
                stat = parse_stat(_read_at(directory, "stat"))
            except (FileNotFoundError, ProcessLookupError) as gone:
                raise ProcessEnded(f"process {pid} has ended") from gone
            undo.pop_all()
        return cls(ProcessKey(pid, stat.start), pidfd, directory, tasks)

    def close(self) -> None:
        for descriptor in (self.pidfd, self._directory, self._tasks):
            os.close(descriptor)

    @property
    def pid(self) -> int:
        return self.key.pid

    def stat(self) -> Stat:
        """Raises ProcessEnded."""
        try:
            return parse_stat(_read_at(self._directory, "stat"))
        except (FileNotFoundError, ProcessLookupError) as gone:
            raise ProcessEnded(f"process {self.pid} has ended") from gone

    def threads(self) -> tuple[int, ...]:
        """Thread ids as /proc/PID/task lists them now. Raises ProcessEnded."""
        try:
            # The directory's link count is 2 + threads (fs/proc/base.c, proc_task_getattr).
            self._thread_count = os.fstat(self._tasks).st_nlink
            os.lseek(self._tasks, 0, os.SEEK_SET)
            self._threads = tuple(sorted(map(int, os.listdir(self._tasks))))
        except (FileNotFoundError, ProcessLookupError) as gone:
            raise ProcessEnded(f"process {self.pid} has ended") from gone
        if not self._threads:
            raise ProcessEnded(f"process {self.pid} has ended")
        return self._threads

    def threads_if_changed(self) -> tuple[int, ...]:
        """As `threads`, but listed anew only if their number has changed: one call for each VM."""
        if os.fstat(self._tasks).st_nlink != self._thread_count:
            return self.threads()
        return self._threads

    def thread_stat(self, tid: int) -> Stat:
        """Raises ProcessEnded."""
        try:
            return parse_stat(_read_at(self._tasks, f"{tid}/stat"))
        except (FileNotFoundError, ProcessLookupError) as gone:
            raise ProcessEnded(f"thread {tid} of process {self.pid} has ended") from gone

    def has_thread(self, tid: int) -> bool:
        """Whether the thread is, at this moment, one of this process."""
        try:
            os.stat(str(tid), dir_fd=self._tasks)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def open_thread_file(self, tid: int, name: str) -> int:
        """A descriptor of /proc/PID/task/TID/name, for preading. Raises ProcessEnded."""
        try:
            return os.open(f"{tid}/{name}", os.O_RDONLY, dir_fd=self._tasks)
        except (FileNotFoundError, ProcessLookupError) as gone:
            raise ProcessEnded(f"thread {tid} of process {self.pid} has ended") from gone


def _read_at(directory: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 4096).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def is_qemu(comm: str) -> bool:
    """QEMU's own names; the kernel cuts a comm at 15 characters (qemu-system-x86)."""
    return comm.startswith(("qemu-system-", "qemu-kvm"))


def is_vcpu(comm: str) -> bool:
    """QEMU names its vCPU threads `CPU n/KVM`, `CPU n/TCG`; one for all: `ALL CPUs/TCG`."""
    return _VCPU.match(comm) is not None


def is_sched_other(tid: int) -> bool:
    """Whether nice means anything to the thread; to one that has ended it does not."""
    try:
        return os.sched_getscheduler(tid) & ~_SCHED_RESET_ON_FORK == os.SCHED_OTHER
    except ProcessLookupError:
        return False
