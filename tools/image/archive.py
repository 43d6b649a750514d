"""What an image holds, from its OCI archive.

Formats: the image specification of the Open Container Initiative, version 1.1.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import cache
from image.build import Image
from image.buildah import CACHE, ImageError, run


def unpack(image: Image, folder: Path) -> dict[str, Any]:
    """Lay out the image's files in an empty folder, and return its config (User, Labels, …).

    Raises ImageError.
    """
    with tempfile.TemporaryDirectory(dir=cache.folder(CACHE)) as name:
        layout = Path(name)
        run(["tar", "--extract", "--file", image.archive, "--directory", layout])
        manifest = _blob(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0])
        described = json.loads(manifest.read_bytes())
        for layer in described["layers"]:
            path = _blob(layout, layer)
            if "/.wh." in run(["tar", "--list", "--file", path]):
                raise ImageError(f"{image.name}: a layer takes away files of the one below")
            keep = ["--same-owner", "--numeric-owner", "--preserve-permissions"]
            run(["tar", "--extract", *keep, "--file", path, "--directory", folder])
        config: dict[str, Any] = json.loads(_blob(layout, described["config"]).read_bytes())
        return config


def _blob(layout: Path, descriptor: dict[str, str]) -> Path:
    algorithm, _, digest = descriptor["digest"].partition(":")
    return layout / "blobs" / algorithm / digest
