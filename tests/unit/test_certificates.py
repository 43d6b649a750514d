"""The webhook's certificates: what is made, when it is due, and what stays trusted."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from peacemaker_operator.certificates import CA_LIFE, SERVING_LIFE, Bundle, renewed, why_renew
from peacemaker_operator.serving import Keys

NAMES = frozenset({"peacemaker-webhook.peacemaker.svc", "127.0.0.1"})
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)

FRESH = renewed(None, NAMES, NOW)
STRANGER = renewed(None, NAMES, NOW)


def serial(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def test_a_secret_gives_back_the_bundle_that_it_keeps() -> None:
    assert Bundle.from_secret(FRESH.to_secret()) == FRESH
    assert sorted(FRESH.to_secret()) == ["ca.crt", "ca.key", "tls.crt", "tls.key"]


@pytest.mark.parametrize(("life", "pem"), [(CA_LIFE, FRESH.ca), (SERVING_LIFE, FRESH.certificate)])
def test_a_certificate_lives_as_long_as_is_said_and_starts_before_now(
    life: timedelta, pem: bytes
) -> None:
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_after_utc == NOW + life
    assert certificate.not_valid_before_utc < NOW


@pytest.mark.parametrize(
    ("age", "is_due"), [(0 * DAY, False), (243 * DAY, False), (244 * DAY, True), (400 * DAY, True)]
)
def test_a_certificate_is_due_when_two_thirds_of_its_life_are_over(
    age: timedelta, is_due: bool
) -> None:
    assert bool(why_renew(FRESH, NAMES, NOW + age)) is is_due


@pytest.mark.parametrize(
    ("bundle", "names", "reason"),
    [
        pytest.param(Bundle.from_secret({}), NAMES, "not usable", id="empty"),
        pytest.param(replace(FRESH, ca=b"junk"), NAMES, "not usable", id="ca-torn"),
        pytest.param(replace(FRESH, key=b"junk"), NAMES, "not usable", id="key-torn"),
        pytest.param(
            replace(FRESH, key=STRANGER.key), NAMES, "key is that of another", id="other-key"
        ),
        pytest.param(
            replace(FRESH, ca=STRANGER.ca, ca_key=STRANGER.ca_key),
            NAMES,
            "not usable",
            id="other-ca",
        ),
        pytest.param(FRESH, NAMES | {"other.example"}, "not name other.example", id="new-name"),
    ],
)
def test_what_cannot_serve_is_due_and_says_why(
    bundle: Bundle, names: frozenset[str], reason: str
) -> None:
    assert reason in why_renew(bundle, names, NOW)
    assert why_renew(renewed(bundle, names, NOW), names, NOW) == ""


def test_a_renewal_keeps_the_ca_and_so_the_trust() -> None:
    later = renewed(FRESH, NAMES, NOW + 250 * DAY)
    assert (later.ca, serial(later.certificate) != serial(FRESH.certificate)) == (FRESH.ca, True)


def test_a_ca_that_would_end_before_what_it_signs_is_replaced_and_still_trusted_till_it_ends() -> (
    None
):
    late = NOW + CA_LIFE - SERVING_LIFE + DAY
    second = renewed(FRESH, NAMES, late)
    assert second.ca.endswith(FRESH.ca)
    assert serial(second.ca) != serial(FRESH.ca)
    assert why_renew(second, NAMES, late) == ""

    third = renewed(second, NAMES, late + CA_LIFE - SERVING_LIFE + DAY)
    assert FRESH.ca not in third.ca  # over
    assert third.ca.endswith(second.ca.removesuffix(FRESH.ca))


@pytest.fixture
def keys() -> Iterator[Keys]:
    keys = Keys(NAMES)
    yield keys
    keys.close()


def test_a_connection_after_a_renewal_sees_the_new_certificate_without_a_restart(
    keys: Keys,
) -> None:
    keys.load(FRESH)
    with serving(keys.context) as address:
        assert seen(address, FRESH.ca) == serial(FRESH.certificate)
        second = renewed(FRESH, NAMES, NOW)
        keys.load(second)
        assert seen(address, FRESH.ca) == serial(second.certificate)
        keys.load(STRANGER)
        assert seen(address, STRANGER.ca) == serial(STRANGER.certificate)
        with pytest.raises(ssl.SSLCertVerificationError):
            seen(address, FRESH.ca)


def test_before_a_certificate_is_had_nobody_trusts_what_is_served(keys: Keys) -> None:
    with serving(keys.context) as address, pytest.raises(ssl.SSLCertVerificationError):
        seen(address, FRESH.ca)


def test_what_holds_no_certificate_is_an_error_and_a_later_bundle_is_served(keys: Keys) -> None:
    with pytest.raises(ssl.SSLError):
        keys.load(Bundle.from_secret({}))
    keys.load(FRESH)
    with serving(keys.context) as address:
        assert seen(address, FRESH.ca) == serial(FRESH.certificate)


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[tuple[str, int]]:
    """A TLS server that closes each connection after its handshake."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    continue  # the client did not want it

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def seen(address: tuple[str, int], ca: bytes) -> int:
    """The serial number of the certificate that a client which trusts the CA meets."""
    trusting = ssl.create_default_context(cadata=ca.decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(address, 10) as connection,
        trusting.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
