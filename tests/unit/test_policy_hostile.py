"""No text can do harm: it is a policy or a PolicyError, in less than a second."""

import time

import pytest

from peacemaker.parse import PolicyError, parse_policies

K = 1000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
WITH_WHEN = (
    "apiVersion: peacemaker.dev/v1alpha1\nkind: PeacePolicy\nmetadata: {{name: p}}\n"
    "spec: {{mode: Observe, rules: [{{name: a, when: '{}', pick: {{}}, nice: {{add: 1}}}}]}}\n"
)
# One expression of the longest kind, repeated as often as the limit on nodes lets it.
ALIASED = (
    f"- &e '{' && '.join(['node.cpus > 1'] * 200)}'\n- &r {{when: *e, until: *e}}\n"
    f"- &p {{kind: PeacePolicy, spec: {{rules: [{', '.join(['*r'] * 16)}]}}}}\n"
)

HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "flow lists": ("[" * 100 * K, "nests too deep"),
    "flow maps": ("{a: " * 60 * K, "nests too deep"),
    "block lists": ("- " * 100 * K, "nests too deep"),
    "explicit keys": ("? " * 100 * K, "nests too deep"),
    "indentation": ("\n".join(" " * level + "a:" for level in range(600)), "nests too deep"),
    "10,000 deep": ("[" * 10 * K + "]" * 10 * K, "nests too deep"),
    "alias bomb": (BOMB, "too many nodes"),
    "deep by aliases": (
        "a0: &a0 x\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(40)),
        "nests too deep",
    ),
    "recursive alias": ("a: &a [*a]", "contains itself"),
    "lost alias": ("a: *b", "not there"),
    "many nodes": ("- a\n" * 60 * K, "too many nodes"),
    "many keys": ("".join(f"k{n}: v\n" for n in range(15 * K)), "too many nodes"),
    "many documents": ("---\n" * 60 * K, "too many nodes"),
    "too large": ("#" * 256 * 1024 + "#", "file too large (found 262145 bytes, allowed 262144)"),
    "too large in bytes": ("é" * 128 * 1024 + "é", "file too large"),
    "NUL": ("a: \x00", "U+0000"),
    "control character": ("a: b\n  \x07", "U+0007"),
    "lone surrogate": ("a: \ud800", "not UTF-8"),
    "escaped surrogate": ('a: "\\ud800"', "surrogate"),
    "escape beyond Unicode": ('a: "\\UFFFFFFFF"', "not valid YAML"),
    "version of many digits": (f"%YAML 1.{'1' * 9 * K}\n--- a", "not valid YAML"),
    "not UTF-8": (b"a: b\nc: \xff", "not UTF-8 (found byte 0xff)"),
    "UTF-16": ("a: b".encode("utf-16"), "not UTF-8"),
    "BOM": ("\ufeffa: b", "byte order mark"),
    "BOM in bytes": (b"\xef\xbb\xbfa: b", "byte order mark"),
    "tab": ("a:\n\tb: c", "not valid YAML"),
    "empty": ("", "no PeacePolicy in it"),
    "comment": ("# nothing", "no PeacePolicy in it"),
    "scalar": ("hello", "wrong type"),
    "list": ("[]", "wrong type"),
    "tag": ("!!python/object/apply:os.system [id]", "tags are not allowed"),
    "list as key": ("[a]: b", "a key must be a string"),
    "merge key": ("kind: PeacePolicy\n<<: {a: b}", "<<"),
    "unclosed quote": ('"' + "a" * 250 * K, "not valid YAML"),
    "words": ("x " * 125 * K, "wrong type"),
    "long key": ("a" * 250 * K + ": b", "not valid YAML"),
    "anchors": ("\n".join(f"- &a{n} x" for n in range(15 * K)), "too many nodes"),
    "100 KB expression": (WITH_WHEN.format("1+" * 50 * K), "expression too long"),
    "deep expression": (WITH_WHEN.format("(" * 4 * K), "nests deeper than 32 levels"),
    "expression of brackets": (WITH_WHEN.format("[" * 100 * K), "expression too long"),
    "aliased expressions": (ALIASED + "- *p\n" * 90, "wrong type"),
    "unknown fields": ("".join(f"kinb{n}: v\n" for n in range(4 * K)), "unknown field"),
    "long unknown field": (f"kind: PeacePolicy\n{'kind' * 200}: v", "unknown field"),
}


@pytest.mark.parametrize(("text", "says"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_refused_within_a_second(text: str | bytes, says: str) -> None:
    started = time.process_time()
    with pytest.raises(PolicyError) as caught:
        parse_policies(text, "hostile.yaml")
    assert time.process_time() - started < 1
    assert says in str(caught.value)
    str(caught.value).encode()  # can be printed


def test_one_expression_repeated_by_aliases_is_compiled_once() -> None:
    head, _, rules = WITH_WHEN.format("node.cpus > 1").partition("rules: ")
    longest = " && ".join(["node.cpus > 1"] * 230)
    rule = f"{{name: a, when: &e '{longest}', pick: {{}}, nice: {{add: 1}}}}"
    again = [
        f"{{name: a{n}, when: *e, until: *e, pick: {{}}, nice: {{add: 1}}}}" for n in range(15)
    ]
    text = f"{head}rules: [{', '.join([rule, *again])}]}}\n"
    assert rules
    (policy,) = parse_policies(text, "p.yaml")
    assert len({id(rule.when) for rule in policy.rules}) == 1
