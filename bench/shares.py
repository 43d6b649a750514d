"""Does a nice that a policy sets move CPU time, and exactly as much as the kernel's table says?

Two VMs that never rest and an ordinary busy pod share one CPU, each in a pod cgroup of its own with
the same weight. The real agent gives the VMs their nices by a policy. Then psutil sets the same
nices, as `renice` does, and nothing moves. `--guest` does it all on cgroup v2, in a Debian guest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from bench._agent import passes, running, set_nices
from bench._report import Figure, arguments, run, say
from lab import Fleet, Place, PodTree, cpu_time, spinner, start

BASELINE = 5000
"""Weight of each pod. cgroup v2 ends at 10,000, which a VM at −15 nearly gets beside one at +15."""
SECONDS = 8.0
"""CPU seconds that one measurement lasts."""
RARE_SECONDS = 20.0
"""The same where a VM has a turn of a few milliseconds every five seconds."""
SETTLING = 2.0
"""CPU seconds that are not measured after a change: the kernel shares by load averages (PELT)."""
RARE_SETTLING = 6.0
"""The same after a VM had rare turns: kernels before 6.6 let it wait for the next one even when it
has its full weight again."""
PATIENCE = 600.0
"""Seconds that a measurement may last where others keep the CPU busy, or the CPU is emulated."""

KERNEL = {-15: 29154, -10: 9548, 0: 1024, 15: 36}
"""kernel/sched/core.c, sched_prio_to_weight: written here again, to check the product's own."""
PAIRS = ((-10, 0), (15, -15))

Snapshot = Mapping[str, float]
"""CPU seconds used so far by `a`, `b` and `pod`."""


@dataclass(frozen=True, slots=True)
class Contest:
    """VMs `a` and `b` and the ordinary pod, by process and by place."""

    pids: Mapping[str, int]
    places: Mapping[str, Place]
    below: str

    def weights(self) -> dict[str, int]:
        return {name: place.own.weight() for name, place in self.places.items()}

    def shares(self, rare: str | None = None, settling: float = SETTLING) -> dict[str, float]:
        """Each one's part of the CPU time that they use together.

        rare: the one that seldom has a turn. The time then lasts from the start of one of its turns
        to the start of another: at those moments the scheduler owes it the same, and a share of
        0.0008 is measured within 3 % in 20 seconds instead of 20 %.
        """
        snapshots = self._snapshots()
        _after(settling, next(snapshots), snapshots)
        marks = snapshots if rare is None else _turn_starts(snapshots, rare)
        begin = next(marks)
        end = _after(SECONDS if rare is None else RARE_SECONDS, begin, marks)
        used = {name: end[name] - begin[name] for name in begin}
        together = sum(used.values())
        return {name: part / together for name, part in used.items()}

    def _snapshots(self) -> Iterator[Snapshot]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            yield {name: cpu_time(pid) for name, pid in self.pids.items()}
            time.sleep(0.01)
        raise TimeoutError(f"{self.pids} use hardly any CPU in {PATIENCE:g} s")


def _after(seconds: float, begin: Snapshot, marks: Iterator[Snapshot]) -> Snapshot:
    """The first mark at which they have used so many CPU seconds since the beginning."""
    return next(mark for mark in marks if sum(mark.values()) - sum(begin.values()) >= seconds)


def _turn_starts(snapshots: Iterator[Snapshot], name: str) -> Iterator[Snapshot]:
    for (before, now), (_, after) in pairwise(pairwise(snapshots)):
        if before[name] == now[name] < after[name]:
            yield now


@dataclass(slots=True)
class Series:
    """Values by the name of their figure, as the repetitions go on."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def figure(self, name: str, unit: str, at_most: float | None = None) -> Figure:
        return Figure(name, unit, tuple(self.values[name]), at_most=at_most)


def measure(parsed: argparse.Namespace) -> list[Figure]:
    series = Series()
    cpu = {max(os.sched_getaffinity(0))}
    with PodTree() as tree, Fleet() as fleet:
        places = {name: tree.pod(weight=BASELINE) for name in ("a", "b", "pod")}
        guests = [fleet.keep(start(name, cgroup=places[name].leaf, cpus=cpu)) for name in "ab"]
        ordinary = fleet.keep(spinner(places["pod"].leaf, cpu))
        pids = {"a": guests[0].pid, "b": guests[1].pid, "pod": ordinary.pid}
        contest = Contest(pids, places, tree.root)
        for repetition in range(parsed.repetitions):
            say(f"repetition {repetition + 1} of {parsed.repetitions}")
            before = contest.shares(settling=RARE_SETTLING)
            _by_psutil(contest, PAIRS[-1], before, series)
            for pair in PAIRS:
                _by_agent(contest, pair, before, series)
    return _figures(series)


def _by_agent(
    contest: Contest, nices: tuple[int, int], before: Mapping[str, float], series: Series
) -> None:
    wanted = dict(zip("ab", nices, strict=True))
    with running(set_nices(wanted), contest.below) as agent:
        agent.wait(lambda: passes(agent) > 0, "its first pass")
        found = {name: agent.row(name)["nice"] for name in wanted}
        if found != wanted:
            raise RuntimeError(f"the policy sets {wanted}, the agent {found}\n{agent.log()}")
        written = contest.weights()
        # `a` comes first in the pair (-10, 0) and has more; it has less in (15, -15).
        rare = "a" if nices[0] > nices[1] else None
        shares = contest.shares(rare)
    if contest.weights() != dict.fromkeys(contest.places, BASELINE):
        raise RuntimeError(f"after the agent's restore the weights are {contest.weights()}")
    for name, weight in _by_table(wanted).items():
        series.add(_written(nices), 100 * _beyond_rounding(written[name], weight) / weight)
    for name, nice in wanted.items():
        exact = written[name] / sum(written.values())
        series.add(_share(nices, nice), shares[name])
        series.add(_off(nices, nice), 100 * abs(shares[name] / exact - 1))
    series.add(_fall(nices), 100 * max(0.0, 1 - shares["pod"] / before["pod"]))
    high, low = sorted(wanted, key=wanted.__getitem__)
    series.add(_ratio(nices), shares[high] / shares[low])


def _by_table(nices: Mapping[str, int]) -> dict[str, float]:
    """The weights before rounding: the kernel's table, scaled so that the VMs' claim stays."""
    wanted = {name: BASELINE * KERNEL[nice] / KERNEL[0] for name, nice in nices.items()}
    scale = min(1.0, BASELINE * len(wanted) / sum(wanted.values()))
    return {name: weight * scale for name, weight in wanted.items()}


def _beyond_rounding(written: int, exact: float) -> float:
    return max(0.0, abs(written - exact) - 0.5)


def _by_psutil(
    contest: Contest, nices: tuple[int, int], before: Mapping[str, float], series: Series
) -> None:
    """What `renice` does. The VMs are at nice 0 again afterwards."""
    for name, nice in zip("ab", nices, strict=True):
        psutil.Process(contest.pids[name]).nice(nice)
    after = contest.shares()
    for name in "ab":
        psutil.Process(contest.pids[name]).nice(0)
        series.add(_unmoved(nices), 100 * abs(after[name] / before[name] - 1))


# The names of the figures, which collect their values under them.
def _signed(nice: int) -> str:
    return f"{nice:+d}" if nice else "0"


def _pair(nices: tuple[int, int]) -> str:
    return f"nice {_signed(nices[0])} : {_signed(nices[1])}"


def _written(nices: tuple[int, int]) -> str:
    return f"{_pair(nices)}  written weights, off the guarded table beyond rounding"


def _share(nices: tuple[int, int], nice: int) -> str:
    return f"{_pair(nices)}  share of the VM at {_signed(nice)}"


def _off(nices: tuple[int, int], nice: int) -> str:
    return f"{_pair(nices)}  share of the VM at {_signed(nice)}, off its written weight"


def _ratio(nices: tuple[int, int]) -> str:
    high, low = sorted(nices)
    return f"{_pair(nices)}  ratio of shares (table: {KERNEL[high] / KERNEL[low]:.4g})"


def _fall(nices: tuple[int, int]) -> str:
    return f"{_pair(nices)}  fall of the ordinary pod's share"


def _unmoved(nices: tuple[int, int]) -> str:
    return f"psutil {_pair(nices)}  a VM's share moves by"


def _figures(series: Series) -> list[Figure]:
    figures = []
    for nices in PAIRS:
        figures.append(series.figure(_written(nices), "%", at_most=2.0))
        for nice in nices:
            figures.append(series.figure(_share(nices, nice), ""))
            figures.append(series.figure(_off(nices, nice), "%", at_most=5.0))
        figures.append(series.figure(_ratio(nices), ""))
        figures.append(series.figure(_fall(nices), "%", at_most=2.0))
    return [*figures, series.figure(_unmoved(PAIRS[-1]), "%", at_most=5.0)]


def in_guest(parsed: argparse.Namespace) -> int:
    """The same command in the cgroup v2 guest; its exit status."""
    with tempfile.TemporaryDirectory(prefix="peacemaker-bench-") as results:
        guest = [sys.executable, "-m", "guest", "run", "--results", results, "--"]
        here = Path(__file__).relative_to(Path(__file__).parents[1])
        inside = [
            "env",
            "PYTHONPATH=tools",
            "python3",
            str(here),
            "--repetitions",
            str(parsed.repetitions),
        ]
        status = subprocess.run([*guest, *inside, "--json", "/results/figures"], check=False)
        if parsed.json and status.returncode == 0:
            parsed.json.write_text(Path(results, "figures").read_text())
        return status.returncode


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--guest", action="store_true", help="in the cgroup v2 guest")
    parser.add_argument("--repetitions", type=int, default=3, help="(default 3)")
    parsed = parser.parse_args()
    if parsed.guest:
        sys.exit(in_guest(parsed))
    run("Shares: two busy VMs and an ordinary busy pod on one CPU", measure, parsed)


if __name__ == "__main__":
    main()
