"""The agent's directory below /run: lock, socket, journal of thread nices, stop file."""

import fcntl
import os
from dataclasses import dataclass
from typing import Final

DEFAULT_RUN_DIR: Final = "/run/peacemaker"


class AgentRuns(Exception):
    """Another agent holds the lock."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths below one directory, which root alone may enter."""

    path: str = DEFAULT_RUN_DIR

    @property
    def socket(self) -> str:
        return f"{self.path}/agent.sock"

    @property
    def journal(self) -> str:
        return f"{self.path}/threads"

    @property
    def peace_list(self) -> str:
        return f"{self.path}/peacelist.json"

    @property
    def stop_file(self) -> str:
        return f"{self.path}/stop"

    def lock(self) -> int:
        """Take the lock for as long as the returned descriptor is open. Raises AgentRuns."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        descriptor = os.open(f"{self.path}/agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip()
            os.close(descriptor)
            raise AgentRuns(
                f"an agent runs on this host already (pid {holder}, lock {self.path}/agent.lock)"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor
