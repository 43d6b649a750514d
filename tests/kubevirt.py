"""What a real KubeVirt wrote: a running VM, and the course of one as it was recorded."""

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

Document = dict[str, Any]

DATA: Final = Path(__file__).parent / "data" / "kubevirt"
CRD: Final = DATA / "vmi-crd.yaml"
RUNNING: Final[Document] = json.loads((DATA / "vmi-running.json").read_text(encoding="utf-8"))
NODE: Final = "node1"
"""Where everything in the recordings runs."""


def course() -> Iterator[tuple[str, Document]]:
    """What happened to vm-a (ADDED, MODIFIED, DELETED), and the whole VM as it was then.

    It runs, is paused, goes on, is deleted; another of its name starts, and is paused twice.
    """
    document = copy.deepcopy(RUNNING)
    document["metadata"] |= {"uid": "b1b1cd01-01b2-4d83-bcea-75f9b9703f48", "generation": 6}
    document["status"]["activePods"] = {"ec29cf1f-23a1-4e9d-9c97-5e98a7855c2a": NODE}
    text = (DATA / "vmi-transitions.txt").read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\d\d:)", text.strip()):
        head, *changes = block.splitlines()
        if "vmi/vm-a " not in head:
            continue
        for change in changes:
            if matched := re.fullmatch(r"   (\S+): .* -> (.*)", change):
                _put_at(document, matched[1], ast.literal_eval(matched[2]))
        _drop_empty_items(document)
        yield head.split()[1], copy.deepcopy(document)


def _put_at(document: Document, path: str, value: object) -> None:
    """Put a value where a path like `.status.conditions[Paused].status` says; '-' removes it."""
    *way, last = _keys(path)
    where: Any = document
    for key, after in zip(way, [*way[1:], last], strict=True):
        if isinstance(where, list):
            where = _item(where, key)
        else:
            where = where.setdefault(key, [] if after.startswith("[") else {})
    if isinstance(where, list):  # of plain values: finalizers
        number = int(last[1:])
        where[number:] = [] if value == "-" else [value, *where[number + 1 :]]
    elif value == "-":
        where.pop(last, None)
    else:
        where[last] = value


def _keys(path: str) -> list[str]:
    """The keys on the way; that of a list's item is behind a bracket."""
    if named := re.fullmatch(r"\.(.+)\.(labels|annotations|activePods)\.(.+)", path):
        return [*named[1].split("."), *named.groups()[1:]]
    return re.findall(r"\w+|\[\w+", path)


def _item(items: list[Document], key: str) -> Document:
    """The item of this number, or whose type or name this is; made if it is not there."""
    name = key[1:]
    if name.isdecimal():
        items += [{} for _ in range(int(name) + 1 - len(items))]
        return items[int(name)]
    for item in items:
        if name in (item.get("type"), item.get("name")):
            return item
    items.append({"type": name} if name[0].isupper() else {"name": name})
    return items[-1]


def _drop_empty_items(document: Document) -> None:
    """Nothing is left of items all of whose fields were removed (null is not recorded)."""
    for key, items in document["status"].items():
        if isinstance(items, list):
            kept = [item for item in items if set(item.values()) != {None} and item != {}]
            document["status"][key] = kept
