"""What the host lends: its commands, its package mirror."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CACHE: Final = "guest"
"""The folder of the user's cache."""

# Command → the Debian package that brings it.
COMMANDS = {
    "apt-get": "apt",
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg",
    "git": "git",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "tar": "tar",
    "unshare": "util-linux",
}


class GuestError(Exception):
    """The guest could not be built or did not do its work; the text says why."""


def require_commands() -> None:
    """Raise GuestError naming every missing command and the package that brings it."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        packages = " ".join(sorted({COMMANDS[command] for command in missing}))
        raise GuestError(f"missing: {', '.join(missing)}; do: apt-get install {packages}")


def call(command: Sequence[str | Path]) -> str:
    """Run a command and return its output; if it fails, GuestError with its last lines."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join(output.splitlines()[-20:])
        raise GuestError(f"{' '.join(words)}: exit status {done.returncode}\n{tail}")
    return output


def mirror() -> str:
    """The Debian mirror: $DEBIAN_MIRROR, else the one that the host's own apt uses.

    The label keeps out the security archive, which is no whole Debian and may come first.
    """
    if chosen := os.environ.get("DEBIAN_MIRROR"):
        return chosen
    wanted = ["Created-By: Packages", "Label: Debian"]
    sites = call(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).splitlines()
    if not sites:
        raise GuestError("apt knows no Debian mirror: do apt-get update, or set DEBIAN_MIRROR")
    return sites[0]


def write_image(tree: Path, image: Path, size: str) -> None:
    """Write tree as an ext4 file system of the given size (sparse: only what is used takes room).

    No journal: every image is written to in a throw-away copy only. No lazy initialisation: the
    guest's kernel would spend the CPU time of a measurement on it.
    """
    features = ["-O", "^has_journal", "-E", "lazy_itable_init=0", "-m", "0"]
    call(["mke2fs", "-q", "-t", "ext4", *features, "-d", tree, image, size])
