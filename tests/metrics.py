"""What tests of metrics have: one scrape, as Prometheus makes it and as its libraries read it."""

import http.client
import random
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from peacemaker_kube.metrics import PATH, Metric

LOCALHOST = "127.0.0.1"
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the metrics server answers."""

    status: int
    text: str


def free_port() -> int:
    """Below the range from which the kernel takes the ports of outgoing connections."""
    while True:
        with socket.socket() as listener, suppress(OSError):
            port = random.choice(range(20_000, 32_000))
            listener.bind((LOCALHOST, port))
            return port


def get(port: int, path: str = PATH) -> Answer:
    """Ask it. OSError if nobody answers."""
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one scrape, and the type and the labels of what they are samples of."""

    text: str
    values: dict[tuple[str, frozenset[tuple[str, str]]], float]
    types: dict[str, str]

    @classmethod
    def scrape(cls, port: int) -> Self:
        """Raises AssertionError if two samples have the same name and labels."""
        answer = get(port)
        assert answer.status == http.client.OK, answer
        values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        types: dict[str, str] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in values, key
                values[key] = sample.value
                types[sample.name] = family.type
        return cls(answer.text, values, types)

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.values.get((name, frozenset(labels.items())))

    def labelled(self, name: str) -> list[dict[str, str]]:
        """The labels of each of its samples."""
        return [dict(labels) for found, labels in self.values if found == name]

    def names(self, prefix: str) -> set[str]:
        return {name for name, _ in self.values if name.startswith(prefix)}

    def must_agree(self, prefix: str, table: Iterable[Metric]) -> None:
        """Everything with this prefix is as the table says, and nothing else is there."""
        rows = {metric.name: metric for metric in table}
        for name, labels in self.values:
            if name.startswith(prefix):
                row = rows[name]
                found = (self.types[name], {label for label, _ in labels})
                assert found == (row.kind.value, set(row.labels)), name
