"""The agent in a cluster: it does what the PeaceList of its node says, and reports there.

What only this needs, the API client above all, is imported by nobody else.
"""

import selectors
import socket
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

from peacemaker_kube.api import Api, Document
from peacemaker_kube.paths import PEACE_LISTS
from peacemaker_kube.watch import Watch
from peacemaker_nodeagent.agent import Agent, Options, clock
from peacemaker_nodeagent.cgroup import Hierarchy
from peacemaker_nodeagent.discover import Found
from peacemaker_nodeagent.last_known import LastKnown
from peacemaker_nodeagent.listed_orders import ListedOrders
from peacemaker_nodeagent.listing import Listing, read_listing
from peacemaker_nodeagent.pods import PodScanner
from peacemaker_nodeagent.publisher import INTERVAL, Publisher
from peacemaker_nodeagent.status_writer import StatusWriter


class WatchedList:
    """The node's PeaceList as the API server shows it, kept up to date in a thread."""

    def __init__(self, api: Api, node: str, bell: "Bell") -> None:
        self._node = node
        self._last: Listing | None = None
        self.watch: Watch[Listing] = Watch(
            api,
            PEACE_LISTS,
            self._read,
            lambda _: bell.ring(),
            fields=f"metadata.name={node}",
        )

    def newest(self) -> Listing | None:
        return self.watch.items.get(self._node)

    def has_answered(self) -> bool:
        """Whether a whole answer has come: without a PeaceList in it there is none."""
        return self.watch.synced.is_set()

    def _read(self, document: Document) -> Listing:
        self._last = read_listing(document, self._last)
        return self._last


class PodFinder:
    """QEMU in pods, looked for longest where the PeaceList names the pod."""

    def __init__(self, scanner: PodScanner, listed: Container[str]) -> None:
        self.scanner = scanner
        self._listed = listed

    def find(self, now: float, everything: bool, known: Container[int]) -> list[Found]:
        return self.scanner.scan(now, everything, self._listed, known)

    def forget(self, pid: int) -> None:
        self.scanner.forget(pid)

    def next_look(self) -> float:
        return self.scanner.next_poll()


class Bell:
    """Wakes the agent's loop from another thread."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        for end in (self._inside, self._outside):
            end.setblocking(False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._outside.send(b"!")

    def hang(self, agent: Agent) -> None:
        """Let it wake this agent."""

        def hear() -> None:
            self._inside.recv(4096)
            agent.wake()

        agent.selector.register(self._inside, selectors.EVENT_READ, hear)


@dataclass(frozen=True, slots=True)
class Contact:
    """How it goes with the API server: the watch of the PeaceList, and the writes of its status."""

    watch: Watch[Listing]
    writer: StatusWriter


def cluster_agent(
    options: Options, hierarchy: Hierarchy, kubeconfig: str | None, status_interval: float | None
) -> tuple[Agent, Contact]:
    """The agent of one node of a cluster. Raises ConfigError, CgroupError.

    Its threads are daemons: they end with the process, and leave nothing undone that matters.
    """
    api = Api.load(kubeconfig)
    bell = Bell()
    source = WatchedList(api, options.node, bell)
    orders = ListedOrders(source, LastKnown(options.run_dir.peace_list, options.node), clock)
    finder = PodFinder(PodScanner(hierarchy, options.below), orders.pods)
    agent = Agent(options, hierarchy, orders, finder)
    agent.selector.register(finder.scanner.fd, selectors.EVENT_READ, agent.wake)
    bell.hang(agent)
    writer = StatusWriter(api, options.node)
    publisher = Publisher(
        agent, orders, source, writer, lambda: finder.scanner.pod_uids,
        options.node, status_interval or INTERVAL, clock,
    )  # fmt: skip
    agent.outlets.append(publisher)
    source.watch.start()
    writer.start()
    return agent, Contact(source.watch, writer)
