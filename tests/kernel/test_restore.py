"""Restoring: by the stop file, by the command, and by itself; exactly what was there before."""

import os
import time
from pathlib import Path

import pytest

from lab import Fleet, Guest, Place, PodTree, start
from lab.agent import Agent
from lab.policy import put
from tests.kernel.scene import (
    Qmp,
    is_untouched,
    journal,
    nices,
    raw_record,
    record,
    start_with_qmp,
    thread_nices,
)

BASELINE = 1234
FIVE = round(BASELINE * 335 / 1024)
"""The weight at nice 5 (kernel/sched/core.c: 335)."""

STOPS_WITHIN = 1.5
"""Seconds: two looks a second, and whatever else the machine does."""


@pytest.fixture
def place(tree: PodTree) -> Place:
    return tree.pod(weight=BASELINE)


@pytest.fixture
def guest(place: Place, fleet: Fleet, agent: Agent) -> Guest:
    """A VM that the running agent has put at nice 5."""
    guest = fleet.keep(start("a", cgroup=place.leaf, vcpus=2, paused=True))
    agent.write_policy(put(5))
    agent.start()
    _is_adjusted(agent, guest, place)
    return guest


def _is_adjusted(agent: Agent, guest: Guest, place: Place) -> None:
    agent.wait_row("a", nice=5, weight=FIVE, baseline=BASELINE)
    assert nices(guest) == {5}
    assert record(place.own)["baseline"] == BASELINE
    assert len(journal(agent)) == 1


def test_the_stop_file_restores_everything_within_a_second_until_it_is_gone(
    guest: Guest, place: Place, agent: Agent
) -> None:
    stop = Path(agent.run_dir.stop_file)
    stop.touch()
    appeared = time.monotonic()
    agent.wait(lambda: is_untouched(guest, place.own, BASELINE), "all to be restored", STOPS_WITHIN)
    assert time.monotonic() - appeared < STOPS_WITHIN
    assert agent.wait_event("stop file is there: resting")
    row = agent.row("a")
    assert (row["state"], row["reason"]) == ("Unmanaged", "restored: Stopped")
    # It rests: neither a pass nor an edit moves anything.
    agent.edit(put(7))
    assert is_untouched(guest, place.own, BASELINE)
    assert agent.status()["suspended"]
    agent.write_policy(put(5))
    stop.unlink()
    agent.wait_event("stop file is gone")
    _is_adjusted(agent, guest, place)


def test_a_stop_file_that_was_there_before_the_agent_restores_what_an_earlier_one_left(
    guest: Guest, place: Place, agent: Agent
) -> None:
    agent.kill()
    Path(agent.run_dir.stop_file).touch()
    agent.start()
    assert is_untouched(guest, place.own, BASELINE)
    assert agent.row("a")["state"] == "Unmanaged"


def test_sigterm_leaves_the_values_and_the_next_agent_adopts_them(
    guest: Guest, place: Place, agent: Agent
) -> None:
    assert agent.stop() == 0
    assert agent.events("stopped, values are left as they are")
    assert (nices(guest), place.own.weight()) == ({5}, FIVE)
    before = raw_record(place.own)
    # Its rule does not act before an hour has passed: what is there was adopted.
    agent.write_policy(put(9, interval="1h").replace('"for": "0s"', '"for": "1h"'))
    mark = agent.mark()
    agent.start()
    row = agent.row("a")
    assert (row["nice"], row["weight"], row["baseline"]) == (5, FIVE, BASELINE)
    assert row["reason"] == "adopted as an earlier run left it"
    assert row["since"] < 60.0
    assert not agent.events("write", since=mark)
    assert raw_record(place.own) == before


def test_the_restore_command_puts_everything_back_and_says_what_it_did(
    guest: Guest, place: Place, agent: Agent
) -> None:
    refused = agent.call("restore")
    assert refused.status == 1
    assert f"pid {agent.pid}" in refused.stderr
    assert f"touch {agent.run_dir.stop_file}" in refused.stderr
    assert nices(guest) == {5}

    agent.kill()
    done = agent.call("restore", "-o", "json")
    assert done.status == 0
    assert done.json() == [
        {
            "subject": f"pid {guest.pid}",
            "steps": [{"what": "threads", "found": "5", "now": "0", "note": ""}],
            "problem": None,
        },
        {
            "subject": place.own.path,
            "steps": [{"what": "weight", "found": str(FIVE), "now": str(BASELINE), "note": ""}],
            "problem": None,
        },
    ]
    assert is_untouched(guest, place.own, BASELINE)
    assert not journal(agent)
    again = agent.call("restore")
    assert (again.status, again.stdout) == (0, "0 restored, 0 left alone\n")


def test_the_restore_command_speaks_to_people_too(guest: Guest, place: Place, agent: Agent) -> None:
    agent.kill()
    assert agent.call("restore").stdout.splitlines() == [
        f"pid {guest.pid}: threads 5 -> 0",
        f"{place.own.path}: weight {FIVE} -> {BASELINE}",
        "2 restored, 0 left alone",
    ]


@pytest.mark.parametrize("who", ["the command", "the agent"])
def test_a_thread_that_started_after_the_change_is_restored_too(
    who: str, tree: PodTree, fleet: Fleet, agent: Agent, tmp_path: Path
) -> None:
    place = tree.pod(weight=BASELINE)
    guest = fleet.keep(start_with_qmp("a", place.leaf, tmp_path / "qmp"))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_event("write", what="threads", new="5")
    qmp = Qmp(tmp_path / "qmp")
    qmp.start_thread("late")
    qmp.close()
    late = next(tid for tid, name in guest.threads().items() if name == "IO late")
    assert thread_nices(guest)[late] == 5, "it inherits the nice of the thread that started it"
    if who == "the command":
        agent.kill()
        assert agent.call("restore").status == 0
    else:
        Path(agent.run_dir.stop_file).touch()
        agent.wait_row("a", state="Unmanaged", reason="restored: Stopped")
    assert late in thread_nices(guest)
    assert is_untouched(guest, place.own, BASELINE)


def test_what_somebody_else_changed_is_left_and_told(
    guest: Guest, place: Place, agent: Agent
) -> None:
    agent.kill()
    tid = guest.vcpu_tids()[0]
    os.setpriority(os.PRIO_PROCESS, tid, 11)
    place.own.set_weight(777)
    done = agent.call("restore")
    assert done.stdout.splitlines() == [
        f"pid {guest.pid}: threads 5 -> 0 (left {{{tid}: 11}}: changed by somebody else)",
        f"{place.own.path}: weight 777 -> 777 (left: changed by somebody else)",
        "2 restored, 0 left alone",
    ]
    assert thread_nices(guest) == {each: 11 if each == tid else 0 for each in guest.threads()}
    assert (place.own.weight(), raw_record(place.own)) == (777, None)


@pytest.mark.parametrize("when", ["while the agent runs", "while no agent runs"])
def test_a_cgroup_that_outlives_its_vm_gets_its_weight_back(
    when: str, guest: Guest, place: Place, agent: Agent
) -> None:
    if when == "while no agent runs":
        agent.kill()
    guest.stop()
    if when == "while no agent runs":
        agent.start()
    agent.wait(lambda: place.own.weight() == BASELINE, "the weight to be back")
    agent.wait(lambda: raw_record(place.own) is None, "its record to be gone")
    agent.wait(lambda: not journal(agent), "the record of its threads to be gone")


def test_a_cgroup_that_ended_with_its_vm_is_no_trouble(
    guest: Guest, place: Place, tree: PodTree, fleet: Fleet, agent: Agent
) -> None:
    guest.stop()
    for group in (place.leaf, place.own):
        for directory in group.directories:
            directory.rmdir()
    agent.wait_event("vm ended", vm="default/a")
    other = fleet.keep(start("b", cgroup=tree.pod(weight=BASELINE).leaf, paused=True))
    agent.wait_row("b", nice=5, pid=other.pid, weight=FIVE)
    assert not agent.events(level="error")
