"""deploy/base: what the chart renders by default, without what only Helm needs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chartfiles.helm import KUBERNETES, helm
from chartfiles.paths import BASE, CHART

_SOURCE = re.compile(r"^# Source: peacemaker/templates/(\S+)\n", re.MULTILINE)

# Helm's own book-keeping.
_HELMS_LABELS = re.compile(
    r"^ +(?:helm\.sh/chart|app\.kubernetes\.io/(?:managed-by|instance)): .*\n", re.MULTILINE
)

# The operator needs no settings that are the defaults, and `suspend` makes them if need be.
_LEFT_OUT: Final = frozenset({"settings.yaml"})


def base_files() -> dict[Path, str]:
    """Each rendered file's path and text. Raises HelmError, gobuild.MissingError."""
    rendered = helm(
        *("template", "peacemaker", str(CHART), "--namespace=peacemaker"),
        *("--no-hooks", f"--kube-version={KUBERNETES}"),
    )
    files: dict[str, list[str]] = {}
    for name, text in _documents(rendered):
        files.setdefault(name, []).append(text)
    return {
        BASE / name: "---\n".join(texts)
        for name, texts in sorted(files.items())
        if name not in _LEFT_OUT
    }


def _documents(rendered: str) -> Iterator[tuple[str, str]]:
    """The name of the template and the text of each document."""
    for part in rendered.split("---\n"):
        if match := _SOURCE.match(part):
            text = _HELMS_LABELS.sub("", part[match.end() :])
            yield match[1], "\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n"
