"""Admission: a PeacePolicy that makes no sense is refused before it is stored.

The API server asks through kopf's webhook server. What the schema of the CRD can say it has said
already; here expressions and selectors are read as the agents will read them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import kopf

from peacemaker.parse import PolicyError, policy_from_document
from peacemaker.policy import Action, Add, PeacePolicy, Toward
from peacemaker.selector import LabelSelector
from peacemaker_kube import log
from peacemaker_kube.paths import API_VERSION
from peacemaker_operator.webhook_figures import WebhookFigures

GROUP, VERSION = API_VERSION.split("/")
PLURAL: Final = "peacepolicies"

HANDLER: Final = PLURAL
"""kopf's name of the handler, the last part of the webhook's path."""

_MAX_BYTES = 1024
_REFUSED = 422
_ONE_WAYS = ((1, "raises", "lowers", "restrained"), (-1, "lowers", "raises", "favoured"))


def register(registry: kopf.OperatorRegistry, figures: WebhookFigures) -> None:
    """Have kopf ask `judge` about each policy that is created or changed."""

    @kopf.on.validate(
        GROUP, VERSION, PLURAL, operations=["CREATE", "UPDATE"], id=HANDLER, registry=registry
    )
    def _(*, body: kopf.Body, warnings: list[str], old: kopf.Body | None = None, **_: Any) -> None:
        name = body["metadata"].get("name")
        try:
            judge(body, old, warnings.append)
        except kopf.AdmissionError as refusal:
            figures.count("refused")
            log.info("policy refused", policy=name, why=refusal)
            raise
        except Exception as error:
            figures.count("failed")
            log.error("policy could not be judged", policy=name, why=repr(error))
            raise
        figures.count("allowed")

    # It calls a refusal a failure of ours; what is to be said is said above.
    logging.getLogger("kopf.objects").setLevel(logging.CRITICAL)


def judge(
    new: Mapping[str, Any], old: Mapping[str, Any] | None, warn: Callable[[str], None]
) -> None:
    """Refuse a policy that cannot come into force; warn of one that is likely not meant so.

    Raises kopf.AdmissionError. A spec that does not change is not judged: labels, annotations and
    finalizers of a policy that is wrong can still be written.
    """
    spec = new.get("spec")
    if not isinstance(spec, Mapping) or (old is not None and old.get("spec") == spec):
        return
    try:
        policy = policy_from_document(new["metadata"].get("name") or "", spec)
    except PolicyError as error:
        raise kopf.AdmissionError(within(map(str, error.problems)), code=_REFUSED) from None
    for warning in unlikely(policy):
        warn(warning)


def within(lines: Iterable[str], limit: int = _MAX_BYTES) -> str:
    """Join as many whole lines as fit into so many bytes; the last one counts those left out."""
    all_lines = list(lines)
    for count in range(len(all_lines), 0, -1):
        left = len(all_lines) - count
        text = "\n".join([*all_lines[:count], *([f"... and {left} more"] if left else [])])
        if len(text.encode()) <= limit:
            return text
    return all_lines[0].encode()[: limit - 3].decode(errors="ignore") + "..."


def unlikely(policy: PeacePolicy) -> list[str]:
    """What a policy says that is allowed but seldom meant, a sentence each."""
    found = []
    if policy.bounds.min < 0 and policy.namespace_selector == LabelSelector():
        found.append(
            f"spec.namespaceSelector selects all namespaces and spec.bounds.min is "
            f"{policy.bounds.min}: any tenant's VM may be favoured over the others"
        )
    for sign, moves, back, moved in _ONE_WAYS:
        amounts = [(rule.action, _amount(rule.action) * sign) for rule in policy.rules]
        leads_away = any(amount > 0 for _, amount in amounts)
        leads_back = any(
            amount < 0 or (amount == 0 and not isinstance(action, Add))
            for action, amount in amounts
        )
        if leads_away and not leads_back:
            found.append(
                f"spec.rules: a rule {moves} nice and none {back} it again: a VM that was {moved} "
                "stays so until the policy is changed or deleted"
            )
    return found


def _amount(action: Action) -> int:
    """Where it leads from nice 0, by its sign."""
    return action.value if isinstance(action, Toward) else action.nice
