"""Why a pass did what it did: one record a rule, one verdict a VM.

The engine fills these in; `explain` turns them into lines for people. Nothing here decides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from peacemaker.cel import Missing
from peacemaker.duration import format_duration
from peacemaker.policy import PeacePolicy, Rule


class Verdict(StrEnum):
    """What a rule did with one VM."""

    ADJUSTED = "adjusted"
    FILTERED = "filtered"
    """`where` does not hold."""
    NO_VALUE = "no-value"
    """`where` or the order met a missing signal, or the order is NaN: cannot be picked."""
    NOT_PICKED = "not-picked"
    """Sorted behind the first `count`."""
    BOUND = "bound"
    """Picked, but the nice is at the bound already."""
    COOLDOWN = "cooldown"
    """Picked, but its last change is younger than the rule's cooldown."""
    ALREADY_ADJUSTED = "already-adjusted"
    """Picked, but an earlier rule of this pass has changed it."""
    UNMOVED = "unmoved"
    """Picked, but the action leads to the nice that it has."""


@dataclass(frozen=True, slots=True)
class VmTrace:
    """A rule's verdict on one VM, the figures behind it in words, and what of it is `news`."""

    verdict: Verdict
    detail: str = ""
    news: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule in one pass.

    `when` and `until` are what the expressions gave (`until` is None if it was not asked);
    `held` is how long `when` has held, in seconds; `vms` is empty unless the rule is active, and
    `picked` are those of them, by uid, that were picked, whatever then became of it.
    """

    rule: Rule
    when: bool | Missing | None
    until: bool | Missing | None
    held: float | None
    active: bool
    vms: Mapping[str, VmTrace] = field(default_factory=dict)
    picked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassTrace:
    """One pass of one policy."""

    policy: PeacePolicy
    now: float
    rules: tuple[RuleTrace, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Signals and faults that kept an expression from a value, once each, in order."""
        return tuple(dict.fromkeys(_news(self.rules)))

    def explain(self, uid: str) -> list[str]:
        """Lines that tell what each rule thought of the VM, in the order of the rules."""
        lines = [f"policy {self.policy.name} ({self.policy.mode.value})"]
        for number, trace in enumerate(self.rules, 1):
            lines.append(f"  rule {number} {trace.rule.name}: {_state(trace)}")
            if trace.active:
                verdict = trace.vms.get(uid)
                lines.append(
                    f"    {_sentence(verdict)}" if verdict else "    not seen by this pass"
                )
        return lines


def news(missing: Missing) -> tuple[str, ...]:
    """What an administrator should hear of a missing value: a label that a VM lacks is no news."""
    match missing.kind:
        case "label":
            return ()
        case "signal":
            return tuple(missing.text.split(", "))
        case "error":
            return (missing.text,)


def _news(rules: tuple[RuleTrace, ...]) -> Iterator[str]:
    for trace in rules:
        for value in (trace.when, trace.until):
            if isinstance(value, Missing):
                yield from news(value)
        for vm in trace.vms.values():
            yield from vm.news


def _state(trace: RuleTrace) -> str:
    rule = trace.rule
    if trace.active and trace.when is None:
        return f"active until `{rule.until.text if rule.until else ''}` holds"
    parts = [f"`{rule.when.text}` {_outcome(trace.when)}"]
    if trace.held is not None:
        parts.append(f"has held for {trace.held:.0f}s of {format_duration(rule.for_)}")
    if rule.until and trace.until is not None:
        parts.append(f"until `{rule.until.text}` {_outcome(trace.until)}")
    return ", ".join(parts) + ("; active" if trace.active else "; not active")


def _outcome(value: bool | Missing | None) -> str:
    if isinstance(value, Missing):
        return f"has no value ({value.text})"
    return "holds" if value else "does not hold"


_SENTENCES: Mapping[Verdict, str] = {
    Verdict.ADJUSTED: "picked and adjusted",
    Verdict.FILTERED: "not picked: `where` does not hold",
    Verdict.NO_VALUE: "not picked: no value",
    Verdict.NOT_PICKED: "not picked: others come first",
    Verdict.BOUND: "picked, held by the bound",
    Verdict.COOLDOWN: "picked, held by the cooldown",
    Verdict.ALREADY_ADJUSTED: "picked, but an earlier rule has adjusted it in this pass",
    Verdict.UNMOVED: "picked, but the action changes nothing",
}


def _sentence(trace: VmTrace) -> str:
    words = _SENTENCES[trace.verdict]
    return f"{words} ({trace.detail})" if trace.detail else words
