"""The socket for the local command line: one JSON line asks, one JSON line answers.

It lives in the agent's own loop: nothing here blocks. A client that asks too much is hung up on,
and one that dawdles when others want its place.
"""

import json
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

Answer = Mapping[str, object]
Handler = Callable[[Mapping[str, object]], Answer]

_MOST_ASKED: Final = 4096
_MOST_CLIENTS: Final = 16
_TIMEOUT: Final = 10.0


class AgentUnreachable(Exception):
    """No agent answers on the socket."""


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    asked: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class Server:
    """Listens on a unix socket that root alone may use."""

    def __init__(self, path: str, handler: Handler, selector: selectors.BaseSelector) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)  # we hold the agent's lock: nobody listens there
        self._path = path
        self._handler = handler
        self._selector = selector
        self._clients: dict[socket.socket, None] = {}  # in the order of their coming
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen()
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        for connection in tuple(self._clients):
            self._hang_up(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if len(self._clients) >= _MOST_CLIENTS:
            self._hang_up(next(iter(self._clients)))
        connection.setblocking(False)
        self._clients[connection] = None
        client = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: _Client) -> None:
        if client.connection not in self._clients:
            return  # hung up on a moment ago
        try:
            if client.answer is None:
                self._receive(client)
            else:
                client.answer = client.answer[client.connection.send(client.answer) :]
                if not client.answer:
                    self._hang_up(client.connection)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up(client.connection)

    def _receive(self, client: _Client) -> None:
        received = client.connection.recv(_MOST_ASKED)
        client.asked += received
        if b"\n" in client.asked:
            client.answer = memoryview(self._answer(bytes(client.asked)))
            self._selector.modify(
                client.connection, selectors.EVENT_WRITE, lambda: self._serve(client)
            )
        elif not received or len(client.asked) > _MOST_ASKED:
            self._hang_up(client.connection)

    def _answer(self, asked: bytes) -> bytes:
        try:
            request = json.loads(asked)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return b'{"error": "ask with one line that holds a JSON object"}\n'
        return json.dumps(self._handler(request)).encode() + b"\n"

    def _hang_up(self, connection: socket.socket) -> None:
        self._clients.pop(connection, None)
        self._selector.unregister(connection)
        connection.close()


def ask(path: str, request: Mapping[str, object]) -> dict[str, object]:
    """Ask the running agent. Raises AgentUnreachable, PermissionError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.read())
        except (FileNotFoundError, ConnectionError, TimeoutError, ValueError) as error:
            raise AgentUnreachable(f"no agent answers on {path}: {error}") from error
    if not isinstance(answer, dict):
        raise AgentUnreachable(f"the agent on {path} answers {type(answer).__name__}")
    return answer
