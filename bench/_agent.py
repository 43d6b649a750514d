"""The agent as it is installed, on a policy of the benchmark's own, and put right afterwards."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab.agent import Agent
from lab.policy import policy, rule


@contextmanager
def running(policy_text: str, below: str, *options: str) -> Iterator[Agent]:
    """An agent that has adopted the VMs below this cgroup. It is ended with the context, and
    `peacemaker-agent restore` puts back what it wrote; RuntimeError if that cannot be done.

    It is an interpreter of its own: one forked from here would share this one's memory.
    """
    with (
        tempfile.TemporaryDirectory(prefix="peacemaker-bench-") as scratch,
        Agent(Path(scratch), below) as agent,
    ):
        agent.write_policy(policy_text)
        where = ["--run-dir", agent.run_dir.path, "--below", below]
        words = ["run", "--policy", str(agent.policies), *where, *options]
        command = _installed()
        agent.start(prepare=partial(os.execv, command, [command, *words]))
        yield agent
        agent.stop()
        done = agent.call("restore")
        if done.status != 0:
            raise RuntimeError(f"not all is restored: {done.stdout}{done.stderr}")


def _installed() -> str:
    """The console script of this interpreter's environment."""
    places = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    command = shutil.which("peacemaker-agent", path=places)
    if command is None:
        raise FileNotFoundError(f"no peacemaker-agent in {places}: make install")
    return command


def set_nices(nices: Mapping[str, int]) -> str:
    """A policy that gives each named VM its nice in the first pass."""
    return policy(
        *(
            rule({"set": nice}, {"where": f'vm.name == "{name}"'}, name=name)
            for name, nice in nices.items()
        ),
        name="bench",
    )


def passes(agent: Agent) -> int:
    """How many passes its policy has had."""
    count: int = agent.status()["policies"][0]["passes"]
    return count
