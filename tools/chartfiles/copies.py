"""The CRDs and policies that the chart ships.

Links would be shorter, but Flux leaves links out of what it takes from Git.
"""

from pathlib import Path
from typing import Final

from chartfiles.paths import CHART, ROOT

NOT_SHIPPED: Final = frozenset({"demo"})
"""Policies that are of no use in a cluster."""


def copied_files() -> dict[Path, str]:
    """Each copy's path and what it must hold."""
    crds = sorted((ROOT / "crds").glob("*.yaml"))
    policies = [
        file for file in sorted((ROOT / "policies").glob("*.yaml")) if file.stem not in NOT_SHIPPED
    ]
    return {CHART / file.relative_to(ROOT): file.read_text() for file in (*crds, *policies)}
