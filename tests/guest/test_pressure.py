"""Pressure (PSI): the machine's and the VMs' own rises for those that have to wait."""

from pathlib import Path

from lab import Fleet, Image, PodTree, start, wait_for
from lab.agent import Agent
from lab.policy import policy, rule
from lab.processes import TIMEOUT

NICE = 7


def test_a_policy_acts_on_the_pressure_of_the_node_and_of_starved_vms(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    pods = {name: tree.pod(weight=1000) for name in ("first", "second", "idle")}
    fleet.keep(start("idle", cgroup=pods["idle"].leaf, image=Image.IDLE))
    pressed = rule({"set": NICE}, {"where": "vm.psi.some10 > 0.1"}, when="node.psi.some10 > 0.1")
    agent.write_policy(policy(pressed))
    # What starting things has pressed: the average of 10 s forgets it.
    wait_for(lambda: node_pressure() < 0.1, TIMEOUT, "the node to come to rest")
    agent.start()
    agent.wait(lambda: agent.status()["policies"][0]["passes"] >= 3, "some passes")
    assert not agent.status()["policies"][0]["missingSignals"]
    assert agent.row("idle")["nice"] == 0

    for name in ("first", "second"):
        fleet.keep(start(name, cgroup=pods[name].leaf, cpus={0}))
    for name in ("first", "second"):
        agent.wait_row(name, nice=NICE)
        some10 = pressure((pods[name].own.directories[0] / "cpu.pressure").read_text())
        assert some10 > 0.1
    assert node_pressure() > 0.1
    assert agent.row("idle")["nice"] == 0
    assert not agent.status()["policies"][0]["missingSignals"]


def node_pressure() -> float:
    return pressure(Path("/proc/pressure/cpu").read_text())


def pressure(text: str) -> float:
    """Share of the last 10 s in which something waited for a CPU: `some avg10=23.45 avg60=…`."""
    return float(text.split()[1].removeprefix("avg10=")) / 100
