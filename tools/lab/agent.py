"""The real agent as a process: started, asked, waited for, ended, and killed at the worst moment.

A process here is forked from the caller, which has the agent's modules loaded, and runs the command
line's own `main`: an interpreter of its own takes five seconds to start in an emulated machine.
"""

import ctypes
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from lab.measure import wait_for
from lab.processes import TIMEOUT
from peacemaker_nodeagent import cli
from peacemaker_nodeagent.run_dir import RunDir
from peacemaker_nodeagent.server import AgentUnreachable, ask

Event = Mapping[str, str]
"""A line of the agent's log: its fields, `msg` among them."""

Row = Mapping[str, Any]
"""A VM as `list -o json` shows it."""

Prepare = Callable[[], object]
"""What a process does before its `main`: become another user, meet an accident."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


@dataclass(slots=True)
class Command:
    """One `peacemaker-agent …` process. `status`: its exit code, -N if signal N ended it."""

    pid: int
    status: int | None = None

    @classmethod
    def start(cls, *words: str, output: int, errors: int, prepare: Prepare | None = None) -> Self:
        """Run `peacemaker-agent words…`; stdout and stderr go to these descriptors."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(words, parent, (output, errors), prepare)
        return cls(pid)

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self) -> int:
        """Its status once it has ended. TimeoutError if it does not."""
        wait_for(lambda: self.poll() is not None, TIMEOUT, f"process {self.pid} to end")
        assert self.status is not None
        return self.status

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing if it has ended (its pid is nobody else's before poll())."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(
    words: tuple[str, ...], parent: int, outputs: tuple[int, int], prepare: Prepare | None
) -> NoReturn:
    """In the child: be the command, and end as it ends."""
    status = 70  # an exception of `prepare`, or one that escaped from `main`
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the signal was asked for
        os.setpgid(0, 0)  # Ctrl-C on a terminal is for the one who started it
        for descriptor, output in enumerate(outputs, start=1):
            os.dup2(output, descriptor)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        if prepare is not None:
            prepare()
        cli.main(list(words), prog_name="peacemaker-agent")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: its exit code, and what it said."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)


class Agent:
    """One run directory, one directory of policies, and the agent that works with them, if any.

    It sees only VMs in cgroups below `below`. A context manager: the agent ends with it, by
    SIGKILL, and nothing is restored; if an exception ends it, the log goes to stdout.
    """

    def __init__(self, directory: Path, below: str) -> None:
        self.below = below
        self.run_dir = RunDir(str(directory / "run"))
        self.policies = directory / "policies"
        self.labels = directory / "labels.yaml"
        self._log = directory / "log"
        self._command: Command | None = None
        self.policies.mkdir()
        self._log.touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._command is not None:
            self.kill()
        if kind is not None:
            print(self.log())

    # --- what people put before it ---

    def write_policy(self, text: str, name: str = "test") -> Path:
        """Write the file, as editors do: whole, by renaming."""
        path = self.policies / f"{name}.yaml"
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)
        return path

    def edit(self, text: str, name: str = "test") -> None:
        """Write a policy that differs, and wait until the running agent has taken it over."""
        mark = self.mark()
        path = self.write_policy(text, name)
        self.wait_event("policies read", since=mark, file=str(path))
        self.rows()  # the answer comes after all that belongs to the taking over

    # --- its life ---

    @property
    def pid(self) -> int:
        if self._command is None:
            raise ValueError("the agent was not started")
        return self._command.pid

    @property
    def is_started(self) -> bool:
        """Whether it was started and not ended by stop(), kill() or wait_end()."""
        return self._command is not None

    def start(self, *options: str, prepare: Prepare | None = None, wait: bool = True) -> None:
        """Start the agent, and wait until it has adopted all VMs and answers."""
        self._start("--policy", str(self.policies), *options, prepare=prepare, wait=wait)

    def start_in_cluster(self, node: str, kubeconfig: Path, *options: str) -> None:
        """The same, to do what the PeaceList of the node says."""
        self._start("--node", node, "--kubeconfig", str(kubeconfig), *options)

    def _start(self, *options: str, prepare: Prepare | None = None, wait: bool = True) -> None:
        with self._log.open("ab") as log:
            self._command = Command.start(
                *("run", *self._where(), *options),
                output=log.fileno(),
                errors=log.fileno(),
                prepare=prepare,
            )
        if wait:
            try:
                self.wait(self._answers, "the agent to answer")
            except BaseException:
                self.kill()
                raise

    def stop(self) -> int:
        """End it by SIGTERM, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        assert self._command is not None
        self._command.send(number)

    def wait_end(self) -> int:
        """Its exit code, once it has ended of itself."""
        assert self._command is not None
        status = self._command.wait()
        self._command = None
        return status

    @property
    def has_ended(self) -> bool:
        return self._command is None or self._command.poll() is not None

    def must_run(self) -> None:
        if self.has_ended:
            raise RuntimeError(f"the agent has ended:\n{self.log()}")

    def _end(self, number: signal.Signals) -> int:
        self.send(number)
        return self.wait_end()

    def _answers(self) -> bool:
        try:
            ask(self.run_dir.socket, {"ask": "status"})
        except AgentUnreachable:
            return False
        return True

    def _where(self) -> tuple[str, ...]:
        return ("--run-dir", self.run_dir.path, "--below", self.below)

    # --- what it says ---

    def call(self, *words: str, prepare: Prepare | None = None) -> Done:
        """Run `peacemaker-agent words…` beside it: list and restore see the same VMs only."""
        places = self._where() if words[0] in ("list", "restore") else self._where()[:2]
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            command = Command.start(
                *(*words, *places),
                output=output.fileno(),
                errors=errors.fileno(),
                prepare=prepare,
            )
            status = command.wait()
            for file in (output, errors):
                file.seek(0)
            return Done(status, output.read(), errors.read())

    def rows(self) -> dict[str, Row]:
        """The running agent's list, by `namespace/name`; of two VMs of one name, the last."""
        vms: Any = ask(self.run_dir.socket, {"ask": "list"})["vms"]
        return {vm["vm"]: vm for vm in vms}

    def row(self, name: str) -> Row:
        """One VM of namespace default. KeyError if the agent has none of this name."""
        return self.rows()[f"default/{name}"]

    def status(self) -> Any:
        return ask(self.run_dir.socket, {"ask": "status"})

    def log(self) -> str:
        return self._log.read_text()

    def mark(self) -> int:
        """The length of the log now, for `since`."""
        return self._log.stat().st_size

    def events(self, message: str | None = None, *, since: int = 0, **fields: str) -> list[Event]:
        """The log's lines from a mark on, of this message and with these fields."""
        text = self._log.read_bytes()[since:].decode()
        events = [parse_event(line) for line in text.splitlines() if line.startswith("time=")]
        wanted = {**({"msg": message} if message else {}), **fields}
        return [event for event in events if wanted.items() <= event.items()]

    # --- waiting ---

    def wait(self, condition: Callable[[], _T], what: str, timeout: float = TIMEOUT) -> _T:
        """The condition's first true value; RuntimeError with the log if the agent ends."""

        def check() -> _T:
            self.must_run()
            return condition()

        return wait_for(check, timeout, what)

    def wait_event(
        self, message: str, *, since: int = 0, timeout: float = TIMEOUT, **fields: str
    ) -> Event:
        """The first such line of the log from a mark on."""
        return self.wait(
            lambda: self.events(message, since=since, **fields),
            f"the log to say {message!r} {fields}",
            timeout,
        )[0]

    def wait_row(self, name: str, timeout: float = TIMEOUT, **fields: object) -> Row:
        """The VM's row, once it is there and has these fields."""

        def find() -> Row | None:
            row = self.rows().get(f"default/{name}")
            return row if row is not None and fields.items() <= row.items() else None

        try:
            row = self.wait(find, f"{name} to have {fields}", timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it has {self.rows().get(f'default/{name}')}") from None
        assert row is not None
        return row


def parse_event(line: str) -> Event:
    """The fields of a line of `key=value`, values with a space or so in double quotes."""
    words = shlex.shlex(line, posix=True)
    words.whitespace_split = True
    words.commenters = ""
    words.quotes = '"'
    return dict(word.partition("=")[::2] for word in words)
