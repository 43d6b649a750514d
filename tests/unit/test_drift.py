"""A weight that is not ours: put back, taken as the new baseline, or left to whoever fights."""

import pytest

from peacemaker_nodeagent.drift import Drift, Finding, judge
from peacemaker_nodeagent.records import WeightRecord

RECORD = WeightRecord(baseline=102, confirmed=36, nice=5)
PENDING = RECORD.with_pending(20, 8)

OURS, REASSERT, WAIT = Finding.OURS, Finding.REASSERT, Finding.WAIT
REBASE, CONTESTED = Finding.REBASE, Finding.CONTESTED
SAME = 102
"""The container's weight, which only a resize changes."""


def play(
    events: list[tuple[float, int, int | None]], record: WeightRecord = RECORD
) -> tuple[list[Finding], Drift]:
    """Judge (time, weight found, container's weight) one after another, beside one record."""
    drift = Drift(container_weight=SAME)
    findings = []
    for now, found, container in events:
        finding, drift = judge(record, found, container, drift, now)
        findings.append(finding)
    return findings, drift


@pytest.mark.parametrize(
    ("record", "found", "expected"),
    [
        *((RECORD, 36, OURS), (RECORD, 102, REASSERT), (RECORD, 37, REBASE)),
        *((PENDING, 36, OURS), (PENDING, 20, OURS), (PENDING, 102, REASSERT)),
        *((WeightRecord(102, 102, 0), 102, OURS), (RECORD, 10_000, REBASE)),
    ],
)
def test_what_a_weight_means(record: WeightRecord, found: int, expected: Finding) -> None:
    assert play([(0.0, found, SAME)], record)[0] == [expected]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # The baseline: put ours back, at most once a minute, for ever.
        ([(0, 102), (15, 102), (59, 102), (60, 102)], [REASSERT, WAIT, WAIT, REASSERT]),
        ([(0, 102), (15, 36), (30, 102), (75, 102)], [REASSERT, OURS, WAIT, REASSERT]),
        ([(60 * n, 102) for n in range(9)], [REASSERT] * 9),
        # Other values: a new baseline each, and the third in ten minutes is a fight.
        ([(0, 50), (15, 60), (30, 70)], [REBASE, REBASE, CONTESTED]),
        ([(0, 50), (599, 60), (599.9, 70)], [REBASE, REBASE, CONTESTED]),
        ([(0, 50), (300, 60), (600, 70)], [REBASE, REBASE, REBASE]),
        ([(0, 50), (300, 60), (600, 70), (700, 80)], [REBASE, REBASE, REBASE, CONTESTED]),
        ([(0, 50), (700, 60), (1400, 70)], [REBASE, REBASE, REBASE]),
        # What is ours, or the baseline, is no blow in a fight.
        ([(0, 50), (1, 36), (2, 60), (3, 102), (4, 36)], [REBASE, OURS, REBASE, REASSERT, OURS]),
    ],
)
def test_what_weights_over_time_mean(
    events: list[tuple[float, int]], expected: list[Finding]
) -> None:
    assert play([(now, found, SAME) for now, found in events])[0] == expected


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        # The container's weight follows: the kubelet resizes, as often as it likes.
        ([204, 306, 408, 510], [REBASE, REBASE, REBASE, REBASE]),
        ([204, 204, 204, 204], [REBASE, REBASE, REBASE, CONTESTED]),
        ([SAME, SAME, 204, SAME], [REBASE, REBASE, REBASE, REBASE]),
        ([SAME, SAME, 204, 204], [REBASE, REBASE, REBASE, CONTESTED]),
    ],
)
def test_a_value_that_follows_the_containers_own_weight_is_a_resize(
    containers: list[int], expected: list[Finding]
) -> None:
    events: list[tuple[float, int, int | None]] = [
        (15.0 * number, 50 + number, container) for number, container in enumerate(containers)
    ]
    assert play(events)[0] == expected


def test_without_a_container_every_foreign_value_counts() -> None:
    drift = Drift()
    findings = []
    for now in (0.0, 15.0, 30.0):
        finding, drift = judge(RECORD, 50, None, drift, now)
        findings.append(finding)
    assert findings == [REBASE, REBASE, CONTESTED]


def test_reasserts_and_rebases_are_counted() -> None:
    _, drift = play([(0, 102, SAME), (1, 102, SAME), (60, 102, SAME), (61, 50, SAME)])
    assert (drift.reasserts, drift.rebases) == (2, 1)


def test_what_is_ours_leaves_no_trace() -> None:
    drift = Drift(container_weight=SAME, reasserted_at=3.0, rebased_at=(1.0,))
    assert judge(RECORD, 36, 500, drift, 9.0) == (OURS, drift)
