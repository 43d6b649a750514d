"""What the operator tells Prometheus: the table, and one scrape.

A scrape is made in the metrics server's thread of what others' threads hold. It reads numbers, and
copies of dicts that the interpreter makes in one step; nobody waits for it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from prometheus_client.registry import Collector

from peacemaker import __version__
from peacemaker_kube.metrics import Family, Kind, Metric, Scrape
from peacemaker_operator.controller import Controller
from peacemaker_operator.policy_status import is_silent
from peacemaker_operator.webhook_figures import WebhookFigures
from peacemaker_operator.writer import Result

PREFIX: Final = "peacemaker_operator_"

_RELISTS: Final = ("expired", "error", "unreachable")
_WRITES: Final = (
    "peacelists create",
    "peacelists patch",
    "peacelists delete",
    "peacelists/status patch",
    "peacepolicies/status patch",
)


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", Kind.COUNTER, labels, unit, meaning)


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", Kind.GAUGE, labels, unit, meaning)


METRICS: Final = (
    _gauge("build_info", "1", "The version of the operator.", "version"),
    _gauge("leader", "0 or 1", "Whether this replica leads, and so writes."),
    _gauge(
        "synced_timestamp_seconds",
        "seconds since the epoch",
        "When this replica first knew the whole cluster; absent before.",
    ),
    _gauge("suspended", "0 or 1", "Whether `peacemaker-operator suspend` is in force."),
    _gauge("max_claim_ratio", "ratio", "How far favoured VMs may grow their common claim."),
    _gauge("objects", "objects", "Objects held in memory.", "resource"),
    _gauge(
        "policies",
        "policies",
        "PeacePolicies by whether their newest spec is accepted or refused.",
        "spec",
    ),
    _gauge(
        "peace_lists",
        "nodes",
        "PeaceLists by the status of their condition Ready; Unknown also where it is not set.",
        "ready",
    ),
    _gauge("silent_agents", "nodes", "Nodes whose agent is called silent."),
    _gauge(
        "vms", "VMs", "Listed VMs by state, as the agents last wrote it into PeaceLists.", "state"
    ),
    _gauge("adjusted_vms", "VMs", "Managed VMs whose nice is not 0, as the agents last wrote."),
    _gauge("floored_vms", "VMs", "VMs whose weight could not be as low as wanted, likewise."),
    _gauge("changes_pending", "changes", "Changes that watches told and nobody has looked at yet."),
    _gauge(
        "nodes_pending", "nodes", "Nodes whose PeaceList is to be looked at or is being written."
    ),
    _gauge(
        "writes_pending", "writes", "Writes handed to the API server's client and not answered."
    ),
    _counter("reconciles_total", "looks", "Looks at the PeaceLists that were due."),
    _counter("reconciled_nodes_total", "nodes", "PeaceLists that were worked out in these looks."),
    _counter("reconcile_seconds_total", "seconds", "Time that these looks took."),
    _counter(
        "writes_total",
        "writes",
        "Writes by what became of them: written, conflict (not made from the newest version), "
        "gone, refused, unreachable, or fenced (not sent, since another replica may lead).",
        "resource",
        "verb",
        "result",
    ),
    _counter("events_posted_total", "Events", "Events posted."),
    _counter(
        "events_dropped_total",
        "Events",
        "Events lost: too many at a time (rate), refused, or no answer (unreachable).",
        "reason",
    ),
    _counter(
        "watch_restarts_total",
        "lists",
        "Lists taken anew because the watch could not go on: its version expired, an error, or no "
        "answer (unreachable).",
        "resource",
        "reason",
    ),
    _gauge(
        "watch_heard_timestamp_seconds",
        "seconds since the epoch",
        "When the API server last said something to the watch; at rest it does so each minute.",
        "resource",
    ),
    _counter(
        "webhook_reviews_total",
        "reviews",
        "Policies that the webhook has judged: allowed, refused, or failed to judge.",
        "result",
    ),
    _gauge(
        "webhook_certificate_expiry_timestamp_seconds",
        "seconds since the epoch",
        "When the webhook's certificate ends; it is renewed after two thirds of its life.",
    ),
)


class OperatorMetrics(Collector):
    """Scrapes a controller, and the webhook if there is one."""

    def __init__(self, controller: Controller, webhook: WebhookFigures | None) -> None:
        self._controller = controller
        self._webhook = webhook

    def collect(self) -> Iterable[Family]:
        scrape = Scrape(PREFIX, METRICS)
        scrape.put("build_info", 1, __version__)
        _put_work(scrape, self._controller)
        _put_cluster(scrape, self._controller)
        _put_watches(scrape, self._controller)
        if self._webhook is not None:
            for result, count in self._webhook.reviews.items():
                scrape.put("webhook_reviews_total", count, result)
            if self._webhook.certificate_expiry is not None:
                expiry = self._webhook.certificate_expiry
                scrape.put("webhook_certificate_expiry_timestamp_seconds", expiry)
        return scrape.families()


def _put_work(scrape: Scrape, controller: Controller) -> None:
    scrape.put("leader", controller.is_leading())
    if controller.synced_at is not None:
        scrape.put("synced_timestamp_seconds", controller.synced_at)
    lists, writer, events = controller.lists, controller.writer, controller.events
    scrape.put("changes_pending", controller.pending)
    scrape.put("nodes_pending", len(lists.due))
    scrape.put("writes_pending", writer.outstanding)
    scrape.put("reconciles_total", lists.looks)
    scrape.put("reconciled_nodes_total", lists.looked_at)
    scrape.put("reconcile_seconds_total", lists.seconds)
    writes: dict[tuple[str, str], int] = {(kind, each): 0 for kind in _WRITES for each in Result}
    writes.update(dict(writer.counts))
    for (kind, result), count in writes.items():
        scrape.put("writes_total", count, *kind.split(" "), result)
    scrape.put("events_posted_total", events.posted)
    for reason, count in events.dropped.items():
        scrape.put("events_dropped_total", count, reason)


def _put_cluster(scrape: Scrape, controller: Controller) -> None:
    inventory = controller.inventory
    settings = inventory.settings
    scrape.put("suspended", settings.suspended)
    scrape.put("max_claim_ratio", settings.max_claim_percent / 100)
    problems = [each.problem for each in list(inventory.acceptances.values())]
    accepted = problems.count(None)
    scrape.put("policies", accepted, "accepted")
    scrape.put("policies", len(problems) - accepted, "refused")
    records = list(inventory.peace_lists.values())
    ready = Counter(each.ready.status if each.ready else "Unknown" for each in records)
    for status in ("True", "False", "Unknown"):
        scrape.put("peace_lists", ready[status], status)
    scrape.put("silent_agents", sum(is_silent(each.ready) for each in records))
    for state in ("managed", "deferred", "excluded", "contested", "failed"):
        count = sum(getattr(each.summary, state) for each in records)
        scrape.put("vms", count, state.capitalize())
    scrape.put("adjusted_vms", sum(each.summary.adjusted for each in records))
    scrape.put("floored_vms", sum(each.summary.floored for each in records))


def _put_watches(scrape: Scrape, controller: Controller) -> None:
    for resource, watch in controller.watches.items():
        scrape.put("objects", len(watch.items), resource)
        for reason in _RELISTS:
            scrape.put("watch_restarts_total", watch.relists[reason], resource, reason)
        if watch.heard_at is not None:
            scrape.put("watch_heard_timestamp_seconds", watch.heard_at, resource)
