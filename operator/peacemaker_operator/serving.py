"""The webhook's certificate at work: shared by a Secret, renewed in time, trusted by caBundle.

Any replica makes the Secret if there is none; who comes second reads the first one's. Whoever leads
renews it, and writes the CA into the one webhook configuration that is the operator's own. The
others see a renewal within a minute.
"""

import asyncio
import base64
import os
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from peacemaker_kube import log, paths
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, Document
from peacemaker_operator.certificates import Bundle, expiry, renewed, why_renew
from peacemaker_operator.webhook_figures import WebhookFigures

SECRET: Final = "peacemaker-webhook"  # noqa: S105 - its name
CONFIGURATION: Final = "peacemaker-policies"

LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the Secret and the configuration."""

_RETRY_AFTER = 5.0
_LEADING_EVERY = 1.0  # a new leader publishes the CA at once; asking costs no request
_NOT_FOUND, _CONFLICT = 404, 409


@dataclass(frozen=True, slots=True)
class Place:
    """Where the webhook is.

    namespace: the operator's. names: the host names and addresses by which it is called. url: how
    it is called from outside of the cluster; without one the configuration names a Service.
    """

    namespace: str
    names: frozenset[str]
    url: str | None = None


def service_names(namespace: str) -> frozenset[str]:
    """The names of the webhook's Service; the API server uses the one that ends in svc."""
    host = f"{SECRET}.{namespace}"
    return frozenset({host, f"{host}.svc", f"{host}.svc.cluster.local"})


class Keys:
    """A server's TLS context, and the file of its certificate and key, in memory only.

    It starts with a certificate that nobody trusts. Connections that come after a `load` meet the
    new one; call it in the thread that accepts them, since certificate and key change one after
    the other.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        # OpenSSL and kopf read files only, and a key has no business on a disk.
        self._memory = os.memfd_create("webhook", os.MFD_CLOEXEC)
        self.file = f"/proc/self/fd/{self._memory}"
        self.load(renewed(None, names, datetime.now(UTC)))

    def load(self, bundle: Bundle) -> None:
        """Raises ssl.SSLError if there is no certificate with its key in the bundle."""
        pem = bundle.certificate + bundle.key
        os.pwrite(self._memory, pem, 0)
        os.ftruncate(self._memory, len(pem))
        self.context.load_cert_chain(self.file)

    def close(self) -> None:
        os.close(self._memory)


class Serving:
    """Keeps the keys such that the API server trusts them, from run() until that is cancelled."""

    def __init__(
        self,
        api: Api,
        place: Place,
        is_leading: Callable[[], bool],
        *,
        look_every: float = LOOK_EVERY,
        figures: WebhookFigures | None = None,
    ) -> None:
        self._figures = figures or WebhookFigures()
        self._look_every = look_every
        self.keys = Keys(place.names)
        self._api = api
        self._place = place
        self._is_leading = is_leading
        self._served: Bundle | None = None
        self._trouble = ""

    async def run(self) -> None:
        """Look after the certificate in the loop that accepts the webhook's connections."""
        while True:
            led = self._is_leading()
            trouble = await self._look()
            if trouble and trouble != self._trouble:
                log.warning("webhook cannot be called", why=trouble)
            self._trouble = trouble
            left = min(self._look_every, _RETRY_AFTER) if trouble else self._look_every
            while left > 0 and self._is_leading() is led:
                await asyncio.sleep(min(left, _LEADING_EVERY))
                left -= _LEADING_EVERY

    async def _look(self) -> str:
        """One look; what is in the way, if anything."""
        try:
            bundle = await asyncio.to_thread(
                shared_bundle, self._api, self._place, self._is_leading
            )
            if bundle != self._served:
                self.keys.load(bundle)
                self._served = bundle
                self._figures.certificate_expiry = expiry(bundle).timestamp()
            if self._is_leading():
                await asyncio.to_thread(publish, self._api, self._place, bundle.ca)
        except ApiError as error:
            return error.message
        except ApiUnreachable as error:
            return f"the API server does not answer: {error}"
        except ssl.SSLError as error:
            return f"Secret {self._place.namespace}/{SECRET} holds no usable certificate: {error}"
        return ""


def shared_bundle(api: Api, place: Place, is_leading: Callable[[], bool]) -> Bundle:
    """Return the bundle of the Secret, made or renewed if need be.

    Raises ApiError, ApiUnreachable.
    """
    secrets = paths.core(place.namespace, "secrets")
    path = paths.item(secrets, SECRET)
    now = datetime.now(UTC)
    try:
        document = api.get(path)
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        bundle, why = renewed(None, place.names, now), "there was none"
        metadata = {"name": SECRET, "labels": {"app.kubernetes.io/name": "peacemaker"}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
        body |= {"type": "kubernetes.io/tls", "data": _encoded(bundle)}
        is_written = _is_first(lambda: api.create(secrets, body))
    else:
        found = Bundle.from_secret(_decoded(document))
        why = why_renew(found, place.names, now)
        if not why or not is_leading():
            return found
        bundle = renewed(found, place.names, now)
        body = {**document, "data": _encoded(bundle)}  # with its resourceVersion
        is_written = _is_first(lambda: api.replace(path, body))
    if not is_written:
        return Bundle.from_secret(_decoded(api.get(path)))
    log.info("webhook certificate made", secret=f"{place.namespace}/{SECRET}", why=why)
    return bundle


def publish(api: Api, place: Place, ca: bytes) -> None:
    """Write the CA into the webhook configuration, if it is not there yet.

    Raises ApiError (404 if the configuration is absent: nobody calls the webhook then).
    """
    path = paths.item(paths.WEBHOOKS, CONFIGURATION)
    document = api.get(path)
    bundle = base64.b64encode(ca).decode()
    webhooks = []
    for webhook in document.get("webhooks") or ():
        way = {"url": place.url} if place.url else webhook["clientConfig"]
        webhooks.append({**webhook, "clientConfig": {**way, "caBundle": bundle}})
    if webhooks == document.get("webhooks"):
        return
    version = {"resourceVersion": document["metadata"]["resourceVersion"]}
    api.patch(path, {"metadata": version, "webhooks": webhooks})
    log.info("webhook published", configuration=CONFIGURATION)


def _is_first(write: Callable[[], Document]) -> bool:
    """Whether the write succeeded; not if another replica's came first."""
    try:
        write()
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
        return False
    return True


def _encoded(bundle: Bundle) -> dict[str, str]:
    return {name: base64.b64encode(pem).decode() for name, pem in bundle.to_secret().items()}


def _decoded(document: Document) -> dict[str, bytes]:
    data = document.get("data") or {}
    return {name: base64.b64decode(value) for name, value in data.items()}
