"""Which spec of a policy is in force: the newest if it is sound, else the last that was.

The last one is known from before, or, after a restart of the operator, from the policy's status.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peacemaker.parse import PolicyError, policy_from_document
from peacemaker.peacelist import ListedPolicy, PeaceListSpec, to_document
from peacemaker.policy import PeacePolicy
from peacemaker_operator.records import PolicyRecord


@dataclass(frozen=True, slots=True)
class Accepted:
    """A spec that is sound: as it is listed, as it is understood, and its size in a PeaceList."""

    listed: ListedPolicy
    policy: PeacePolicy
    size: int
    """Bytes of JSON."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of a policy's newest spec.

    `problem` is None if it is accepted, else what is wrong, with line and column. `in_force` is
    the spec that is, None if none is.
    """

    generation: int
    in_force: Accepted | None
    problem: str | None = None


class Acceptor:
    """Judges policies, each spec once: expressions take milliseconds to compile."""

    def __init__(self) -> None:
        self._judged: dict[str, dict[int, Accepted | PolicyError]] = {}
        self._last: dict[str, Accepted] = {}

    def accept(self, record: PolicyRecord) -> Acceptance:
        """Tell what is in force of a policy."""
        newest = self._judge(record, record.generation, record.spec)
        if isinstance(newest, Accepted):
            self._keep(record.uid, newest)
            return Acceptance(record.generation, newest)
        last = self._last_accepted(record)
        if isinstance(last, Accepted):
            self._keep(record.uid, last, record.generation)
            return Acceptance(record.generation, last, str(newest))
        if last is None:
            return Acceptance(record.generation, None, str(newest))
        problem = (
            f"{newest}\nthis version of the operator does not understand the last accepted spec, "
            f"generation {record.accepted_generation}, either:\n{last}"
        )
        return Acceptance(record.generation, None, problem)

    def forget(self, uid: str) -> None:
        """Drop what is known of a policy that is gone."""
        self._judged.pop(uid, None)
        self._last.pop(uid, None)

    def _last_accepted(self, record: PolicyRecord) -> Accepted | PolicyError | None:
        """Return the spec accepted here or, if that was later or it was elsewhere, by the status.

        A status may lag behind what was accepted here: it is written afterwards.
        """
        known = self._last.get(record.uid)
        generation = record.accepted_generation
        if generation is None or record.accepted_spec is None:
            return known
        if known is not None and known.listed.generation >= generation:
            return known
        return self._judge(record, generation, record.accepted_spec)

    def _judge(
        self, record: PolicyRecord, generation: int, spec: Mapping[str, Any]
    ) -> Accepted | PolicyError:
        judged = self._judged.setdefault(record.uid, {})
        if generation not in judged:
            judged[generation] = _judge(record.name, generation, spec)
        return judged[generation]

    def _keep(self, uid: str, accepted: Accepted, *also: int) -> None:
        """Remember what is in force, and nothing older."""
        self._last[uid] = accepted
        kept = {accepted.listed.generation, *also}
        self._judged[uid] = {
            generation: verdict
            for generation, verdict in self._judged[uid].items()
            if generation in kept
        }


def _judge(name: str, generation: int, spec: Mapping[str, Any]) -> Accepted | PolicyError:
    try:
        policy = policy_from_document(name, spec)
    except PolicyError as error:
        return error
    listed = ListedPolicy(name, generation, spec)
    (document,) = to_document(PeaceListSpec(policies=(listed,)))["policies"]
    return Accepted(listed, policy, len(json.dumps(document, separators=(",", ":"))))
