"""Two answers for the kubelet's probes.

/healthz: 200 while every thread that must run does; /readyz: 200 once the operator knows the whole
cluster. Served by the event loop that also serves the webhook: a loop that hangs answers neither.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from peacemaker_kube.address import Address


@asynccontextmanager
async def health(
    address: Address, is_alive: Callable[[], bool], is_ready: Callable[[], bool]
) -> AsyncIterator[None]:
    """Answer at this address inside of the context. Raises OSError if it cannot be had."""
    app = web.Application()
    app.add_routes([_route("/healthz", is_alive), _route("/readyz", is_ready)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port).start()
        yield
    finally:
        await runner.cleanup()


def _route(path: str, holds: Callable[[], bool]) -> web.RouteDef:
    async def answer(_: web.Request) -> web.Response:
        if holds():
            return web.Response(text="ok\n")
        return web.Response(text="no\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)

    return web.get(path, answer)
