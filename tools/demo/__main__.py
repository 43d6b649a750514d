"""The command line of the demonstration: `python -m demo`, as root."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo.cast import Agent, gather, refuse_beside_another_agent
from demo.interrupts import Interrupted, Interrupts
from demo.picture import picture
from demo.screen import Screen, percent
from demo.story import Story
from lab import Fleet, Guest, PodTree, cgroup_version
from peacemaker.parse import parse_policies
from peacemaker_nodeagent.run_dir import RunDir

POLICY = Path(__file__).resolve().parents[2] / "policies/demo.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """0 if all that the demonstration claims was measured, 1 if not, 128 + n after signal n."""
    arguments = _parser().parse_args(argv)
    interrupts = Interrupts()
    try:
        with Screen() as screen:
            return _run(arguments, screen, interrupts)
    except Interrupted as interrupted:
        print(f"\n{interrupted}: nothing is left behind", flush=True)
        return 128 + interrupted.number
    except (RuntimeError, OSError) as error:  # a TimeoutError is an OSError
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace, screen: Screen, interrupts: Interrupts) -> int:
    if os.geteuid() != 0:
        raise PermissionError("cgroups and other processes' nice are root's: run it as root")
    if not arguments.output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {arguments.output.parent} for the picture")
    (policy,) = parse_policies(POLICY.read_bytes(), str(POLICY))
    refuse_beside_another_agent()
    # A nice that the caller has would be the VMs' too: they start, as VMs do, at 0.
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    cpu = max(os.sched_getaffinity(0))
    accel = "kvm" if arguments.kvm else "tcg"
    screen.say(
        f"Three QEMU VMs ({accel.upper()}) and an ordinary pod will fight for CPU {cpu}, each in a"
        f" pod's cgroup (v{cgroup_version()})."
    )
    with (
        tempfile.TemporaryDirectory(prefix="peacemaker-demo-") as scratch,
        PodTree() as tree,
        Fleet() as fleet,
    ):
        members = []
        for member in gather(tree, fleet, cpu, accel):
            if isinstance(member.process, Guest):
                with interrupts.allowed():
                    member.process.wait_until_running()
            screen.say(f"  {member.name:<14} runs, pid {member.process.pid}")
            members.append(member)
        run_dir = RunDir(f"{scratch}/run")
        story = Story(members, policy, arguments.seconds, screen, interrupts)
        result = story.play(lambda: Agent.start(fleet, POLICY, run_dir, tree.root))
        restored = story.is_restored()
        threads = sum(len(member.process.threads()) for member in members if member.is_vm)
    chart = picture(story.meter.course(), story.phases, result)
    arguments.output.write_text(chart.svg(), encoding="utf-8")
    verdicts = [
        *result.verdicts(),
        (restored, f"everything is restored (each weight, and the nice of {threads} threads)"),
    ]
    screen.say()
    for line in result.table():
        screen.say(line)
    together = percent(result.peace.together)
    screen.say(f"\n  Shares are of what the four had together: {together} of CPU {cpu} at last.\n")
    for good, text in verdicts:
        screen.verdict(good, text)
    screen.say(f"\nThe picture: {arguments.output.resolve()}")
    return 0 if all(good for good, _ in verdicts) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo", description="Real VMs fight for one CPU, and the agent keeps the peace."
    )
    parser.add_argument("--kvm", action="store_true", help="use KVM instead of QEMU's own CPU")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long to measure each phase (default 10)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("peacemaker-demo.svg"), help="where the picture goes"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
