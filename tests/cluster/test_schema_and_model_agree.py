"""The API server and `peacemaker.parse` accept and refuse the same documents.

Both judge the same data: how YAML spells it (quotes, `010`, `3.0`, keys written twice) is the
client's business. Some differences are meant, and `as_judged` evens them out:

- whether an expression is sound only the model can tell; to a schema it is a text;
- a field that is null is no field to the API server, and an error in a file;
- metadata.namespace is passed over by the API server, since a PeacePolicy has none.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient

from peacemaker.parse import PolicyError, parse_policies
from peacemaker.policy import PeacePolicy
from tests.cluster.api import POLICIES, STRICT_TRIAL, Document, Refused, ask
from tests.unit.test_policy_errors import CASES, HERE, VALID
from tests.unit.test_policy_model import FULL, SMALLEST
from tests.unit.test_policy_properties import policies

MAX_EXPRESSION = 4096
SOUND = {
    **dict.fromkeys(("when", "until"), "node.load1 > 1"),
    "where": "vm.nice > 1",
    **dict.fromkeys(("lowest", "highest"), "vm.nice"),
}


def schema_says(api: ApiClient, document: Document) -> str:
    """What the API server has against a document; empty if nothing."""
    try:
        ask(api, "POST", POLICIES, document, **STRICT_TRIAL)
    except Refused as refused:
        return refused.message
    return ""


def model_says(document: Document) -> str:
    """What the model has against a document; empty if nothing."""
    try:
        parse_policies(json.dumps(document), "p.json")
    except PolicyError as error:
        return str(error)
    return ""


def as_sent(value: Any) -> Any:
    """The document as kubectl sends it: JSON in which 3.0 is 3."""
    if isinstance(value, dict):
        return {key: as_sent(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_sent(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_judged(document: Document) -> Document:
    """The document as a schema sees it, for the model to judge."""
    seen: Document = _seen(document)
    if isinstance(metadata := seen.get("metadata"), dict):
        metadata.pop("namespace", None)
    return seen


def _seen(value: Any, key: str = "", parent: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _seen(each, name, key) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_seen(each, parent=key) for each in value]
    is_expression = key in SOUND and parent != "matchLabels" and isinstance(value, str)
    return SOUND[key] if is_expression and 0 < len(value) <= MAX_EXPRESSION else value


def assert_agreement(api: ApiClient, document: Document) -> None:
    document = as_sent(document)
    schema, model = schema_says(api, document), model_says(as_judged(document))
    assert bool(schema) == bool(model), f"schema: {schema or 'fine'}\nmodel: {model or 'fine'}"


@pytest.mark.parametrize("text", [VALID, SMALLEST, FULL])
def test_documents_that_are_valid(api: ApiClient, text: str) -> None:
    document = yaml.safe_load(text)
    for server_written in ("creationTimestamp", "resourceVersion", "uid"):
        document["metadata"].pop(server_written, None)
    document.pop("status", None)
    assert (schema_says(api, document), model_says(document)) == ("", "")


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new, _, _ in CASES])
def test_documents_of_the_model_s_own_table(api: ApiClient, old: str, new: str) -> None:
    assert_agreement(api, yaml.safe_load(VALID.replace(old, new.replace(HERE, ""), 1)))


EXPRESSIONS = [
    (old, new)
    for old, new, path, _ in CASES
    if path.rpartition(".")[2] in SOUND and HERE in new and "true" not in new
]


@pytest.mark.parametrize(("old", "new"), EXPRESSIONS)
def test_a_wrong_expression_is_for_the_model_alone_to_refuse(
    api: ApiClient, old: str, new: str
) -> None:
    document = yaml.safe_load(VALID.replace(old, new.replace(HERE, ""), 1))
    assert schema_says(api, document) == ""
    assert model_says(document) != ""


DURATIONS = [
    *("0s", "1s", "15s", "90s", "5m", "60m", "1h", "3600s", "3601s", "1h30m", "1h0m1s", "24h"),
    *("0h1m", "000000015s", "0000000015s", "86400s", "86401s", "999999999s", "999999999h"),
    *("", "15", "s", "1s1m", "1s1s", "500ms", "1.5h", "-1s", "+1s", "1d", " 1s", "1s ", "1s\n"),
    *("1S", "١s", "1h\x00", "0", "1us", "9" * 100 + "s"),
]


@pytest.mark.parametrize("duration", DURATIONS)
def test_durations(api: ApiClient, duration: str) -> None:
    for place in ("interval", "for", "cooldown"):
        document = yaml.safe_load(VALID)
        owner = document["spec"] if place == "interval" else document["spec"]["rules"][0]
        owner[place] = duration
        assert_agreement(api, document)


KEYS = [
    *("a", "A-_.9", "a/b", "a.b/c", "a.b.c/d", "9/9", "p" * 63, "p" * 64, "x/" + "p" * 63),
    *("x/" + "p" * 64, "p" * 63 + "/x", "p" * 64 + "/x", "p." * 126 + "p/x", "p." * 127 + "p/x"),
    *("", "/", "a/", "/a", "a//b", "a/b/c", "-a", "a-", "a b", "a\n", "é", "A/b", "a..b/c", ".a"),
]


@pytest.mark.parametrize("key", KEYS)
def test_label_keys(api: ApiClient, key: str) -> None:
    for selector in (
        {"matchLabels": {key: "x"}},
        {"matchExpressions": [{"key": key, "operator": "Exists"}]},
    ):
        document = yaml.safe_load(VALID)
        document["spec"]["selector"] = selector
        assert_agreement(api, document)


@pytest.mark.parametrize(
    "value", ["", "a", "A-_.9", "v" * 63, "v" * 64, "-a", "a-", "a b", "a/b", "a\n", "é", "."]
)
def test_label_values(api: ApiClient, value: str) -> None:
    for selector in (
        {"matchLabels": {"a": value}},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": [value]}]},
    ):
        document = yaml.safe_load(VALID)
        document["spec"]["namespaceSelector"] = selector
        assert_agreement(api, document)


@pytest.mark.parametrize("count", [32, 33])
def test_how_many_labels_a_selector_has(api: ApiClient, count: int) -> None:
    for selector in (
        {"matchLabels": {f"label-{number}": "x" for number in range(count)}},
        {"matchExpressions": [{"key": "a", "operator": "Exists"}] * count},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"] * 2 * count}]},
    ):
        document = yaml.safe_load(VALID)
        document["spec"]["nodeSelector"] = selector
        assert_agreement(api, document)


@pytest.mark.parametrize("length", [4095, 4096, 4097])
@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_how_long_an_expression_is(api: ApiClient, letter: str, length: int) -> None:
    document = yaml.safe_load(VALID)
    document["spec"]["rules"][0]["when"] = '"' + letter * (length - 2) + '"'
    assert_agreement(api, document)


# Few examples, each of which asks two judges; `--hypothesis-profile=default` looks for new ones.
@settings(max_examples=60, deadline=None)
@given(policies())
def test_generated_documents_that_are_valid(
    api: ApiClient, policy: tuple[Document, PeacePolicy]
) -> None:
    assert (schema_says(api, policy[0]), model_says(policy[0])) == ("", "")


Place = tuple[dict[str, Any] | list[Any], str | int]


def places(document: Any) -> Iterator[Place]:
    """Every container and key in it at which there is a value."""
    if isinstance(document, dict | list):
        entries = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in list(entries):
            yield document, key
            yield from places(value)


scalars = st.one_of(
    st.sampled_from(
        ["", "a", "A", "x" * 64, "In", "Exists", "Observe", "1h", "25h", "10s", "5m1h"]
    ),
    st.sampled_from([True, None, 2.0, 0.5, 2**31, -(2**31) - 1, 2**63 - 1]),
    st.integers(-41, 41),
)
replacements = st.one_of(
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(st.sampled_from(["a", "add", "min", "value", "key"]), scalars, max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(policies(), st.data())
def test_generated_documents_with_something_changed(
    api: ApiClient, policy: tuple[Document, PeacePolicy], data: st.DataObject
) -> None:
    document = policy[0]
    for _ in range(data.draw(st.integers(1, 2))):
        spec = document.get("spec")
        holder, key = data.draw(st.sampled_from(list(places({"spec": spec}))))
        match data.draw(st.sampled_from(("replace", "remove", "double", "swap"))), holder:
            case "replace", _:
                holder[key] = data.draw(replacements)  # type: ignore[index]
            case "remove", _:
                del holder[key]  # type: ignore[arg-type]
            case "double", list():
                holder.append(holder[key])  # type: ignore[index]
            case "double", dict():
                holder[data.draw(st.sampled_from(list(SOUND)))] = holder[key]  # type: ignore[index]
            case _:
                other, where = data.draw(st.sampled_from(list(places({"spec": spec}))))
                holder[key] = json.loads(json.dumps(other[where]))  # type: ignore[index]
    assert_agreement(api, document)
