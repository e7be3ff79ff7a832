"""A small asynchronous client of the API server: requests, errors, and a list-watch that outlives outages."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

JsonObject = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_log = logging.getLogger(__name__)
_CONNECTIONS = 64
_WATCH_SECONDS = 300
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0)
_LINE_BYTES = 1 << 20


class ApiError(RuntimeError):
    """The API server answered with an error. `status` is its HTTP code, `reason` that of the Status object."""

    def __init__(self, method: str, path: str, status: int, body: JsonObject) -> None:
        super().__init__(f"{method} {path}: {status} {body.get('reason', '')}: {body.get('message', '')}")
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.body = body


class Api:
    """One connection pool with one identity."""

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self._server = server
        connector = aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> JsonObject:
        """Return the decoded answer. Raises `ApiError` from status 400 on, and aiohttp's errors without a server."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        async with self._session.request(
            method, self._server + path, data=data, headers=headers, params=params
        ) as response:
            content = await response.read()
            try:
                answer = json.loads(content) if content else {}
            except ValueError:
                answer = {"message": content.decode(errors="replace").strip()}
            if response.status >= 400:
                raise ApiError(method, path, response.status, answer)
            return answer if isinstance(answer, dict) else {"items": answer}

    async def list_and_watch(self, path: str, params: dict[str, str]) -> AsyncIterator[tuple[str, list[JsonObject]]]:
        """Yield ("LIST", all objects) first and after each gap, and ("ADDED"/"MODIFIED"/"DELETED", [object]) between.

        Never ends. It lists again when the watch has expired or the server was away.
        """
        failures = 0
        while True:
            try:
                listing = await self.request("GET", path, params=params)
                yield "LIST", listing.get("items") or []
                failures = 0
                version = str(listing["metadata"]["resourceVersion"])
                async for kind, thing in self._watch(path, params, version):
                    yield kind, [thing]
            except (ApiError, aiohttp.ClientError, OSError, ValueError) as error:
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                _log.info("watching %s: %s; again in %g s", path, error, delay)
                await asyncio.sleep(delay)

    async def _watch(self, path: str, params: dict[str, str], version: str) -> AsyncIterator[tuple[str, JsonObject]]:
        """Yield events until the watch expires; a stream that just ends is opened again where it ended."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_WATCH_SECONDS + 30)
        while True:
            query = {
                **params,
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(_WATCH_SECONDS),
            }
            async with self._session.get(
                self._server + path, params=query, timeout=timeout, read_bufsize=_LINE_BYTES
            ) as response:
                if response.status != 200:
                    raise ApiError("WATCH", path, response.status, {"message": await response.text()})
                async for line in response.content:
                    event = json.loads(line)
                    thing: JsonObject = event["object"]
                    if event["type"] == "ERROR":
                        raise ApiError("WATCH", path, int(thing.get("code", 0)), thing)
                    version = thing["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], thing
