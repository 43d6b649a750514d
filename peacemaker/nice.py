"""Nice values and the weights that the kernel gives them.

Nice is the language of a policy; a cgroup weight is what moves CPU time between VMs that have
cgroups of their own. This file holds the kernel's table that ties the two together.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

NICE_MIN: Final = -20
NICE_MAX: Final = 19

# kernel/sched/core.c, sched_prio_to_weight[]: one step of nice is about 25 % of CPU time.
_PRIO_TO_WEIGHT: Final = (
    *(88761, 71755, 56483, 46273, 36291),  # -20
    *(29154, 23254, 18705, 14949, 11916),  # -15
    *(9548, 7620, 6100, 4904, 3906),  # -10
    *(3121, 2501, 1991, 1586, 1277),  # -5
    *(1024, 820, 655, 526, 423),  # 0
    *(335, 272, 215, 172, 137),  # 5
    *(110, 87, 70, 56, 45),  # 10
    *(36, 29, 23, 18, 15),  # 15
)


@dataclass(frozen=True, slots=True)
class WeightRange:
    """The weights that a cgroup version accepts, both ends included."""

    minimum: int
    maximum: int

    def clamp(self, weight: int) -> int:
        return max(self.minimum, min(self.maximum, weight))


CPU_WEIGHT: Final = WeightRange(1, 10_000)
"""cgroup v2 `cpu.weight` (kernel/sched/core.c, CGROUP_WEIGHT_MIN and _MAX)."""

CPU_SHARES: Final = WeightRange(2, 262_144)
"""cgroup v1 `cpu.shares` (kernel/sched/fair.c, MIN_SHARES and MAX_SHARES)."""


def k(nice: int) -> int:
    """The kernel's load weight of a SCHED_OTHER thread with this nice (nice 0: 1024)."""
    if not NICE_MIN <= nice <= NICE_MAX:
        raise ValueError(f"nice {nice} is outside {NICE_MIN}..{NICE_MAX}")
    return _PRIO_TO_WEIGHT[nice - NICE_MIN]


def priority(nice: int) -> int:
    """The kernel's own 1..40 for a nice, higher is more (what the raw getpriority call returns)."""
    return 20 - nice


# Ascending weights halfway, by ratio, between neighbours of the table: 19|18, 18|17, … -19|-20.
_MIDPOINTS: Final = tuple((k(nice) * k(nice - 1)) ** 0.5 for nice in range(NICE_MAX, NICE_MIN, -1))


def effective_nice(weight: float, baseline: int, baseline_nice: int = 0) -> int:
    """The nice whose k is nearest, by ratio, to what `weight` means beside `baseline`."""
    return NICE_MAX - bisect_left(_MIDPOINTS, k(baseline_nice) * weight / baseline)
