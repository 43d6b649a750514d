"""Metrics as Prometheus scrapes them: the table of what there is, one scrape, and its server."""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from peacemaker_kube import log
from peacemaker_kube.address import Address

PATH: Final = "/metrics"
HEALTH_PATH: Final = "/healthz"

_PATIENCE: Final = 10.0
"""Seconds of silence after which whoever asks is hung up on."""

_MOST_CLIENTS: Final = 8
_MOST_THREADS: Final = 32

Family = CounterMetricFamily | GaugeMetricFamily


class Unanswered(Exception):
    """There are no figures now; the text says why."""


class Kind(StrEnum):
    """How a value moves: up until the program ends, or as it likes."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of a table of metrics; `meaning` is what scrapes say of it, too."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str

    def family(self) -> Family:
        """One without samples."""
        make = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        return make(self.name, self.meaning, labels=self.labels)


class Scrape:
    """The samples of one scrape, by the table's names without the prefix that all of them have."""

    def __init__(self, prefix: str, table: Iterable[Metric]) -> None:
        self._families = {each.name.removeprefix(prefix): each.family() for each in table}

    def put(self, name: str, value: float, *labels: str) -> None:
        """One sample, and the only one with these labels. Raises KeyError for an unknown name."""
        self._families[name].add_metric(labels, value)

    def families(self) -> Iterator[Family]:
        """Those that have samples."""
        return (family for family in self._families.values() if family.samples)


def serve(
    address: Address, collector: Collector, is_alive: Callable[[], bool] | None = None
) -> None:
    """Answer scrapes of it and of the process's own figures in threads, until the process ends.

    With `is_alive`, probes are answered too. Raises OSError if the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    server = _Server(_listener(address), _Handler.factory(registry), is_alive)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics are served", address=address, path=PATH)


def _listener(address: Address) -> socket.socket:
    host = address.host
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
    family, _, _, _, where = socket.getaddrinfo(
        host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(where[:2], family=family)


class _Server(ThreadingHTTPServer):
    """A few clients at a time. One more, and the one who has been here longest is hung up on: those
    who connect and say nothing keep nobody from a scrape or a probe.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: type[MetricsHandler],
        is_alive: Callable[[], bool] | None,
    ) -> None:
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.is_alive = is_alive
        # Whether each is still listened to, in the order of their coming; each has a thread.
        self._clients: dict[socket.socket, bool] = {}
        self._counting = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._counting:
            if is_room := len(self._clients) < _MOST_THREADS:
                self._make_way()
                self._clients[request] = True
        if is_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _make_way(self) -> None:
        heard = [client for client, is_heard in self._clients.items() if is_heard]
        if len(heard) >= _MOST_CLIENTS:
            self._clients[heard[0]] = False
            with suppress(OSError):
                heard[0].shutdown(socket.SHUT_RDWR)  # its thread notices, and closes it

    def shutdown_request(self, request: Any) -> None:
        with self._counting:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        log.event(level, "scrape broke off", client=client_address[0], why=repr(error))


class _Handler(MetricsHandler):
    timeout = _PATIENCE

    def do_GET(self) -> None:  # noqa: N802 - named by the standard library
        is_alive = self.server.is_alive if isinstance(self.server, _Server) else None
        path = urlsplit(self.path).path
        if path == PATH:
            self._scrape()
        elif path == HEALTH_PATH and is_alive is not None:
            self._probe(is_alive())
        else:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"metrics are at {PATH}")

    def _scrape(self) -> None:
        try:
            super().do_GET()
        except Unanswered as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))

    def _probe(self, is_alive: bool) -> None:
        self.send_response(HTTPStatus.OK if is_alive else HTTPStatus.SERVICE_UNAVAILABLE)
        self.end_headers()
        self.wfile.write(b"ok\n" if is_alive else b"no\n")
