"""Reading typed fields out of a YAML tree, with every problem noted at its place.

A field that is wrong is noted and reads as its default, so that reading goes on and all problems
of a file are told at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from peacemaker import yamltree
from peacemaker.cel import Expression, ExpressionError, Returns, Scope, compile_expression
from peacemaker.duration import ALLOWED as ALLOWED_DURATIONS
from peacemaker.duration import format_duration, parse_duration
from peacemaker.hint import did_you_mean, shortened

_HINTED = 100  # problems: a file with more wrong names is not a slip of the pen

_Choice = TypeVar("_Choice", bound=Enum)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong: where (line and column from 1), which field, what.

    What comes from the API and not from a file has no `source`: there line and column count within
    the field's own text, and are 0 where its text is not the point.
    """

    source: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        field = f"{self.path}: " if self.path else ""
        if self.source:
            return f"{self.source}:{self.line}:{self.column}: {field}{self.message}"
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return field + place + self.message


class PolicyError(ValueError):
    """A text that is no valid policy; `problems` are all of them, in order of position."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Field:
    """A node of the tree and the path that leads to it (`spec.rules[0].pick.count`)."""

    path: str
    node: yamltree.Node

    def found(self) -> str:
        """Describe the value for an error message."""
        match self.node:
            case yamltree.Sequence():
                return "a list"
            case yamltree.Mapping():
                return "a map"
            case yamltree.Scalar(kind=yamltree.Kind.STRING, text=text):
                return quoted(text)
            case yamltree.Scalar(kind=yamltree.Kind.NULL):
                return "null"
            case yamltree.Scalar(kind=yamltree.Kind.OTHER as kind, text=text):
                return f"{shortened(text)}, {kind.value}"
            case yamltree.Scalar(text=text):
                return shortened(text)


def quoted(text: str) -> str:
    """Make a string fit for a line of an error message, in quotes."""
    return f'"{shortened(text)}"'


class Reader:
    """Reads fields of one file and keeps the problems found so far."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._compiled: dict[tuple[str, Scope, Returns], Expression | ExpressionError] = {}

    def problem(self, path: str, place: tuple[int, int], message: str) -> None:
        """Note a problem at a line and column."""
        self.problems.append(Problem(self._source, *place, path, message))

    def wrong(self, field: Field, message: str, allowed: str) -> None:
        """Note that a field's value is not allowed, and which is."""
        place = (field.node.line, field.node.column)
        self.problem(field.path, place, f"{message} (found {field.found()}, allowed {allowed})")

    def missing(self, parent: Field, name: str, allowed: str) -> None:
        """Note that a required field is missing, at the place of its parent (if that is a map)."""
        if not isinstance(parent.node, yamltree.Mapping):
            return  # noted as a wrong type
        place = (parent.node.line, parent.node.column)
        self.problem(f"{parent.path}.{name}".lstrip("."), place, f"missing (allowed {allowed})")

    def fields(
        self, field: Field | None, known: Sequence[str], ignored: Sequence[str] = ()
    ) -> dict[str, Field]:
        """Return the fields of a map by name. Unknown ones are problems, ignored ones left out."""
        found = {}
        for key, child in self._pairs(field):
            if key.text in known:
                found[key.text] = child
            elif key.text not in ignored and key.kind is yamltree.Kind.STRING:
                hint = did_you_mean(key.text, known) if len(self.problems) < _HINTED else ""
                self.problem(
                    child.path,
                    (key.line, key.column),
                    f"unknown field{hint} (found {shortened(key.text)}, "
                    f"allowed {', '.join(known)})",
                )
        return found

    def labels(self, field: Field | None, high: int | None = None) -> dict[yamltree.Scalar, Field]:
        """Return the values of a map of at most `high` (None: any number) keys, which are free."""
        pairs = self._pairs(field)
        self._number(field, len(pairs), 0, high)
        return dict(pairs)

    def _pairs(self, field: Field | None) -> list[tuple[yamltree.Scalar, Field]]:
        if field is None:
            return []
        if not isinstance(field.node, yamltree.Mapping):
            self.wrong(field, "wrong type", "a map")
            return []
        return [
            (key, Field(f"{field.path}.{shortened(key.text)}".lstrip("."), value))
            for key, value in field.node.items
        ]

    def items(self, field: Field | None, low: int, high: int) -> list[Field]:
        """Return the entries of a list of `low` to `high` entries."""
        if field is None:
            return []
        if not isinstance(field.node, yamltree.Sequence):
            self.wrong(field, "wrong type", "a list")
            return []
        entries = field.node.items
        self._number(field, len(entries), low, high)
        return [Field(f"{field.path}[{index}]", entry) for index, entry in enumerate(entries)]

    def _number(self, field: Field | None, found: int, low: int, high: int | None) -> None:
        if field is not None and high is not None and not low <= found <= high:
            place = (field.node.line, field.node.column)
            message = f"wrong number of entries (found {found}, allowed {low}..{high})"
            self.problem(field.path, place, message)

    def text(
        self, field: Field | None, allowed: str, valid: Callable[[str], object] = lambda _: True
    ) -> str | None:
        """Return a string for which `valid` is true; None where absent or wrong."""
        scalar = self._scalar(field, yamltree.Kind.STRING, allowed)
        if field is None or scalar is None:
            return None
        if not valid(scalar.text):
            self.wrong(field, "not valid", allowed)
            return None
        return scalar.text

    def choice(self, field: Field | None, choices: type[_Choice]) -> _Choice | None:
        """Return the member of an Enum whose value is the field's; None where absent or wrong."""
        names = [choice.value for choice in choices]
        allowed = " or ".join(names)
        scalar = self._scalar(field, yamltree.Kind.STRING, allowed)
        if field is None or scalar is None:
            return None
        if scalar.text not in names:
            self.wrong(field, f"not valid{did_you_mean(scalar.text, names)}", allowed)
            return None
        return choices(scalar.text)

    def integer(self, field: Field | None, low: int, high: int, default: int) -> int:
        """Return an integer within low..high, or the default."""
        allowed = f"{low}..{high}"
        scalar = self._scalar(field, yamltree.Kind.INTEGER, f"an integer {allowed}")
        if field is None or scalar is None:
            return default
        value = int(scalar.text)
        if not low <= value <= high:
            self.wrong(field, "out of range", allowed)
            return default
        return value

    def duration(self, field: Field | None, low: float, high: float, default: float) -> float:
        """Return the seconds of a duration within low..high, or the default."""
        allowed = (
            f"{format_duration(low)} to {format_duration(high)} written as {ALLOWED_DURATIONS}"
        )
        scalar = self._scalar(field, yamltree.Kind.STRING, allowed)
        if field is None or scalar is None:
            return default
        try:
            seconds = parse_duration(scalar.text)
        except ValueError:
            self.wrong(field, "not a duration", allowed)
            return default
        if not low <= seconds <= high:
            self.wrong(field, "out of range", allowed)
            return default
        return seconds

    def expression(self, field: Field | None, scope: Scope, returns: Returns) -> Expression | None:
        """Return a compiled expression; None where absent or wrong."""
        scalar = self._scalar(field, yamltree.Kind.STRING, "a CEL expression, a string")
        if field is None or scalar is None:
            return None
        # A file can repeat one long expression a thousand times by aliases: compile it once.
        key = (scalar.text, scope, returns)
        if key not in self._compiled:
            try:
                self._compiled[key] = compile_expression(*key)
            except ExpressionError as error:
                self._compiled[key] = error
        compiled = self._compiled[key]
        if isinstance(compiled, ExpressionError):
            self.problem(
                field.path,
                scalar.place(compiled.line, compiled.column),
                f"{compiled.message} (found {quoted(scalar.text)})",
            )
            return None
        return compiled

    def keys(self, field: Field) -> None:
        """Check below a field that no key is written twice and every key is a string."""
        if isinstance(field.node, yamltree.Sequence):
            for index, item in enumerate(field.node.items):
                self.keys(Field(f"{field.path}[{index}]", item))
        elif isinstance(field.node, yamltree.Mapping):
            first: dict[str, int] = {}
            for key, child in self._pairs(field):
                place = (key.line, key.column)
                if key.kind is not yamltree.Kind.STRING:
                    name = Field(child.path, key).found()
                    self.problem(child.path, place, f"a key must be a string (found {name})")
                elif key.text in first:
                    message = f"key written twice (the first is on line {first[key.text]})"
                    self.problem(child.path, place, message)
                first.setdefault(key.text, key.line)
                self.keys(child)

    def _scalar(
        self, field: Field | None, kind: yamltree.Kind, allowed: str
    ) -> yamltree.Scalar | None:
        if field is None:
            return None
        if isinstance(field.node, yamltree.Scalar) and field.node.kind is kind:
            return field.node
        is_unquoted = (
            kind is yamltree.Kind.STRING
            and isinstance(field.node, yamltree.Scalar)
            and field.node.kind is not yamltree.Kind.NULL
        )
        self.wrong(field, "wrong type; quote it" if is_unquoted else "wrong type", allowed)
        return None
