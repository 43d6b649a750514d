"""Who got how much of the CPU, and who waited for it, and when."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Guest, Process, cpu_time

WINDOW = 1.0
"""Seconds that a share of the moment looks back."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading at a time (seconds since the meter's start): the seconds that each process has used
    and waited.
    """

    at: float
    used: tuple[float, ...]
    waited: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """What happened between two samples. `each` is 0..1 of the CPU time that all used together, and
    `together` is that time as a part of one CPU's: less than 1 where others ran there too. `waits`
    is the part of the time that each one waited.
    """

    since: float
    until: float
    each: tuple[float, ...]
    together: float
    waits: tuple[float, ...]


class Meter:
    """Reads the CPU time of the same few processes again and again."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._start = time.monotonic()
        self._samples: list[Sample] = []
        self.take()

    @property
    def latest(self) -> Sample:
        """The last reading."""
        return self._samples[-1]

    def take(self) -> Sample:
        """Read now. RuntimeError with what a process said if it has ended."""
        for process in self._processes:
            process.must_run()
        at = time.monotonic() - self._start
        used = tuple(cpu_time(process.pid) for process in self._processes)
        self._samples.append(Sample(at, used, tuple(map(_waited, self._processes))))
        return self.latest

    def now(self) -> Shares:
        """The shares of the last moment."""
        return self._look_back(len(self._samples) - 1)

    def since(self, start: Sample) -> Shares:
        """The shares from then until the latest sample."""
        return between(start, self.latest)

    def course(self) -> list[Shares]:
        """The shares of each moment so far."""
        return [self._look_back(index) for index in range(1, len(self._samples))]

    def _look_back(self, index: int) -> Shares:
        sample = self._samples[index]
        first = bisect_right(self._samples, sample.at - WINDOW, key=lambda each: each.at) - 1
        return between(self._samples[max(0, first)], sample)


def between(start: Sample, end: Sample) -> Shares:
    """ValueError if nobody ran, or no time has passed, between the two."""
    spent = _differences(start.used, end.used)
    total = sum(spent)
    elapsed = end.at - start.at
    if total <= 0 or elapsed <= 0:
        raise ValueError(f"nobody ran between {start.at:.2f} s and {end.at:.2f} s")
    return Shares(
        since=start.at,
        until=end.at,
        each=tuple(each / total for each in spent),
        together=total / elapsed,
        waits=tuple(min(1.0, each / elapsed) for each in _differences(start.waited, end.waited)),
    )


def _differences(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [late - early for early, late in zip(before, after, strict=True)]


def _waited(process: Process) -> float:
    """Seconds that a VM's vCPUs, or an ordinary process, were runnable but not running."""
    tids = process.vcpu_tids() if isinstance(process, Guest) else [process.pid]
    stats = (Path(f"/proc/{process.pid}/task/{tid}/schedstat").read_text() for tid in tids)
    return sum(int(stat.split()[1]) for stat in stats) / 1e9
