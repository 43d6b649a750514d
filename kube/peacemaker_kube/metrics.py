"""Metrics as Prometheus scrapes them: the table of what there is, one scrape, and its server."""

import logging
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import HTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from peacemaker_kube import log
from peacemaker_kube.address import Address

PATH: Final = "/metrics"

_PATIENCE: Final = 2.0
"""Seconds of silence after which whoever asks is hung up on: they are served one after another."""

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


def serve(address: Address, collector: Collector) -> None:
    """Answer scrapes of it and of the process's own figures in a thread, until the process ends.

    Raises OSError if the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    server = _Server(_listener(address), _Handler.factory(registry))
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


class _Server(HTTPServer):
    """One answer at a time: however many ask, the program spends no more than that on them."""

    def __init__(self, listener: socket.socket, handler: type[MetricsHandler]) -> None:
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        log.event(level, "scrape broke off", client=client_address[0], why=repr(error))


class _Handler(MetricsHandler):
    timeout = _PATIENCE

    def do_GET(self) -> None:  # noqa: N802 - named by the standard library
        if urlsplit(self.path).path != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"metrics are at {PATH}")
            return
        try:
            super().do_GET()
        except Unanswered as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
