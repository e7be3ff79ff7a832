"""
An admission server for kopf that keeps listening through a change of the certificate, and drains before it stops.

Its life, as the task in which kopf iterates it sees it::

    bind the port -> on_start -> first certificate -> listen, be ready -> ... -> cancelled by kopf at SIGTERM
    -> not ready, on_drain, answer on for drain_seconds -> stop accepting -> finish what is in flight -> gone

A second cancellation at any point ends it at once.
"""
import asyncio
import contextlib
import inspect
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import aiohttp.web
import kopf

from steadyhook import metrics
from steadyhook.serving import _kopf, endpoints, readiness, sockets, tls

logger = logging.getLogger(__name__)

PORT_SETTING = "STEADYHOOK_WEBHOOK_PORT"

Handler = Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.StreamResponse]]
Callback = Callable[[], Awaitable[None] | None]

# A review carries the old and the new object, and the API server takes up to 3 MiB for one, before JSON escapes.
REQUEST_BYTES = 16 * 2**20
# Longer than Go's 90 s for an idle connection, so that it is always the API server that closes one.
KEEPALIVE_SECONDS = 120
# The API server gives up on a webhook after 30 s at most, the default is 10 s.
HANDSHAKE_SECONDS = 10
IN_FLIGHT_SECONDS = 10
# What was accepted last may still be in its handshake, of which aiohttp does not know.
LAST_HANDSHAKES_SECONDS = 0.5
# To aiohttp 0 would mean to wait without end.
CUT_OFF_SECONDS = 0.1
BACKLOG = 1024


class AdmissionServer:
    """
    For ``settings.admission.server``: serves kopf's admission handlers at ``POST /HANDLER-ID``, or ``/`` for all.

    ``tls``: into which a certificate is swapped, from any thread; nothing is served before that.
    ``readiness``: told here that the port is open, and that it drains; whoever swaps the certificates says the rest.
    ``address`` None: all interfaces. ``port`` 0: any free one, see :attr:`port` for which.
    ``health_port``: where /healthz, /readyz and /metrics are served as long as this runs (None: nowhere).
    ``drain_seconds``: how long requests are still accepted after kopf has cancelled the task.
    ``routes``: further handlers for POST by path, for what is not kopf's, such as a ConversionReview.
    ``on_start`` and ``on_drain`` are called, and awaited, in the running loop; each that is called is called once.

    Raises :class:`steadyhook.serving.sockets.ListenError` from the iteration, which ends the operator.
    """

    def __init__(
        self, *,
        tls: tls.SwappableContext,
        address: str | None = None,
        port: int = 9443,
        health_port: int | None = 8080,
        drain_seconds: float = 8,
        routes: Mapping[str, Handler] | None = None,
        on_start: Callback | None = None,
        on_drain: Callback | None = None,
        readiness: readiness.Readiness,
        liveness: endpoints.Liveness = endpoints.always_alive,
    ) -> None:
        self.tls = tls
        self.readiness = readiness
        self.port = port
        self.health_port = health_port
        self._address = address
        self._drain_seconds = drain_seconds
        self._routes = dict(routes or {})
        self._on_start = on_start
        self._on_drain = on_drain
        self._liveness = liveness

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        bound = sockets.bind(self._address, self.port, setting=PORT_SETTING)
        with contextlib.closing(bound):
            self.port = bound.getsockname()[1]
            async with self._endpoints():
                listener = _Listener(bound, address=self._address, context=self.tls.context,
                                     routes={**self._routes, "/{id:.*}": _review_handler(_kopf.Reviewer(fn))})
                try:
                    await _run(self._on_start)
                    await self._serve(listener)
                    yield kopf.WebhookClientConfig(url=f"https://{_host(self._address)}:{self.port}")
                    await asyncio.Event().wait()
                finally:
                    await self._leave(listener)

    @contextlib.asynccontextmanager
    async def _endpoints(self) -> AsyncIterator[None]:
        if self.health_port is None:
            yield
            return
        async with endpoints.serve(self._address, self.health_port, self.readiness, self._liveness) as port:
            self.health_port = port
            yield

    async def _serve(self, listener: "_Listener") -> None:
        self.readiness.obstruct("listener", "the webhook port is not open yet")
        await self.tls.wait_for_certificate()
        await listener.start()
        self.readiness.clear("listener")
        logger.info("Serving admission requests at %s port %d.", self._address or "any address", self.port)

    async def _leave(self, listener: "_Listener") -> None:
        """Drain, as long as nobody cancels once more."""
        self.readiness.drain()
        handover = asyncio.ensure_future(_run(self._on_drain))
        try:
            if listener.open:
                logger.info("Draining: requests are still accepted for %g s.", self._drain_seconds)
                listener.last_answers = True
                await asyncio.sleep(self._drain_seconds)
                await listener.finish()
            await asyncio.wait({handover}, timeout=IN_FLIGHT_SECONDS)
        finally:
            await listener.close()
            _settle(handover)


class _Listener:
    """The TLS port: closed, then open, then closed for good."""

    def __init__(
        self, bound: socket.socket, *, address: str | None, context: ssl.SSLContext, routes: Mapping[str, Handler],
    ) -> None:
        self.last_answers = False  # whether each answer says that it is the connection's last one
        self._bound = bound
        self._address = address
        self._context = context
        self._server: asyncio.Server | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        application = aiohttp.web.Application(middlewares=[self._account], client_max_size=REQUEST_BYTES)
        application.add_routes([aiohttp.web.post(path, handler) for path, handler in routes.items()])
        self._runner = aiohttp.web.AppRunner(
            application, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=CUT_OFF_SECONDS)

    @property
    def open(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        sockets.listen(self._bound, address=self._address, setting=PORT_SETTING, backlog=BACKLOG)
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server, sock=self._bound, ssl=self._context, backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_SECONDS)

    async def finish(self) -> None:
        """Accept nothing more, and answer what has been accepted, for IN_FLIGHT_SECONDS at most."""
        self._stop_accepting()
        await asyncio.sleep(LAST_HANDSHAKES_SECONDS)
        if self._in_flight:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), IN_FLIGHT_SECONDS)

    async def close(self) -> None:
        """Close the port and every connection, at once."""
        self._stop_accepting()
        await self._runner.cleanup()

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            metrics.SERVING.set(0)

    @aiohttp.web.middleware
    async def _account(self, request: aiohttp.web.Request, handler: Handler) -> aiohttp.web.StreamResponse:
        started = time.monotonic()
        self._in_flight += 1
        code = 500
        try:
            response = await _answer(handler, request)
            if self.last_answers:
                response.force_close()
            code = response.status
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            metrics.ADMISSION_REQUESTS.labels(code=str(code)).inc()
            metrics.ADMISSION_REQUEST_SECONDS.observe(time.monotonic() - started)


async def _answer(handler: Handler, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
    try:
        return await handler(request)
    except aiohttp.web.HTTPException as error:
        # Raised on, it would become a response only where `Connection: close` cannot be added any more.
        return aiohttp.web.Response(status=error.status, reason=error.reason, text=error.text)


def _review_handler(reviewer: _kopf.Reviewer) -> Handler:
    """One admission request, with the errors answered by the status codes that kopf's own server gives them."""

    async def review(request: aiohttp.web.Request) -> aiohttp.web.Response:
        sslpeer = request.transport.get_extra_info("peercert") if request.transport else None
        try:
            answer = await reviewer(
                json.loads(await request.text()), webhook=request.match_info["id"] or None, sslpeer=sslpeer,
                headers=dict(request.headers))
        except _kopf.AmbiguousResourceError as error:
            return _refusal(409, error)
        except (_kopf.UnknownResourceError, _kopf.UnknownHandlerError) as error:
            return _refusal(404, error)
        except (_kopf.WebhookError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return _refusal(400, error)
        return aiohttp.web.json_response(answer)

    return review


def _refusal(status: int, error: Exception) -> aiohttp.web.Response:
    # In the body, which the API server shows, and not in the reason phrase, which may have no line breaks.
    return aiohttp.web.Response(status=status, text=f"{error}\n")


async def _run(callback: Callback | None) -> None:
    result = callback() if callback is not None else None
    if inspect.isawaitable(result):
        await result


def _settle(handover: asyncio.Future[None]) -> None:
    if not handover.done():
        logger.warning("The handover did not end in time and is given up.")
        handover.cancel()
    elif not handover.cancelled() and handover.exception() is not None:
        logger.error("The handover has failed: %s", handover.exception(), exc_info=handover.exception())


def _host(address: str | None) -> str:
    if address is None:
        return "localhost"
    return f"[{address}]" if ":" in address else address
