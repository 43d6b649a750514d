"""Expressions: CEL (cel.dev) over the signals of a node and its VMs.

This is the only module that knows the CEL library. Each expression meets two environments:

- the *checker* knows the type of every signal, so that an unknown name and a type that never fits
  are errors with line and column before anything runs;
- the *runner* evaluates over plain dicts, in which a signal that is missing is an absent key: it
  is told as `Missing`, and never reads as 0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal

from cel_expr_python import cel  # type: ignore[import-untyped]

from peacemaker.celerrors import TOO_DEEP, explain, type_name, without_code
from peacemaker.celtypes import PACKAGE, Checked, DecodeError, struct_pool
from peacemaker.signals import SIGNALS

MAX_LENGTH = 4096
"""Characters of an expression."""


class Scope(Enum):
    """Which variables an expression sees."""

    NODE = ("node", "vms")
    VM = ("vm",)


class Returns(Enum):
    """What an expression must give, by the CEL types that are that."""

    BOOL = ("BOOL",)
    NUMBER = ("INT", "UINT", "DOUBLE")


class ExpressionError(ValueError):
    """An expression that cannot be used. Line and column count from 1 within the expression."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, and why.

    `signal`: `text` is the dotted names of the missing signals, joined by ", ". `label`: `text`
    is the label that the VM lacks. `error`: the evaluation failed (division by zero, budget
    overrun ...), `text` says how.
    """

    kind: Literal["signal", "label", "error"]
    text: str


class Variables:
    """Plain dicts made ready once, for several evaluations of the same reading.

    The first evaluation converts the dicts, which costs more than most expressions do; the ones
    after it are four times as fast for a VM and sixteen times for 500 VMs. Changes of the dicts
    are not seen. Keep it no longer than one pass: it also keeps what its evaluations allocate.
    """

    __slots__ = ("activation", "values")

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values
        self.activation = _runner().Activation(values)


class Expression:
    """A compiled expression. Equal to another of the same text, scope and result.

    `signals` holds the dotted names of the signals it refers to; `v.wait` inside
    `vms.exists(v, ...)` counts as `vm.wait`. Made by `compile_expression`.
    """

    __slots__ = ("_path", "_program", "_types", "returns", "scope", "signals", "text")

    def __init__(
        self, text: str, scope: Scope, returns: Returns, signals: frozenset[str], program: Any
    ) -> None:
        self.text = text
        self.scope = scope
        self.returns = returns
        self.signals = signals
        self._program = program
        self._types = (bool,) if returns is Returns.BOOL else (int, float)
        self._path = tuple(text.strip().split(".")) if text.strip() in signals else ()

    def evaluate(self, variables: Mapping[str, object] | Variables) -> bool | int | float | Missing:
        """Evaluate over nested plain dicts, one for each variable of the scope.

        Values have the type that `SIGNALS` gives them (a double is a float, also when whole).
        """
        if not isinstance(variables, Variables):
            variables = Variables(variables)
        if self._path:
            return self._follow(variables.values)
        try:
            value = self._program.eval(variables.activation).plain_value()
        except RuntimeError as error:  # how the library tells that the budget is used up
            return Missing("error", without_code(str(error)))
        # An error is a value too, whose plain value is its text; no expression returns text.
        if type(value) in self._types:
            return value  # type: ignore[no-any-return]
        return self._missing(str(value), variables.values)

    def _follow(self, values: Any) -> int | float | Missing:
        """A signal alone, as most orders are, needs no evaluation."""
        for part in self._path:
            if part not in values:
                return Missing("signal", ".".join(self._path))
            values = values[part]
        return values  # type: ignore[no-any-return]

    def _missing(self, error: str, variables: Mapping[str, object]) -> Missing:
        key = _ABSENT_KEY.search(error)
        if key is None:
            return Missing("error", without_code(error))
        absent = {name: _first_absent(name, variables) for name in sorted(self.signals)}
        if key[1] in absent.values():
            return Missing("signal", ", ".join(name for name, part in absent.items() if part))
        if "vm.labels" in self.signals:
            return Missing("label", key[1])
        return Missing("error", without_code(error))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.scope.name}, {self.returns.name})"

    def _key(self) -> tuple[str, Scope, Returns]:
        return self.text, self.scope, self.returns


def compile_expression(text: str, scope: Scope, returns: Returns) -> Expression:
    """Check and compile an expression. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"expression too long (found {len(text)} characters, allowed {MAX_LENGTH})"
        )
    try:
        text.encode()  # the library takes no lone surrogates
        compiled = _checker(scope).compile(text)
        checked = Checked(compiled.serialize())
        program = _runner().compile(text, disable_check=True)
    except DecodeError:
        raise ExpressionError(TOO_DEEP) from None
    except (RuntimeError, UnicodeEncodeError) as error:
        raise ExpressionError(*explain(str(error), text, scope.value)) from None
    untyped = checked.untyped()
    if untyped is not None:
        raise ExpressionError(
            "the type of this part is not known before it runs: write a list or a map of values "
            "of one type, and no constructor",
            *_line_and_column(text, untyped),
        )
    found = compiled.return_type().name()
    if found not in returns.value:
        allowed = "true or false" if returns is Returns.BOOL else "a number"
        raise ExpressionError(f"the result is {type_name(found)}, allowed {allowed}")
    return Expression(text, scope, returns, checked.signals(), program)


_COMPARISONS = {"_<_": "less", "_<=_": "less_equals", "_>_": "greater", "_>=_": "greater_equals"}


@cache
def _checker(scope: Scope) -> Any:
    """Return the environment that knows types.

    Two things differ from CEL's standard library. `dyn` and `type` are gone, since they hide
    types. The comparisons are declared anew with int beside double, because a user writes
    `node.load15 > 1`: CEL evaluates that, but its checker refuses it.
    """
    without = "".join(f"  - name: '{name}'\n" for name in ("dyn", "type", *_COMPARISONS))
    ordered = {"int64": cel.Type.INT, "double": cel.Type.DOUBLE, "uint64": cel.Type.UINT}
    others = {"string": cel.Type.STRING, "bool": cel.Type.BOOL}
    pairs = [(left, right) for left in ordered for right in ordered]
    pairs += [(other, other) for other in others]
    types = ordered | others
    comparisons = [
        cel.FunctionDecl(
            operator,
            [
                cel.Overload(f"{name}_{left}_{right}", cel.Type.BOOL, [types[left], types[right]])
                for left, right in pairs
            ],
        )
        for operator, name in _COMPARISONS.items()
    ]
    vm = cel.Type(f"{PACKAGE}.Vm")
    declared = {"node": cel.Type(f"{PACKAGE}.Node"), "vm": vm, "vms": cel.Type.List(vm)}
    return cel.NewEnv(
        struct_pool(),
        config=cel.NewEnvConfigFromYaml(f"stdlib:\n  exclude_functions:\n{without}"),
        variables={name: declared[name] for name in scope.value},
        functions=comparisons,
    )


@cache
def _runner() -> Any:
    """Return the environment that evaluates over dicts."""
    return cel.NewEnv(variables=dict.fromkeys(("node", "vm", "vms"), cel.Type.DYN))


_ABSENT_KEY = re.compile(r'Key not found in map : "(.*)"', flags=re.DOTALL)


def _first_absent(name: str, variables: Mapping[str, object]) -> str | None:
    """Return the first part of a signal's path that the node, the VM or any of the VMs lacks."""
    root = name.partition(".")[0]
    if root in variables:
        holders: Any = (variables[root],)
    else:
        holders = variables.get("vms", ()) if root == "vm" else ()
    for holder in holders:
        value = holder
        for part in SIGNALS[name].path:
            if part not in value:
                return part
            value = value[part]
    return None


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
