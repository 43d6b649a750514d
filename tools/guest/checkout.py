"""The disk with the checkout, as it lies there: committed or not, ignored files left out."""

import os
import shutil
from pathlib import Path

from guest.host import GuestError, call, write_image


def find_checkout() -> Path:
    """The top of the git checkout that the current folder is in; GuestError outside of one."""
    return Path(call(["git", "rev-parse", "--show-toplevel"]).rstrip("\n"))


def write_checkout(checkout: Path, scratch: Path, image: Path) -> None:
    """Write the checkout's tracked and untracked files, but no ignored ones, as a raw ext4 disk."""
    listed = call(["git", "-C", checkout, "ls-files", "-z", "-co", "--exclude-standard"])
    names = [name for name in listed.split("\0") if name]
    if not names:
        raise GuestError(f"{checkout}: no files to take into the guest")
    tree = scratch / "checkout"
    tree.mkdir()
    for name in names:
        # A tracked file that was deleted, and not yet from the index, is still listed.
        if os.path.lexists(checkout / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, tree / name, follow_symlinks=False)
    write_image(tree, image, "1G")
    shutil.rmtree(tree)
