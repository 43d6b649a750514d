"""What the agent tells Prometheus of real VMs."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from lab import Fleet, Guest, Place, PodTree, start
from lab.agent import Agent, Prepare
from lab.policy import policy, put, rule
from peacemaker import __version__
from peacemaker_kube.metrics import HEALTH_PATH
from peacemaker_nodeagent.metrics_table import CLUSTER, METRICS, PREFIX, VMS
from tests.metrics import LOCALHOST, Samples, free_port, get

BASELINE = 1000
AT_5 = round(BASELINE * 335 / 1024)
"""The weight at nice 5 (kernel/sched/core.c: 335)."""

VM = {"namespace": "default", "name": "a"}

T = TypeVar("T")


def m(name: str) -> str:
    return f"{PREFIX}{name}"


class Scene:
    """Two VMs, of which the policy puts `a` at nice 5, and the agent with its metrics."""

    def __init__(self, tree: PodTree, fleet: Fleet, agent: Agent) -> None:
        self.agent = agent
        self.places: dict[str, Place] = {name: tree.pod(weight=BASELINE) for name in ("a", "b")}
        self.guests: dict[str, Guest] = {
            name: fleet.keep(start(name, cgroup=place.leaf, paused=True))
            for name, place in self.places.items()
        }
        self.port = free_port()

    def start(self, *options: str, prepare: Prepare | None = None) -> None:
        address = f"{LOCALHOST}:{self.port}"
        self.agent.start("--metrics-address", address, *options, prepare=prepare)
        self.agent.wait_row("a", nice=5)

    def scrape(self) -> Samples:
        return Samples.scrape(self.port)

    def wait(self, condition: Callable[[Samples], T], what: str) -> T:
        return self.agent.wait(lambda: condition(self.scrape()), what)


@pytest.fixture
def scene(tree: PodTree, fleet: Fleet, agent: Agent) -> Scene:
    agent.write_policy(put(5, "a"))
    return Scene(tree, fleet, agent)


def test_all_that_the_table_has_is_told_of_a_host_without_a_cluster(scene: Scene) -> None:
    rules = rule({"set": 7}, name="would")
    observe = policy(rules, name="watcher", mode="Observe", priority=1)  # it would govern both
    scene.agent.write_policy(observe, name="watcher")
    scene.start()
    scene.wait(
        lambda found: found.value(m("would_adjust_vms"), policy="watcher") == 2, "both policies"
    )
    found = scene.scrape()
    found.must_agree(PREFIX, METRICS)
    assert found.names(PREFIX) == {metric.name for metric in METRICS if metric not in CLUSTER}


def test_node_policies_and_writes_are_told_as_they_are(scene: Scene) -> None:
    scene.start()
    found = scene.wait(
        lambda found: found if (found.value(m("passes_total"), policy="test") or 0) > 1 else None,
        "a second pass",
    )
    assert found is not None
    cgroup = scene.agent.events("started")[0]["cgroup"]
    assert found.value(m("build_info"), version=__version__, cgroup=cgroup) == 1
    own = {"policy": "test"}
    told = {
        "governed_vms": 2,
        "adjusted_vms": 1,
        "floored_vms": 0,
        "contested_vms": 0,
        "would_adjust_vms": 0,
        "missing_signals": 0,
    }
    assert {name: found.value(m(name), **own) for name in told} == told
    assert found.value(m("rule_active"), **own, rule="adjust") == 1
    assert found.value(m("adjustments_total"), **own, rule="adjust") == 1
    blocked = {
        reason: found.value(m("blocked_picks_total"), **own, rule="adjust", reason=reason)
        for reason in ("bound", "cooldown", "already-adjusted", "unmoved")
    }
    passes = found.value(m("passes_total"), **own)
    assert passes is not None
    assert blocked == {"bound": 0, "cooldown": 0, "already-adjusted": 0, "unmoved": passes - 1}
    assert 0 < (found.value(m("pass_seconds_total"), **own) or 0) < passes
    assert found.value(m("would_adjust_total"), **own, rule="adjust") is None
    states = {each["state"]: found.value(m("vms"), **each) for each in found.labelled(m("vms"))}
    assert states == {
        **dict.fromkeys(("Unmanaged", "Deferred", "Excluded", "Contested", "Failed"), 0),
        "Managed": 2,
    }
    assert found.value(m("weight_writes_total")) == 1
    assert found.value(m("thread_nice_writes_total")) == len(scene.guests["a"].threads())
    assert found.value(m("claim_weight")) == AT_5 + BASELINE
    assert found.value(m("claim_baseline_weight")) == 2 * BASELINE
    assert found.value(m("max_claim_ratio")) == 1
    assert found.value(m("suspended")) == 0


def test_each_vm_is_told_as_the_kernel_has_it(scene: Scene) -> None:
    scene.start()
    scene.scrape()  # what is a share of the time since the reading before needs one
    found = scene.wait(
        lambda found: found if found.value(m("vm_wait_ratio"), **VM) is not None else None,
        "two readings",
    )
    assert found is not None
    assert found.value(m("vm_nice"), **VM) == 5
    assert found.value(m("vm_effective_nice"), **VM) == 5
    assert found.value(m("vm_weight"), **VM) == scene.places["a"].own.weight() == AT_5
    assert found.value(m("vm_baseline_weight"), **VM) == BASELINE
    assert (found.value(m("vm_cpu_seconds_total"), **VM) or 0) > 0
    assert 0 <= (found.value(m("vm_wait_ratio"), **VM) or 0) <= 1


def test_series_end_with_what_they_are_of(scene: Scene) -> None:
    scene.start()
    assert len(scene.scrape().labelled(m("vm_nice"))) == 2
    scene.guests["b"].stop()
    scene.wait(lambda found: found.labelled(m("vm_nice")) == [VM], "b to be told no more")
    scene.agent.edit(policy(rule({"set": 5}, name="other")))
    rules = scene.scrape().labelled(m("adjustments_total"))
    assert rules == [{"policy": "test", "rule": "other"}]
    (scene.agent.policies / "test.yaml").unlink()
    scene.agent.wait_row("a", nice=0)
    found = scene.scrape()
    assert not any("policy" in dict(labels) for _, labels in found.values)
    assert found.value(m("restores_total"), what="weight") == 1
    assert found.value(m("restores_total"), what="threads") == 1


def test_what_others_write_is_counted(scene: Scene) -> None:
    scene.start()
    scene.places["a"].own.set_weight(BASELINE)
    scene.agent.edit(put(5, "a", interval="1h"))
    scene.agent.edit(put(6, "a", interval="1h"))
    found = scene.scrape()
    assert (found.value(m("reasserts_total")), found.value(m("rebases_total"))) == (1, 0)
    scene.places["a"].own.set_weight(BASELINE + 1000)
    scene.agent.edit(put(5, "a", interval="1h"))
    found = scene.scrape()
    assert (found.value(m("reasserts_total")), found.value(m("rebases_total"))) == (1, 1)
    assert found.value(m("vm_baseline_weight"), **VM) == BASELINE + 1000


def test_per_vm_series_can_be_left_out(scene: Scene) -> None:
    scene.start("--no-per-vm-metrics")
    found = scene.scrape()
    assert found.names(PREFIX).isdisjoint({metric.name for metric in VMS})
    assert found.value(m("vms"), state="Managed") == 2


def test_names_that_a_tenant_chose_break_nothing(scene: Scene, tree: PodTree, fleet: Fleet) -> None:
    for name in ('quo"te\\', "line\nfeed", os.fsdecode(b"\xff\xfe"), "n" * 1000):
        fleet.keep(start(name, cgroup=tree.pod(weight=BASELINE).leaf, paused=True))
    twin = fleet.keep(start("a", cgroup=tree.pod(weight=BASELINE).leaf, paused=True))
    scene.start()
    found = scene.wait(
        lambda found: found if len(found.labelled(m("vm_nice"))) == 6 else None, "six names"
    )
    assert found is not None
    told = {labels["name"] for labels in found.labelled(m("vm_nice"))}
    assert told == {"a", "b", 'quo"te\\', "line?feed", "??", "n" * 253}
    # Of two with one name the elder alone has series, and all are counted.
    assert found.value(m("vms"), state="Managed") == 7
    assert twin.pid in {row["pid"] for row in scene.agent.call("list", "-o", "json").json()}


def test_an_agent_whose_loop_hangs_says_so_to_probes_and_scrapes(scene: Scene) -> None:
    scene.start(prepare=hang_on_signal)
    assert get(scene.port, HEALTH_PATH).status == 200
    scene.agent.send(signal.SIGUSR1)
    scene.agent.wait(lambda: get(scene.port, HEALTH_PATH).status == 503, "the probe to fail")
    answer = get(scene.port)
    assert (answer.status, "not come round" in answer.text) == (503, True)


def hang_on_signal() -> None:
    """Python calls handlers in the main thread, which is the loop's: the others run on."""
    signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("8080", 2, "is no address"),
        ("localhost:70000", 2, "is no address"),
        (
            f"{LOCALHOST}:{{taken}}",
            1,
            "--metrics-address 127.0.0.1:{taken}: Address already in use",
        ),
        ("no.such.host.invalid:9000", 1, "--metrics-address no.such.host.invalid:9000: "),
    ],
)
def test_an_address_that_cannot_be_had_ends_the_agent_before_it_touches_anything(
    scene: Scene, address: str, status: int, said: str
) -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        scene.agent.start("--metrics-address", address.replace("{taken}", port), wait=False)
        assert scene.agent.wait_end() == status
    assert said.replace("{taken}", port) in scene.agent.log()
    assert "Traceback" not in scene.agent.log()
    assert scene.places["a"].own.weight() == BASELINE


def test_the_switch_for_vms_is_of_no_use_alone(scene: Scene) -> None:
    scene.agent.start("--no-per-vm-metrics", wait=False)
    assert scene.agent.wait_end() == 2
    assert "--no-per-vm-metrics needs --metrics-address" in scene.agent.log()
