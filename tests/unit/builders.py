"""Short words for what the engine's tests are made of: policies, VMs, snapshots."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from peacemaker.engine import Decision, decide
from peacemaker.memory import Memory
from peacemaker.parse import parse_policies
from peacemaker.policy import PeacePolicy
from peacemaker.snapshot import Snapshot, VmView
from peacemaker.trace import Verdict

HIGH = {"load15": 0.95}
LOW = {"load15": 0.05}
BETWEEN = {"load15": 0.5}

NO_WAITING = "for: 0s, cooldown: 0s"


def policy(
    *rules: str,
    name: str = "p",
    mode: str = "Enforce",
    priority: int = 0,
    low: int = -15,
    high: int = 15,
    interval: str = "15s",
    selectors: str = "namespaceSelector: {}",
) -> PeacePolicy:
    """A policy of these rules, each the inside of a YAML flow map, by the product's own parser."""
    head = f"""\
        apiVersion: peacemaker.dev/v1alpha1
        kind: PeacePolicy
        metadata: {{name: {name}}}
        spec:
          mode: {mode}
          priority: {priority}
          interval: {interval}
          bounds: {{min: {low}, max: {high}}}
        """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(selectors).strip(), "  ")
    text += "\n  rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)
    (parsed,) = parse_policies(text, "test.yaml")
    return parsed


def rule(
    name: str = "r",
    when: str = "true",
    pick: str = "",
    nice: str = "add: 1",
    waits: str = NO_WAITING,
) -> str:
    """A rule's inside: always active, all VMs, one up, no waiting, unless said otherwise."""
    return f"name: {name}, when: '{when}', pick: {{{pick}}}, nice: {{{nice}}}, {waits}"


def vm(
    uid: str,
    nice: int = 0,
    *,
    started: float = 0.0,
    baseline: int = 0,
    changed_at: float | None = None,
    priority_class: int = 0,
    labels: Mapping[str, str] | None = None,
    **signals: object,
) -> VmView:
    known = {"name": uid, "namespace": "ns", "labels": labels or {}, "vcpus": 1}
    return VmView(
        uid=uid,
        started=started,
        nice=nice,
        signals={**known, "priorityClass": priority_class, **signals},
        baseline_nice=baseline,
        changed_at=changed_at,
        priority_class=priority_class,
    )


def snapshot(
    vms: Iterable[VmView], node: Mapping[str, object] | None = None, now: float = 1000.0
) -> Snapshot:
    return Snapshot(now=now, node={"name": "node", "cpus": 2, **(node or {})}, vms=tuple(vms))


def moves(decision: Decision) -> dict[str, tuple[int, int]]:
    """What was changed: uid to (old, new)."""
    return {change.uid: (change.old, change.new) for change in decision.changes}


def verdicts(decision: Decision, of_rule: int = 0) -> dict[str, Verdict]:
    return {uid: found.verdict for uid, found in decision.trace.rules[of_rule].vms.items()}


def actives(
    steered: PeacePolicy,
    readings: Sequence[Mapping[str, object]],
    *,
    step: float = 15.0,
    memory: Memory | None = None,
    start: float = 0.0,
) -> list[bool]:
    """Whether the first rule is active, one pass for each reading of the node."""
    kept = memory or Memory()
    found = []
    for number, node in enumerate(readings):
        decision = decide(steered, snapshot([], node, start + number * step), kept)
        kept = decision.memory
        found.append(decision.trace.rules[0].active)
    return found
