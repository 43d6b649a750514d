"""Ctrl-C and the like, taken only where the demonstration waits: so what it has begun to make is
always known to whom removes it.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """From its making on, SIGINT, SIGTERM and SIGHUP are held back, except where `allowed`."""

    def __init__(self) -> None:
        self._received = 0
        self._allowed = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Here a signal, also one that came before, raises Interrupted."""
        self._allowed = True
        try:
            if self._received:
                raise Interrupted(self._received)
            yield
        finally:
            self._allowed = False

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Interrupted."""
        with self.allowed():
            time.sleep(max(0.0, seconds))

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        if self._allowed:
            self._allowed = False
            raise Interrupted(number)
