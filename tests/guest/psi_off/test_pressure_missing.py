"""A kernel that was booted without pressure (psi=0): its signals are missing, which is not zero."""

from pathlib import Path

from lab import Fleet, Image, PodTree, start
from lab.agent import Agent
from lab.policy import ALWAYS, policy, rule


def test_missing_pressure_is_told_and_no_rule_acts_on_it(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    assert not Path("/proc/pressure/cpu").exists()
    pod = tree.pod(weight=1000)
    assert not (pod.own.directories[0] / "cpu.pressure").exists()
    fleet.keep(start("vm", cgroup=pod.leaf, image=Image.IDLE))
    agent.write_policy(
        policy(
            rule({"add": 1}, name="on-the-node", when="node.psi.some10 > 0.1"),
            rule({"add": 2}, name="on-its-absence", when="!(node.psi.some60 > 0.1)"),
            rule({"add": 3}, {"where": "vm.psi.some10 < 0.1"}, name="on-the-vm"),
            rule({"set": -2}, name="either-side", when=f"node.psi.some300 > 0.1 || {ALWAYS}"),
        )
    )
    agent.start()
    row = agent.wait_row("vm", nice=-2)
    agent.wait(lambda: agent.status()["policies"][0]["passes"] >= 4, "some passes")
    assert agent.row("vm")["nice"] == -2
    assert "either-side: nice 0 to -2" in row["reason"]
    status = agent.status()["policies"][0]
    assert status["activeRules"] == ["on-the-vm", "either-side"]
    missing = " ".join(status["missingSignals"])
    for signal in ("node.psi.some10", "node.psi.some60", "vm.psi.some10"):
        assert signal in missing
    assert "some300" not in missing
    (told,) = agent.events("signals are missing")
    assert told["level"] == "warning"
    assert "node.psi.some10" in told["signals"]
