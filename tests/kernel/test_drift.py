"""Others write the same values: the agent puts its own back, takes theirs as new, or yields."""

import os
from dataclasses import dataclass

import pytest

from lab import Fleet, Guest, Place, PodTree, start
from lab.agent import Agent
from lab.policy import policy, put, rule
from tests.kernel.scene import is_untouched, journal, nices, raw_record, record

BASELINE = 1234


def at_five(baseline: int) -> int:
    """The weight at nice 5 (kernel/sched/core.c: 335)."""
    return round(baseline * 335 / 1024)


@dataclass(slots=True)
class Scene:
    """A VM that the running agent has put at nice 5."""

    guest: Guest
    place: Place
    agent: Agent
    looks: int = 0

    def weight_is_read_back(self) -> None:
        """Make the agent look at all values: it does after any edit of a policy."""
        self.looks += 1
        text = policy(
            rule({"set": 0}, {"where": f'vm.name == "no-{self.looks}"'}),
            name="nobodys",
            selector={"matchLabels": {"no": "such"}},
        )
        self.agent.edit(text, name="nobodys")

    def somebody_writes(self, weight: int) -> None:
        self.place.own.set_weight(weight)
        self.weight_is_read_back()


@pytest.fixture
def scene(tree: PodTree, fleet: Fleet, agent: Agent) -> Scene:
    place = tree.pod(weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_row("a", nice=5, weight=at_five(BASELINE))
    return Scene(guest, place, agent)


def test_a_reset_to_exactly_the_baseline_is_undone_at_most_once_a_minute(scene: Scene) -> None:
    scene.somebody_writes(BASELINE)
    row = scene.agent.row("a")
    assert (row["weight"], row["reasserts"]) == (at_five(BASELINE), 1)
    assert (row["baseline"], row["state"], row["rebases"]) == (BASELINE, "Managed", 0)
    assert scene.agent.wait_event("reassert")["found"] == str(BASELINE)
    # Again: a minute has not passed.
    scene.somebody_writes(BASELINE)
    row = scene.agent.row("a")
    assert (row["weight"], row["reasserts"], row["nice"]) == (BASELINE, 1, 5)
    # It is ours to change all the same when a rule moves the VM.
    scene.agent.edit(put(10))
    scene.agent.wait_row("a", nice=10, weight=round(BASELINE * 110 / 1024), baseline=BASELINE)


def test_another_value_is_the_new_baseline(scene: Scene) -> None:
    scene.somebody_writes(2000)
    row = scene.agent.row("a")
    assert (row["baseline"], row["weight"], row["rebases"]) == (2000, at_five(2000), 1)
    assert scene.place.own.weight() == at_five(2000)
    assert record(scene.place.own)["baseline"] == 2000
    # It is what a restore puts back, also after a new start.
    scene.agent.kill()
    assert scene.agent.call("restore").status == 0
    assert is_untouched(scene.guest, scene.place.own, 2000)


def test_at_nice_0_another_value_is_the_new_baseline_too(scene: Scene) -> None:
    scene.agent.edit(policy(rule({"set": 0}), bounds=(0, 0)))
    assert scene.place.own.weight() == BASELINE
    scene.somebody_writes(2000)
    row = scene.agent.row("a")
    assert (row["baseline"], row["weight"], row["nice"]) == (2000, 2000, 0)
    scene.agent.edit(put(5))
    scene.agent.wait_row("a", baseline=2000, weight=at_five(2000))


def test_a_resize_comes_with_the_containers_weight_any_number_of_times(scene: Scene) -> None:
    for number, size in enumerate((2000, 3000, 1500, 800, 1000), start=1):
        scene.place.leaf.set_weight(size - 6)
        scene.somebody_writes(size)
        row = scene.agent.row("a")
        assert (row["baseline"], row["weight"]) == (size, at_five(size))
        assert (row["rebases"], row["state"]) == (number, "Managed")


def test_the_third_value_of_somebody_else_in_ten_minutes_makes_the_vm_contested(
    scene: Scene,
) -> None:
    for size in (2000, 3000):
        scene.somebody_writes(size)
        assert scene.agent.row("a")["state"] == "Managed"
    scene.somebody_writes(1500)
    row = scene.agent.row("a")
    assert (row["state"], row["nice"], row["policy"]) == ("Contested", 0, None)
    assert row["reason"].startswith("Contested: weight 1500 is not ours, for the third time")
    assert is_untouched(scene.guest, scene.place.own, 1500), "left as it was found"
    assert (row["weight"], row["baseline"]) == (1500, 1500)
    assert not journal(scene.agent)
    # Hands off, whatever happens to it.
    mark = scene.agent.mark()
    scene.somebody_writes(1700)
    assert scene.agent.row("a")["state"] == "Contested"
    assert is_untouched(scene.guest, scene.place.own, 1700)
    assert not scene.agent.events("write", since=mark)
    # Somebody has looked after it, and edits its policy.
    scene.agent.edit(put(5, interval="2s"))
    scene.agent.wait_row("a", state="Managed", nice=5, baseline=1700, weight=at_five(1700))


def test_a_threads_nice_is_corrected_once_and_then_the_vm_is_contested(scene: Scene) -> None:
    tid = scene.guest.vcpu_tids()[0]
    os.setpriority(os.PRIO_PROCESS, tid, 11)
    scene.weight_is_read_back()
    assert scene.agent.row("a")["state"] == "Managed"
    assert nices(scene.guest) == {5}
    assert scene.agent.wait_event("thread nice corrected")["found"] == f"{tid} at 11"
    os.setpriority(os.PRIO_PROCESS, tid, 12)
    scene.weight_is_read_back()
    row = scene.agent.row("a")
    assert (row["state"], row["nice"]) == ("Contested", 0)
    assert f"{tid} at 12" in row["reason"]
    # Theirs is left to them, ours goes back.
    assert nices(scene.guest) == {0, 12}
    assert os.getpriority(os.PRIO_PROCESS, tid) == 12
    assert (scene.place.own.weight(), raw_record(scene.place.own)) == (BASELINE, None)
    assert not journal(scene.agent)
    mark = scene.agent.mark()
    os.setpriority(os.PRIO_PROCESS, tid, 13)
    scene.weight_is_read_back()
    assert nices(scene.guest) == {0, 13}
    assert not scene.agent.events("write", since=mark)
