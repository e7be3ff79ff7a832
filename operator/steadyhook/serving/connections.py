"""
How many connections a port holds, and which one goes first when there is no room for another.

Whoever reaches a port can open connections without end, and each costs memory and a descriptor. So a port has a number
of places. A newcomer that finds all of them taken gets the place of the connection that is missed least:

1. one that never had a request answered in its GRACE_SECONDS, the oldest first: an API server asks within milliseconds,
   so these are held open for nothing, be it in the handshake, idle or with half a request;
2. one that had, the longest idle first: its client opens another one when it needs it. But only while newcomers hold
   less than a quarter of the places; else it is they who have to wait for each other.

A request that is being answered is never cut off for room. If nobody can go, newcomers wait in the kernel's queue.
"""
import asyncio
import collections.abc
import contextlib
import enum
import functools
import logging
import resource
import socket
import ssl
import time
from typing import NoReturn

import aiohttp.http
import aiohttp.web

from steadyhook import metrics, supervision

logger = logging.getLogger(__name__)

# The API server gives up on a webhook after 30 s at most, the default is 10 s.
HANDSHAKE_SECONDS = 10.0
HEAD_SECONDS = 10.0
# Longer than Go's 90 s for an idle connection, so that it is always the API server that closes one.
KEEPALIVE_SECONDS = 120.0
GRACE_SECONDS = 1.0
# For a peer that does not answer the end of the TLS connection; asyncio's own 30 s would keep its memory for as long.
CLOSING_SECONDS = 1.0
SWEEP_SECONDS = 1.0
PAUSE_WITHOUT_DESCRIPTORS_SECONDS = 0.5
BACKLOG = 1024

RESERVED_DESCRIPTORS = 128
"""For all that is no connection from outside: watches, the log, Python's own files, a peer's certificate being read."""

HEAD_FIELDS = 48
"""Of 8 KiB each, which is aiohttp's own limit; an API server sends about ten short ones."""


class Activity(enum.Enum):
    """What a connection does."""

    OPENING = "Opening"  # accepted, in its handshake
    IDLE = "Idle"
    HEAD = "Head"  # the head of a request is on its way in
    BODY = "Body"
    ANSWERING = "Answering"


class Connection(asyncio.Protocol):
    """One connection: passes all that happens to aiohttp's protocol, and notes what it does and since when."""

    def __init__(self, protocol: asyncio.Protocol, *, closed: collections.abc.Callable[["Connection"], None]) -> None:
        self.protocol = protocol
        self.transport: asyncio.BaseTransport | None = None
        self.opening: asyncio.Task[None] | None = None
        self.useful = False  # whether a request was answered well on it
        self.activity = Activity.OPENING
        self.accepted = self.since = time.monotonic()
        self._closed = closed

    def enter(self, activity: Activity) -> None:
        self.activity, self.since = activity, time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.enter(Activity.IDLE)
        self.protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.activity is Activity.IDLE:
            self.enter(Activity.HEAD)
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._closed(self)
        self.protocol.connection_lost(error)

    def may_go(self, now: float) -> bool:
        """Whether it is idle; half a request is no better after a while."""
        halfway = self.activity in (Activity.HEAD, Activity.BODY) and now - self.since >= GRACE_SECONDS
        return self.activity is Activity.IDLE or halfway

    def cut(self) -> None:
        """End it at once."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


def dispensable(
    connections: collections.abc.Collection[Connection], *, places: int, now: float
) -> Connection | None:
    """The connection that is missed least, if there is one that may be cut off for a newcomer."""
    newcomers = [item for item in connections if not item.useful and item.activity is not Activity.ANSWERING]
    if newcomers:
        oldest = min(newcomers, key=lambda item: item.accepted)
        if now - oldest.accepted >= GRACE_SECONDS:
            return oldest
    if len(newcomers) >= places / 4:
        return None
    idle = [item for item in connections if item.useful and item.may_go(now)]
    return min(idle, key=lambda item: item.since, default=None)


class Connections:
    """
    Accepts on a listening socket, and looks after what it accepted.

    ``runner``, from :func:`runner`, is set up before :meth:`start`. ``port`` names the port in metrics and log lines;
    ``places``: how many connections there may be at once; ``context``: asked for that of each connection, None: without
    TLS. For one event loop.
    """

    def __init__(
        self, runner: aiohttp.web.AppRunner, *, port: str, places: int,
        context: collections.abc.Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._runner = runner
        self._port = port
        self._places = places
        self._context = context
        self._open: dict[asyncio.Protocol, Connection] = {}
        self._changed = asyncio.Event()
        self._complained_at = float("-inf")
        self._tasks: list[asyncio.Task[NoReturn]] = []
        metrics.CONNECTIONS.labels(port=port).set_function(lambda: len(self._open))

    def start(self, listening: socket.socket) -> None:
        self._tasks = [
            asyncio.create_task(supervision.keep(f"{self._port} port", functools.partial(self._accept, listening))),
            asyncio.create_task(supervision.keep(f"deadlines of the {self._port} port", self._sweep))]

    def stop_accepting(self) -> None:
        """Accept nothing more; what was accepted stays."""
        for task in self._tasks[:1]:
            task.cancel()

    async def close(self) -> None:
        """End every connection, at once."""
        for task in self._tasks:
            task.cancel()
        opening = {item.opening for item in self._open.values() if item.opening is not None}
        for connection in list(self._open.values()):
            connection.cut()
        if pending := {*self._tasks, *opening}:
            await asyncio.wait(pending)

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def request(self, request: aiohttp.web.Request) -> collections.abc.Iterator[Connection | None]:
        """While a request is looked at, read and answered; the connection is gone if it is None."""
        connection = self._open.get(request.protocol)
        if connection is not None:
            connection.enter(Activity.BODY)
        try:
            yield connection
        finally:
            if connection is not None:
                connection.enter(Activity.IDLE)
                self._changed.set()

    def answering(self, request: aiohttp.web.Request) -> None:
        """The request is there as a whole; from now on it is not cut off for others."""
        if (connection := self._open.get(request.protocol)) is not None:
            connection.enter(Activity.ANSWERING)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert self._runner.server is not None
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptors, or the peer is gone again
                self._complain("no connection can be accepted: %s", error)
                await asyncio.sleep(PAUSE_WITHOUT_DESCRIPTORS_SECONDS)
                continue
            try:
                await self._make_room()
            except asyncio.CancelledError:
                accepted.close()
                raise
            connection = Connection(self._runner.server(), closed=self._forget)
            self._open[connection.protocol] = connection
            connection.opening = asyncio.create_task(self._open_up(connection, accepted))

    async def _make_room(self) -> None:
        while len(self._open) >= self._places:
            self._complain("all %d places are taken", self._places)
            victim = dispensable(self._open.values(), places=self._places, now=time.monotonic())
            if victim is not None:
                self._cut(victim, reason="full")
                await asyncio.sleep(0)  # others have their turn, however fast newcomers are
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS / 10):
                    await self._changed.wait()

    async def _open_up(self, connection: Connection, accepted: socket.socket) -> None:
        context = self._context() if self._context is not None else None
        seconds = None if context is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=None if context is None else CLOSING_SECONDS)
        except OSError as error:
            metrics.HANDSHAKE_FAILURES.inc()
            logger.debug("A connection to the %s port was not established: %s", self._port, error)
        except Exception:
            accepted.close()
            logger.exception("A connection to the %s port was not established.", self._port)
        finally:
            connection.opening = None
            if connection.transport is None:  # cut, failed, or closed by the peer in the handshake
                self._forget(connection)

    async def _sweep(self) -> None:
        """Cut off what is too slow; a body has its own deadline, which is answered."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            # aiohttp closes one that is idle before; but not one that never reads its answer.
            longest = {Activity.HEAD: HEAD_SECONDS, Activity.IDLE: KEEPALIVE_SECONDS + 10}
            for connection in list(self._open.values()):
                if now - connection.since > longest.get(connection.activity, float("inf")):
                    self._cut(connection, reason="slow")

    def _cut(self, connection: Connection, *, reason: str) -> None:
        metrics.CONNECTIONS_CUT.labels(port=self._port, reason=reason).inc()
        self._forget(connection)
        connection.cut()

    def _forget(self, connection: Connection) -> None:
        self._open.pop(connection.protocol, None)
        self._changed.set()

    def _complain(self, message: str, *details: object) -> None:
        """Once a minute at most, since whoever can reach the port decides how often there is a reason."""
        if time.monotonic() - self._complained_at > 60:
            self._complained_at = time.monotonic()
            logger.warning("The %s port: " + message + ".", self._port, *details)


def runner(
    application: aiohttp.web.Application, *, shutdown_seconds: float, linger_seconds: float
) -> aiohttp.web.AppRunner:
    """
    For an application whose callers are not trusted.

    ``linger_seconds``: for the rest of a body that is refused, so that the answer is read before the end.
    """
    return aiohttp.web.AppRunner(
        application, access_log=None, logger=_http_logger(), keepalive_timeout=KEEPALIVE_SECONDS,
        lingering_time=linger_seconds, shutdown_timeout=shutdown_seconds, max_headers=HEAD_FIELDS,
        auto_decompress=False)  # a small body could become a large one


def _http_logger() -> logging.Logger:
    """For aiohttp, which would log a traceback for each request that is no HTTP, or that breaks off."""
    result = logging.getLogger(f"{__name__}.http")
    result.addFilter(_not_the_peers_fault)  # only once, as it is the same function
    return result


def _not_the_peers_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, aiohttp.http.HttpProcessingError | OSError)


def affordable(places: int) -> int:
    """
    How many of so many connections the limit of open files allows (RLIMIT_NOFILE), which is raised for them if it may.

    Says so in the log if these are fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = places + RESERVED_DESCRIPTORS
    if soft < needed and soft != resource.RLIM_INFINITY:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return places
    allowed = max(soft - RESERVED_DESCRIPTORS, soft // 2, 1)
    if allowed < places:
        logger.warning("The process may open %d files, so it holds %d connections and not %d; raise the limit of open"
                       " files (RLIMIT_NOFILE) to %d.", soft, allowed, places, needed)
    return min(places, allowed)
