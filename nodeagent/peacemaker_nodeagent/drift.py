"""What to make of a weight that is not ours: put ours back, take it as the new baseline, or yield.

Pure. systemd and the kubelet re-apply their own value, exactly the baseline, on a daemon-reload; an
in-place resize writes a new one, to the container too; a second controller keeps writing. We do
not fight: the third foreign value in ten minutes makes the VM Contested.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Self

from peacemaker_nodeagent.records import WeightRecord

REASSERT_EVERY: Final = 60.0
REBASE_WINDOW: Final = 600.0
REBASES_TO_CONTEST: Final = 3
THREAD_CORRECTIONS: Final = 1


class Finding(Enum):
    """What a weight read back means."""

    OURS = auto()
    REASSERT = auto()
    WAIT = auto()
    """The baseline again, less than a minute after the last reassert."""
    REBASE = auto()
    CONTESTED = auto()


@dataclass(frozen=True, slots=True)
class Drift:
    """What others did to one VM so far; times in seconds on the agent's clock."""

    container_weight: int | None = None
    reasserted_at: float | None = None
    reasserts: int = 0
    rebased_at: tuple[float, ...] = ()
    rebases: int = 0
    thread_corrections: int = 0

    def with_thread_correction(self) -> Self:
        return replace(self, thread_corrections=self.thread_corrections + 1)


def judge(
    record: WeightRecord, found: int, container_weight: int | None, drift: Drift, now: float
) -> tuple[Finding, Drift]:
    """The meaning of `found` beside the VM's record.

    `container_weight` is the weight of the container below, which nobody but the kubelet and its
    runtime write: a foreign value that comes with a change of it is a resize.
    """
    if record.is_ours(found):
        return Finding.OURS, drift
    if found == record.baseline:
        if drift.reasserted_at is not None and now - drift.reasserted_at < REASSERT_EVERY:
            return Finding.WAIT, drift
        return Finding.REASSERT, replace(drift, reasserted_at=now, reasserts=drift.reasserts + 1)
    rebased = replace(drift, rebases=drift.rebases + 1, container_weight=container_weight)
    if container_weight != drift.container_weight:
        return Finding.REBASE, rebased
    recent = (*(t for t in drift.rebased_at if now - t < REBASE_WINDOW), now)
    if len(recent) >= REBASES_TO_CONTEST:
        return Finding.CONTESTED, replace(drift, rebased_at=recent)
    return Finding.REBASE, replace(rebased, rebased_at=recent)
