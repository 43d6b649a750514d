"""The socket of the command line: a client cannot block, crowd out or crash the agent."""

import json
import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event, Thread

import pytest

from peacemaker_nodeagent.server import AgentUnreachable, Server, ask

DEADLINE = 10.0
BIG = {"text": "x" * 4_000_000}


class Loop:
    """A server in a selector loop as the agent's, one round at a time."""

    def __init__(self, path: Path, handler: Callable[[Mapping[str, object]], Mapping[str, object]]):
        self.path = str(path)
        self.selector = selectors.DefaultSelector()
        self.server = Server(self.path, handler, self.selector)
        self.asked = 0

    def round(self, timeout: float = 0.0) -> int:
        events = self.selector.select(timeout)
        for key, _ in events:
            key.data()
        return len(events)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.round(0.01)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(DEADLINE)
        client.connect(self.path)
        client.setblocking(False)
        return client

    def answer(self, client: socket.socket) -> bytes:
        """All that the client is sent until it is hung up on."""
        received = bytearray()

        def ended() -> bool:
            try:
                part = client.recv(1 << 20)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            received.extend(part)
            return not part

        self.until(ended)
        return bytes(received)


def echo(request: Mapping[str, object]) -> Mapping[str, object]:
    return BIG if request.get("ask") == "much" else {"asked": request}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    running = Loop(tmp_path / "agent.sock", echo)
    yield running
    running.server.close()
    assert not running.selector.get_map(), "nothing stays registered"
    running.selector.close()
    assert not os.path.exists(running.path)


def test_a_question_is_answered_and_the_connection_closed(loop: Loop) -> None:
    with loop.connect() as client:
        client.send(b'{"ask": "list"}\n')
        assert json.loads(loop.answer(client)) == {"asked": {"ask": "list"}}


def test_only_its_owner_may_use_the_socket(loop: Loop) -> None:
    assert stat.S_IMODE(os.stat(loop.path).st_mode) == 0o600


@pytest.mark.parametrize(
    "asked",
    [
        *(b"\n", b"null\n", b"[]\n", b"garbage\n", b"\xff\xfe\n", b'{"ask": "li', b"{}{}\n"),
        *(b"[" * 4000 + b"\n", b'{"a": "list"}\n{"a": "b"}\n', b"1" * 4000 + b"\n"),
    ],
)
def test_garbage_is_told_what_to_ask_and_a_torn_question_gets_nothing(
    loop: Loop, asked: bytes
) -> None:
    with loop.connect() as client:
        client.send(asked)
        if not asked.endswith(b"\n"):
            client.shutdown(socket.SHUT_WR)
        answer = loop.answer(client)
    if asked.endswith(b"\n"):
        assert json.loads(answer) == {"error": "ask with one line that holds a JSON object"}
    else:
        assert answer == b""


def test_a_question_without_end_is_hung_up_on(loop: Loop) -> None:
    with loop.connect() as client:
        client.send(b"x" * 100_000)
        assert loop.answer(client) == b""


def test_a_question_may_come_in_pieces(loop: Loop) -> None:
    with loop.connect() as client:
        for byte in b'{"ask": 1}\n':
            client.send(bytes([byte]))
            loop.round()
        assert json.loads(loop.answer(client)) == {"asked": {"ask": 1}}


def test_a_slow_reader_delays_nobody(loop: Loop) -> None:
    with loop.connect() as slow, loop.connect() as quick:
        slow.send(b'{"ask": "much"}\n')
        for _ in range(50):
            loop.round()
        quick.send(b'{"ask": "quick"}\n')
        assert json.loads(loop.answer(quick)) == {"asked": {"ask": "quick"}}
        assert json.loads(loop.answer(slow)) == BIG


def test_a_client_that_vanishes_is_forgotten(loop: Loop) -> None:
    for asked in (b"", b'{"ask"', b'{"ask": "much"}\n'):
        client = loop.connect()
        client.send(asked)
        loop.round()
        loop.round()
        client.close()
    loop.until(lambda: len(loop.selector.get_map()) == 1)


def test_with_one_client_too_many_the_oldest_is_hung_up_on_and_the_others_are_served(
    loop: Loop,
) -> None:
    clients = []
    for _ in range(17):
        clients.append(loop.connect())
        loop.round()
    assert loop.answer(clients[0]) == b""
    for client in clients[1:]:
        client.send(b'{"ask": 1}\n')
    for client in clients[1:]:
        assert json.loads(loop.answer(client)) == {"asked": {"ask": 1}}
    with loop.connect() as late:
        late.send(b'{"ask": 2}\n')
        assert json.loads(loop.answer(late)) == {"asked": {"ask": 2}}
    for client in clients:
        client.close()


def test_a_socket_left_by_a_dead_agent_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(AgentUnreachable):
        ask(str(path), {})
    loop = Loop(path, echo)
    with loop.connect() as client:
        client.send(b"{}\n")
        assert json.loads(loop.answer(client)) == {"asked": {}}
    loop.server.close()
    loop.selector.close()


@pytest.fixture
def background(loop: Loop) -> Iterator[Loop]:
    """The loop in a thread of its own, for clients that block."""
    ends = Event()

    def run() -> None:
        while not ends.is_set():
            loop.round(0.02)

    thread = Thread(target=run)
    thread.start()
    yield loop
    ends.set()
    thread.join(DEADLINE)


@pytest.mark.parametrize("request_", [{}, {"ask": "list"}, {"ask": "a\nb", "ü": [1, None]}])
def test_ask_gets_the_answer(background: Loop, request_: dict[str, object]) -> None:
    assert ask(background.path, request_) == {"asked": request_}


def test_ask_gets_a_long_answer_whole(background: Loop) -> None:
    assert ask(background.path, {"ask": "much"}) == BIG


def test_ask_without_an_agent_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentUnreachable, match=r"no agent answers on .*agent\.sock"):
        ask(str(tmp_path / "agent.sock"), {})


@pytest.mark.parametrize("answer", [b"", b"garbage", b"[1]\n", b'{"vms": ['])
def test_ask_of_something_that_is_no_agent_says_so(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "agent.sock")

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(AgentUnreachable):
            ask(path, {})
        thread.join(DEADLINE)
