"""What does the agent cost a node with 500 VMs?

500 real QEMU processes of 4 vCPUs each, paused, in pod cgroups of their own. Measured with 50, 100,
250 and 500 of them: the CPU time of a pass that looks at all of them and moves none, of one that
moves one (every weight and thread is read back then), and of the same readings made with psutil.
Then, with all of them: the part of a core that the agent uses at the default interval, and its
memory.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import psutil

from bench._agent import passes, running
from bench._report import Figure, arguments, run, say
from lab import Fleet, PodTree, cpu_time, start_many
from lab.agent import Agent
from lab.policy import policy, rule

SIZES = (50, 100, 250, 500)
VCPUS = 4
PASSES = 8
FIRST = 3
"""Passes that are not counted: the first has no usage and no wait, the others meet cold caches."""

# The guests are paused. So the first rule is active, and looks at usage and wait of every VM twice;
# the second looks at the wait of every VM, too, and is not.
_WHEN = "node.load1 >= 0.0 && vms.all(v, v.wait < 0.9)"
_PICK = {"where": "vm.usage < 3.0 && vm.wait < 0.5 && vm.nice < 10", "highest": "vm.priority"}
_RELENT = rule(
    {"toward": {"value": 0}},
    {"where": "vm.wait > 0.9"},
    name="relent",
    when="vms.exists(v, v.wait > 0.9)",
)
STILL = (rule({"set": 0}, _PICK, name="restrain", when=_WHEN), _RELENT)
MOVING = (rule({"add": 1}, _PICK, name="restrain", when=_WHEN), _RELENT)


def measure(parsed: argparse.Namespace) -> list[Figure]:
    figures = []
    per_vm = {}
    with PodTree() as tree, Fleet() as fleet:
        pids: list[int] = []
        for size in SIZES:
            say(f"VMs {len(pids) + 1} to {size} start")
            groups = [tree.pod(weight=1000).leaf for _ in range(size - len(pids))]
            guests = start_many(groups, prefix=f"vm-{size}", vcpus=VCPUS)
            pids += [fleet.keep(guest).pid for guest in guests]
            say(f"passes over {size} VMs")
            still = _passes(tree.root, policy(*STILL, name="bench"), size, moves=False)
            moving = _passes(tree.root, policy(*MOVING, name="bench"), size, moves=True)
            by_psutil = _psutil(pids)
            per_vm[size] = statistics.median(still) / size
            target = 15.0 if size == SIZES[-1] else None
            figures += [
                Figure(f"{size} VMs: a pass that moves none", "ms", still, at_most=target),
                Figure(f"{size} VMs: a pass that moves one", "ms", moving, at_most=target),
                Figure(f"{size} VMs: psutil reads the same, run delay excepted", "ms", by_psutil),
            ]
        # A moving pass reads all back and writes: even that beside psutil's mere reading.
        ratio = statistics.median(by_psutil) / statistics.median(still)
        growth = per_vm[SIZES[-1]] / per_vm[SIZES[0]]
        figures += [
            Figure("psutil's readings ÷ a whole pass that moves none", "×", (ratio,)),
            Figure("cost for each VM, of 500 ÷ of 50", "×", (growth,), at_most=1.25),
            *_steady(tree.root, parsed.seconds),
        ]
    return figures


def _passes(below: str, text: str, size: int, *, moves: bool) -> tuple[float, ...]:
    """CPU time in ms of each of some passes, as the agent itself counts it."""
    with running(text, below) as agent:
        costs = [1000 * _next_pass(agent) for _ in range(FIRST + PASSES)]
        status = agent.status()
        moved = sum(row["nice"] > 0 for row in agent.rows().values())
        (told,) = status["policies"]
        if (
            told["governs"] != size
            or told["missingSignals"]
            or "restrain" not in told["activeRules"]
        ):
            raise RuntimeError(f"the policy did not work on all of {size} VMs: {told}")
        if (moved > 0) != moves:
            raise RuntimeError(f"{moved} VMs moved in {told['passes']} passes")
    return tuple(costs[FIRST:])


def _next_pass(agent: Agent) -> float:
    """CPU seconds of the pass to come."""
    count = passes(agent)
    before: float = agent.status()["passCpuSeconds"]
    agent.wait(lambda: passes(agent) > count, "a pass")
    after: float = agent.status()["passCpuSeconds"]
    return after - before


def _psutil(pids: Sequence[int]) -> tuple[float, ...]:
    """CPU time in ms of what a pass reads of VMs, with kept psutil objects. psutil has no run
    delay, so this is less than a pass reads.
    """
    processes = [psutil.Process(pid) for pid in pids]
    costs = []
    for _ in range(PASSES):
        begin = time.process_time()
        for process in processes:
            process.cpu_times()
            process.nice()
            process.threads()
        costs.append(1000 * (time.process_time() - begin))
    return tuple(costs)


def _steady(below: str, seconds: float) -> list[Figure]:
    """Everything the agent does, looks and housekeeping too, at the default interval of 15 s."""
    with running(policy(*STILL, name="bench", interval="15s"), below) as agent:
        agent.wait(lambda: passes(agent) >= 2, "its second pass")
        say(f"all quiet for {seconds:g} s")
        before = cpu_time(agent.pid)
        time.sleep(seconds)
        percent = 100 * (cpu_time(agent.pid) - before) / seconds
        memory = psutil.Process(agent.pid).memory_full_info()
    return [
        Figure("all that the agent does, of one core", "%", (percent,), at_most=0.2),
        Figure("resident memory (RSS)", "MiB", (memory.rss / 2**20,), at_most=64.0),
        Figure("proportional memory (PSS)", "MiB", (memory.pss / 2**20,)),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of the steady state (default 60)"
    )
    run("Cost: the agent on a node with up to 500 VMs", measure, parser.parse_args())


if __name__ == "__main__":
    main()
