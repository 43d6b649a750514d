"""What tests and benchmarks measure: CPU time, how processes shared a CPU, delays of wake-ups.

CPU time is the first field of /proc/PID/task/TID/schedstat: nanoseconds on a CPU. The kernel brings
it up to date at each tick, so a running thread's may be 4 ms old: measure over a second or more.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

PIT_PERIOD = 1193 / 1193182
"""Seconds between two ticks of lab.spin.Image.PERIODIC."""

_PM_TIMER_HZ = 3579545
_PM_TIMER_WRAP = 1 << 24


T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout: float, what: str) -> T:
    """The condition's first true value. TimeoutError that names what, after timeout seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return value


def thread_cpu_time(pid: int, tid: int) -> float:
    """Seconds that one thread has run; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/task/{tid}/schedstat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(text.split()[0]) / 1e9


def cpu_time(pid: int) -> float:
    """Seconds that the threads which a process has now have run, together. FileNotFoundError if it
    has ended.
    """
    tasks = Path(f"/proc/{pid}/task")
    return sum(thread_cpu_time(pid, int(task.name)) for task in tasks.iterdir())


def shares(pids: Iterable[int], seconds: float) -> dict[int, float]:
    """Each process's part (0..1) of the CPU time that they use together in the coming seconds."""
    before = {pid: cpu_time(pid) for pid in pids}
    time.sleep(seconds)
    used = {pid: cpu_time(pid) - then for pid, then in before.items()}
    together = sum(used.values())
    if not together:
        raise ValueError(f"no process of {sorted(before)} used any CPU in {seconds:g} s")
    return {pid: time_used / together for pid, time_used in used.items()}


def wake_delays(stamps: bytes) -> list[float]:
    """How late, in seconds, a periodic guest woke each time, from the stamps that it wrote.

    A stamp is the PM timer's low 24 bits and the PIT's count. The count says how long ago the last
    tick was when the guest woke; so the tick after it, which should have caused the next wake, is
    known exactly. Ticks that pass meanwhile add nothing: one wake, its delay the longest of them.
    Gaps of more than 4.6 s, the PM timer's wrap, read short.
    """
    wakes = [_wake(stamps[at : at + 5]) for at in range(0, len(stamps) - 4, 5)]
    return [
        max(0.0, (now - then) % _PM_TIMER_WRAP / _PM_TIMER_HZ - (PIT_PERIOD - since_tick))
        for (then, since_tick), (now, _) in pairwise(wakes)
    ]


def _wake(stamp: Sequence[int]) -> tuple[int, float]:
    """The PM timer's count, and the seconds since the last tick."""
    now = int.from_bytes(stamp[:3], "little")
    to_next_tick = int.from_bytes(stamp[3:], "little")
    return now, (1193 - to_next_tick) / 1193182
