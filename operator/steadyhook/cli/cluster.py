"""The edge to the API server: paths and dictionaries in, dictionaries and typed errors out, by pykube-ng."""
import base64
import collections.abc
import contextlib
import datetime
import email.utils
import json
import os
import pathlib
import time
from typing import Any

import pykube
import requests
import yaml

Manifest = dict[str, Any]
REQUEST_SECONDS = 10.0
CLOCK_DIFFERS = datetime.timedelta(seconds=5)  # less is the time of an answer, and what the Date header leaves out
PATIENCE = 5  # how often to try while the API server has too much to do, or has just got a definition
MERGE_PATCH = "application/merge-patch+json"


class Failed(Exception):
    """Nothing could be looked at or done; the text says why and what to do."""


class NotFound(Failed):
    """404."""


class Forbidden(Failed):
    """403."""


class Conflict(Failed):
    """409: it has changed since it was looked at."""


class Credentials:
    """
    What a kubeconfig or the pod's ServiceAccount holds; certificates and keys are in memory for as long as this lives.

    pykube-ng would write what a kubeconfig holds to the temporary folder, for everybody to read, and leave it there.
    A file of our own would stay after a SIGKILL; anonymous memory goes with the process, however that ends.
    """

    def __init__(self, kubeconfig: str | None) -> None:
        read = pykube.KubeConfig.from_env() if kubeconfig is None else pykube.KubeConfig.from_file(kubeconfig)
        self._document: Manifest = read.doc
        self._path: pathlib.Path | None = read.kubeconfig_path
        self._descriptors: list[int] = []
        for kind in ("cluster", "user"):
            for item in self._document.get(f"{kind}s") or []:
                held = item.get(kind) or {}
                for key in [key for key in held if key.endswith("-data") and held[key]]:
                    held[key.removesuffix("-data")] = self._in_memory(base64.b64decode(held.pop(key)))

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", ()):
            os.close(descriptor)

    def config(self, context: str | None) -> pykube.KubeConfig:
        """As pykube-ng takes it. Raises :class:`Failed` for a context that is not there."""
        known = [item["name"] for item in self._document.get("contexts") or []]
        if context is not None and context not in known:
            raise Failed(f"kubeconfig {self._path or 'of the pod'} has no context {context!r}, expected one of:"
                         f" {', '.join(known) or '(there is none)'}; give another one by --context")
        config = pykube.KubeConfig(self._document, current_context=context)
        config.filepath = self._path  # file names in it are relative to its folder
        return config

    def _in_memory(self, content: bytes) -> str:
        """The path of a file in anonymous memory (memfd_create(2)), for OpenSSL to read."""
        if not hasattr(os, "memfd_create"):
            raise OSError("memfd_create(2) is missing, without which a private key would have to be written to a disk;"
                          " run on Linux, or name the files of certificates and keys in the kubeconfig")
        descriptor = os.memfd_create("steadyhook-credentials")
        self._descriptors.append(descriptor)
        os.write(descriptor, content)
        return f"/proc/self/fd/{descriptor}"


class Cluster:
    """The cluster of a kubeconfig, or of the pod that this runs in. Raises :class:`Failed` if there is none."""

    def __init__(
        self, *, kubeconfig: str | None, context: str | None, namespace: str | None,
        credentials: "Credentials | None" = None,
    ) -> None:
        self._given = (kubeconfig, context)
        self._clock_ahead: datetime.timedelta | None = None
        try:
            self._credentials = credentials or Credentials(kubeconfig)
            config = self._credentials.config(context)
            self.namespace = namespace or config.namespace
            self._api = pykube.HTTPClient(config, timeout=REQUEST_SECONDS)
            self.server = config.cluster["server"]
        except (pykube.exceptions.PyKubeError, OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise Failed(f"there is no cluster to look at: {error or type(error).__name__}; set KUBECONFIG, or give"
                         " --kubeconfig and --context") from error

    def again(self, namespace: str) -> "Cluster":
        """The same cluster with connections of its own, for another thread or namespace."""
        kubeconfig, context = self._given
        return Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace, credentials=self._credentials)

    @property
    def clock_ahead(self) -> datetime.timedelta | None:
        """How far this machine's clock is ahead of the API server's, by its last answer; None before that."""
        return self._clock_ahead

    def now(self) -> datetime.datetime:
        """The time by the API server's clock, by which its objects have to be judged."""
        ahead = self._clock_ahead
        local = datetime.datetime.now(datetime.UTC)
        return local - ahead if ahead is not None and abs(ahead) >= CLOCK_DIFFERS else local

    def get(self, path: str) -> Manifest:
        """The object, or the list."""
        return dict(self._request("get", path))

    def find(self, path: str) -> Manifest | None:
        """The object, or None."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def list(self, path: str) -> list[Manifest]:
        """The objects of a list."""
        return list(self.get(path).get("items") or [])

    def create(self, path: str, manifest: Manifest) -> Manifest:
        return dict(self._request("post", path, body=manifest))

    def replace(self, path: str, manifest: Manifest) -> Manifest:
        """Update it, if it has not changed since the resourceVersion in the manifest. Raises :class:`Conflict`."""
        return dict(self._request("put", path, body=manifest))

    def merge(self, path: str, patch: Manifest) -> Manifest:
        """A merge patch (RFC 7386); with a resourceVersion in it, it is refused if the object has changed."""
        return dict(self._request("patch", path, body=patch, content_type=MERGE_PATCH))

    def delete(self, path: str, *, uid: str, resource_version: str | None = None) -> None:
        """Delete exactly what was looked at; without a resourceVersion, whatever has become of it."""
        preconditions = {"uid": uid, **({"resourceVersion": resource_version} if resource_version else {})}
        self._request("delete", path, body={"preconditions": preconditions})

    def watch(
        self, path: str, *, seconds: float, selector: str = "", resource_version: str = "",
    ) -> collections.abc.Iterator[tuple[float, str, Manifest]]:
        """
        Each change for so many seconds: when, since the start, of which type, and the object.

        Without a resourceVersion what is there comes first, as ADDED.
        """
        began = time.monotonic()
        params = {"watch": "true", "fieldSelector": selector, "resourceVersion": resource_version,
                  "timeoutSeconds": str(max(1, round(seconds)))}
        try:
            response = self._api.get(**_location(path), params=params, stream=True,
                                     timeout=(REQUEST_SECONDS, seconds + REQUEST_SECONDS))
            with contextlib.closing(response):
                self._check("get", path, response)
                for line in response.iter_lines():
                    change = json.loads(line)
                    if change["type"] == "ERROR" or time.monotonic() - began > seconds:
                        return
                    yield time.monotonic() - began, change["type"], change["object"]
        except requests.exceptions.RequestException as error:
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, *, body: Manifest | None = None, content_type: str | None = None) -> Any:
        arguments: dict[str, Any] = _location(path)
        if body is not None:
            arguments |= {"data": json.dumps(body), "headers": {"Content-Type": content_type or "application/json"}}
        try:
            for _ in range(PATIENCE):
                response = getattr(self._api, method)(**arguments)
                self._clock_ahead = ahead(response.headers.get("Date"), datetime.datetime.now(datetime.UTC))
                if response.status_code != requests.codes.too_many_requests:
                    break
                time.sleep(1.0)  # Retry-After of an API server is a second
            self._check(method, path, response)
            return response.json()
        except requests.exceptions.JSONDecodeError as error:
            raise Failed(f"{self.server} answered {path} with what is no JSON; is it an API server?") from error
        except requests.exceptions.RequestException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Failed:
        return Failed(f"{self.server} does not answer: {error}; is the cluster up, and is this the right context?")

    def _check(self, method: str, path: str, response: requests.Response) -> None:
        if response.status_code < 400:
            return
        try:
            message = response.json()["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:200]
        kinds: dict[int, type[Failed]] = {403: Forbidden, 404: NotFound, 409: Conflict}
        remedy = {401: "; log in again", 403: "; ask for this right, or use an account that has it"}
        raise kinds.get(response.status_code, Failed)(
            f"{method.upper()} {path}: {message} ({response.status_code}){remedy.get(response.status_code, '')}")


def ahead(date: str | None, local: datetime.datetime) -> datetime.timedelta | None:
    """How far the local time is ahead of a Date header (RFC 9110, 6.6.1), which knows whole seconds; None without."""
    try:
        sent = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return local - sent.replace(tzinfo=sent.tzinfo or datetime.UTC) - datetime.timedelta(seconds=0.5)


def _location(path: str) -> dict[str, str]:
    """A path as pykube-ng takes it."""
    parts = path.split("/")
    depth = 3 if path.startswith("/api/") else 4  # /api/v1, /apis/GROUP/VERSION
    return {"version": "/".join(parts[:depth]), "url": "/".join(parts[depth:])}
