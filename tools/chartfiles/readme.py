"""The chart's README: a text of its own, and a table of all values from values.yaml's comments."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from chartfiles.paths import CHART

_TEXT = Path(__file__).with_name("README.md.in")
_PLACE = "<!-- values -->\n"


class UndocumentedError(Exception):
    """A value has no comment; the text is its path."""


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml: its path, what its comment says, and its default (None: a section)."""

    path: tuple[str, ...]
    meaning: str
    default: str | None


def readme_file() -> dict[Path, str]:
    """Its path, and what it must hold. Raises UndocumentedError."""
    table = "".join(_lines(values()))
    return {CHART / "README.md": _TEXT.read_text().replace(_PLACE, table)}


def values() -> list[Value]:
    """All values, in the file's order. Raises UndocumentedError."""
    text = (CHART / "values.yaml").read_text()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    return list(_values(root, (), text.splitlines()))


def _values(node: yaml.MappingNode, path: tuple[str, ...], lines: Sequence[str]) -> Iterator[Value]:
    """What is commented, and what is below it; a map without comments inside is one value."""
    for key, value in node.value:
        here = (*path, key.value)
        comment = _comment(lines, key.start_mark.line)
        inner = (
            list(_values(value, here, lines))
            if isinstance(value, yaml.MappingNode) and _has_comments(value, lines)
            else []
        )
        if not comment and not inner:
            raise UndocumentedError(".".join(here))
        if inner:
            if comment:
                yield Value(here, comment, None)
            yield from inner
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(here, comment, json.dumps(default, ensure_ascii=False))


def _has_comments(node: yaml.MappingNode, lines: Sequence[str]) -> bool:
    return any(_comment(lines, key.start_mark.line) for key, _ in node.value)


def _comment(lines: Sequence[str], line: int) -> str:
    """The comment right above a line."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(found)


def _lines(table: Sequence[Value]) -> Iterator[str]:
    yield "| value | default | what it means |\n|---|---|---|\n"
    for value in table:
        name = ".".join(value.path)
        shown = "" if value.default is None else f"`{value.default}`"
        meaning = value.meaning.replace("|", "\\|")
        row = f"**{name}**" if value.default is None else f"`{name}`"
        yield f"| {row} | {shown} | {meaning} |\n"
