"""From the text of a policy file, or an object of the API, to policies, or to all that is wrong.

This is the YAML document that `kubectl apply` takes: API group `peacemaker.dev`, version
`v1alpha1`, kind `PeacePolicy`. Nothing that is not understood is passed over.
"""

import re
from collections.abc import Mapping
from typing import Any

from peacemaker.cel import Returns, Scope
from peacemaker.fields import Field, PolicyError, Problem, Reader, quoted
from peacemaker.objecttree import node_of
from peacemaker.policy import (
    NICE_MAX,
    NICE_MIN,
    Action,
    Add,
    Bounds,
    Mode,
    PeacePolicy,
    Pick,
    Rule,
    Set,
    Toward,
)
from peacemaker.selector import LabelSelector, Operator, Requirement
from peacemaker.yamltree import Kind, Node, Scalar, YamlError, documents

__all__ = ["PolicyError", "Problem", "parse_policies", "policy_from_document"]

API_VERSION = "peacemaker.dev/v1alpha1"
KIND = "PeacePolicy"

DEFAULT_INTERVAL, MIN_INTERVAL, MAX_INTERVAL = 15.0, 1.0, 3600.0
DEFAULT_FOR, DEFAULT_COOLDOWN, MAX_WAIT = 60.0, 60.0, 86400.0
DEFAULT_BOUNDS = Bounds(0, 10)
MAX_RULES = 16
MAX_COUNT = 1000
MAX_LABELS, MAX_VALUES = 32, 64  # of a selector; the API server bounds what its checks may cost
MAX_MOVE = NICE_MAX - NICE_MIN
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# What the API server and kubectl write into metadata, and nobody who writes a policy.
_FOREIGN_METADATA = (
    *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp"),
    *("finalizers", "generation", "labels", "managedFields", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
)

_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_IS_DNS_LABEL = re.compile(_DNS_LABEL).fullmatch
_IS_DNS_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(?:\.{_DNS_LABEL})*").fullmatch
_ALLOWED_LABEL = "a DNS-1123 label: a-z, 0-9 and -, at most 63 characters"
_ALLOWED_SUBDOMAIN = "a DNS-1123 subdomain: a-z, 0-9, - and ., at most 253 characters"

_IS_NAME = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?").fullmatch
_ALLOWED_KEY = "a label key: name or prefix/name"
_ALLOWED_VALUE = "a label value: at most 63 letters, digits, -, _ and ."


def parse_policies(text: str | bytes, source: str) -> tuple[PeacePolicy, ...]:
    """Return the policies of all documents of a text; `source` names it in errors.

    Empty documents are passed over, but a text without any policy is an error. Raises
    PolicyError with everything that is wrong.
    """
    reader = Reader(source)
    roots: list[Node] = []
    try:
        roots.extend(node for node in documents(text) if not _is_empty(node))
    except YamlError as error:
        reader.problem("", (error.line, error.column), error.message)
    if not roots and not reader.problems:
        reader.problem("", (1, 1), f"no {KIND} in it (found nothing, allowed one or more)")
    names: dict[str, int] = {}
    policies = [_policy(reader, Field("", root), names) for root in roots]
    if reader.problems:
        raise PolicyError(reader.problems)
    return tuple(policy for policy in policies if policy is not None)


def policy_from_document(name: str, spec: Mapping[str, Any]) -> PeacePolicy:
    """Return the policy of an API object's name and spec.

    Raises PolicyError with everything that is wrong; lines and columns are within expressions.
    """
    reader = Reader("")
    try:
        policy = _spec(reader, Field("spec", node_of(spec)), name)
    except YamlError as error:
        raise PolicyError([Problem("", 0, 0, "spec", error.message)]) from None
    if policy is None:
        raise PolicyError(reader.problems)
    return policy


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind is Kind.NULL


def _policy(reader: Reader, root: Field, names: dict[str, int]) -> PeacePolicy | None:
    reader.keys(root)
    fields = reader.fields(root, ("apiVersion", "kind", "metadata", "spec"), ignored=("status",))
    if not _is_fixed(reader, root, fields, "kind", KIND):
        return None  # something else, of which only this is of interest
    _is_fixed(reader, root, fields, "apiVersion", API_VERSION)
    name = _name(reader, root, fields.get("metadata"), names)
    if "spec" not in fields:
        reader.missing(root, "spec", "the policy")
        return None
    return _spec(reader, fields["spec"], name)


def _is_fixed(
    reader: Reader, parent: Field, fields: dict[str, Field], name: str, value: str
) -> bool:
    if name not in fields:
        reader.missing(parent, name, value)
    return reader.text(fields.get(name), value, value.__eq__) is not None


def _name(reader: Reader, root: Field, metadata: Field | None, names: dict[str, int]) -> str:
    if metadata is None:
        reader.missing(root, "metadata.name", _ALLOWED_SUBDOMAIN)
        return ""
    fields = reader.fields(metadata, ("name",), ignored=_FOREIGN_METADATA)
    name = fields.get("name")
    if name is None:
        reader.missing(metadata, "name", _ALLOWED_SUBDOMAIN)
        return ""
    text = reader.text(name, _ALLOWED_SUBDOMAIN, _IS_DNS_SUBDOMAIN)
    if text in names:
        reader.wrong(name, f"name taken by the policy on line {names[text]}", "another name")
    elif text is not None:
        names[text] = name.node.line
    return text or ""


def _spec(reader: Reader, spec: Field, name: str) -> PeacePolicy | None:
    fields = reader.fields(
        spec,
        (
            *("mode", "priority", "nodeSelector", "namespaceSelector", "selector"),
            *("interval", "bounds", "rules"),
        ),
    )
    for required, allowed in (
        ("mode", "Enforce or Observe; there is no default"),
        ("rules", f"1..{MAX_RULES} rules"),
    ):
        if required not in fields:
            reader.missing(spec, required, allowed)
    mode = reader.choice(fields.get("mode"), Mode)
    bounds = _bounds(reader, fields.get("bounds"))
    if bounds.min < 0 and "namespaceSelector" not in fields:
        reader.missing(
            spec,
            "namespaceSelector",
            "a label selector of the namespaces that may be favoured, since bounds.min is below "
            "0 and tenants can write the labels of their VMs; {} says all",
        )
    policy = PeacePolicy(
        name=name,
        mode=mode or Mode.OBSERVE,
        priority=reader.integer(fields.get("priority"), INT32_MIN, INT32_MAX, default=0),
        node_selector=_selector(reader, fields.get("nodeSelector")),
        namespace_selector=_selector(reader, fields.get("namespaceSelector")),
        selector=_selector(reader, fields.get("selector")),
        interval=reader.duration(
            fields.get("interval"), MIN_INTERVAL, MAX_INTERVAL, DEFAULT_INTERVAL
        ),
        bounds=bounds,
        rules=_rules(reader, fields.get("rules"), bounds),
    )
    return None if reader.problems else policy


def _bounds(reader: Reader, field: Field | None) -> Bounds:
    fields = reader.fields(field, ("min", "max"))
    return Bounds(
        reader.integer(fields.get("min"), NICE_MIN, 0, DEFAULT_BOUNDS.min),
        reader.integer(fields.get("max"), 0, NICE_MAX, DEFAULT_BOUNDS.max),
    )


def _rules(reader: Reader, field: Field | None, bounds: Bounds) -> tuple[Rule, ...]:
    items = reader.items(field, 1, MAX_RULES)[:MAX_RULES]
    names: dict[str, int] = {}
    rules = [_rule(reader, item, bounds, names) for item in items]
    return tuple(rule for rule in rules if rule is not None)


def _rule(reader: Reader, rule: Field, bounds: Bounds, names: dict[str, int]) -> Rule | None:
    fields = reader.fields(rule, ("name", "when", "for", "until", "pick", "nice", "cooldown"))
    for required, allowed in (
        ("name", _ALLOWED_LABEL),
        ("when", "a CEL expression over node and vms that is true or false"),
        ("pick", "where, lowest or highest, count; {} picks all of the policy's VMs"),
        ("nice", "one of add, set, toward"),
    ):
        if required not in fields:
            reader.missing(rule, required, allowed)
    name = reader.text(fields.get("name"), _ALLOWED_LABEL, _IS_DNS_LABEL)
    if name is not None and name in names:
        reader.wrong(
            fields["name"], f"name taken by the rule on line {names[name]}", "another name"
        )
    elif name is not None:
        names[name] = rule.node.line
    when = reader.expression(fields.get("when"), Scope.NODE, Returns.BOOL)
    until = reader.expression(fields.get("until"), Scope.NODE, Returns.BOOL)
    for_ = reader.duration(fields.get("for"), 0, MAX_WAIT, DEFAULT_FOR)
    cooldown = reader.duration(fields.get("cooldown"), 0, MAX_WAIT, DEFAULT_COOLDOWN)
    pick = _pick(reader, fields.get("pick"))
    action = _action(reader, fields.get("nice"), bounds)
    if name is None or when is None or action is None:
        return None
    return Rule(name, when, for_, until, pick, action, cooldown)


def _pick(reader: Reader, pick: Field | None) -> Pick:
    fields = reader.fields(pick, ("where", "lowest", "highest", "count"))
    where = reader.expression(fields.get("where"), Scope.VM, Returns.BOOL)
    orders = [
        reader.expression(fields.get(name), Scope.VM, Returns.NUMBER)
        for name in ("lowest", "highest")
    ]
    highest = "highest" in fields
    ordered = highest or "lowest" in fields
    if pick is not None and highest and "lowest" in fields:
        _conflict(reader, pick, "two orders", "lowest and highest", "lowest or highest")
    if "count" in fields and not ordered:
        reader.wrong(fields["count"], "count without an order", "count beside lowest or highest")
    count = reader.integer(fields.get("count"), 1, MAX_COUNT, default=1)
    return Pick(where, orders[highest], highest, count if ordered else None)


def _action(reader: Reader, nice: Field | None, bounds: Bounds) -> Action | None:
    fields = reader.fields(nice, ("add", "set", "toward"))
    if nice is None:
        return None
    if len(fields) > 1:
        _conflict(reader, nice, "several actions", " and ".join(fields), "one of add, set, toward")
    elif not fields:
        reader.wrong(nice, "no action", "one of add, set, toward")
    actions: list[Action] = []
    for name, field in fields.items():
        if name == "add":
            if (add := reader.integer(field, -MAX_MOVE, MAX_MOVE, default=1)) == 0:
                reader.wrong(field, "adds nothing", f"-{MAX_MOVE}..-1 or 1..{MAX_MOVE}")
            actions.append(Add(add))
        elif name == "set":
            actions.append(Set(_within(reader, field, bounds)))
        else:
            actions.append(_toward(reader, field, bounds))
    return actions[0] if actions else None


def _toward(reader: Reader, toward: Field, bounds: Bounds) -> Toward:
    fields = reader.fields(toward, ("value", "step"))
    if "value" not in fields:
        reader.missing(toward, "value", f"{bounds.min}..{bounds.max}, the policy's bounds")
    return Toward(
        _within(reader, fields.get("value"), bounds),
        reader.integer(fields.get("step"), 1, MAX_MOVE, default=1),
    )


def _within(reader: Reader, field: Field | None, bounds: Bounds) -> int:
    value = reader.integer(field, NICE_MIN, NICE_MAX, default=0)
    if field is not None and bounds.clamp(value) != value:
        reader.wrong(field, "can never be reached", f"{bounds.min}..{bounds.max}, the bounds")
    return value


def _conflict(reader: Reader, field: Field, message: str, found: str, allowed: str) -> None:
    place = (field.node.line, field.node.column)
    reader.problem(field.path, place, f"{message} (found {found}, allowed {allowed})")


def _selector(reader: Reader, field: Field | None) -> LabelSelector:
    fields = reader.fields(field, ("matchLabels", "matchExpressions"))
    labels = {}
    for key, value in reader.labels(fields.get("matchLabels"), MAX_LABELS).items():
        if not _is_label_key(key.text):
            place = (key.line, key.column)
            message = f"not valid (found {quoted(key.text)}, allowed {_ALLOWED_KEY})"
            reader.problem(value.path, place, message)
        labels[key.text] = reader.text(value, _ALLOWED_VALUE, _is_label_value) or ""
    requirements = [
        _requirement(reader, item)
        for item in reader.items(fields.get("matchExpressions"), 0, MAX_LABELS)
    ]
    return LabelSelector(labels, tuple(found for found in requirements if found is not None))


def _requirement(reader: Reader, item: Field) -> Requirement | None:
    fields = reader.fields(item, ("key", "operator", "values"))
    for required, allowed in (
        ("key", _ALLOWED_KEY),
        ("operator", " or ".join(operator.value for operator in Operator)),
    ):
        if required not in fields:
            reader.missing(item, required, allowed)
    key = reader.text(fields.get("key"), _ALLOWED_KEY, _is_label_key)
    operator = reader.choice(fields.get("operator"), Operator)
    entries = reader.items(fields.get("values"), 0, MAX_VALUES)
    values = [reader.text(entry, _ALLOWED_VALUE, _is_label_value) for entry in entries]
    if operator in (Operator.IN, Operator.NOT_IN) and not entries:
        reader.missing(item, "values", f"one or more values for {operator.value}")
    elif operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST) and entries:
        reader.wrong(fields["values"], "values of no use", f"no values for {operator.value}")
    if key is None or operator is None:
        return None
    return Requirement(key, operator, frozenset(value for value in values if value is not None))


def _is_label_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return bool(_IS_NAME(name)) and (not slash or bool(_IS_DNS_SUBDOMAIN(prefix)))


def _is_label_value(text: str) -> bool:
    return not text or bool(_IS_NAME(text))
