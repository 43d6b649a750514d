"""How soon is a VM in the peace_list after its QEMU starts, and gone from it after its end?

200 real QEMU processes start and end one after the other in pod cgroups, while two processes spin
for each CPU in the agent's own cgroup, so that it has to wait for its turn. The clock is this
process's own: it begins before the fork that becomes QEMU, and ends when the agent's log, read
every few milliseconds, tells that the VM was added. So what is measured is never less than the
truth. At the end the agent is asked for its list, which must be empty.
"""

import argparse
import os
import statistics
import time

from bench._agent import running
from bench._report import Figure, arguments, run, say
from lab import Fleet, Image, PodTree, spinner, start
from lab.agent import Agent
from lab.policy import put

SPINNERS_PER_CPU = 2
LOOK_EVERY = 0.5
"""Seconds between two looks of the agent at what is new: starts are spread evenly over them."""
POLL = 0.005
TIMEOUT = 60.0
INTERVAL = 15.0
"""Seconds between two passes of a policy by default: a VM that has ended is gone within one."""


def measure(parsed: argparse.Namespace) -> list[Figure]:
    added, gone = [], []
    with PodTree() as tree, Fleet() as fleet, running(put(1), tree.root) as agent:
        for _ in range(SPINNERS_PER_CPU * (os.cpu_count() or 1)):
            fleet.keep(spinner())
        for number in range(parsed.starts):
            # The golden ratio's multiples fill the time between two looks without a pattern.
            time.sleep(number * 0.618034 % 1 * LOOK_EVERY)
            to_added, to_gone = _one(tree, agent, f"vm-{number}")
            added.append(1000 * to_added)
            gone.append(1000 * to_gone)
            if (number + 1) % 50 == 0:
                say(f"{number + 1} of {parsed.starts}")
        if left := agent.rows():
            raise RuntimeError(f"VMs that have ended are in the peace_list: {sorted(left)}")
    return [
        *_figures(f"from QEMU's start to the peace_list, {len(added)} starts", added, 1000.0),
        *_figures("from QEMU's end to gone from the peace_list", gone, 1000.0 * INTERVAL),
    ]


def _one(tree: PodTree, agent: Agent, name: str) -> tuple[float, float]:
    """Seconds from a VM's start to its being added, and from its end to its being gone."""
    pod = tree.pod(weight=1000)
    mark = agent.mark()
    begin = time.monotonic()
    guest = start(name, cgroup=pod.leaf, image=Image.IDLE, paused=True, wait=False)
    try:
        to_added = _until(agent, "vm added", guest.pid, mark) - begin
        begin = time.monotonic()
        guest.signal_end()
        to_gone = _until(agent, "vm ended", guest.pid, mark) - begin
    finally:
        guest.stop()
    return to_added, to_gone


def _until(agent: Agent, message: str, pid: int, mark: int) -> float:
    """When the log was first seen to say so, on the monotonic clock."""
    deadline = time.monotonic() + TIMEOUT
    while not agent.events(message, since=mark, pid=str(pid)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {message!r} of {pid} in {TIMEOUT:g} s\n{agent.log()}")
        time.sleep(POLL)
    return time.monotonic()


def _figures(name: str, milliseconds: list[float], target: float) -> list[Figure]:
    hundredths = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return [
        Figure(name, "ms", tuple(milliseconds)),
        Figure("  p50", "ms", (hundredths[49],)),
        Figure("  p99", "ms", (hundredths[98],), at_most=target),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--starts", type=int, default=200, help="(default 200)")
    run("Discovery: VMs that start and end under load", measure, parser.parse_args())


if __name__ == "__main__":
    main()
