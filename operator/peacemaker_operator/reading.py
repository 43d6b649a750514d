"""Reading documents of which nothing is certain: what is malformed reads as absent.

The API server checks most of what it serves, but neither the status of a VirtualMachineInstance
nor what a later version of anything has in it. One odd object must not stop the others.
"""

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

_NOTHING: Mapping[str, object] = {}
_NO_LABELS: Mapping[str, str] = {}


def section(document: object, *path: str) -> Mapping[str, object]:
    """Return the object at this path of fields, an empty one if there is none."""
    found = document
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else _NOTHING


def sections(value: object) -> list[Mapping[str, object]]:
    """Return the objects of an array."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def text(value: object, limit: int = 253) -> str | None:
    """Return a text of 1..`limit` characters that the API server would take.

    Texts are interned: names of nodes, namespaces and labels come again ten thousand times.
    """
    if not isinstance(value, str) or not 0 < len(value) <= limit or not _is_utf8(value):
        return None
    return sys.intern(value)


def unique(value: object, limit: int = 64) -> str | None:
    """Return a text like `text` does; for uids, of which no second copy is to be expected."""
    if not isinstance(value, str) or not 0 < len(value) <= limit or not _is_utf8(value):
        return None
    return value


def number(value: object, low: int, high: int) -> int | None:
    """Return an integer within these bounds, both included."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    return None


def count(value: object) -> int:
    """Return a number of things, 0 if it is absent."""
    return number(value, 0, INT32_MAX) or 0


def labels(document: object) -> Mapping[str, str]:
    """Return the labels in a document's metadata."""
    found = {
        sys.intern(key): sys.intern(value)
        for key, value in section(document, "metadata", "labels").items()
        if isinstance(value, str)
    }
    return found or _NO_LABELS  # one for all that have none


def cut(value: str, limit: int) -> str:
    """Return the text, of at most `limit` characters."""
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _is_utf8(value: str) -> bool:
    """Tell whether the text can be written: half of a surrogate pair cannot."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
