"""YAML text as a tree in which everything knows its place, made safely from hostile text.

The tree is built from PyYAML's event stream in pure Python (its C loader crashes on deep
nesting), and the limits are checked while the events come, before anything large exists.
Types are those of YAML 1.1, as Kubernetes' own tools read it; what they would not read as the
plain integer, boolean or string that a reader sees has the type OTHER.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import yaml
from yaml.resolver import Resolver

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 10_000
"""Nodes of all documents of a text together, each counted as often as aliases repeat it."""


class YamlError(ValueError):
    """Text that is no usable YAML. Line and column count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Kind(Enum):
    """What a scalar is, in the words of an error message."""

    STRING = "a string"
    INTEGER = "an integer"
    BOOLEAN = "a boolean"
    NULL = "null"
    OTHER = "neither string nor integer nor boolean"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its text as written (after quotes, escapes and folding), and its kind.

    `source` is the piece of the file it was read from, `style` its YAML style: None (plain),
    one of the two quotes, `|` or `>`. What comes from no file has line and column 0.
    """

    line: int
    column: int
    text: str
    kind: Kind
    source: str
    style: str | None

    def place(self, line: int, column: int) -> tuple[int, int]:
        """Return where in the file a line and column (from 1) of the value are."""
        if not self.line:
            return line, column
        offset = sum(len(before) + 1 for before in self.text.split("\n")[: line - 1]) + column - 1
        return _in_file(self, _source_offset(self, offset))


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    line: int
    column: int
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Pairs of key and value as written: duplicate keys are still there."""

    line: int
    column: int
    items: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Sequence | Mapping


def documents(text: str | bytes, most_nodes: int = MAX_NODES) -> Iterator[Node]:
    """Yield the root of every document of the text, in order. Raises YamlError at the first flaw.

    An empty document is a NULL scalar.
    """
    yield from _Composer(_decoded(text), most_nodes).documents()


def _decoded(given: str | bytes) -> str:
    data = given if isinstance(given, bytes) else given.encode(errors="surrogatepass")
    if len(data) > MAX_BYTES:
        raise YamlError(f"file too large (found {len(data)} bytes, allowed {MAX_BYTES})")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise YamlError(
            f"not UTF-8 (found byte 0x{data[error.start]:02x})", *_end_of(before)
        ) from None
    if text.startswith("\ufeff"):
        raise YamlError("starts with a byte order mark (allowed: UTF-8 without one)")
    text = text.replace("\r\n", "\n")
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        raise YamlError(
            f"character that YAML does not allow (found U+{ord(bad[0]):04X})",
            *_end_of(text[: bad.start()]),
        )
    return text


def _end_of(text: str) -> tuple[int, int]:
    """Return the line and column that follow a text."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


# The YAML 1.1 tags whose scalars a policy can hold, with the only spelling that is no surprise:
# 010, 0x10, 1_0 and 1:10 are integers and yes, off and y are booleans only for some readers.
_TAG = "tag:yaml.org,2002:"
_KINDS: dict[str, tuple[Kind, Callable[[str], object]]] = {
    f"{_TAG}str": (Kind.STRING, lambda _: True),
    f"{_TAG}null": (Kind.NULL, lambda _: True),
    f"{_TAG}bool": (Kind.BOOLEAN, re.compile(r"true|false", flags=re.IGNORECASE).fullmatch),
    f"{_TAG}int": (Kind.INTEGER, re.compile(r"[-+]?(0|[1-9][0-9]{0,18})").fullmatch),
}


# What may stand between the beginning of a scalar's event and the scalar itself.
_ANCHOR = re.compile(r"&\S+(?:\s|#[^\n]*)*")

# PyYAML's events carry more than their declared types say: anchor and tag, and always their marks.
_Event = Any


class _Composer:
    """Builds nodes from events, and counts."""

    def __init__(self, text: str, most_nodes: int) -> None:
        self._text = text
        self._most_nodes = most_nodes
        self._resolver: Any = Resolver()
        self._nodes = 0
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        self._events = self._guarded()

    def _guarded(self) -> Iterator[_Event]:
        try:
            yield from yaml.parse(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ", ".join(part for part in (error.context, error.problem) if part)
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise YamlError(f"not valid YAML: {said}", *place) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # An escape beyond Unicode and a version of thousands of digits are plain ValueErrors.
            raise YamlError(f"not valid YAML: {error}") from None

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._node(next(self._events), depth=1)[0]

    def _node(self, event: _Event, depth: int) -> tuple[Node, int, int]:
        """Return the node that an event begins, how many nodes it is, and how many levels."""
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.AliasEvent):
            node, size, height = self._aliased(str(event.anchor), place)
            self._count(size, place)
            self._check_depth(depth + height - 1, place)
            return node, size, height
        self._count(1, place)
        self._check_depth(depth, place)
        if event.tag is not None:
            raise YamlError(f"tags are not allowed (found {event.tag})", *place)
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # until it is complete: an alias inside is a loop
        if isinstance(event, yaml.ScalarEvent):
            found: tuple[Node, int, int] = self._scalar(event, place), 1, 1
        else:
            found = self._collection(event, place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = found
        return found

    def _collection(
        self, event: _Event, place: tuple[int, int], depth: int
    ) -> tuple[Node, int, int]:
        children: list[Node] = []
        size, height = 1, 0
        for inner in self._events:
            if isinstance(inner, yaml.CollectionEndEvent):
                break
            child, child_size, child_height = self._node(inner, depth + 1)
            children.append(child)
            size += child_size
            height = max(height, child_height)
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(*place, tuple(children)), size, height + 1
        keys = [key for key in children[::2] if isinstance(key, Scalar)]
        for key in children[::2]:
            if not isinstance(key, Scalar):
                raise YamlError("a key must be a string (found a list or a map)", *place)
        pairs = tuple(zip(keys, children[1::2], strict=True))
        return Mapping(*place, pairs), size, height + 1

    def _scalar(self, event: _Event, place: tuple[int, int]) -> Scalar:
        if any("\ud800" <= letter <= "\udfff" for letter in event.value):
            raise YamlError("half of a surrogate pair is no character", *place)
        tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        kind, is_usual = _KINDS.get(tag, (Kind.OTHER, bool))
        start = event.start_mark.index
        if event.anchor is not None and (anchor := _ANCHOR.match(self._text, start)):
            start = min(anchor.end(), event.end_mark.index)
            line, column = _end_of(anchor[0])
            place = (place[0] + line - 1, column + (place[1] - 1 if line == 1 else 0))
        source = self._text[start : event.end_mark.index]
        kind = kind if is_usual(event.value) else Kind.OTHER
        return Scalar(*place, event.value, kind, source, event.style)

    def _aliased(self, anchor: str, place: tuple[int, int]) -> tuple[Node, int, int]:
        if anchor not in self._anchors:
            raise YamlError(f"alias to an anchor that is not there (found *{anchor})", *place)
        found = self._anchors[anchor]
        if found is None:
            raise YamlError(f"alias that contains itself (found *{anchor})", *place)
        return found

    def _count(self, nodes: int, place: tuple[int, int]) -> None:
        self._nodes += nodes
        if self._nodes > self._most_nodes:
            allowed = f"allowed {self._most_nodes}, aliases included"
            raise YamlError(f"too many nodes ({allowed})", *place)

    def _check_depth(self, depth: int, place: tuple[int, int]) -> None:
        if depth > MAX_DEPTH:
            raise YamlError(f"nests too deep (allowed {MAX_DEPTH} levels)", *place)


# --- from a place in a value to its place in the file ---

# An escape of a double-quoted scalar: x41, u0041, U00000041, or one character.
_ESCAPE = re.compile(r"\\(?:x(\w{2})|u(\w{4})|U(\w{8})|(.))", flags=re.DOTALL)
_BLANK_ESCAPES = "\n \ttnvfrN_LP"


def _source_offset(scalar: Scalar, offset: int) -> int:
    """Return where in `source` the character at `offset` of `text` was read from.

    Blanks may have been folded, added or dropped, so only what is not blank is matched, one after
    the other; a blank is told by the distance to what stands before it.
    """
    source, at = scalar.source, 0
    if scalar.style in ("|", ">"):
        at = source.find("\n") + 1
    elif scalar.style:
        at = 1
    end, gap = at, 0  # behind the last match, and how many blanks of the value since
    for letter in scalar.text[:offset]:
        if letter.isspace():
            gap += 1
            continue
        end, gap = _behind(scalar, _skip_blanks(scalar, end)), 0
    if offset < len(scalar.text) and not scalar.text[offset].isspace():
        return _skip_blanks(scalar, end)
    return min(end + gap, len(source))


def _skip_blanks(scalar: Scalar, at: int) -> int:
    source = scalar.source
    while at < len(source):
        escape = _escape(scalar, at)
        if escape is not None:
            code = escape[1] or escape[2] or escape[3]
            if not (chr(int(code, 16)).isspace() if code else escape[4] in _BLANK_ESCAPES):
                break
            at = escape.end()
        elif source[at].isspace():
            at += 1
        else:
            break
    return at


def _behind(scalar: Scalar, at: int) -> int:
    """Return where the character that is written at `at` ends."""
    if escape := _escape(scalar, at):
        return escape.end()
    return at + (2 if scalar.style == "'" and scalar.source[at : at + 1] == "'" else 1)


def _escape(scalar: Scalar, at: int) -> re.Match[str] | None:
    return _ESCAPE.match(scalar.source, at) if scalar.style == '"' else None


def _in_file(scalar: Scalar, offset: int) -> tuple[int, int]:
    before = scalar.source[:offset]
    line, column = _end_of(before)
    return scalar.line + line - 1, column + (scalar.column - 1 if line == 1 else 0)
