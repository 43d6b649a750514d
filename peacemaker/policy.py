"""The policy model: what a PeacePolicy document says, with defaults filled in and nothing wrong.

Values are made by `peacemaker.parse`, which holds every rule of validity; here is only meaning.
"""

from dataclasses import dataclass
from enum import Enum

from peacemaker.cel import Expression
from peacemaker.selector import LabelSelector

NICE_MIN, NICE_MAX = -20, 19
"""The kernel's range of nice (include/linux/sched/prio.h). Lower gains."""


class Mode(Enum):
    """Whether a policy acts, or only says what it would do."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The nice values, both included, that a policy's VMs are kept within: min <= 0 <= max."""

    min: int
    max: int

    def clamp(self, nice: int) -> int:
        """Return the value within the bounds that is nearest to `nice`."""
        return max(self.min, min(self.max, nice))


@dataclass(frozen=True, slots=True)
class Add:
    """Move nice by this much, -39..39 and not 0."""

    nice: int


@dataclass(frozen=True, slots=True)
class Set:
    """Put nice at this value, within the policy's bounds."""

    nice: int


@dataclass(frozen=True, slots=True)
class Toward:
    """Move nice at most `step` nearer to `value`, never past it."""

    value: int
    step: int = 1


Action = Add | Set | Toward


@dataclass(frozen=True, slots=True)
class Pick:
    """Which of the policy's VMs a rule acts on.

    `where` filters (None: all), then `order` sorts, highest first or (`highest` False) lowest
    first, then `count` cuts. Without an order there is no count: all that match are picked.
    """

    where: Expression | None
    order: Expression | None
    highest: bool
    count: int | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: when it is active, on which VMs it acts, and how. Times in seconds."""

    name: str
    when: Expression
    for_: float
    until: Expression | None
    pick: Pick
    action: Action
    cooldown: float


@dataclass(frozen=True, slots=True)
class PeacePolicy:
    """One policy. `interval` is the time between two passes, in seconds."""

    name: str
    mode: Mode
    priority: int
    node_selector: LabelSelector
    namespace_selector: LabelSelector
    selector: LabelSelector
    interval: float
    bounds: Bounds
    rules: tuple[Rule, ...]
