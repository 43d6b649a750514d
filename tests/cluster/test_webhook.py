"""Admission: the real API server asks the real operator whether a policy makes sense."""

import asyncio
import base64
import copy
import http.client
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import item
from peacemaker_operator.certificates import Bundle, renewed
from peacemaker_operator.serving import CONFIGURATION, SECRET, Place, Serving, publish
from peacemaker_operator.webhook import HANDLER
from tests.cluster.deployment import NAMESPACE, TIMEOUT, deployed
from tests.cluster.program import LOCALHOST, Program, free_ports, ready, running

POLICIES = Path(__file__).parents[2] / "policies"
SEED: Document = yaml.safe_load((POLICIES / "seed-figure-7.yaml").read_bytes())
CALM: Document = yaml.safe_load((POLICIES / "restrain-noisy.yaml").read_bytes())

CONFIGURATION_PATH = item(paths.WEBHOOKS, CONFIGURATION)
SECRET_PATH = item(paths.core(NAMESPACE, "secrets"), SECRET)


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Cluster, Api]]:
    with deployed() as scene:
        yield scene


@pytest.fixture
def operator(scene: tuple[Cluster, Api], tmp_path: Path) -> Iterator[Program]:
    """Ready, and asked by the API server."""
    cluster, api = scene
    with ready(cluster, api, tmp_path) as program:
        wait_for(lambda: is_asked(api, program), TIMEOUT, "the API server to ask the operator")
        yield program


def is_asked(api: Api, program: Program) -> bool:
    """Whether the API server knows where the webhook is, and refuses by it."""
    program.process.must_run()
    return refusal(api, wrong("node.no_such_signal > 1.0")) != ""


def refusal(api: Api, policy: Document) -> str:
    """Why the API server does not take the policy; empty if it would."""
    try:
        api.create(paths.PEACE_POLICIES, policy, dryRun="All")
    except ApiError as error:
        return error.message
    return ""


def wrong(when: str) -> Document:
    policy = copy.deepcopy(CALM)
    policy["spec"]["rules"][0]["when"] = when
    return policy


def test_a_policy_with_a_bad_expression_is_refused_with_field_and_position(
    scene: tuple[Cluster, Api], operator: Program
) -> None:
    message = refusal(scene[1], wrong("node.load1 > 1.0 && node.laod15 > 0.9"))
    assert message.startswith('admission webhook "policies.peacemaker.dev" denied the request: ')
    assert "spec.rules[0].when: line 1, column " in message
    assert "laod15" in message
    assert "level=error" not in operator.said()  # that an author errs is no error of the operator


@pytest.mark.usefixtures("operator")
def test_all_that_is_wrong_is_told_within_a_kibibyte(scene: tuple[Cluster, Api]) -> None:
    policy = wrong("node.load1 >")
    rules = [copy.deepcopy(policy["spec"]["rules"][0]) for _ in range(16)]
    for number, rule in enumerate(rules):
        rule["name"] = f"rule-{number}"
    policy["spec"]["rules"] = rules
    _, _, told = refusal(scene[1], policy).partition("denied the request: ")
    assert told.startswith("spec.rules[0].when: ")
    assert "\nspec.rules[1].when: " in told
    assert "more" in told.splitlines()[-1]
    assert len(told.encode()) <= 1024


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("policy", [SEED, CALM], ids=["favours", "only-restrains"])
def test_a_good_policy_passes(scene: tuple[Cluster, Api], policy: Document) -> None:
    assert refusal(scene[1], policy) == ""


@pytest.mark.usefixtures("operator")
def test_what_is_legal_but_seldom_meant_is_taken_with_a_warning(scene: tuple[Cluster, Api]) -> None:
    assert any("any tenant's VM may be favoured" in each for each in warnings(scene, SEED))
    assert warnings(scene, CALM) == []


def warnings(scene: tuple[Cluster, Api], policy: Document) -> list[str]:
    """What kubectl would show as `Warning:` lines."""
    cluster, api = scene
    answer = api.client.rest_client.request(
        "POST",
        f"{cluster.url}{paths.PEACE_POLICIES}?dryRun=All",
        headers={
            "Authorization": f"Bearer {cluster.token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        },
        body=policy,
    )
    return [text for name, text in answer.getheaders().items() if name.lower() == "warning"]


@pytest.mark.usefixtures("operator")
def test_a_wrong_policy_can_be_labelled_repaired_and_deleted_but_not_made_wrong_in_another_way(
    scene: tuple[Cluster, Api],
) -> None:
    api = scene[1]
    configuration = api.get(CONFIGURATION_PATH)
    # It came to be while no operator was asked.
    unasked = {**configuration["webhooks"][0], "rules": []}
    api.patch(CONFIGURATION_PATH, {"webhooks": [unasked]})
    path = item(paths.PEACE_POLICIES, CALM["metadata"]["name"])
    wait_for(lambda: refusal(api, wrong("node.laod1 > 1.0")) == "", TIMEOUT, "nobody to be asked")
    api.create(paths.PEACE_POLICIES, wrong("node.laod1 > 1.0"))
    api.patch(CONFIGURATION_PATH, {"webhooks": configuration["webhooks"]})
    wait_for(lambda: refusal(api, SEED_WRONG) != "", TIMEOUT, "the operator to be asked again")

    api.patch(path, {"metadata": {"labels": {"team": "a"}, "finalizers": []}})
    with pytest.raises(ApiError, match="laod5"):
        api.patch(path, {"spec": wrong("node.laod5 > 1.0")["spec"]})
    api.patch(path, {"spec": CALM["spec"]})
    api.delete(path)


SEED_WRONG = {**wrong("node.laod1 > 1.0"), "metadata": {"name": "another"}}


def test_while_no_operator_answers_nobody_is_blocked(
    scene: tuple[Cluster, Api], operator: Program
) -> None:
    assert refusal(scene[1], wrong("node.laod1 > 1.0"))
    assert operator.end() == 0
    assert refusal(scene[1], wrong("node.laod1 > 1.0")) == ""


def test_the_program_serves_the_secrets_certificate_and_publishes_its_ca(
    scene: tuple[Cluster, Api], operator: Program
) -> None:
    api = scene[1]
    assert published(api) == stored(api).ca
    assert served(operator.webhook, published(api)) == serial(stored(api))


@pytest.mark.parametrize(
    "url", [None, f"https://{LOCALHOST}:9443/{HANDLER}"], ids=["service", "url"]
)
def test_after_a_restart_nothing_is_written_where_the_ca_is_published_already(
    scene: tuple[Cluster, Api], url: str | None
) -> None:
    api = scene[1]
    service = {"name": SECRET, "namespace": NAMESPACE, "path": f"/{HANDLER}"}
    (webhook,) = api.get(CONFIGURATION_PATH)["webhooks"]
    unpublished = {**webhook, "clientConfig": {"service": service}}
    before = api.patch(CONFIGURATION_PATH, {"webhooks": [unpublished]})
    place = Place(NAMESPACE, frozenset({LOCALHOST}), url)
    ca = renewed(None, place.names, datetime.now(UTC)).ca
    publish(api, place, ca)
    written = api.get(CONFIGURATION_PATH)
    assert written["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    publish(api, place, ca)
    assert api.get(CONFIGURATION_PATH) == written
    assert published(api) == ca


@dataclass(slots=True)
class Replica:
    """What serves the webhook's certificate, in this process, looking often."""

    port: int
    leads: bool


@pytest.fixture
def replica(scene: tuple[Cluster, Api]) -> Iterator[Replica]:
    api = scene[1]
    delete_secret(api)
    (port,) = free_ports(1)
    replica = Replica(port, leads=False)
    place = Place(NAMESPACE, frozenset({LOCALHOST}), f"https://{LOCALHOST}:{port}")
    ended = threading.Event()

    async def work() -> None:
        serving = Serving(api, place, lambda: replica.leads, look_every=0.1)
        looking = asyncio.create_task(serving.run())
        server = await asyncio.start_server(
            lambda _, writer: writer.close(), LOCALHOST, port, ssl=serving.keys.context
        )
        async with server:
            await asyncio.to_thread(ended.wait)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        serving.keys.close()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    yield replica
    ended.set()
    thread.join()


def serves(port: int, api: Api) -> bool:
    """Whether the Secret's certificate is what one meets who trusts the Secret's CA."""
    bundle = stored(api)
    try:
        return bool(bundle.ca) and served(port, bundle.ca) == serial(bundle)
    except OSError:
        return False


def test_a_renewal_by_another_replica_is_served_without_a_restart(
    scene: tuple[Cluster, Api], replica: Replica
) -> None:
    api = scene[1]
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "a certificate")
    first = stored(api)
    second = renewed(first, {LOCALHOST}, datetime.now(UTC))
    store(api, second)
    wait_for(lambda: served(replica.port, first.ca) == serial(second), TIMEOUT, "the second")


def test_only_who_leads_renews_a_certificate_that_is_due_and_its_ca_stays_published(
    scene: tuple[Cluster, Api], replica: Replica
) -> None:
    api = scene[1]
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "a certificate")
    due = renewed(None, {LOCALHOST}, datetime.now(UTC) - timedelta(days=250))
    store(api, due)
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "the one that is due to be served")
    assert stored(api) == due  # who does not lead leaves it

    replica.leads = True
    wait_for(lambda: stored(api) != due, TIMEOUT, "the leader to renew it")
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "the new one to be served")
    assert stored(api).ca == due.ca
    wait_for(lambda: published(api) == due.ca, TIMEOUT, "the CA to be published")


@pytest.mark.parametrize("data", [{}, {"tls.crt": b"junk", "tls.key": b"junk", "ca.crt": b"junk"}])
def test_a_secret_that_is_lost_or_spoilt_is_made_anew_and_its_new_ca_published(
    scene: tuple[Cluster, Api], replica: Replica, data: dict[str, bytes]
) -> None:
    api = scene[1]
    replica.leads = True
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "a certificate")
    first = stored(api)
    if data:
        store(api, Bundle.from_secret(data))
    else:
        api.delete(SECRET_PATH)
    wait_for(lambda: serves(replica.port, api), TIMEOUT, "a certificate again")
    second = stored(api)
    assert serial(second) != serial(first)
    wait_for(lambda: published(api) == second.ca, TIMEOUT, "the new CA to be published")


def test_two_replicas_share_one_certificate(scene: tuple[Cluster, Api], tmp_path: Path) -> None:
    cluster, api = scene
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    delete_secret(api)
    with (
        running(cluster, api, tmp_path / "a") as one,
        running(cluster, api, tmp_path / "b") as other,
    ):
        for program in (one, other):
            wait_for(partial(serves, program.webhook, api), TIMEOUT, "the Secret's certificate")


def delete_secret(api: Api) -> None:
    try:
        api.delete(SECRET_PATH)
    except ApiError as error:
        if error.status != http.client.NOT_FOUND:
            raise


def stored(api: Api) -> Bundle:
    """The Secret's bundle; empty if there is no Secret."""
    try:
        data = api.get(SECRET_PATH)["data"]
    except ApiError as error:
        if error.status != http.client.NOT_FOUND:
            raise
        data = {}
    return Bundle.from_secret({name: base64.b64decode(text) for name, text in data.items()})


def published(api: Api) -> bytes:
    (webhook,) = api.get(CONFIGURATION_PATH)["webhooks"]
    return base64.b64decode(webhook["clientConfig"]["caBundle"])


def serial(bundle: Bundle) -> int:
    return x509.load_pem_x509_certificate(bundle.certificate).serial_number


def store(api: Api, bundle: Bundle) -> None:
    data = {name: base64.b64encode(pem).decode() for name, pem in bundle.to_secret().items()}
    api.patch(SECRET_PATH, {"data": data})


def served(port: int, ca: bytes) -> int:
    """The serial number of the certificate that one who trusts this CA meets."""
    context = ssl.create_default_context(cadata=ca.decode())
    connection = http.client.HTTPSConnection(LOCALHOST, port, timeout=TIMEOUT, context=context)
    connection.connect()
    try:
        der = connection.sock.getpeercert(binary_form=True)
        assert isinstance(der, bytes)
        return x509.load_der_x509_certificate(der).serial_number
    finally:
        connection.close()
