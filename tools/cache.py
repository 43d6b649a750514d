"""What is slow to make is made once, and kept below the user's cache."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(name: str) -> Path:
    """The folder of one kind of things: below $XDG_CACHE_HOME or ~/.cache, made if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "peacemaker", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: those who make something in it at the same time take turns.

    The kernel drops the lock with its holder, however that one ends; what a killed holder was
    making is removed by the next one.
    """
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for abandoned in folder.glob(".*"):
            shutil.rmtree(abandoned)
        yield


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """A scratch folder beside target: what is made there as `out` becomes target, or nothing."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        (scratch / "out").rename(target)
    finally:
        shutil.rmtree(scratch)
