"""What CEL's checker says about a wrong expression, in the words of a policy's author."""

import re
from collections.abc import Callable

from peacemaker.celtypes import PACKAGE, STRUCTS
from peacemaker.hint import did_you_mean, shortened
from peacemaker.signals import SIGNALS

MAX_DEPTH = 32
"""Levels that an expression may nest: a limit of CEL's parser."""

_CHECK_ERROR = re.compile(
    r"^(?:[A-Z_]+: )?ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?: \[[A-Z_]+\])?$", re.MULTILINE
)
TOO_DEEP = f"nests deeper than {MAX_DEPTH} levels (a chain of operators nests too)"
_LIMIT = 200  # characters of a message
_FUNCTIONS = (
    *("all", "contains", "double", "endsWith", "exists", "exists_one", "filter", "has", "int"),
    *("map", "matches", "size", "startsWith", "string"),
)


def explain(error: str, text: str, variables: tuple[str, ...]) -> tuple[str, int, int]:
    """Return message, line and column of the first error that the library found in `text`.

    `variables` are the names that the expression may use.
    """
    found = [
        (int(line), int(column), message)
        for line, column, message in _CHECK_ERROR.findall(error)
        if "*error*" not in message  # follows from another one
    ]
    # What the library cannot place it puts at -1:-1; it says little beside what has a place.
    found = [error for error in found if error[0] > 0] or [(1, 1, message) for *_, message in found]
    line, column, message = min(found, default=(1, 1, without_code(error)))
    if re.search("recursion limit exceeded|max recursion depth", message):
        return TOO_DEEP, line, column
    for pattern, explain_match in _EXPLANATIONS:
        if match := pattern.fullmatch(message):
            column = _start_of(match, text.split("\n")[line - 1], column)
            return shortened(explain_match(match, variables), _LIMIT), line, column
    message = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    return shortened(message, _LIMIT), line, column


def without_code(error: str) -> str:
    """Drop the library's status code: "INTERNAL: text [INTERNAL]" is told as "text"."""
    return re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", error)


def type_name(name: str) -> str:
    """Return the name of a type as a policy's author knows it."""
    struct = STRUCTS.get(name.removeprefix(f"{PACKAGE}."))
    return f"all of {struct}" if struct else name.lower()


def _start_of(match: re.Match[str], line: str, column: int) -> int:
    """Return where the name of the error begins; the library points at its dot or parenthesis."""
    name = match[1].partition(".")[0]
    if match.re is _UNKNOWN_FIELD:
        found = line.find(name, column - 1)
    elif match.re is _UNKNOWN_NAME:
        found = line.rfind(name, 0, column - 1 + len(name))
    else:
        return column
    return column if found < 0 else found + 1


def _unknown_field(match: re.Match[str], _variables: tuple[str, ...]) -> str:
    prefix = STRUCTS.get(match[2].removeprefix(f"{PACKAGE}."), match[2])
    name = f"{prefix}.{match[1]}"
    return f"unknown signal {name}{did_you_mean(name, SIGNALS)}"


def _unknown_name(match: re.Match[str], variables: tuple[str, ...]) -> str:
    name = match[1].partition(".")[0]
    known = " and ".join(variables)
    if name in ("vm", "node", "vms"):
        hint = "; write vms.exists(v, ...) to look at the VMs" if name == "vm" else ""
        return f"{name} is not known here, only {known}{hint}"
    return f"unknown name {name}{did_you_mean(name, [*variables, *_FUNCTIONS])}"


def _no_overload(match: re.Match[str], _variables: tuple[str, ...]) -> str:
    operator = match[1].replace("_", " ").replace("@", "").strip()
    operands = [type_name(name) for name in re.split(r", (?![^(]*\))", match[2])]
    message = f"{operator} cannot be used with {' and '.join(operands)}"
    if {"int", "double"} <= set(re.findall(r"\w+", match[2])):
        message += "; beside a double, write 2.0 for 2, or double(...) around an int"
    return message


_UNKNOWN_FIELD = re.compile(r"undefined field '(.*)' not found in struct '(.*)'")
_UNKNOWN_NAME = re.compile(r"undeclared reference to '(.*)' \(in container ''\)")
_NO_OVERLOAD = re.compile(r"found no matching overload for '(.*)' applied to '\((.*)\)'")
_EXPLANATIONS: tuple[
    tuple[re.Pattern[str], Callable[[re.Match[str], tuple[str, ...]], str]], ...
] = (
    (_UNKNOWN_FIELD, _unknown_field),
    (_UNKNOWN_NAME, _unknown_name),
    (_NO_OVERLOAD, _no_overload),
)
