"""Who fights for the CPU: three VMs and an ordinary pod, in pods' cgroups of one weight."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import psutil

from lab import Fleet, Group, Guest, Place, PodTree, Process, spinner, start
from lab.processes import launch
from peacemaker_nodeagent.run_dir import RunDir
from peacemaker_nodeagent.server import AgentUnreachable, ask

BASELINE = 1000
"""The weight that every pod comes with."""
FAVOURED, BETWEEN, RESTRAINED = VMS = ("gold/database", "silver/web", "bronze/batch")
ORDINARY_POD = "ordinary pod"

_AGENT = (sys.executable, "-m", "peacemaker_nodeagent", "run")
_AGENT_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Row:
    """What the agent says of a VM."""

    nice: int
    reason: str


@dataclass(frozen=True, slots=True)
class Member:
    """One of those that fight: `own` is the cgroup with its weight."""

    name: str
    process: Process
    own: Group

    @property
    def is_vm(self) -> bool:
        return isinstance(self.process, Guest)

    def nices(self) -> set[int]:
        """The different nices of its threads."""
        nices = set()
        for tid in self.process.threads():
            with suppress(ProcessLookupError):
                nices.add(os.getpriority(os.PRIO_PROCESS, tid))
        return nices

    def set_nice(self, nice: int) -> None:
        """As one knows it: psutil's, which reaches the main thread only. Then the others too, so
        that nobody can say it was for their sake that nothing moved.
        """
        psutil.Process(self.process.pid).nice(nice)
        while self.nices() != {nice}:  # a thread that starts meanwhile has its maker's
            for tid in self.process.threads():
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, tid, nice)

    def is_untouched(self) -> bool:
        """Whether its weight and all its nices are those that it came with."""
        return self.own.weight() == BASELINE and self.nices() == {0}


def gather(tree: PodTree, fleet: Fleet, cpu: int, accel: str) -> Iterator[Member]:
    """Start each one, pinned on this CPU. The VMs are on their way but may not run yet."""
    for name in VMS:
        place = _pod(tree)
        namespace, _, vm = name.partition("/")
        guest = start(vm, namespace, cgroup=place.leaf, cpus={cpu}, accel=accel, wait=False)
        yield Member(name, fleet.keep(guest), place.own)
    place = _pod(tree)
    yield Member(ORDINARY_POD, fleet.keep(spinner(place.leaf, {cpu})), place.own)


def _pod(tree: PodTree) -> Place:
    return tree.pod(weight=BASELINE)


@dataclass(frozen=True, slots=True)
class Agent:
    """The real agent, as a process that sees only the cgroups below one path."""

    process: Process
    run_dir: RunDir

    @classmethod
    def start(cls, fleet: Fleet, policy: Path, run_dir: RunDir, below: str) -> Self:
        """Start it; it answers some time later."""
        options = ("--policy", str(policy), "--run-dir", run_dir.path, "--below", below)
        return cls(fleet.keep(launch([*_AGENT, *options])), run_dir)

    def vms(self) -> dict[str, Row]:
        """Its list, by name; empty while it does not answer yet. RuntimeError if it has ended."""
        self.process.must_run()
        try:
            rows = cast("list[dict[str, Any]]", ask(self.run_dir.socket, {"ask": "list"})["vms"])
        except AgentUnreachable:
            return {}
        return {row["vm"]: Row(row["nice"], row["reason"]) for row in rows}

    def nices(self) -> dict[str, int]:
        """The nice of each VM, by name, as the agent has it."""
        return {name: row.nice for name, row in self.vms().items()}

    def rest(self) -> None:
        """Have it restore everything, by the stop file."""
        Path(self.run_dir.stop_file).touch()

    def end(self) -> None:
        """SIGTERM, as systemd would. RuntimeError if it does not end well."""
        self.process.child.terminate()
        if status := self.process.child.wait(_AGENT_TIMEOUT):
            raise RuntimeError(f"the agent ended with status {status}")


def refuse_beside_another_agent() -> None:
    """RuntimeError if this host has an agent: it would adjust the demonstration's VMs too."""
    with suppress(AgentUnreachable):
        ask(RunDir().socket, {"ask": "list"})
        raise RuntimeError(
            "an agent runs on this host and would adjust the demonstration's VMs too: stop it first"
        )
