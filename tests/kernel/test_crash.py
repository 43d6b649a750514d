"""kill -9 at any moment: the next agent finds its way, and restore gives the exact baselines.

An agent here dies just before the n-th of the calls by which it writes to the kernel or to its
records: for n = 1, 2, … that is every moment at which the two could disagree.
"""

import itertools
import os
import random
import signal
from typing import Any

import pytest

from lab import Fleet, Guest, Place, PodTree, start, wait_for
from lab.agent import Agent, Prepare
from lab.policy import policy, put, rule
from lab.processes import TIMEOUT
from tests.kernel.scene import is_untouched, journal, nices, record

WRITES = ("setxattr", "removexattr", "pwrite", "setpriority", "replace", "unlink")
BASELINE = 1234
# kernel/sched/core.c: nice 5 weighs 335, nice 10 weighs 110.
WEIGHTS = {0: BASELINE, 5: round(BASELINE * 335 / 1024), 10: round(BASELINE * 110 / 1024)}


def dies_before(number: int) -> Prepare:
    """A process that is prepared so dies by SIGKILL as it is about to make this write."""

    def prepare() -> None:
        count = itertools.count(1)
        for name in WRITES:
            setattr(os, name, _deadly(getattr(os, name), count, number))

    return prepare


def _deadly(call: Any, count: "itertools.count[int]", number: int) -> Any:
    def deadly(*arguments: Any, **options: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return deadly


@pytest.fixture
def place(tree: PodTree) -> Place:
    return tree.pod(weight=BASELINE)


@pytest.fixture
def guest(place: Place, fleet: Fleet) -> Guest:
    return fleet.keep(start("a", cgroup=place.leaf, paused=True))


def _run_until(agent: Agent, nice: int, guest: Guest, prepare: Prepare | None = None) -> bool:
    """Run an agent that puts the VM at this nice; whether it lived to do so. It is gone then."""
    agent.write_policy(put(nice))
    mark = agent.mark()
    agent.start(prepare=prepare, wait=False)

    def is_over() -> bool:
        return agent.has_ended or bool(agent.events("write", since=mark, what="threads"))

    wait_for(is_over, TIMEOUT, f"nice {nice}, or death")
    lived = not agent.has_ended
    assert not lived or nices(guest) == {nice}
    agent.kill()
    return lived


@pytest.mark.parametrize("then", ["restored by the command", "adopted"])
@pytest.mark.parametrize("before", [0, 5], ids=["the first change", "a later one"])
def test_a_change_that_was_cut_short_anywhere_can_be_taken_back_and_can_be_finished(
    before: int, then: str, guest: Guest, place: Place, agent: Agent
) -> None:
    for number in itertools.count(1):
        if before:
            assert _run_until(agent, before, guest)
        if _run_until(agent, 10, guest, dies_before(number)):
            break
        assert nices(guest) <= {before, 10}
        assert place.own.weight() in (WEIGHTS[before], WEIGHTS[10])
        assert (record(place.own) or {"baseline": BASELINE})["baseline"] == BASELINE
        if then == "adopted":
            agent.start()
            row = agent.wait_row("a", state="Managed", nice=10, baseline=BASELINE)
            assert (row["weight"], nices(guest)) == (WEIGHTS[10], {10})
            agent.kill()
        assert agent.call("restore").status == 0
        assert is_untouched(guest, place.own, BASELINE)
        assert not journal(agent)
    # A record, the weight, its confirmation; a record, three threads, their confirmation.
    assert number > 8


@pytest.mark.parametrize("then", ["by the command again", "by an agent"])
def test_a_restore_that_was_cut_short_anywhere_is_finished(
    then: str, guest: Guest, place: Place, agent: Agent
) -> None:
    for number in itertools.count(1):
        assert _run_until(agent, 5, guest)
        done = agent.call("restore", prepare=dies_before(number))
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL
        if then == "by an agent":
            agent.write_policy(put(5, "nobody").replace('"selector": {}', NOBODY))
            agent.start()
            assert agent.row("a")["state"] == "Unmanaged"
            agent.kill()
        else:
            assert agent.call("restore").status == 0
        assert is_untouched(guest, place.own, BASELINE)
        assert not journal(agent)
    # Three threads and their record, the weight and its record.
    assert number > 6


NOBODY = '"selector": {"matchLabels": {"no": "such"}}'


def test_many_deaths_one_after_the_other_lose_no_baseline(
    tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    baselines = {"a": 1234, "b": 1000, "c": 77}
    places = {name: tree.pod(weight=weight) for name, weight in baselines.items()}
    guests = {
        name: fleet.keep(start(name, cgroup=place.leaf, paused=True))
        for name, place in places.items()
    }
    # Every pass moves every VM: up by three, and from the top down again.
    agent.write_policy(
        policy(
            rule({"add": 3}, {"where": "vm.nice < 9"}, name="up"),
            rule({"set": -6}, {"where": "vm.nice >= 9"}, name="down"),
            bounds=(-6, 9),
        )
    )
    chance = random.Random(2011)
    for round_ in range(20):
        mark = agent.mark()
        if round_ % 2:
            agent.start(prepare=dies_before(chance.randint(1, 24)), wait=False)
            wait_for(lambda: agent.has_ended, TIMEOUT, "death by its own hand")
        else:
            writes = chance.randint(1, 8)
            agent.start(wait=False)
            agent.wait(
                lambda mark=mark, writes=writes: (  # type: ignore[misc]
                    len(agent.events("write", since=mark)) >= writes
                ),
                f"{writes} writes",
            )
        agent.kill()
        for name, place in places.items():
            kept = record(place.own)
            assert kept is None or kept["baseline"] == baselines[name]
    agent.start()
    rows = agent.rows()
    assert {row["state"] for row in rows.values()} == {"Managed"}
    assert {name: rows[f"default/{name}"]["baseline"] for name in baselines} == baselines
    agent.kill()
    assert agent.call("restore").status == 0
    for name, guest in guests.items():
        assert is_untouched(guest, places[name].own, baselines[name])
    assert not journal(agent)
