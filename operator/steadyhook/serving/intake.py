"""
What a request may bring, in bytes and in seconds: the memory of a server is not in the hands of who calls it.

The size of a body does not say what it becomes. ``[{},{},...]`` takes 24 times its size as Python objects, and a body
of some MiB stops the event loop for as long as it is parsed. So a large one waits until there is memory for it, by its
size and then by what is counted in it, and large ones are parsed one after another, with as much time between them.
Small ones wait for nothing: most reviews are, and a few large ones must not keep them.
"""
import asyncio
import codecs
import collections
import collections.abc
import contextlib
import gc
import json
import time
from typing import Any

import aiohttp.web

REQUEST_BYTES = 8 * 2**20
"""A review carries the new object, of which the API server takes 3 MiB, and the old one, of which etcd takes 1.5."""

BODY_SECONDS = 15.0
"""For a body to come in; an API server sends it at once."""

WAIT_SECONDS = 5.0
"""How long a large request waits for memory before the answer is 503. An API server itself waits 10 s by default."""

SMALL_BYTES = 128 * 2**10
BODIES_BYTES = 16 * 2**20
PARSED_SMALL_BYTES = 256 * 2**10
PARSED_BYTES = 160 * 2**20


GONE = 499
"""In place of a status code where nobody is there to be answered, as nginx has it."""


class Refused(Exception):
    """The request is answered with this status and text, and not looked at."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class Budget:
    """So many bytes may be in use at once; who wants more waits, first come first served."""

    def __init__(self, total: int) -> None:
        self.free = total
        self._waiting: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()

    @contextlib.asynccontextmanager
    async def reserve(self, amount: int) -> collections.abc.AsyncIterator[None]:
        """Raises :class:`Refused` (503) after WAIT_SECONDS. ``amount`` is at most the total."""
        await self._take(amount)
        try:
            yield
        finally:
            self.free += amount
            self._wake()

    async def _take(self, amount: int) -> None:
        if not self._waiting and amount <= self.free:
            self.free -= amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (amount, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.free += amount  # given in the very moment in which it was given up
            else:
                with contextlib.suppress(ValueError):  # its turn came too late
                    self._waiting.remove(entry)
            self._wake()
            if isinstance(error, TimeoutError):
                raise Refused(503, f"there was no memory for this request within {WAIT_SECONDS:g} s, as other large"
                                   " ones are being answered; try again") from error
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= amount
                turn.set_result(None)


class Intake:
    """The memory for the requests of one listener."""

    def __init__(self) -> None:
        self._bodies = Budget(BODIES_BYTES)
        self._parsed = Budget(PARSED_BYTES)
        self._turn = asyncio.Lock()
        self._next_at = 0.0  # when the next large body may be parsed

    @contextlib.asynccontextmanager
    async def body(self, request: aiohttp.web.Request) -> collections.abc.AsyncIterator[bytes]:
        """
        The body, for as long as its memory is reserved; ``request.read()`` gives it again.

        Raises :class:`Refused`.
        """
        length = _check_head(request)
        async with contextlib.AsyncExitStack() as stack:
            if length > SMALL_BYTES:
                await stack.enter_async_context(self._bodies.reserve(length))
            yield await _read(request)

    @contextlib.asynccontextmanager
    async def parse(self, body: bytes) -> collections.abc.AsyncIterator[Any]:
        """The JSON in the body, for as long as its memory is reserved. Raises :class:`Refused`."""
        needed = weigh(body)
        if needed > PARSED_BYTES:
            raise Refused(413, f"this JSON of {len(body)} bytes would take {needed // 2**20} MiB of memory, expected at"
                               f" most {PARSED_BYTES // 2**20} MiB; it holds too many small values")
        async with contextlib.AsyncExitStack() as stack:
            if needed > PARSED_SMALL_BYTES:
                await stack.enter_async_context(self._parsed.reserve(needed))
            yield loads(body) if len(body) <= SMALL_BYTES else await self._parse_large(body)

    async def _parse_large(self, body: bytes) -> Any:
        # Not in a thread: the parser is one call in C, and holds the interpreter's lock until it is through.
        async with self._turn:
            await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
            began = time.monotonic()
            try:
                return loads(body)
            finally:
                ended = time.monotonic()
                self._next_at = ended + (ended - began)


def weigh(body: bytes) -> int:
    """
    About how many bytes of memory the JSON takes once it is parsed, and rather too many than too few.

    Counted without parsing: brackets and commas, those within strings too. The sizes are CPython's.
    """
    empty = body.count(b"{}"), body.count(b"[]")
    filled = body.count(b"{") - empty[0], body.count(b"[") - empty[1]
    commas = body.count(b",")
    containers = sum(empty) + sum(filled)
    scalars = max(0, commas + sum(filled) - containers)
    more_keys = max(0, body.count(b":") - filled[0])  # the smallest object has room for the first
    return (len(body) + 64 * empty[0] + 56 * empty[1] + 184 * filled[0] + 88 * filled[1] + 8 * commas + 48 * scalars
            + 84 * more_keys)


def loads(body: bytes) -> Any:
    """The JSON in the body, which is UTF-8 (RFC 8259). Raises :class:`Refused` (400)."""
    # The collector would look through all that is there already again and again, for nothing: parsing makes no cycles.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(body.decode())
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise Refused(400, f"the body is not JSON: {error}") from None
    finally:
        if collecting:
            gc.enable()


def _check_head(request: aiohttp.web.Request) -> int:
    """The length of the body. All of this is refused before any of the body is read."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise Refused(415, f"the body has the Content-Encoding {encoding!r}, expected none")
    charset = request.charset
    if charset is not None:
        try:
            codecs.lookup(charset)
        except (LookupError, ValueError):
            raise Refused(400, f"the charset is {charset!r}, expected utf-8") from None
    length = request.content_length
    if length is None:
        if request.can_read_body:
            raise Refused(411, "the length of the body is not given, expected Content-Length")
        return 0
    if length > REQUEST_BYTES:
        raise Refused(413, f"the body is of {length} bytes, expected at most {REQUEST_BYTES}")
    return length


async def _read(request: aiohttp.web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:g} s") from None
    except aiohttp.web.RequestPayloadError as error:
        raise Refused(400, f"the body cannot be read: {error}") from None
    except OSError as error:
        raise Refused(GONE, f"the connection is lost: {error}") from None
