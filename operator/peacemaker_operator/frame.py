"""The frame that the operator runs in: kopf, embedded, for startup and admission.

kopf watches nothing here, so it asks the API server for no more than which kinds it serves, once.
Everything that goes on for ever is the controller's, in threads of its own.
"""

import asyncio
import itertools
import logging
import math
import signal
from collections.abc import Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import kopf

from peacemaker_kube import log
from peacemaker_kube.address import Address
from peacemaker_kube.api import Api, ApiError, ApiUnreachable
from peacemaker_kube.paths import API_VERSION
from peacemaker_operator import webhook
from peacemaker_operator.health import health
from peacemaker_operator.serving import Place, Serving
from peacemaker_operator.webhook_figures import WebhookFigures

_ASK_AGAIN_AFTER = 2.0


class FrameError(Exception):
    """The operator cannot go on; the text says why."""


class Controller(Protocol):
    """What does the operator's work, in threads of its own."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """End, and let another replica lead at once."""

    def is_alive(self) -> bool:
        """Whether all of its threads run."""

    def is_ready(self) -> bool:
        """Whether it knows the whole cluster."""

    def is_leading(self) -> bool:
        """Whether it may write now."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the operator answers. webhook: None for no admission; `figures` are the webhook's."""

    health: Address
    webhook: tuple[Address, Place] | None
    figures: WebhookFigures = field(default_factory=WebhookFigures)


def run(controller: Controller, api: Api, frame: Frame) -> None:
    """Run the controller until SIGTERM or SIGINT, in the main thread. Raises FrameError."""
    # One log: what kopf and the libraries below it have to say is said in our format.
    root = logging.getLogger()
    root.handlers = logging.getLogger("peacemaker").handlers
    root.setLevel(logging.WARNING)
    try:
        asyncio.run(_run(controller, api, frame))
    except FrameError:
        raise
    except Exception as error:  # whatever kopf ends with must not be an end without a word
        raise FrameError(f"the operator cannot go on: {error!r}") from error


async def _run(controller: Controller, api: Api, frame: Frame) -> None:
    tasks: list[asyncio.Task[None]] = []

    def is_alive() -> bool:
        return controller.is_alive() and not any(task.done() for task in tasks)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(health(frame.health, is_alive, controller.is_ready))
        controller.start()
        stack.push_async_callback(asyncio.to_thread, controller.stop)
        settings, registry = _settings(), kopf.OperatorRegistry()
        if frame.webhook is not None:
            address, place = frame.webhook
            serving = Serving(api, place, controller.is_leading, figures=frame.figures)
            stack.callback(serving.keys.close)
            webhook.register(registry, frame.figures)
            settings.admission.server = kopf.WebhookServer(
                addr=address.host,
                port=address.port,
                context=serving.keys.context,
                certfile=serving.keys.file,
                pkeyfile=serving.keys.file,
                file_check_interval=math.inf,  # `serving` renews, without a restart of the server
            )
            tasks.append(_forever(serving.run(), stack))
        await _kopf(registry, settings, api)


async def _kopf(registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, api: Api) -> None:
    """Run kopf until a signal. Raises FrameError if it ends without one, or what it ended by."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    @kopf.on.login(registry=registry)
    def _(**_: object) -> kopf.ConnectionInfo:
        return _credentials(api)

    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def _(**_: object) -> None:
        await _until_served(api)  # kopf looks for the kinds just once

    tasks = await kopf.spawn_tasks(
        registry=registry, settings=settings, clusterwide=True, standalone=True, stop_flag=stop
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)  # in the place of kopf's, which do not tell us
    await _until_one_ends(tasks)
    if not stop.is_set():
        raise FrameError("kopf ended, and nobody had asked it to")


async def _until_one_ends(tasks: Collection[asyncio.Task[Any]]) -> None:
    """End all tasks when the first one does, and raise what any of them ended by.

    kopf.run_tasks would do it, and then wait 5 s for every task that is younger than its own: a
    connection that somebody keeps open to /healthz, say.
    """
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # The API server may be away for as long as it likes.
    settings.networking.error_backoffs = itertools.repeat(_ASK_AGAIN_AFTER)
    return settings


def _credentials(api: Api) -> kopf.ConnectionInfo:
    """The same as the official client has."""
    configuration = api.client.configuration
    bearer = configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = bearer.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


async def _until_served(api: Api) -> None:
    """Wait until the API server serves PeacePolicies."""
    said = ""
    while True:
        why = await asyncio.to_thread(_why_not_served, api)
        if not why:
            return
        if why != said:
            log.warning("waiting for the API server", why=why)
            said = why
        await asyncio.sleep(_ASK_AGAIN_AFTER)


def _why_not_served(api: Api) -> str:
    try:
        kinds = api.get(f"/apis/{API_VERSION}").get("resources") or ()
    except ApiError as error:
        if error.status != 404:
            return error.message
        kinds = ()
    except ApiUnreachable as error:
        return f"it does not answer: {error}"
    if any(kind.get("name") == webhook.PLURAL for kind in kinds):
        return ""
    return f"it does not serve {webhook.PLURAL} of {API_VERSION}: are the CRDs applied?"


def _forever(work: Coroutine[Any, Any, None], stack: AsyncExitStack) -> asyncio.Task[None]:
    """A task that ends with the stack; that it ended before, /healthz tells."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task
