"""The claim guard: what weight each governed VM gets below one parent cgroup.

VMs trade CPU time among themselves. Lowering one gives CPU to everybody; raising one never makes
the common claim (the sum of weights) of the governed VMs larger than the baselines that they came
with, times `maxClaim`. Ordinary pods beside them lose nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from peacemaker.nice import WeightRange, effective_nice, k

FULL_CLAIM_PERCENT: Final = 100
REWRITE_TOLERANCE: Final = 0.02
"""A weight that is off by no more than this share is left: one VM's step rewrites few others."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A governed VM with a cgroup of its own, or a frozen one that keeps `frozen_weight`."""

    uid: str
    baseline: int
    nice: int
    baseline_nice: int = 0
    frozen_weight: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What the guard grants one VM.

    `wanted` is the weight after the guard and before rounding, `weight` the one to write.
    """

    wanted: float
    weight: int
    floored: bool
    effective_nice: int


def wanted_weight(claimant: Claimant) -> float:
    """The weight that the VM's nice asks for, before the guard."""
    return claimant.baseline * k(claimant.nice) / k(claimant.baseline_nice)


def guard(
    claimants: Iterable[Claimant],
    limits: WeightRange,
    max_claim_percent: int = FULL_CLAIM_PERCENT,
) -> dict[str, Share]:
    """Weights, by VM uid, of the claimants below one parent cgroup; frozen ones get none."""
    members = tuple(claimants)
    free = [m for m in members if m.frozen_weight is None]
    claim = max_claim_percent / 100 * sum(m.baseline for m in members)
    left = max(0.0, claim - sum(m.frozen_weight or 0 for m in members))
    wanted = [wanted_weight(m) for m in free]
    total = sum(wanted)
    scale = min(1.0, left / total) if total else 1.0
    return {
        m.uid: _share(each * scale, m.baseline, m.baseline_nice, limits)
        for m, each in zip(free, wanted, strict=True)
    }


@lru_cache(maxsize=1024)  # most VMs of a node have the same few baselines and nices
def _share(wanted: float, baseline: int, baseline_nice: int, limits: WeightRange) -> Share:
    weight = limits.clamp(round(wanted))
    return Share(
        wanted=wanted,
        weight=weight,
        floored=wanted < limits.minimum,
        effective_nice=effective_nice(weight, baseline, baseline_nice),
    )


def is_off(found: int, weight: int) -> bool:
    """Whether a weight that was found is far enough from the one to write to be rewritten."""
    return abs(found - weight) > REWRITE_TOLERANCE * weight
