"""The real helm."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from gobuild import build
from gobuild.catalogue import HELM

KUBERNETES: Final = "1.36.0"
"""For which Kubernetes a chart is rendered where there is none to ask."""

_TIMEOUT = 120.0


class HelmError(Exception):
    """It ended with another status than 0; the text is what was typed and what it said."""


@cache
def program(name: str) -> str:
    """Path of `helm` or `kubeconform`, built now if need be. Raises gobuild.MissingError."""
    return str(build(HELM) / name)


def helm(*words: str, settings: Mapping[str, str] | None = None) -> str:
    """What it says on stdout. settings: more of its environment. Raises HelmError."""
    with tempfile.TemporaryDirectory(prefix="peacemaker-helm-") as home:
        done = subprocess.run(
            [program("helm"), *words],
            # Repositories and plugins of whoever runs it are not asked.
            env={"PATH": os.environ.get("PATH", ""), "HOME": home, **(settings or {})},
            cwd=Path(home),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()  # the logs of hooks are on stdout
        raise HelmError(f"helm {' '.join(words)}: {said}")
    return done.stdout
