"""How late does a latency-sensitive VM run when its CPU is wanted by others, and what does a policy
that favours it change?

The VM wakes 1,000 times a second and says when; busy VMs share its CPU, each in a pod cgroup of its
own with the same weight. One agent runs all the time. Its stop file makes it restore everything and
rest, so that phases without and with the policy alternate.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench._agent import running
from bench._report import Figure, arguments, run, say
from lab import Fleet, Guest, Image, Place, PodTree, start, wait_for, wake_delays
from lab.agent import Agent
from lab.measure import PIT_PERIOD
from lab.policy import policy, rule

WEIGHT = 1000
FAVOUR = policy(
    rule({"set": -10}, {"where": 'vm.name == "sensitive"'}, when="vms.exists(v, v.wait >= 0.0)"),
    name="bench",
)
"""Like a real one, it waits for a signal that needs two readings."""
PERCENTILES = (50, 99)
SETTLING = 1.0
"""Seconds that are not measured after a change: the kernel shares by load averages (PELT)."""


def measure(parsed: argparse.Namespace) -> list[Figure]:
    cpu = {max(os.sched_getaffinity(0))}
    delays: dict[bool, list[list[float]]] = {False: [], True: []}
    with PodTree() as tree, Fleet() as fleet:
        place = tree.pod(weight=WEIGHT)
        others = [tree.pod(weight=WEIGHT) for _ in range(parsed.neighbours)]
        guest = fleet.keep(start("sensitive", cgroup=place.leaf, cpus=cpu, image=Image.PERIODIC))
        alone = _wakes(guest, parsed.seconds)
        for number, other in enumerate(others):
            fleet.keep(start(f"busy-{number}", cgroup=other.leaf, cpus=cpu))
        with running(FAVOUR, tree.root) as agent:
            for phase in range(2 * parsed.repetitions):
                favoured = phase % 2 == 1
                _govern(agent, place, favoured)
                say(f"phase {phase + 1} of {2 * parsed.repetitions}: {favoured=}")
                delays[favoured].append(_wakes(guest, parsed.seconds))
    return _figures(parsed.neighbours, alone, delays[False], delays[True])


def _govern(agent: Agent, place: Place, favoured: bool) -> None:
    """Let the policy act, or have everything restored; wait until the weight says so."""
    stop_file = Path(agent.run_dir.stop_file)
    if favoured:
        stop_file.unlink()
    else:
        stop_file.touch()
    wait_for(lambda: (place.own.weight() > WEIGHT) == favoured, 60.0, f"the weight: {favoured=}")


def _wakes(guest: Guest, seconds: float) -> list[float]:
    """The delays in seconds of all wakes that were due in the coming seconds.

    A tick that passes while the VM waits for its CPU wakes nobody, and was due all the same: of a
    wait of 50 ms one wake is seen, and 50 were late, by 50 ms, 49 ms and so on.
    """
    time.sleep(SETTLING)
    before = len(guest.wake_stamps())
    time.sleep(seconds)
    seen = wake_delays(guest.wake_stamps()[before - before % 5 :])
    return [delay - n * PIT_PERIOD for delay in seen for n in range(int(delay / PIT_PERIOD) + 1)]


def _figures(
    neighbours: int,
    alone: Sequence[float],
    ordinary: Sequence[Sequence[float]],
    favoured: Sequence[Sequence[float]],
) -> list[Figure]:
    figures = []
    for percentile in PERCENTILES:
        without = [_percentile(each, percentile) for each in ordinary]
        with_policy = [_percentile(each, percentile) for each in favoured]
        name = f"p{percentile} wake-up delay"
        figures += [
            _milliseconds(f"{name}, alone on the CPU", [_percentile(alone, percentile)]),
            _milliseconds(f"{name}, beside {neighbours} busy VMs, no policy", without),
            _milliseconds(f"{name}, beside them, favoured (−10)", with_policy),
            Figure(
                f"{name}, no policy ÷ favoured",
                "×",
                tuple(a / b for a, b in zip(without, with_policy, strict=True)),
            ),
        ]
    figures += [
        _milliseconds("longest delay, no policy", [max(each) for each in ordinary]),
        _milliseconds("longest delay, favoured", [max(each) for each in favoured]),
    ]
    return figures


def _percentile(delays: Sequence[float], percentile: int) -> float:
    return statistics.quantiles(delays, n=100, method="inclusive")[percentile - 1]


def _milliseconds(name: str, seconds: Sequence[float]) -> Figure:
    return Figure(name, "ms", tuple(1000 * each for each in seconds))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=4, help="of both phases (default 4)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a phase (default 8)")
    parser.add_argument("--neighbours", type=int, default=4, help="busy VMs (default 4)")
    run("Wake-ups: a latency-sensitive VM beside busy VMs on one CPU", measure, parser.parse_args())


if __name__ == "__main__":
    main()
