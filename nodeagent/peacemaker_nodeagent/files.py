"""Files that administrators edit while the agent runs: whether one has changed since a look."""

import os

Stamp = tuple[int, int, int, int]


def stamp(path: str) -> Stamp:
    """What changes when the file does, its permissions included. Raises OSError."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def read(path: str, most: int) -> bytes:
    """The file's bytes, one more than `most` where it is longer. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(most + 1)
