"""The two records: whole or refused, never repaired, and exact when they are put to use."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peacemaker.nice import CPU_SHARES, NICE_MAX, NICE_MIN
from peacemaker_nodeagent import act
from peacemaker_nodeagent.act import Actuator, restore_threads
from peacemaker_nodeagent.cgroup import Hierarchy, place
from peacemaker_nodeagent.own_cgroup import OwnCgroup
from peacemaker_nodeagent.peace_list import Vm
from peacemaker_nodeagent.proc import Process, ProcessKey
from peacemaker_nodeagent.records import Journal, RecordError, ThreadRecord, WeightRecord

BOOT = "8d9f6c1e-0000-4000-8000-000000000001"
NICES = st.integers(NICE_MIN, NICE_MAX)
WEIGHTS = st.integers(1, 262_144)
TIDS = st.integers(1, 4_194_304)

weight_records = st.builds(
    WeightRecord, baseline=WEIGHTS, confirmed=WEIGHTS, nice=NICES, pending=st.none() | WEIGHTS
)
thread_records = st.builds(
    ThreadRecord,
    boot=st.just(BOOT),
    key=st.builds(ProcessKey, pid=TIDS, start=st.integers(0, 2**40)),
    baseline=NICES,
    confirmed=NICES,
    nice=NICES,
    threads=st.dictionaries(TIDS, st.tuples(st.integers(0, 2**40), NICES), max_size=5),
    pending=st.none() | NICES,
)
WEIGHT = WeightRecord(baseline=102, confirmed=36, nice=5, pending=20)
THREADS = ThreadRecord(BOOT, ProcessKey(77, 1234), 0, 5, 8, {77: (1234, 0), 78: (1240, 0)}, 8)


def decode_threads(raw: bytes) -> ThreadRecord:
    return ThreadRecord.decode(raw, "here", BOOT)


def decode_weight(raw: bytes) -> WeightRecord:
    return WeightRecord.decode(raw, "here")


@given(weight_records)
def test_a_weight_record_comes_back_as_it_went(record: WeightRecord) -> None:
    assert decode_weight(record.encode()) == record


@given(thread_records)
def test_a_thread_record_comes_back_as_it_went(record: ThreadRecord) -> None:
    assert decode_threads(record.encode()) == record


@pytest.mark.parametrize("record", [WEIGHT, replace(WEIGHT, pending=None)])
def test_every_truncation_of_a_weight_record_is_refused(record: WeightRecord) -> None:
    raw = record.encode()
    for length in range(len(raw)):
        with pytest.raises(RecordError, match=r"^here: "):
            decode_weight(raw[:length])


def test_every_truncation_of_a_thread_record_is_refused() -> None:
    raw = THREADS.encode()
    for length in range(len(raw)):
        with pytest.raises(RecordError, match=r"^here: "):
            decode_threads(raw[:length])


def test_every_flipped_byte_leaves_a_whole_record_or_is_refused() -> None:
    decoded = 0
    for raw, decode in ((WEIGHT.encode(), decode_weight), (THREADS.encode(), decode_threads)):
        for index in range(len(raw)):
            for bit in range(8):
                torn = bytearray(raw)
                torn[index] ^= 1 << bit
                try:
                    record = decode(bytes(torn))
                except RecordError:
                    continue
                decoded += 1
                assert decode(record.encode()) == record
    assert decoded  # a digit that became another digit cannot be told


@given(st.binary(max_size=60))
def test_garbage_is_refused(raw: bytes) -> None:
    for decode in (decode_weight, decode_threads):
        with pytest.raises(RecordError):
            decode(raw)


def changed(record: WeightRecord | ThreadRecord, **fields: object) -> bytes:
    return json.dumps({**json.loads(record.encode()), **fields}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        *({"v": 2}, {"v": None}, {"v": "1"}, {"extra": 1}, {"baseline": 0}, {"baseline": -1}),
        *({"baseline": 262_145}, {"baseline": "102"}, {"baseline": 102.0}, {"baseline": True}),
        *({"baseline": None}, {"confirmed": None}, {"confirmed": 0}, {"pending": 0}),
        *({"pending": False}, {"nice": 20}, {"nice": -21}, {"nice": 1.5}, {"nice": None}),
        {"baseline": 10**400},
    ],
)
def test_a_weight_record_with_an_impossible_field_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        decode_weight(changed(WEIGHT, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        *({"boot": "another"}, {"boot": None}, {"pid": 0}, {"pid": "77"}, {"start": -1}),
        *({"nice": 20}, {"baseline": -21}, {"confirmed": None}, {"pending": 99}),
        *({"threads": None}, {"threads": []}, {"threads": {"x": [1, 0]}}),
        *({"threads": {"78": [1]}}, {"threads": {"78": [1, 0, 0]}}, {"threads": {"78": [1, 20]}}),
        *({"threads": {"-78": [1, 0]}}, {"threads": {"78": {"start": 1}}}),
        *({"threads": {"": [1, 0]}}, {"threads": {"٧٨": [1, 0]}}, {"threads": {"78": ["1", 0]}}),
        {"threads": {"78": [1.0, 0]}},
    ],
)
def test_a_thread_record_with_an_impossible_field_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        decode_threads(changed(THREADS, **fields))


@pytest.mark.parametrize(
    "raw",
    [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"NaN", b"null", b"\xff\xfe", b"", b"{}"],
    ids=["lists", "maps", "number", "nan", "null", "bom", "nothing", "no-fields"],
)
def test_hostile_text_is_refused(raw: bytes) -> None:
    for decode in (decode_weight, decode_threads):
        with pytest.raises(RecordError):
            decode(raw)


def test_a_step_under_way_has_two_values_of_ours_and_a_finished_one_has_one() -> None:
    resting = WeightRecord(baseline=102, confirmed=50, nice=3)
    under_way = resting.with_pending(36, 5)
    assert [resting.is_ours(50), resting.is_ours(36), resting.is_ours(102)] == [True, False, False]
    assert [under_way.is_ours(50), under_way.is_ours(36)] == [True, True]
    assert under_way.nice == 5
    assert under_way.with_confirmed() == WeightRecord(baseline=102, confirmed=36, nice=5)
    assert resting.with_confirmed() is resting


@pytest.mark.parametrize(
    ("tid", "start", "baseline"),
    [
        # recorded; its id given anew to a younger thread; never recorded
        *((77, 1234, 3), (78, 1240, 1), (78, 9999, 3), (79, 1240, 3)),
    ],
)
def test_a_thread_without_a_record_gets_the_main_threads_baseline(
    tid: int, start: int, baseline: int
) -> None:
    record = replace(THREADS, baseline=3, threads={77: (1234, 3), 78: (1240, 1)})
    assert record.baseline_of(tid, start) == baseline


class TestJournal:
    def test_it_keeps_one_record_for_each_process(self, tmp_path: Path) -> None:
        journal = Journal(str(tmp_path / "threads"), BOOT)
        other = replace(THREADS, key=ProcessKey(77, 9999), nice=1)
        assert (list(journal.processes()), journal.read(THREADS.key)) == ([], None)
        for record in (THREADS, other, replace(THREADS, nice=2)):
            journal.write(record)
        assert list(journal.processes()) == [THREADS.key, other.key]
        assert journal.read(THREADS.key) == replace(THREADS, nice=2)
        assert journal.read(other.key) == other
        journal.remove(THREADS.key)
        journal.remove(THREADS.key)
        assert list(journal.processes()) == [other.key]

    def test_a_record_of_another_boot_is_refused(self, tmp_path: Path) -> None:
        Journal(str(tmp_path), "then").write(replace(THREADS, boot="then"))
        with pytest.raises(RecordError, match="another boot"):
            Journal(str(tmp_path), "now").read(THREADS.key)

    def test_a_record_of_another_process_is_refused(self, tmp_path: Path) -> None:
        Journal(str(tmp_path), BOOT).write(THREADS)
        (tmp_path / "77-1234.json").rename(tmp_path / "77-5555.json")
        with pytest.raises(RecordError, match=r"77-5555\.json: the record is of process"):
            Journal(str(tmp_path), BOOT).read(ProcessKey(77, 5555))

    @pytest.mark.parametrize("raw", [b"", b"{", b"\0" * 4096])
    def test_a_torn_file_is_refused_and_still_listed(self, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "77-1234.json").write_bytes(raw)
        journal = Journal(str(tmp_path), BOOT)
        assert list(journal.processes()) == [THREADS.key]
        with pytest.raises(RecordError, match=r"77-1234\.json: the record is torn or garbage"):
            journal.read(THREADS.key)

    @pytest.mark.parametrize("name", ["77-1234.json.new", "x-1.json", "77.json", "77-12.json~"])
    def test_what_a_kill_or_somebody_else_left_is_no_record(
        self, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).write_bytes(THREADS.encode())
        assert list(Journal(str(tmp_path), BOOT).processes()) == []

    def test_a_kill_between_writing_and_replacing_leaves_the_old_record(
        self, tmp_path: Path
    ) -> None:
        journal = Journal(str(tmp_path), BOOT)
        journal.write(THREADS)
        (tmp_path / "77-1234.json.new").write_bytes(THREADS.encode()[:30])
        assert journal.read(THREADS.key) == THREADS
        journal.write(replace(THREADS, nice=1))
        assert journal.read(THREADS.key) == replace(THREADS, nice=1)


@settings(max_examples=20)
@given(thread_records)
def test_any_record_survives_the_disk(tmp_path_factory: pytest.TempPathFactory,
                                      record: ThreadRecord) -> None:  # fmt: skip
    journal = Journal(str(tmp_path_factory.mktemp("journal")), BOOT)
    journal.write(record)
    assert journal.read(record.key) == record


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A real process to read; as it was started by us, its nice is ours (0)."""
    child = subprocess.Popen(["sleep", "60"])
    process = Process.open(child.pid)
    yield process
    process.close()
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("found", "record", "after", "note"),
    [
        # nice found, (baseline, confirmed, pending), nice after
        (0, (0, 5, None), 0, None),
        (7, (0, 5, None), 7, "changed by somebody else"),
        (5, (5, 0, None), 5, None),
        (5, (9, 5, None), 9, ""),
        (5, (9, 0, 5), 9, ""),
        (0, (9, 0, 5), 9, ""),
    ],
)
def test_restoring_threads_touches_only_what_is_still_ours(
    sleeper: Process,
    found: int,
    record: tuple[int, int, int | None],
    after: int,
    note: str | None,
) -> None:
    os.setpriority(os.PRIO_PROCESS, sleeper.pid, found)
    baseline, confirmed, pending = record
    threads = ThreadRecord(BOOT, sleeper.key, baseline, confirmed, 0, {}, pending)
    done = restore_threads(sleeper, threads)
    assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == after
    assert len(done) == (note is not None)
    assert all((note or "") in step.note for step in done)


@pytest.mark.parametrize("tid", ["9" * 5000, "0"])
def test_a_thread_id_that_cannot_be_is_refused(tid: str) -> None:
    with pytest.raises(RecordError):
        decode_threads(changed(THREADS, threads={tid: [1, 0]}))


@pytest.mark.parametrize("entry", [[True, 0], [-1, 0], [1, False]])
def test_a_thread_entry_that_cannot_be_is_refused(entry: list[object]) -> None:
    with pytest.raises(RecordError):
        decode_threads(changed(THREADS, threads={"78": entry}))


def listed(own: OwnCgroup, weight: WeightRecord) -> Vm:
    """A VM as adoption takes it over; its weight is asked for and nothing else."""
    return Vm(
        process=Process(THREADS.key, -1, -1, -1),
        uid="77-1234",
        name="web",
        namespace="prod",
        labels={},
        started=0.0,
        placement=place("/own"),
        own=own,
        vcpus=1,
        nice=6,
        weight=weight,
    )


class Killed(BaseException):
    """Stands for kill -9 between the record and the write."""


class Dies(OwnCgroup):
    def write_weight(self, weight: int) -> None:
        raise Killed(weight)


def test_a_kill_in_the_step_after_an_unfinished_one_loses_nothing(tmp_path: Path) -> None:
    own_dir = tmp_path / "own"
    own_dir.mkdir()
    (own_dir / "cpu.shares").write_text("360\n")
    hierarchy = Hierarchy(1, str(tmp_path), str(tmp_path), "cpu.shares", CPU_SHARES)
    # The last agent was killed after it had written its pending 360 and before confirming.
    unfinished = WeightRecord(baseline=102, confirmed=500, nice=5, pending=360)
    own = Dies.open(hierarchy, "/own")
    assert own
    adopted = listed(own, unfinished)
    actuator = Actuator(Journal(str(tmp_path / "threads"), BOOT))
    with pytest.raises(Killed):
        actuator.set_weight(adopted, own, 290, "test")
    record = own.read_record()
    own.close()
    assert record
    assert record.is_ours(360), "what the cgroup holds is ours, whenever the agent is killed"


def test_a_thread_that_ends_during_a_restore_does_not_keep_the_others_from_it(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setpriority(os.PRIO_PROCESS, sleeper.pid, 5)
    # A worker that is there when nices are read and gone when start times are.
    monkeypatch.setattr(act, "thread_nices", lambda _: {4_194_303: 5, sleeper.pid: 5})
    record = ThreadRecord(BOOT, sleeper.key, 9, 5, 5, {})
    assert restore_threads(sleeper, record)
    assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == 9
