"""Metrics: the documentation has all of them, and their server bears whoever asks."""

import http.client
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import yaml
from prometheus_client.registry import Collector

from lab import wait_for
from peacemaker_kube.address import Address
from peacemaker_kube.metrics import Family, Kind, Metric, Scrape, Unanswered, serve
from peacemaker_nodeagent.metrics_table import METRICS as AGENT
from peacemaker_operator.metrics import METRICS as OPERATOR
from tests.metrics import LOCALHOST, Samples, free_port, get

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()

TABLE = (
    Metric("x_things", Kind.GAUGE, ("kind",), "things", "Things by kind."),
    Metric("x_events_total", Kind.COUNTER, (), "events", "Events."),
    Metric("x_unused", Kind.GAUGE, (), "1", "Has no samples."),
)


class Collected(Collector):
    """What a function makes of a scrape of TABLE."""

    def __init__(self, fill: Callable[[Scrape], None]) -> None:
        self._fill = fill

    def collect(self) -> Iterable[Family]:
        scrape = Scrape("x_", TABLE)
        self._fill(scrape)
        return scrape.families()


def served(fill: Callable[[Scrape], None]) -> int:
    """The port of a server for it."""
    port = free_port()
    serve(Address(LOCALHOST, port), Collected(fill))
    return port


def events(count: int) -> Callable[[Scrape], None]:
    return lambda scrape: scrape.put("events_total", count)


# --- the documentation ---


def test_the_documentation_lists_every_metric_as_the_tables_have_it() -> None:
    rows = [
        f"| `{each.name}` | {each.kind.value} | {', '.join(f'`{x}`' for x in each.labels) or '-'} "
        f"| {each.unit} | {each.meaning} |"
        for each in (*AGENT, *OPERATOR)
    ]
    listed = [line for line in DOCUMENT.splitlines() if line.startswith("| `peacemaker_")]
    assert listed == rows


def test_examples_speak_of_metrics_and_label_values_that_there_are() -> None:
    names = {each.name for each in (*AGENT, *OPERATOR)}
    queries, alerts = (
        part.split("```")[0]
        for fence in ("promql", "yaml")
        for part in DOCUMENT.split(f"```{fence}\n")[1:]
    )
    expressions = [rule["expr"] for rule in yaml.safe_load(alerts)["groups"][0]["rules"]]
    words = " ".join([queries, *expressions])
    for character in "(){}[],=+-/":
        words = words.replace(character, " ")
    spoken = {word for word in words.split() if word.startswith("peacemaker_")}
    assert spoken
    assert spoken <= names


@pytest.mark.parametrize("table", [AGENT, OPERATOR], ids=["agent", "operator"])
def test_tables_keep_the_conventions_of_names(table: tuple[Metric, ...]) -> None:
    assert len({each.name for each in table}) == len(table)
    for each in table:
        assert each.name.endswith("_total") == (each.kind is Kind.COUNTER), each
        assert each.meaning.endswith("."), each
        assert each.name.endswith("_timestamp_seconds") == ("epoch" in each.unit), each


# --- the server ---


def test_a_scrape_has_what_was_put_and_nothing_else() -> None:
    def fill(scrape: Scrape) -> None:
        scrape.put("things", 2.5, 'odd "kind"\n')
        scrape.put("events_total", 3)

    found = Samples.scrape(served(fill))
    found.must_agree("x_", TABLE)
    assert found.names("x_") == {"x_things", "x_events_total"}
    assert found.value("x_things", kind='odd "kind"\n') == 2.5
    assert "# HELP x_events_total Events.\n# TYPE x_events_total counter\n" in found.text
    assert (found.value("process_resident_memory_bytes") or 0) > 1_000_000


def test_who_puts_what_the_table_lacks_is_wrong() -> None:
    with pytest.raises(KeyError):
        Scrape("x_", TABLE).put("no_such", 1)


def test_there_is_one_path() -> None:
    port = served(events(1))
    assert get(port, "/metrics?x=y").status == http.client.OK
    assert get(port, "/").status == http.client.NOT_FOUND
    assert get(port, "/healthz").status == http.client.NOT_FOUND  # whom nobody can say it of


def test_without_figures_the_answer_is_that_there_are_none() -> None:
    def fill(_: Scrape) -> None:
        raise Unanswered("it starts")

    answer = get(served(fill))
    assert (answer.status, "it starts" in answer.text) == (http.client.SERVICE_UNAVAILABLE, True)


def test_a_fault_is_logged_and_the_next_scrape_answered(caplog: pytest.LogCaptureFixture) -> None:
    faults = ["the first"]

    def fill(scrape: Scrape) -> None:
        if faults:
            raise LookupError(faults.pop())
        scrape.put("events_total", 1)

    port = served(fill)
    with caplog.at_level(logging.ERROR, "peacemaker"), pytest.raises(http.client.HTTPException):
        get(port)
    assert Samples.scrape(port).value("x_events_total") == 1
    (record,) = caplog.records
    assert record.__dict__["fields"]["why"] == "LookupError('the first')"


def test_a_crowd_that_is_silent_keeps_nobody_from_a_scrape() -> None:
    port = served(events(1))
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection((LOCALHOST, port))) for _ in range(100)
        ]

        def is_answered() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return Samples.scrape(port).value("x_events_total") == 1
            return False

        wait_for(is_answered, 5.0, "a scrape to be answered")  # before any of them is given up
        for client in crowd[:50]:
            client.settimeout(5.0)
            assert client.recv(1) == b""  # the eldest were hung up on


@pytest.mark.parametrize(("alive", "status"), [(True, 200), (False, 503)])
def test_a_probe_learns_whether_the_program_is_alive(alive: bool, status: int) -> None:
    port = free_port()
    serve(Address(LOCALHOST, port), Collected(events(1)), lambda: alive)
    assert get(port, "/healthz").status == status
    assert get(port).status == http.client.OK


@pytest.mark.parametrize(
    ("host", "family", "asked"),
    [
        (None, socket.AF_INET, LOCALHOST),
        (LOCALHOST, socket.AF_INET, LOCALHOST),
        ("localhost", socket.AF_INET, LOCALHOST),
    ],
)
def test_it_listens_where_it_is_told(host: str | None, family: int, asked: str) -> None:
    port = free_port()
    serve(Address(host, port), Collected(events(1)))
    with socket.socket(family) as client:
        client.connect((asked, port))


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        address = Address(LOCALHOST, taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            serve(address, Collected(events(1)))


# --- what is not loaded ---


def test_an_agent_without_metrics_and_cluster_loads_neither_library() -> None:
    code = (
        "import sys, peacemaker_nodeagent.cli\n"
        "print(*sorted({'prometheus_client', 'kubernetes', 'http.server'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
