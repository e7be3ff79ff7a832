"""
Watching: what changes in a collection, told by a coroutine of the loop of whoever asks.

List, then watch from there; when the watch has expired, list again. A kopf operator does the same with a thread, a
session and some MiB for each; here a watch costs a connection and a task, so that there can be a thousand.
"""
import asyncio
import asyncio.sslproto
import collections.abc
import contextlib
import logging
import random
import urllib.parse

from steadyhook.cluster import client

logger = logging.getLogger(__name__)

Listed = collections.abc.Callable[[list[client.Manifest]], None]
Changed = collections.abc.Callable[[str, client.Manifest], None]
"""ADDED, MODIFIED or DELETED, and the object."""

WATCH_SECONDS = 480.0
"""How long one watch lasts, about; then it goes on where it was."""
SILENCE_SECONDS = 150.0
"""The API server sends a bookmark each minute: with none for so long the connection is dead, whatever TCP says."""
PAGE = 250
LONGEST_PAUSE_SECONDS = 10.0
LONGEST_REFUSED_SECONDS = 300.0  # without the right to watch
GONE = 410  # the watch is too far behind: list again

TLS_BUFFER_BYTES = 16 * 1024
# asyncio's 256 KiB for each TLS connection, which a watch never fills, are 290 MiB for a thousand watches; with this
# it is 52 KiB for each connection. It is an attribute that the documentation does not name: test_watching looks at it.
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES


class Watch:
    """
    One collection, or the one object in it that has ``name``.

    ``listed`` is told all that is there, at first and after each gap; ``changed`` each change after that.
    ``whole``: the objects as they are, else their metadata alone (of a Secret never the content). ``kept``: what of
    each is kept while a long list comes in, page by page.
    """

    def __init__(
        self, cluster: client.Cluster, path: str, *, name: str | None = None, whole: bool = False,
        listed: Listed, changed: Changed,
        kept: collections.abc.Callable[[client.Manifest], client.Manifest] = lambda item: item,
    ) -> None:
        self._cluster = cluster
        self._path = path
        self._selector = {} if name is None else {"fieldSelector": f"metadata.name={name}"}
        self._whole = whole
        self._listed = listed
        self._kept = kept
        self._changed = changed
        self._version: str | None = None
        self._failures = 0
        self.current = False
        """Whether it has listed, and nothing has been missed since, as far as is known."""
        self.refusal: str | None = None
        """Why the API server does not let it watch, None if it does, or is away."""

    async def run(self) -> None:
        """Until cancelled; an API server that is away, or refuses, is asked again for ever, less and less often."""
        try:
            while True:
                try:
                    await self._go_on()
                    self._failures = 0
                    pause = random.uniform(0.5, 1.5)
                except client.APIError as error:
                    pause = self._note(error)
                except Exception:
                    self._version = None  # else the same event would come again, for ever, and none after it
                    raise
                await asyncio.sleep(pause)
        finally:
            self.current = False

    async def _go_on(self) -> None:
        """List if need be, then watch until the API server ends it."""
        if self._version is None:
            await self._list()
        query = {**self._selector, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version,
                 "timeoutSeconds": f"{WATCH_SECONDS * random.uniform(0.75, 1.25):.0f}"}
        accept = client.JSON if self._whole else client.ONE_METADATA
        async with contextlib.aclosing(self._cluster.stream(  # type: ignore[type-var]
                self._url(query), accept=accept, silence_seconds=SILENCE_SECONDS)) as events:
            self.current, self.refusal = True, None
            async for event in events:
                self._take_in(event)

    def _take_in(self, event: client.Manifest) -> None:
        thing = event["object"]
        if event["type"] == "ERROR":
            raise client.APIError(method="WATCH", path=self._path, status=int(thing.get("code", 0)),
                                  message=str(thing.get("message", "")))
        self._failures = 0
        if event["type"] != "BOOKMARK":
            self._changed(event["type"], thing)
        self._version = thing["metadata"]["resourceVersion"]

    async def _list(self) -> None:
        items: list[client.Manifest] = []
        query: dict[str, str | None] = {**self._selector, "limit": str(PAGE)}
        while True:
            page = await self._cluster.get_list(self._url(query), whole=self._whole)
            items += map(self._kept, page.get("items") or [])
            following = page["metadata"].get("continue")
            if not following:
                break
            query["continue"] = following
        self._listed(items)
        self._version = page["metadata"]["resourceVersion"]
        self.current = True

    def _url(self, query: collections.abc.Mapping[str, str | None]) -> str:
        return f"{self._path}?{urllib.parse.urlencode({k: v for k, v in query.items() if v is not None})}"

    def _note(self, error: client.APIError) -> float:
        """How long to wait after an error."""
        if not isinstance(error, client.Unreachable):
            self._version = None  # 410 and whatever else: what was missed is found by listing
        if error.status == GONE:
            return random.uniform(0.0, 1.0)
        self.current = False
        self._failures += 1
        often = self._failures & (self._failures - 1)  # 0 at 1, 2, 4, 8, ...: the same line not for ever
        logger.log(logging.DEBUG if often else logging.WARNING,
                   "%s cannot be watched (%d times in a row): %s", self._path, self._failures, error)
        refused = not isinstance(error, client.Unreachable)
        self.refusal = str(error) if refused else None
        longest = LONGEST_REFUSED_SECONDS if refused else LONGEST_PAUSE_SECONDS
        first = 5.0 if refused else 0.5
        return min(longest, first * 2.0 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)
