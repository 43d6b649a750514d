"""Policies that change while the agent runs: taken over at once, and never half."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Fleet, Guest, Place, PodTree, start
from lab.agent import Agent
from lab.policy import policy, put, rule
from tests.kernel.scene import is_untouched, journal, nices

BASELINE = 1234
EIGHT = round(BASELINE * 172 / 1024)
"""The weight at nice 8 (kernel/sched/core.c: 172)."""

# Only the first pass acts in these tests: whatever follows an edit is the taking over of it.
ONCE = "1h"

PEACE = {"matchLabels": {"peace": "wanted"}}


@pytest.fixture
def place(tree: PodTree) -> Place:
    return tree.pod(weight=BASELINE)


@pytest.fixture
def guest(place: Place, fleet: Fleet, agent: Agent) -> Guest:
    """A VM that the running agent has put at nice 8."""
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.labels.write_text("default/a: {peace: wanted}\n")
    agent.write_policy(put(8, interval=ONCE))
    agent.start("--labels", str(agent.labels))
    agent.wait_row("a", nice=8, weight=EIGHT, baseline=BASELINE)
    assert nices(guest) == {8}
    return guest


@pytest.mark.parametrize(
    ("bounds", "nice", "weight"),
    [((0, 3), 3, round(BASELINE * 526 / 1024)), ((0, 0), 0, BASELINE), ((-5, 8), 8, EIGHT)],
    ids=["into the new bounds", "to nothing", "not if it is within"],
)
def test_narrower_bounds_clamp_at_once(
    bounds: tuple[int, int], nice: int, weight: int, guest: Guest, place: Place, agent: Agent
) -> None:
    agent.edit(policy(rule({"set": 0}), bounds=bounds, interval=ONCE))
    assert nices(guest) == {nice}
    row = agent.row("a")
    assert (row["nice"], row["state"], row["weight"]) == (nice, "Managed", weight)
    assert place.own.weight() == weight


def _delete(agent: Agent) -> None:
    os.unlink(agent.policies / "test.yaml")


def _unlabel(agent: Agent) -> None:
    agent.edit(policy(rule({"set": 8}), selector=PEACE, interval=ONCE))
    assert agent.row("a")["nice"] == 8
    agent.labels.write_text("default/a: {}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda agent: agent.edit(
            policy(rule({"set": 8}), selector={"matchLabels": {"no": "such"}}, interval=ONCE)
        ),
        lambda agent: agent.edit(policy(rule({"set": 8}), mode="Observe", interval=ONCE)),
        _delete,
        _unlabel,
    ],
    ids=["deselected", "Observe", "deleted", "label taken away"],
)
def test_a_vm_that_no_policy_governs_any_more_is_restored_exactly(
    change: Callable[[Agent], None], guest: Guest, place: Place, agent: Agent
) -> None:
    change(agent)
    row = agent.wait_row("a", state="Unmanaged")
    assert (row["nice"], row["policy"]) == (0, None)
    assert row["reason"] == "restored: no policy governs it"
    assert is_untouched(guest, place.own, BASELINE)
    assert not journal(agent)


@pytest.mark.usefixtures("guest")
def test_a_label_that_comes_brings_the_vm_under_its_policy(agent: Agent) -> None:
    agent.labels.write_text("{}\n")
    agent.edit(policy(rule({"set": 8}), selector=PEACE))
    agent.wait_row("a", state="Unmanaged", nice=0)
    assert agent.wait_event("policy selects no VM")["policy"] == "test"
    agent.labels.write_text("default/a: {peace: wanted}\n")
    agent.wait_row("a", state="Managed", nice=8, weight=EIGHT)


def test_a_vm_that_another_policy_governs_now_keeps_its_nice_within_the_new_bounds(
    guest: Guest, agent: Agent
) -> None:
    agent.edit(
        policy(rule({"set": 0}), name="first", priority=1, bounds=(0, 9), interval=ONCE)
        # This one's first pass is due at once, and moves nothing.
        .replace('"set": 0', '"toward": {"value": 8}'),
        name="first",
    )
    row = agent.wait_row("a", policy="first")
    assert (row["nice"], row["weight"]) == (8, EIGHT)
    assert agent.call("explain", "a").stdout.endswith(
        "policy test selects it too and is outranked\n"
    )
    os.unlink(agent.policies / "first.yaml")
    row = agent.wait_row("a", policy="test")
    assert (row["nice"], row["weight"]) == (8, EIGHT)
    assert nices(guest) == {8}
    assert not agent.events("restore")


def test_a_wrong_edit_leaves_the_last_good_policy_in_force_and_says_where_it_is_wrong(
    guest: Guest, agent: Agent
) -> None:
    text = policy(rule({"set": 8}), bounds=(0, 5), interval=ONCE).replace('"mode"', '"mood"')
    problems = []
    for wrong in ('"mood"', "8"):
        line, found = next(
            (number, each) for number, each in enumerate(text.splitlines(), 1) if wrong in each
        )
        problems.append(f"{agent.policies}/test.yaml:{line}:{found.index(wrong) + 1}: ")
    agent.write_policy(text)
    agent.wait_event("policy refused, the last good one stays in force")
    said = [event["problem"] for event in agent.events() if "problem" in event]
    for problem in problems:
        assert any(each.startswith(problem) for each in said), said
    row = agent.row("a")
    assert (row["state"], row["policy"], row["nice"]) == ("Managed", "test", 8)
    assert nices(guest) == {8}
    agent.edit(policy(rule({"set": 5}), bounds=(0, 5), interval=ONCE))
    assert agent.row("a")["nice"] == 5


@pytest.mark.usefixtures("guest")
def test_a_wrong_labels_file_leaves_the_last_good_labels_in_force(agent: Agent) -> None:
    agent.edit(policy(rule({"set": 8}), selector=PEACE, interval=ONCE))
    agent.labels.write_text("default/a: [peace\n")
    refused = agent.wait_event("labels refused, the last good ones stay in force")
    assert refused["problem"].startswith(f"{agent.labels}:2:1: not valid YAML")
    assert agent.row("a")["nice"] == 8


def test_whoever_starts_it_with_wrong_policies_is_told_of_all_and_nothing_is_adjusted(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    place = tree.pod(weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(5, name="good"), name="good")
    agent.write_policy(policy(rule({"set": 30}), name="bad"), name="bad")
    agent.write_policy(policy(rule({"add": 1}, when="node.laod1 > 0"), name="worse"), name="worse")
    agent.start(wait=False)
    assert agent.wait_end() == 2
    said = agent.log()
    for part in ("bad.yaml:", "worse.yaml:", "laod1", "spec.rules[0].nice.set", "30"):
        assert part in said
    assert "good.yaml" not in said
    assert is_untouched(guest, place.own, BASELINE)


def test_a_second_agent_is_refused_and_told_who_is_there(
    guest: Guest, place: Place, agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = Agent(tmp_path / "second", agent.below)
    second.run_dir = agent.run_dir
    second.write_policy(put(3))
    second.start(wait=False)
    assert second.wait_end() == 1
    lock = f"{agent.run_dir.path}/agent.lock"
    assert second.log() == f"an agent runs on this host already (pid {agent.pid}, lock {lock})\n"
    assert (agent.row("a")["nice"], place.own.weight(), nices(guest)) == (8, EIGHT, {8})
    # The lock goes with its holder, however that one ends.
    agent.send(signal.SIGKILL)
    agent.wait_end()
    with second:
        second.start()
        second.wait_row("a", nice=3)
