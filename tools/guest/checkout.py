"""The disk with the checkout, as it lies there: committed or not, ignored files left out."""

import os
import shutil
from pathlib import Path

from guest.host import call, write_image

CHECKOUT = Path(__file__).resolve().parents[2]


def write_checkout(scratch: Path, image: Path) -> None:
    """Write the checkout's tracked and untracked files, but no ignored ones, as a raw ext4 disk."""
    # Tests run as root in a checkout that may be another user's: git would refuse to list it.
    git: list[str | Path] = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", CHECKOUT]
    listed = call([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    names = [name for name in listed.split("\0") if name]
    tree = scratch / "checkout"
    tree.mkdir()
    for name in names:
        # A tracked file that was deleted, and not yet from the index, is still listed.
        if os.path.lexists(CHECKOUT / name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, tree / name, follow_symlinks=False)
    write_image(tree, image, "1G")
    shutil.rmtree(tree)
