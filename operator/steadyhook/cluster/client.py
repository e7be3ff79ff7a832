"""A small client over ``kubernetes.aio``: paths and dictionaries in, dictionaries and typed errors out."""
import collections.abc
import contextlib
import json
import re
import types
from typing import Any, Self

import aiohttp
from kubernetes import aio

from steadyhook.cluster import clock

Manifest = dict[str, Any]
REQUEST_SECONDS = 10.0
"""How long one request may take; an API server that needs longer is treated as gone."""

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
ONE_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class APIError(Exception):
    """The API server refused, or could not be reached. ``status`` is the HTTP status, 0 if there was none."""

    def __init__(self, *, method: str, path: str, status: int, message: str) -> None:
        super().__init__(f"{method} {path}: {message}" + (f" ({status})" if status else ""))
        self.method = method
        self.path = path
        self.status = status
        self.message = message


class NotFound(APIError):
    """404."""


class Conflict(APIError):
    """409: the object has changed since it was read, or exists already. Observe and decide again."""


class Forbidden(APIError):
    """403: a permission is missing."""


class Rejected(APIError):
    """Permitted, but refused by admission: a policy or a webhook of somebody's, a quota, a Pod Security Standard."""


class Invalid(APIError):
    """422: the object, or a test in a JSON patch, was refused."""


class Malformed(APIError):
    """No request was sent: a name cannot be a segment of a path, and would lead to another object."""


class Unreachable(APIError):
    """No answer, one that is not JSON, 5xx or 429: the state of the object is not known."""


class Cluster:
    """An asynchronous context manager; to be used in the event loop in which it was entered."""

    def __init__(self) -> None:
        self._api: aio.client.ApiClient | None = None
        self.clock = clock.Clock()

    async def __aenter__(self) -> Self:
        configuration = aio.client.Configuration()
        # Go accepts a CA without the key usage extension, and clusters have such; Python 3.13 would not.
        configuration.disable_strict_ssl_verification = True
        try:
            aio.config.load_incluster_config(client_configuration=configuration)
        except aio.config.ConfigException:
            await aio.config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = 0  # no limit: a watch holds its connection for minutes
        self._api = aio.client.ApiClient(configuration=configuration)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._api is not None:
            await self._api.close()

    async def get(self, path: str, *, seconds: float = REQUEST_SECONDS) -> Manifest:
        """The object, or the list, within ``seconds``. Raises :class:`APIError`."""
        return await self._request("GET", path, seconds=seconds)

    async def list_metadata(self, path: str) -> list[Manifest]:
        """The objects' metadata alone, however large they are. Raises :class:`APIError`."""
        return list((await self._request("GET", path, accept=METADATA)).get("items") or [])  # null when empty

    async def get_list(self, path: str, *, whole: bool) -> Manifest:
        """A list, or a page of one, as it is: whole objects, or their metadata alone. Raises :class:`APIError`."""
        return await self._request("GET", path, accept=JSON if whole else METADATA)

    async def find(self, path: str, *, seconds: float = REQUEST_SECONDS) -> Manifest | None:
        """The object, within ``seconds``, or None if there is none. Raises :class:`APIError`."""
        try:
            return await self.get(path, seconds=seconds)
        except NotFound:
            return None

    async def find_metadata(self, path: str) -> Manifest | None:
        """The object's metadata alone, or None if there is none. Raises :class:`APIError`."""
        try:
            return await self._request("GET", path, accept=ONE_METADATA)
        except NotFound:
            return None

    async def stream(
        self, path: str, *, accept: str = JSON, silence_seconds: float
    ) -> collections.abc.AsyncIterator[Manifest]:
        """
        The events of a watch, until the API server ends it. To be closed (``contextlib.aclosing``).

        Raises :class:`APIError`; :class:`Unreachable` also when nothing has come for ``silence_seconds``.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence_seconds)
        try:
            answer = await self._send("GET", path, None, content_type=JSON, accept=accept, timeout=limits)
            with contextlib.closing(answer.response):  # a connection in the middle of an answer is of no more use
                if answer.status >= 400:
                    raise _error("WATCH", path, answer.status, await answer.read())
                async for line in answer.response.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, aio.config.ConfigException) as error:
            raise Unreachable(method="WATCH", path=path, status=0, message=str(error) or type(error).__name__
                              ) from error

    async def create(self, path: str, manifest: Manifest) -> Manifest:
        """Raises :class:`Conflict` when it exists already."""
        return await self._request("POST", path, manifest)

    async def replace(self, path: str, manifest: Manifest) -> Manifest:
        """Write the whole object; it must carry the resourceVersion that was read. Raises :class:`Conflict`."""
        assert manifest["metadata"].get("resourceVersion"), "an unconditional write"
        return await self._request("PUT", path, manifest)

    async def merge(self, path: str, patch: Manifest) -> Manifest:
        """A merge patch that carries the resourceVersion that was read. Raises :class:`Conflict`."""
        assert patch["metadata"].get("resourceVersion"), "an unconditional write"
        return await self._request("PATCH", path, patch, content_type=MERGE_PATCH)

    async def annotate(
        self, path: str, annotations: dict[str, str], *, seconds: float = REQUEST_SECONDS
    ) -> Manifest:
        """Set annotations whatever the object holds: the one write that carries no resourceVersion."""
        return await self._request("PATCH", path, {"metadata": {"annotations": annotations}}, content_type=MERGE_PATCH,
                                   seconds=seconds)

    async def patch(self, path: str, operations: collections.abc.Sequence[Manifest]) -> Manifest:
        """A JSON patch that begins with a test of what was read. Raises :class:`Invalid` when a test fails."""
        assert operations[0]["op"] == "test", "an unconditional write"
        return await self._request("PATCH", path, list(operations), content_type=JSON_PATCH)

    async def delete(self, path: str, *, uid: str, resource_version: str) -> None:
        """Delete exactly what was read. Raises :class:`Conflict`."""
        await self._request("DELETE", path, {"preconditions": {"uid": uid, "resourceVersion": resource_version}})

    async def _request(
        self, method: str, path: str, body: Any = None, *, content_type: str = JSON, accept: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> Manifest:
        try:
            response = await self._send(method, path, body, content_type=content_type, accept=accept, timeout=seconds)
            text = await response.read()
        # The ConfigException is for a token file that is empty at the moment: a kubelet that is writing it anew.
        except (aiohttp.ClientError, TimeoutError, OSError, aio.config.ConfigException) as error:
            raise Unreachable(method=method, path=path, status=0, message=str(error) or type(error).__name__
                              ) from error
        if response.status >= 400:
            raise _error(method, path, response.status, text)
        return _manifest(method, path, response.status, text)

    async def _send(
        self, method: str, path: str, body: Any, *, content_type: str, accept: str,
        timeout: float | aiohttp.ClientTimeout,
    ) -> Any:
        assert self._api is not None, "not entered"
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "steadyhook"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        sent = self.clock.read()
        response = await self._api.rest_client.request(
            method, self._api.configuration.host + path, headers=headers, body=body, _request_timeout=timeout)
        self.clock.compare(response.headers.get("Date"), sent=sent, received=self.clock.read())
        return response


def _manifest(method: str, path: str, status: int, text: bytes) -> Manifest:
    """The object in an answer. Raises :class:`Unreachable` for what no API server sends: a proxy has answered."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise Unreachable(method=method, path=path, status=status, message="expected an object as JSON, found"
                          f" {text[:40]!r}; is there a proxy in front of the API server?")
    return manifest


_UNAUTHORIZED = re.compile(r'User "[^"]*" cannot ')
_ERRORS: dict[int, type[APIError]] = {
    401: Unreachable, 403: Forbidden, 404: NotFound, 409: Conflict, 422: Invalid, 429: Unreachable,
}


def _error(method: str, path: str, status: int, text: bytes) -> APIError:
    try:
        message = json.loads(text).get("message", "")
    except (ValueError, AttributeError):
        message = text[:200].decode("utf-8", "replace")
    kind = _ERRORS.get(status, Unreachable if status >= 500 else APIError)
    if 400 <= status < 500 and _is_by_admission(status, message):
        kind = Rejected
    return kind(method=method, path=path, status=status, message=message)


def _is_by_admission(status: int, message: str) -> bool:
    """
    Whether it was permitted and refused all the same, as far as the text tells: nothing else in the answer does.

    Authorization says ``User "..." cannot get resource ...``, a policy ``denied request``, a webhook ``denied the
    request``; what is built in (quotas, Pod Security) answers 403 in words of its own.
    """
    denied = "denied request" in message or "denied the request" in message
    return denied or (status == 403 and not _UNAUTHORIZED.search(message))
