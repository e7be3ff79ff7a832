"""The edge to the API server: paths and dictionaries in, dictionaries and typed errors out, by pykube-ng."""
import base64
import collections.abc
import contextlib
import json
import pathlib
import tempfile
import time
from typing import Any

import pykube
import requests
import yaml

Manifest = dict[str, Any]
REQUEST_SECONDS = 10.0
PATIENCE = 5  # how often to try while the API server has too much to do, or has just got a definition
MERGE_PATCH = "application/merge-patch+json"
NAMESPACE_FILE = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Failed(Exception):
    """Nothing could be looked at or done; the text says why and what to do."""


class NotFound(Failed):
    """404."""


class Forbidden(Failed):
    """403."""


class Conflict(Failed):
    """409: it has changed since it was looked at."""


class Cluster:
    """The cluster of a kubeconfig, or of the pod that this runs in. Raises :class:`Failed` if there is none."""

    def __init__(self, *, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
        self._given = (kubeconfig, context)
        self._folder = tempfile.TemporaryDirectory(prefix="steadyhook-")  # removed at the end of the process
        try:
            given = kubeconfig is not None
            config = pykube.KubeConfig.from_file(kubeconfig) if given else pykube.KubeConfig.from_env()
            _keep_private(config.doc, pathlib.Path(self._folder.name))
            if context is not None:
                config.set_current_context(context)
            self.namespace = namespace or config.namespace
            self._api = pykube.HTTPClient(config, timeout=REQUEST_SECONDS)
            self.server = config.cluster["server"]
        except (pykube.exceptions.PyKubeError, OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise Failed(f"there is no cluster to look at: {error or type(error).__name__}; set KUBECONFIG, or give"
                         " --kubeconfig and --context") from error

    def again(self, namespace: str) -> "Cluster":
        """The same cluster with connections of its own, for another thread or namespace."""
        kubeconfig, context = self._given
        return Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)

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


def _location(path: str) -> dict[str, str]:
    """A path as pykube-ng takes it."""
    parts = path.split("/")
    depth = 3 if path.startswith("/api/") else 4  # /api/v1, /apis/GROUP/VERSION
    return {"version": "/".join(parts[:depth]), "url": "/".join(parts[depth:])}


def _keep_private(config: Manifest, folder: pathlib.Path) -> None:
    """
    Put certificates and keys that a kubeconfig holds into files that only this user can read.

    pykube-ng would write them to the temporary folder itself, for everybody to read, and leave them there.
    """
    entries = [(item, kind) for kind in ("cluster", "user") for item in config.get(f"{kind}s") or []]
    for number, (item, kind) in enumerate(entries):
        held = item.get(kind) or {}
        for key in [key for key in held if key.endswith("-data") and held[key]]:
            path = folder / f"{number}-{key.removesuffix('-data')}"
            path.write_bytes(base64.b64decode(held.pop(key)))
            held[key.removesuffix("-data")] = str(path)
