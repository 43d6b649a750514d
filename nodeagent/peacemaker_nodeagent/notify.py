"""systemd's notification protocol (sd_notify(3)): ready, still alive, stopping."""

import os
import socket


def notify(state: str) -> None:
    """Tell systemd, if it started us and asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)


def watchdog_interval() -> float | None:
    """How often systemd wants to hear from us, in seconds: twice in its own time limit."""
    limit = os.environ.get("WATCHDOG_USEC")
    return int(limit) / 2e6 if limit else None
