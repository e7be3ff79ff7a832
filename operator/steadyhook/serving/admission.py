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
from steadyhook.serving import _kopf, connections, endpoints, intake, readiness, sockets, tls

logger = logging.getLogger(__name__)

PORT_SETTING = "STEADYHOOK_WEBHOOK_PORT"

Handler = Callable[[aiohttp.web.Request], Awaitable[aiohttp.web.StreamResponse]]
Callback = Callable[[], Awaitable[None] | None]

# Kubernetes waits for a webhook for 30 s at most, so nobody is left to hear an answer that comes later.
ANSWER_SECONDS = 35
IN_FLIGHT_SECONDS = 10
# What was accepted last may still be in its handshake, of which aiohttp does not know.
LAST_HANDSHAKES_SECONDS = 0.5
# To aiohttp 0 would mean to wait without end.
CUT_OFF_SECONDS = 0.1
# For the rest of a body that is refused, so that the answer is read before the connection is closed.
LINGER_SECONDS = 2
SELDOM_SECONDS = 60


class AdmissionServer:
    """
    For ``settings.admission.server``: serves kopf's admission handlers at ``POST /HANDLER-ID``, or ``/`` for all.

    ``tls``: into which a certificate is swapped, from any thread; nothing is served before that.
    ``readiness``: told here that the port is open, and that it drains; whoever swaps the certificates says the rest.
    ``address`` None: all interfaces. ``port`` 0: any free one, see :attr:`port` for which.
    ``health_port``: where /healthz, /readyz and /metrics are served as long as this runs (None: nowhere).
    ``max_connections``: how many connections the webhook port holds at once; see :mod:`steadyhook.serving.connections`.
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
        max_connections: int = 256,
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
        self._max_connections = max_connections
        self._routes = dict(routes or {})
        self._on_start = on_start
        self._on_drain = on_drain
        self._liveness = liveness

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        bound = sockets.bind(self._address, self.port, setting=PORT_SETTING)
        with contextlib.closing(bound):
            self.port = bound.getsockname()[1]
            async with self._endpoints():
                listener = _Listener(
                    bound, address=self._address, context=lambda: self.tls.context, reviewer=_kopf.Reviewer(fn),
                    routes=self._routes, places=connections.affordable(self._max_connections))
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
                await self._drain()
                await listener.finish()
            await asyncio.wait({handover}, timeout=IN_FLIGHT_SECONDS)
        finally:
            await listener.close()
            _settle(handover)


    async def _drain(self) -> None:
        await asyncio.sleep(self._drain_seconds)


class _Listener:
    """The TLS port: closed, then open, then closed for good."""

    def __init__(
        self, bound: socket.socket, *, address: str | None, context: Callable[[], ssl.SSLContext],
        reviewer: _kopf.Reviewer, routes: Mapping[str, Handler], places: int,
    ) -> None:
        self.open = False
        self.last_answers = False  # whether each answer says that it is the connection's last one
        self._bound = bound
        self._address = address
        self._reviewer = reviewer
        self._intake = intake.Intake()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._complained: dict[type[BaseException], float] = {}
        application = aiohttp.web.Application(
            middlewares=[self._account], client_max_size=intake.REQUEST_BYTES)
        application.add_routes([aiohttp.web.post(path, self._with_body(handler)) for path, handler in routes.items()])
        application.add_routes([aiohttp.web.post("/{id:.*}", self._review)])
        self._runner = connections.runner(
            application, shutdown_seconds=CUT_OFF_SECONDS, linger_seconds=LINGER_SECONDS)
        self._connections = connections.Connections(self._runner, port="webhook", places=places, context=context)

    async def start(self) -> None:
        sockets.listen(self._bound, address=self._address, setting=PORT_SETTING, backlog=connections.BACKLOG)
        await self._runner.setup()
        self._connections.start(self._bound)
        self.open = True
        metrics.set_port_open(True)

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
        await self._connections.close()

    def _stop_accepting(self) -> None:
        self.open = False
        metrics.set_port_open(False)
        self._connections.stop_accepting()
        self._bound.close()

    @aiohttp.web.middleware
    async def _account(self, request: aiohttp.web.Request, handler: Handler) -> aiohttp.web.StreamResponse:
        started = time.monotonic()
        self._in_flight += 1
        code = 500
        try:
            with self._connections.request(request) as connection:
                response = await self._answer(handler, request)
                code = response.status
                if connection is not None and code < 400:
                    connection.useful = True
            if self.last_answers:
                response.force_close()
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            metrics.ADMISSION_REQUESTS.labels(code=str(code)).inc()
            metrics.ADMISSION_REQUEST_SECONDS.observe(time.monotonic() - started)

    async def _answer(self, handler: Handler, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        """An error has to become a response here: later `Connection: close` cannot be added to it any more."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as deadline:
                return await handler(request)
        except aiohttp.web.HTTPException as error:
            return aiohttp.web.Response(status=error.status, reason=error.reason, text=error.text,
                                        headers=_allowed_methods(error))
        except intake.Refused as error:
            return _refusal(error.status, error)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:  # of a route, from request.json()
            return _refusal(400, error)
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                return _refusal(504, TimeoutError(f"there was no answer within {ANSWER_SECONDS} s"))
            self._complain(request, error)
            return _refusal(500, RuntimeError(f"the request could not be answered ({type(error).__name__}); see the"
                                              " server's log"))

    def _with_body(self, handler: Handler) -> Handler:
        """The handler, called once the whole body is there."""

        async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
            async with self._intake.body(request):
                self._connections.answering(request)
                return await handler(request)

        return answer

    async def _review(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """One admission request, with the errors answered by the status codes that kopf's own server gives them."""
        sslpeer = request.transport.get_extra_info("peercert") if request.transport else None
        webhook = request.match_info["id"] or None
        try:
            self._reviewer.check_handler(webhook)  # before any of the body is read
            async with self._intake.body(request) as body, self._intake.parse(body) as review:
                self._connections.answering(request)
                return aiohttp.web.json_response(await self._reviewer(
                    review, webhook=webhook, sslpeer=sslpeer, headers=dict(request.headers)))
        except _kopf.AmbiguousResourceError as error:
            return _refusal(409, error)
        except (_kopf.UnknownResourceError, _kopf.UnknownHandlerError) as error:
            return _refusal(404, error)
        except _kopf.WebhookError as error:
            return _refusal(400, error)

    def _complain(self, request: aiohttp.web.Request, error: Exception) -> None:
        """In full once in a while, since whoever can reach the port decides how often this happens."""
        now = time.monotonic()
        if now - self._complained.get(type(error), float("-inf")) > SELDOM_SECONDS:
            self._complained[type(error)] = now
            logger.error("A request to %s could not be answered.", request.path, exc_info=error)


def _refusal(status: int, error: Exception) -> aiohttp.web.Response:
    # In the body, which the API server shows, and not in the reason phrase, which may have no line breaks.
    return aiohttp.web.Response(status=status, text=f"{error}\n")


def _allowed_methods(error: aiohttp.web.HTTPException) -> Mapping[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


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
