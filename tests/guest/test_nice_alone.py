"""Why nice is not enough: between VMs in pods of their own it moves nothing, and weight does."""

import os
from collections.abc import Callable

import psutil
import pytest

from lab import Fleet, Guest, Place, PodTree, shares, start
from peacemaker.nice import k

SECONDS = 4.0


def main_thread_only(guest: Guest, _: Place, nice: int) -> None:
    psutil.Process(guest.pid).nice(nice)


def every_thread(guest: Guest, _: Place, nice: int) -> None:
    for tid in guest.threads():
        os.setpriority(os.PRIO_PROCESS, tid, nice)


def weight_of_the_pod(_: Guest, pod: Place, nice: int) -> None:
    pod.own.set_weight(pod.own.weight() * k(nice) // k(0))


@pytest.mark.parametrize(
    ("give", "favoured", "restrained", "expected"),
    [
        (main_thread_only, -15, 15, 0.5),
        (every_thread, -15, 15, 0.5),
        (weight_of_the_pod, -5, 5, k(-5) / (k(-5) + k(5))),
    ],
)
def test_nice_moves_nothing_between_pods(
    tree: PodTree,
    fleet: Fleet,
    give: Callable[[Guest, Place, int], None],
    favoured: int,
    restrained: int,
    expected: float,
) -> None:
    pods = [tree.pod(weight=1000) for _ in range(2)]
    guests = [
        fleet.keep(start(f"vm-{number}", cgroup=pod.leaf, cpus={0}))
        for number, pod in enumerate(pods)
    ]
    for guest, pod, nice in zip(guests, pods, (favoured, restrained), strict=True):
        give(guest, pod, nice)
    share = shares([guest.pid for guest in guests], SECONDS)[guests[0].pid]
    assert share == pytest.approx(expected, abs=0.05)
