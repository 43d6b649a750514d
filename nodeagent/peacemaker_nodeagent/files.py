"""Files that administrators edit while the agent runs: whether one has changed since a look."""

import errno
import os
import stat

Stamp = tuple[int, int, int, int]


def stamp(path: str) -> Stamp:
    """What changes when the file does, its permissions included. Raises OSError."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def read(path: str, most: int) -> bytes:
    """The bytes of a regular file, one more than `most` where it is longer. Raises OSError."""
    with open(path, "rb", opener=_open) as file:
        return file.read(most + 1)


def _open(path: str, flags: int) -> int:
    """Nobody waits here for the other end of a named pipe, nor acquires a terminal."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor
