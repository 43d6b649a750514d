"""What the operator's worker keeps: what is due, newest, silent, set, and may be told."""

import math
import queue
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from peacemaker_kube.api import Document
from peacemaker_kube.watch import Change
from peacemaker_operator.agents import Agents
from peacemaker_operator.events import TokenBucket
from peacemaker_operator.newest import Newest
from peacemaker_operator.observed import PeaceListRecord
from peacemaker_operator.records import AgentPodRecord
from peacemaker_operator.schedule import Schedule
from peacemaker_operator.settings import Settings, read_settings
from peacemaker_operator.writer import Job, Outcome, Refusals, Result, Writer, settle

# --- schedule ---


def test_names_are_taken_when_they_are_due_the_longest_due_first() -> None:
    schedule = Schedule()
    schedule.mark("late", 5.0)
    schedule.mark("b", 2.0)
    schedule.mark("a", 1.0)
    assert schedule.next() == 1.0
    assert schedule.take(0.5, 9) == []
    assert schedule.take(2.0, 9) == ["a", "b"]
    assert schedule.next() == 5.0


def test_a_name_that_is_marked_while_it_is_busy_is_due_though_nobody_can_take_it() -> None:
    schedule = Schedule()
    schedule.mark("a")
    assert schedule.is_anything_due(0.0)
    assert schedule.take(0.0, 9) == ["a"]
    assert not schedule.is_anything_due(0.0)
    schedule.mark("a")
    assert schedule.is_anything_due(0.0)
    assert schedule.take(0.0, 9) == []
    schedule.finished("a")
    assert schedule.take(0.0, 9) == ["a"]
    schedule.finished("a")
    schedule.mark("late", 5.0)
    assert not schedule.is_anything_due(4.0)


def test_a_name_marked_twice_is_taken_once_and_at_the_sooner_time() -> None:
    schedule = Schedule()
    schedule.mark("a", 9.0)
    schedule.mark("a", 1.0)
    schedule.mark("a", 3.0)
    assert schedule.take(1.0, 9) == ["a"]
    schedule.finished("a")
    assert schedule.take(99.0, 9) == []
    assert schedule.next() == math.inf


def test_a_busy_name_that_is_marked_is_due_again_when_it_is_finished() -> None:
    schedule = Schedule()
    schedule.mark("a")
    assert schedule.take(0.0, 9) == ["a"]
    schedule.mark("a")
    assert schedule.next() == math.inf
    assert schedule.take(9.0, 9) == []
    schedule.finished("a")
    assert schedule.take(9.0, 9) == ["a"]


def test_no_more_are_taken_than_there_is_room_for() -> None:
    schedule = Schedule()
    for name in "abc":
        schedule.mark(name)
    assert [schedule.take(0.0, 2), schedule.take(0.0, 0), schedule.take(0.0, 2)] == [
        *(["a", "b"], [], ["c"]),
    ]


def test_a_name_that_fails_is_tried_again_after_longer_and_longer_up_to_a_minute() -> None:
    schedule = Schedule()
    schedule.mark("a")
    now, pauses = 0.0, []
    for _ in range(20):
        assert schedule.take(now, 9) == ["a"]
        pauses.append(schedule.failed("a", now))
        schedule.mark("a")  # news do not shorten it
        assert schedule.take(now + 0.99 * pauses[-1], 9) == []
        now += pauses[-1]
    assert pauses[0] <= 0.05
    assert 45.0 <= pauses[-1] <= 60.0
    schedule.take(now, 9)
    schedule.finished("a")
    schedule.mark("a")
    schedule.take(now, 9)
    assert schedule.failed("a", now) <= 0.05


@pytest.mark.parametrize(
    ("result", "longest"), [(Result.CONFLICT, 1.0), (Result.REFUSED, 60.0), (Result.GONE, 60.0)]
)
def test_a_conflict_is_tried_again_within_a_second_what_is_refused_within_a_minute(
    result: Result, longest: float
) -> None:
    schedule, newest = Schedule(), Newest[Record]({})
    schedule.mark("a")
    now = 0.0
    for _ in range(20):
        assert schedule.take(now, 9) == ["a"]
        settle("a", Outcome(result), schedule, newest, now)
        pause, now = schedule.next() - now, schedule.next()
    assert 0.75 * longest <= pause <= longest


def test_what_is_cleared_or_forgotten_is_not_taken() -> None:
    schedule = Schedule()
    schedule.mark("busy")
    schedule.take(0.0, 9)
    schedule.mark("busy")
    schedule.mark("a")
    schedule.forget("a")
    schedule.mark("b")
    schedule.clear()
    assert schedule.take(9.0, 9) == []
    schedule.finished("busy")
    assert schedule.take(9.0, 9) == []


# --- newest ---


@dataclass(frozen=True, slots=True)
class Record:
    resource_version: str


@dataclass
class Watched:
    """A watch, and what is newest, as the worker uses the two."""

    records: dict[str, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.newest = Newest(self.records)

    def tells(self, version: str | None) -> bool:
        if version is None:
            self.records.pop("a", None)
            return self.newest.told("a", None)
        self.records["a"] = Record(version)
        return self.newest.told("a", self.records["a"])

    def version(self) -> str | None:
        found = self.newest.get("a")
        return found.resource_version if found else None


def test_an_answer_is_newer_than_the_watch_until_that_has_told_as_much() -> None:
    watched = Watched()
    assert watched.tells("9")
    watched.newest.answered("a", Record("11"))
    assert watched.version() == "11"
    assert not watched.tells("10")
    assert watched.version() == "11"
    assert not watched.tells("11")  # our own write
    assert watched.tells("12")
    assert watched.version() == "12"


def test_an_answer_that_the_watch_has_overtaken_counts_for_nothing() -> None:
    watched = Watched()
    watched.tells("12")
    watched.newest.answered("a", Record("11"))
    assert watched.version() == "12"
    watched.newest.answered("a", Record("13"))
    assert watched.tells("20")  # a new list, which jumped over our own write
    assert watched.version() == "20"


def test_what_is_gone_is_gone_whatever_was_answered() -> None:
    watched = Watched()
    watched.tells("1")
    watched.newest.answered("a", Record("2"))
    assert watched.tells(None)
    assert watched.version() is None


# --- agents ---


def pod(name: str, node: str, ready: bool) -> AgentPodRecord:
    return AgentPodRecord(name, node, ready, None)


def test_an_agent_is_silent_a_while_after_its_last_ready_pod_was_lost() -> None:
    agents = Agents(60.0)
    old, new = pod("old", "n", True), pod("new", "n", True)
    agents.pod_changed(Change("ns/old", None, old), 0.0)
    assert agents.silent_at("n", 0.0) == math.inf
    agents.pod_changed(Change("ns/new", None, pod("new", "n", False)), 5.0)
    agents.pod_changed(Change("ns/old", old, None), 10.0)
    assert agents.silent_at("n", 11.0) == 70.0
    agents.pod_changed(Change("ns/new", pod("new", "n", False), new), 20.0)
    assert agents.silent_at("n", 21.0) == math.inf


def test_a_node_without_any_pod_is_silent_a_while_after_it_was_first_asked_for() -> None:
    agents = Agents(60.0)
    assert agents.silent_at("n", 7.0) == 67.0
    assert agents.silent_at("n", 50.0) == 67.0
    agents.forget("n")
    assert agents.silent_at("n", 80.0) == 140.0


def test_an_agent_that_answers_has_twice_the_time_until_its_pod_is_ready_again() -> None:
    agents = Agents(60.0)
    assert agents.silent_at("n", 0.0) == 60.0
    agents.spoke("n", 100.0)
    assert agents.silent_at("n", 100.0) == 220.0
    for _ in range(10):
        agents.spoke("n", 1000.0)
    assert agents.silent_at("n", 1000.0) == 1000.0 + 3600.0
    ready = pod("p", "n", True)
    agents.pod_changed(Change("ns/p", None, ready), 2000.0)
    agents.pod_changed(Change("ns/p", ready, None), 3000.0)
    assert agents.silent_at("n", 3000.0) == 3060.0


# --- what may be told ---


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(burst=2, rate=0.5, clock=lambda: now)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now = 2.0
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 1000.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


# --- settings ---

LAST = Settings(300, True)


@pytest.mark.parametrize(
    ("data", "settings", "wrong"),
    [
        ({}, Settings(100, False), ()),
        ({"maxClaimPercent": "150"}, Settings(150, False), ()),
        ({"maxClaimPercent": " 10000\n", "suspended": "true"}, Settings(10_000, True), ()),
        ({"suspended": "false"}, Settings(100, False), ()),
        ({"suspended": "False"}, Settings(100, True), ("suspended",)),
        (
            {"maxClaimPercent": "99", "suspended": "false"},
            Settings(300, False),
            ("maxClaimPercent",),
        ),
        ({"maxClaimPercent": "10001"}, Settings(300, False), ("maxClaimPercent",)),
        ({"maxClaimPercent": "1.5e2"}, Settings(300, False), ("maxClaimPercent",)),
        ({"maxClaimPercent": "١٥٠"}, Settings(300, False), ("maxClaimPercent",)),
        ({"maxClaimPercent": "", "suspended": ""}, LAST, ("maxClaimPercent", "suspended")),
        ({"of-a-later-version": "x"}, Settings(100, False), ()),
    ],
)
def test_a_wrong_setting_leaves_the_last_known_one_in_force(
    data: dict[str, str], settings: Settings, wrong: tuple[str, ...]
) -> None:
    found, problems = read_settings(data, LAST)
    assert found == settings
    assert tuple(problem.key for problem in problems) == wrong


# --- writes ---


def test_a_write_of_who_does_not_lead_any_more_is_not_tried_and_ends_no_thread() -> None:
    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    outcomes: list[Result] = []
    may_write = False

    def write() -> Document:
        assert may_write
        return {}

    job: Job[PeaceListRecord] = Job(
        kind="peacelists patch",
        write=write,
        read=dict,
        record=lambda _: None,
        done=lambda outcome: outcomes.append(outcome.result),
    )
    writer = Writer(lambda: may_write, posted.put, threads=1)
    writer.start()
    for may_write in (False, True):  # noqa: B007 - the writer looks
        writer.submit(job)
        posted.get(timeout=10.0)()
    assert outcomes == [Result.FENCED, Result.WRITTEN]
    assert writer.is_alive()
    assert writer.stop(10.0)


def test_a_refusal_is_told_once_until_its_reason_changes_or_a_write_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = Refusals("PeaceList", "node")

    def told(result: Result, error: str = "") -> bool:
        caplog.clear()
        refusals.learn("node-1", Outcome(result, error=error))
        assert all(each.levelname == "WARNING" for each in caplog.records)
        return bool(caplog.records)

    assert told(Result.REFUSED, "forbidden")
    assert [each.message for each in caplog.records] == [
        "PeaceList refused by the API server, it will be tried again"
    ]
    assert not told(Result.REFUSED, "forbidden")
    assert told(Result.REFUSED, "not valid")
    assert not told(Result.WRITTEN)
    assert told(Result.REFUSED, "not valid")
