"""Suspend and resume: write the setting that the leader obeys, and wait until the nodes have.

Suspended, every agent restores what it adjusted and rests. A node that cannot answer must not stop
whoever uninstalls, so it is named with the command that restores it by hand.
"""

import math
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, Document
from peacemaker_kube.watch import Change, Watch
from peacemaker_operator.reading import number, section, sections, text
from peacemaker_operator.records import AgentPodRecord, agent_pod_record
from peacemaker_operator.settings import CONFIG_MAP, SUSPENDED

AGENT_LABELS: Final = "app.kubernetes.io/name=peacemaker,app.kubernetes.io/component=agent"

LEADER_TIMEOUT: Final = 30.0
"""Seconds without any step of a leader, which needs 15 to follow one that died."""

SILENT_GRACE: Final = 10.0
"""Seconds to wait for a node whose agent shows no sign of life."""

NO_IMAGE: Final = "AGENT_IMAGE"
"""Stands for the agent's image where no agent pod is left to tell it."""

_SYNC_TIMEOUT = 30.0
_SYSTEM_SUSPENDED = "SystemSuspended"
_INT64_MAX = 2**63 - 1
_NOT_FOUND, _CONFLICT = 404, 409


class NoAnswer(Exception):
    """The setting is written, but nobody obeys it; the text says what to look at."""


class _Standing(Enum):
    UNTOLD = "the operator has not told it yet"
    WORKING = "the agent has not answered"
    SILENT = "the agent is not running"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A node that did not say in time that it restored its VMs, why, and how to restore it."""

    node: str
    why: str
    command: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the nodes, by name. `image`: the agent's, None if no agent pod told it."""

    restored: tuple[str, ...]
    unanswered: tuple[Unanswered, ...]
    image: str | None


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a PeaceList says of being suspended: told by the operator, answered by the agent."""

    generation: int
    suspended: str | None
    answered: int
    ready: str
    reason: str
    message: str

    def standing(self, has_agent: bool) -> _Standing:
        if self.suspended is None:
            return _Standing.UNTOLD
        if self.answered >= self.generation and self.reason == "Suspended":
            return _Standing.RESTORED
        if self.ready == "Unknown" or not has_agent:
            return _Standing.SILENT
        return _Standing.WORKING

    def why(self, has_agent: bool) -> str:
        """Why it is not restored, for people."""
        standing = self.standing(has_agent)
        if standing is _Standing.WORKING and self.ready == "False":
            return f"{self.reason}: {self.message}" if self.message else self.reason
        return standing.value


def write_setting(api: Api, namespace: str, suspended: bool) -> None:
    """Write the setting, and leave the others as they are. Raises ApiError, ApiUnreachable."""
    data = {"data": {SUSPENDED: "true" if suspended else "false"}}
    maps = paths.core(namespace, "configmaps")
    while True:
        try:
            api.patch(paths.item(maps, CONFIG_MAP), data)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
        else:
            return
        try:
            metadata = {"name": CONFIG_MAP, "labels": {"app.kubernetes.io/name": "peacemaker"}}
            api.create(maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata} | data)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
        else:
            return


def suspend(
    api: Api,
    namespace: str,
    timeout: float,
    progress: Callable[[str], None],
    *,
    leader_timeout: float = LEADER_TIMEOUT,
) -> Outcome:
    """Have everything restored, and wait for it, at most so many seconds.

    Raises NoAnswer if no operator obeys, ApiError, ApiUnreachable.
    """
    write_setting(api, namespace, suspended=True)
    with _Nodes(api, namespace) as nodes:
        now = time.monotonic()
        deadline, told_until = now + timeout, now + leader_timeout
        silent_since: dict[str, float] = {}
        untold_before, said = math.inf, ""
        while True:
            now = time.monotonic()
            standings = nodes.standings()
            untold = _count(standings, _Standing.UNTOLD)
            if untold < untold_before:
                untold_before, told_until = untold, now + leader_timeout
            silent = {n for n, each in standings.items() if each is _Standing.SILENT}
            silent_since = {node: silent_since.get(node, now) for node in silent}
            given_up = {n for n, since in silent_since.items() if now - since >= SILENT_GRACE}
            restored = _count(standings, _Standing.RESTORED)
            if (line := f"{restored} of {len(standings)} nodes restored") != said:
                progress(said := line)
            if restored + len(given_up) == len(standings) or now >= deadline:
                return nodes.outcome()
            if untold and now >= told_until:
                raise NoAnswer(_nobody(namespace, f"{untold} of {len(standings)} nodes"))
            graces = [since + SILENT_GRACE for since in silent_since.values()]
            due = [each for each in (deadline, told_until, *graces) if each > now]
            nodes.wait(min(due) - now)


def resume(
    api: Api, namespace: str, timeout: float, progress: Callable[[str], None]
) -> tuple[str, ...]:
    """Have policies come into force again, and wait until the operator has told every node.

    The nodes, by name. Raises NoAnswer if it has not in so many seconds, ApiError, ApiUnreachable.
    """
    write_setting(api, namespace, suspended=False)
    with _Nodes(api, namespace) as nodes:
        deadline, said = time.monotonic() + timeout, ""
        while True:
            lists = nodes.lists()
            still = sum(each.suspended == _SYSTEM_SUSPENDED for each in lists.values())
            if (line := f"{len(lists) - still} of {len(lists)} nodes resumed") != said:
                progress(said := line)
            if not still:
                return tuple(sorted(lists))
            if (left := deadline - time.monotonic()) <= 0:
                raise NoAnswer(_nobody(namespace, f"{still} of {len(lists)} nodes"))
            nodes.wait(left)


class _Nodes:
    """A context manager that watches PeaceLists and agent pods."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._news = threading.Event()
        self._lists = Watch(api, paths.PEACE_LISTS, _listed, self._changed)
        self._pods = Watch(
            api,
            paths.core(namespace, "pods"),
            agent_pod_record,
            self._changed,
            labels=AGENT_LABELS,
        )

    def __enter__(self) -> Self:
        for watch in (self._lists, self._pods):
            watch.start()
        if not all(watch.synced.wait(_SYNC_TIMEOUT) for watch in (self._lists, self._pods)):
            self.__exit__()
            raise ApiUnreachable("PeaceLists and agent pods could not be listed")
        return self

    def __exit__(self, *_: object) -> None:
        for watch in (self._lists, self._pods):
            watch.stop()

    def _changed(self, _: Change[_Listed] | Change[AgentPodRecord]) -> None:
        self._news.set()

    def wait(self, timeout: float) -> None:
        """Wait for any change."""
        self._news.wait(timeout)
        self._news.clear()

    def lists(self) -> dict[str, _Listed]:
        return dict(self._lists.items)

    def standings(self) -> dict[str, _Standing]:
        agents = self._agents()
        return {node: each.standing(node in agents) for node, each in self.lists().items()}

    def outcome(self) -> Outcome:
        """How the nodes are now."""
        agents = self._agents()
        image = next(iter(agents.values()), None)
        restored, unanswered = [], []
        for node, listed in sorted(self.lists().items()):
            if listed.standing(node in agents) is _Standing.RESTORED:
                restored.append(node)
            else:
                own = agents.get(node) or image or NO_IMAGE
                why = listed.why(node in agents)
                unanswered.append(Unanswered(node, why, restore_command(node, own)))
        return Outcome(tuple(restored), tuple(unanswered), image)

    def _agents(self) -> dict[str, str | None]:
        """The image of each node's agent, of those that are ready or at least there."""
        return {pod.node: pod.image for pod in dict(self._pods.items).values() if pod.node}


def restore_command(node: str, image: str) -> str:
    """The shell command that restores a node whose agent does not answer.

    The node's file system is below /host in such a container.
    """
    options = ["--image", image, "--profile=sysadmin", "-it", "--", "peacemaker-agent", "restore"]
    places = ["--run-dir", "/host/run/peacemaker", "--cgroup-mount", "/host/sys/fs/cgroup"]
    return shlex.join(["kubectl", "debug", f"node/{node}", *options, *places])


def _listed(document: Document) -> _Listed:
    ready: Mapping[str, object] = next(
        (
            each
            for each in sections(section(document, "status").get("conditions"))
            if each.get("type") == "Ready"
        ),
        {},
    )
    return _Listed(
        generation=number(section(document, "metadata").get("generation"), 0, _INT64_MAX) or 0,
        suspended=text(section(document, "spec", "suspended").get("reason")),
        answered=number(section(document, "status").get("observedGeneration"), 0, _INT64_MAX) or 0,
        ready=text(ready.get("status")) or "",
        reason=text(ready.get("reason")) or "",
        message=text(ready.get("message"), 4096) or "",
    )


def _count(standings: Mapping[str, _Standing], standing: _Standing) -> int:
    return sum(each is standing for each in standings.values())


def _nobody(namespace: str, which: str) -> str:
    return (
        f"the setting is written, but no operator leads that obeys it: {which} not told. It will "
        f"be obeyed once one leads. See: kubectl -n {namespace} get pods -l "
        "app.kubernetes.io/name=peacemaker,app.kubernetes.io/component=operator; "
        f"kubectl -n {namespace} get lease peacemaker-operator"
    )
