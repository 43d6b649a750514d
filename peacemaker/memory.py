"""What a policy remembers from one pass to the next. Records only; the engine gives the meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from peacemaker.policy import Rule


@dataclass(frozen=True, slots=True)
class RuleMemory:
    """A rule's timers, valid for exactly these conditions.

    `held_since` is the time of the first pass of the unbroken row at which `when` held.
    """

    when: str
    for_: float
    until: str | None
    held_since: float | None = None
    active: bool = False

    @classmethod
    def of(cls, rule: Rule) -> Self:
        return cls(rule.when.text, rule.for_, rule.until.text if rule.until else None)

    def same_conditions(self, rule: Rule) -> bool:
        return (self.when, self.for_, self.until) == (
            rule.when.text,
            rule.for_,
            rule.until.text if rule.until else None,
        )

    def with_state(self, held_since: float | None, active: bool) -> Self:
        return replace(self, held_since=held_since, active=active)


@dataclass(frozen=True, slots=True)
class Shadow:
    """The hypothetical nice that an Observe policy would have given a VM."""

    nice: int
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """One policy's memory: timers by rule name and, for Observe, shadows by VM uid."""

    rules: Mapping[str, RuleMemory] = field(default_factory=dict)
    shadows: Mapping[str, Shadow] = field(default_factory=dict)

    def rule(self, rule: Rule) -> RuleMemory:
        """The rule's timers, or fresh ones if its conditions are not those remembered."""
        known = self.rules.get(rule.name)
        return known if known and known.same_conditions(rule) else RuleMemory.of(rule)
