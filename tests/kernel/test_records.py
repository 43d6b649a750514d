"""A record that is not whole never leads to a guess: the VM is left alone, with a reason."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Fleet, Guest, Place, PodTree, start
from lab.agent import Agent
from lab.policy import put
from tests.kernel.scene import ATTRIBUTE, journal, nices, raw_record

BASELINE = 1234
FIVE = round(BASELINE * 335 / 1024)
"""The weight at nice 5 (kernel/sched/core.c: 335)."""

NOT_WHOLE = "the record is torn or garbage"
NO_FIELDS = "the record has not the fields"


@dataclass(frozen=True, slots=True)
class Scene:
    """A VM that an agent, which is gone, has left at nice 5."""

    guest: Guest
    place: Place
    agent: Agent

    @property
    def journal(self) -> Path:
        (path,) = journal(self.agent)
        return path

    def edit_weight(self, **fields: object) -> None:
        raw = raw_record(self.place.own)
        assert raw is not None
        self.write_weight(json.dumps({**json.loads(raw), **fields}).encode())

    def write_weight(self, raw: bytes) -> None:
        os.setxattr(self.place.own.directories[0], ATTRIBUTE, raw)

    def edit_threads(self, **fields: object) -> None:
        self.journal.write_text(json.dumps({**json.loads(self.journal.read_text()), **fields}))

    def values(self) -> tuple[set[int], int]:
        return nices(self.guest), self.place.own.weight()

    def records(self) -> Any:
        return raw_record(self.place.own), [path.read_bytes() for path in journal(self.agent)]


@pytest.fixture
def scene(tree: PodTree, fleet: Fleet, agent: Agent) -> Scene:
    place = tree.pod(weight=BASELINE)
    guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
    agent.write_policy(put(5))
    agent.start()
    agent.wait_row("a", nice=5, weight=FIVE, baseline=BASELINE)
    agent.kill()
    return Scene(guest, place, agent)


@dataclass(frozen=True, slots=True)
class Case:
    """spoil: what happens to a record. reason: what the agent says. left: what restore leaves."""

    spoil: Callable[[Scene], object]
    reason: str
    left: str = ""


def _cut(path: Path) -> int:
    return path.write_bytes(path.read_bytes()[:-20])


CASES = {
    "weight missing": Case(
        lambda s: os.removexattr(s.place.own.directories[0], ATTRIBUTE),
        "the threads have a record of a nice and the cgroup has none",
    ),
    "weight torn": Case(
        lambda s: s.write_weight((raw_record(s.place.own) or b"")[:-5]), NOT_WHOLE, "weight"
    ),
    "weight empty": Case(lambda s: s.write_weight(b""), NOT_WHOLE, "weight"),
    "weight garbage": Case(lambda s: s.write_weight(bytes(range(256))), NOT_WHOLE, "weight"),
    "weight deeply nested": Case(lambda s: s.write_weight(b"[" * 4000), NOT_WHOLE, "weight"),
    "weight of other fields": Case(lambda s: s.write_weight(b'{"v": 1}'), NO_FIELDS, "weight"),
    "weight of another format": Case(
        lambda s: s.edit_weight(v=2), "the record has format 2, not 1", "weight"
    ),
    "weight impossible": Case(lambda s: s.edit_weight(baseline=0), "baseline is 0", "weight"),
    "weight no number": Case(lambda s: s.edit_weight(nice="5"), "nice is '5'", "weight"),
    "threads missing": Case(
        lambda s: s.journal.unlink(), "has nice 5 and there is no record of it"
    ),
    "threads torn": Case(lambda s: _cut(s.journal), NOT_WHOLE, "threads"),
    "threads empty": Case(lambda s: s.journal.write_text(""), NOT_WHOLE, "threads"),
    "threads garbage": Case(
        lambda s: s.journal.write_bytes(bytes(range(256))), NOT_WHOLE, "threads"
    ),
    "threads of another boot": Case(
        lambda s: s.edit_threads(boot="0" * 8), "the record is from another boot", "threads"
    ),
    "threads of another process": Case(
        lambda s: s.edit_threads(pid=s.guest.pid + 1), "the record is of process", "threads"
    ),
    "threads of a namesake": Case(
        lambda s: s.edit_threads(start=1), "the record is of process", "threads"
    ),
    "threads impossible": Case(
        lambda s: s.edit_threads(threads={"1": [5, 40]}),
        "1 is 40, not a number in -20..19",
        "threads",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_vm_whose_record_is_not_whole_is_left_alone_with_a_reason(
    case: Case, scene: Scene
) -> None:
    case.spoil(scene)
    records, values = scene.records(), scene.values()
    agent, mark = scene.agent, scene.agent.mark()
    agent.start()
    row = agent.row("a")
    assert row["state"] == "Failed"
    assert row["reason"].startswith("UnknownBaseline: ")
    assert case.reason in row["reason"]
    agent.edit(put(9))
    assert agent.row("a")["state"] == "Failed"
    assert (scene.values(), scene.records()) == (values, records)
    assert not agent.events("write", since=mark)
    assert not agent.events("restore", since=mark)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_restore_leaves_what_it_has_no_whole_record_of_and_says_so(
    case: Case, scene: Scene
) -> None:
    case.spoil(scene)
    values = scene.values()
    done = scene.agent.call("restore", "-o", "json")
    problems = {outcome["subject"]: outcome["problem"] for outcome in done.json()}
    of_threads = problems.get(f"pid {scene.guest.pid}")
    of_weight = problems.get(scene.place.own.path)
    assert done.status == (1 if case.left else 0)
    for kind, problem in (("threads", of_threads), ("weight", of_weight)):
        if case.left == kind:
            assert problem is not None
            assert problem.startswith("left alone: ")
            assert case.reason in problem
        else:
            assert problem is None
    # What has a whole record is back, and nothing else has moved.
    spoiled = case.left or ("weight" if "cgroup has none" in case.reason else "threads")
    assert scene.values() == ((values[0], BASELINE) if spoiled == "threads" else ({0}, values[1]))
