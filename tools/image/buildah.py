"""buildah with a store of its own, below the user's cache."""

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cache
from guest.host import GuestError, call

CACHE: Final = "image"
"""The folder of the user's cache."""

# Command → the Debian package that brings it.
_COMMANDS = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}


class ImageError(Exception):
    """An image could not be built or read; the text says why."""


def require_commands() -> None:
    """Raise ImageError that says what is missing to build images: a command, or to be root."""
    if os.geteuid() != 0:
        raise ImageError("only root can build the images (chroot, other users' files)")
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        packages = " ".join(_COMMANDS[command] for command in missing)
        raise ImageError(f"missing: {', '.join(missing)}; do: apt-get install {packages}")


def buildah(*words: str | Path) -> str:
    """Run buildah and return what it says, stripped. Raises ImageError with its last lines.

    Call it under the cache's lock. What it mounts ends with it, however it ends.
    """
    store = cache.folder(CACHE) / "store"
    place = (f"--root={store / 'root'}", f"--runroot={store / 'run'}")
    isolated = ("unshare", "--mount", "buildah", *place, f"--storage-driver={_driver()}")
    return run([*isolated, *words]).strip()


@functools.cache
def _driver() -> str:
    """How the store keeps layers: one above the other, which is quick, where such mounts work.

    In some containers they do not; there each layer is a whole copy.
    """
    with tempfile.TemporaryDirectory(prefix=".driver.", dir=cache.folder(CACHE)) as name:
        folders = [Path(name, each) for each in ("lower", "upper", "work", "merged")]
        for folder in folders:
            folder.mkdir()
        lower, upper, work, merged = folders
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        try:
            run(["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "none", merged])
        except ImageError:
            return "vfs"
    return "overlay"


def exists(image: str) -> bool:
    """Whether the store has an image of this name."""
    return bool(buildah("images", "--quiet", "--filter", f"reference={image}"))


def run(command: Sequence[str | Path]) -> str:
    """Run a command and return its output. Raises ImageError with its last lines."""
    try:
        return call(command)
    except GuestError as error:
        raise ImageError(str(error)) from None


def tell(text: str) -> None:
    """Say on stderr what takes a while."""
    os.write(2, f"image: {text}\n".encode())
