"""Does the agent grow while VMs come and go?

10,000 VM starts and ends: light processes that look like QEMU, each in a pod cgroup of its own
that is removed after it. A policy governs them, so that each gets its nice, its weight and both
records. When all of a batch have gone, the agent's memory and descriptors are counted.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench._agent import running
from bench._report import Figure, arguments, run, say
from lab import Fleet, PodTree, stand_in
from lab.agent import Agent
from lab.policy import put

BATCH = 250
WARM = 1000
"""Starts after which the allocator has what it needs, and growth would be the agent's own."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The agent with an empty peace_list: VMs started so far, KiB resident, open descriptors."""

    starts: int
    resident: float
    descriptors: int


def measure(parsed: argparse.Namespace) -> list[Figure]:
    samples = []
    with (
        PodTree() as tree,
        running(put(1, name="bench"), tree.root, "--log-level", "warning") as agent,
    ):
        process = psutil.Process(agent.pid)
        for starts in range(BATCH, parsed.starts + 1, BATCH):
            _come_and_go(tree.root, agent, starts)
            resident = process.memory_info().rss / 1024
            samples.append(Sample(starts, resident, process.num_fds()))
            if starts % 1000 == 0:
                say(f"{samples[-1]}")
        left = sum(1 for _ in Path(agent.run_dir.journal).iterdir())
    return _figures(samples, left)


def _come_and_go(root: str, agent: Agent, number: int) -> None:
    """One batch: all start, all are governed, all end, their cgroups go."""
    with PodTree(f"{root}/batch-{number}") as pods, Fleet() as fleet:
        for index in range(BATCH):
            pod = pods.pod(weight=1000)
            fleet.keep(stand_in(f"vm-{number}-{index}", cgroup=pod.leaf))
        agent.wait(lambda: _at_nice(agent, 1) == BATCH, f"{BATCH} VMs at nice 1")
    agent.wait(lambda: not agent.status()["vms"], "all VMs to be gone from the peace_list")


def _at_nice(agent: Agent, nice: int) -> int:
    return sum(row["nice"] == nice for row in agent.rows().values())


def _figures(samples: Sequence[Sample], left: int) -> list[Figure]:
    warm = [sample for sample in samples if sample.starts >= WARM]
    slope = statistics.linear_regression(
        [sample.starts / 1000 for sample in warm], [sample.resident for sample in warm]
    ).slope
    first, last = warm[0], warm[-1]
    span = f"from {first.starts:,} to {last.starts:,} starts"
    return [
        Figure("resident memory", "KiB", tuple(sample.resident for sample in warm)),
        Figure(f"its growth {span}", "KiB", (last.resident - first.resident,), at_most=1024.0),
        Figure("its slope, for each 1,000 starts", "KiB", (slope,), at_most=100.0),
        Figure("open descriptors", "", tuple(float(sample.descriptors) for sample in warm)),
        Figure(
            f"their growth {span}", "", (float(last.descriptors - first.descriptors),), at_most=0.0
        ),
        Figure("records of ended VMs left in the journal", "", (float(left),), at_most=0.0),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--starts", type=int, default=10_000, help="(default 10000)")
    run("Churn: VMs that start and end", measure, parser.parse_args())


if __name__ == "__main__":
    main()
