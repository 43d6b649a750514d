"""How this machine reaches its package index, told to the build as secrets: no layer keeps them."""

import ast
import sys
from pathlib import Path
from typing import Final

from image.buildah import run

# pip's settings that say where packages come from and how to get there.
_SETTINGS: Final = {
    "default-timeout",
    "extra-index-url",
    "index-url",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
}
_CA: Final = "/run/secrets/ca"  # where the build sees a CA of this machine's own


def secrets(scratch: Path) -> list[str]:
    """Arguments for buildah. `scratch` is a folder that must last as long as the build."""
    found = _settings()
    arguments = []
    lines = ["[global]", *(f"{name} = {found[name]}" for name in sorted(_SETTINGS & set(found)))]
    if "cert" in found:
        lines.append(f"cert = {_CA}")
        arguments.append(f"--secret=id=ca,src={found['cert']}")
    file = scratch / "pip.conf"
    file.write_text("\n".join(lines) + "\n")
    return [f"--secret=id=pip,src={file}", *arguments]


def _settings() -> dict[str, str]:
    """pip's own view of its files and environment: `global.index-url='…'`, `:env:.cert='…'`."""
    listed = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    pairs = [line.partition("=") for line in listed if "=" in line]
    # The environment is listed first, and wins.
    return {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in pairs[::-1]}
