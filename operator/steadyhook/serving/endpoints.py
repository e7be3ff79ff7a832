"""
Plain HTTP for the kubelet and for Prometheus: /healthz, /readyz and /metrics.

It is up before the first certificate and through the drain, so both are seen.
"""
import contextlib
from collections.abc import AsyncIterator, Callable

import aiohttp.web
from aiohttp import typedefs
from prometheus_client import REGISTRY, exposition

from steadyhook.serving import connections, readiness, sockets

PORT_SETTING = "STEADYHOOK_HEALTH_PORT"

PLACES = 32
"""A kubelet has a connection for each probe, Prometheus one or two. The descriptors are those of the webhook port."""

# Returns None while all is well, else what is wrong.
Liveness = Callable[[], str | None]


def always_alive() -> str | None:
    """The loop answers: that is all that is asked."""
    return None


@contextlib.asynccontextmanager
async def serve(
    address: str | None, port: int, readiness: readiness.Readiness, liveness: Liveness = always_alive,
) -> AsyncIterator[int]:
    """
    Serve the three endpoints within the context; gives the port (the one that was taken, if ``port`` is 0).

    /healthz answers 500 with the text that ``liveness`` returned, /readyz answers 503 with the reason.
    Raises :class:`steadyhook.serving.sockets.ListenError`.
    """
    bound = sockets.bind(address, port, setting=PORT_SETTING)
    with contextlib.closing(bound):
        sockets.listen(bound, address=address, setting=PORT_SETTING, backlog=PLACES)
        application = _application(readiness, liveness)
        runner = connections.runner(application, shutdown_seconds=1, linger_seconds=1)
        held = connections.Connections(runner, port="health", places=PLACES)
        application.middlewares.append(_accounting(held))
        await runner.setup()
        held.start(bound)
        try:
            yield bound.getsockname()[1]
        finally:
            held.stop_accepting()
            await runner.cleanup()
            await held.close()


def _accounting(held: connections.Connections) -> typedefs.Middleware:
    @aiohttp.web.middleware
    async def account(request: aiohttp.web.Request, handler: typedefs.Handler) -> aiohttp.web.StreamResponse:
        with held.request(request) as connection:
            held.answering(request)
            response = await handler(request)
            if connection is not None:
                connection.useful = True
            return response

    return account


def _application(readiness: readiness.Readiness, liveness: Liveness) -> aiohttp.web.Application:
    async def healthz(_request: aiohttp.web.Request) -> aiohttp.web.Response:
        trouble = liveness()
        return aiohttp.web.Response(text=f"{trouble or 'ok'}\n", status=500 if trouble else 200)

    async def readyz(_request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=f"{readiness.reason}\n", status=200 if readiness.ready else 503)

    application = aiohttp.web.Application()
    application.add_routes([
        aiohttp.web.get("/healthz", healthz),
        aiohttp.web.get("/readyz", readyz),
        aiohttp.web.get("/metrics", _metrics),
    ])
    return application


async def _metrics(request: aiohttp.web.Request) -> aiohttp.web.Response:
    encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
    return aiohttp.web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})
