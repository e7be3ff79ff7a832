"""An API server in memory, for the issuing loop: it counts what is asked for, and can be made to fail."""
import asyncio
import collections
import contextlib
import copy
import itertools
import json
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from steadyhook import settings
from steadyhook.cluster import client, paths

JsonObject = dict[str, Any]
NAMESPACE = "ns"
SETTINGS = settings.load({"POD_NAMESPACE": NAMESPACE, "STEADYHOOK_CERTIFICATE": "hook", "STEADYHOOK_SECRET": "hook-tls",
                          "STEADYHOOK_DIAL": "off"})
GONE = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}


class Cluster:
    """What :class:`client.Cluster` offers. ``fail`` may raise, or wait, before a request takes effect."""

    def __init__(self) -> None:
        self.objects: dict[str, JsonObject] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], Awaitable[None]] | None = None
        self._versions = itertools.count(1)
        self._watchers: dict[str, list[asyncio.Queue[JsonObject | None]]] = collections.defaultdict(list)

    # ---- as others see it ----

    def put(self, path: str, manifest: JsonObject) -> JsonObject:
        """Write an object, whatever was there; those who watch are told."""
        before = self.objects.get(path)
        written = copy.deepcopy(manifest)
        metadata = written.setdefault("metadata", {})
        metadata["name"] = path.rpartition("/")[2]
        if "/namespaces/" in path:
            metadata["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        old = before["metadata"] if before else {}
        metadata["uid"] = old.get("uid") or f"uid-{next(self._versions)}"
        metadata["creationTimestamp"] = old.get("creationTimestamp") or "2030-01-01T00:00:00Z"
        same_spec = before is not None and before.get("spec") == written.get("spec")
        metadata["generation"] = old.get("generation", 0) + (not same_spec)
        metadata["resourceVersion"] = str(next(self._versions))
        if before is not None and "status" in before:
            written.setdefault("status", before["status"])
        self.objects[path] = written
        self._tell(path, "MODIFIED" if before else "ADDED", written)
        return copy.deepcopy(written)

    def remove(self, path: str) -> None:
        self._tell(path, "DELETED", self.objects.pop(path))

    def _tell(self, path: str, kind: str, manifest: JsonObject) -> None:
        for collection, watchers in self._watchers.items():
            if _is_in(path, collection):
                for queue in watchers:
                    queue.put_nowait({"type": kind, "object": copy.deepcopy(manifest)})

    def end_watches(self) -> None:
        """As an API server that stops."""
        for watchers in self._watchers.values():
            for queue in watchers:
                queue.put_nowait(None)

    def watched(self) -> list[str]:
        """The collections that are watched, once for each watch."""
        return sorted(path for path, watchers in self._watchers.items() for _ in watchers)

    def count(self, method: str, part: str = "") -> int:
        return sum(one == method and part in path for one, path in self.requests)

    # ---- as the client has it ----

    async def _begin(self, method: str, path: str) -> None:
        self.requests.append((method, path))
        await asyncio.sleep(0)
        if self.fail is not None:
            await self.fail(method, path)

    def _found(self, method: str, path: str) -> JsonObject:
        if path not in self.objects:
            raise client.NotFound(method=method, path=path, status=404, message="not found")
        return self.objects[path]

    async def get(self, path: str, *, seconds: float = 10.0) -> JsonObject:
        await self._begin("GET", path)
        plain = path.partition("?")[0]
        if plain.rpartition("/")[2] in ("managernodes", "endpointslices", "webhookcertificates"):
            return {"items": self._items(plain), "metadata": {"resourceVersion": "1"}}
        return copy.deepcopy(self._found("GET", plain))

    async def find(self, path: str, *, seconds: float = 10.0) -> JsonObject | None:
        with contextlib.suppress(client.NotFound):
            return await self.get(path)
        return None

    async def find_metadata(self, path: str) -> JsonObject | None:
        found = await self.find(path)
        return {"metadata": found["metadata"]} if found else None

    async def list_metadata(self, path: str) -> list[JsonObject]:
        await self._begin("LIST", path)
        return [{"metadata": item["metadata"]} for item in self._items(path)]

    async def get_list(self, path: str, *, whole: bool) -> JsonObject:
        await self._begin("LIST", path)
        return {"items": self._items(path), "metadata": {"resourceVersion": str(next(self._versions))}}

    def _items(self, path: str) -> list[JsonObject]:
        return [copy.deepcopy(item) for one, item in self.objects.items() if _is_in(one, path)]

    async def stream(self, path: str, *, accept: str = "", silence_seconds: float) -> AsyncIterator[JsonObject]:
        await self._begin("WATCH", path)
        queue: asyncio.Queue[JsonObject | None] = asyncio.Queue()
        self._watchers[path].append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._watchers[path].remove(queue)

    async def create(self, path: str, manifest: JsonObject) -> JsonObject:
        await self._begin("POST", path)
        metadata = manifest["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{next(self._versions)}"
        if f"{path}/{name}" in self.objects:
            raise client.Conflict(method="POST", path=path, status=409, message="exists")
        return self.put(f"{path}/{name}", manifest)

    async def replace(self, path: str, manifest: JsonObject) -> JsonObject:
        await self._begin("PUT", path)
        self._check("PUT", path.removesuffix("/status"), manifest["metadata"]["resourceVersion"])
        return self.put(path.removesuffix("/status"), manifest)

    async def merge(self, path: str, patch: JsonObject) -> JsonObject:
        await self._begin("PATCH", path)
        self._check("PATCH", path, patch["metadata"]["resourceVersion"])
        return self.put(path, _merged(self._found("PATCH", path), patch))

    async def annotate(self, path: str, annotations: dict[str, str], *, seconds: float = 10.0) -> JsonObject:
        await self._begin("PATCH", path)
        return self.put(path, _merged(self._found("PATCH", path), {"metadata": {"annotations": annotations}}))

    async def delete(self, path: str, *, uid: str, resource_version: str) -> None:
        await self._begin("DELETE", path)
        self._check("DELETE", path, resource_version)
        self.remove(path)

    def _check(self, method: str, path: str, version: str) -> None:
        if self._found(method, path)["metadata"]["resourceVersion"] != version:
            raise client.Conflict(method=method, path=path, status=409, message="has changed")


def _is_in(path: str, collection: str) -> bool:
    plain, _, query = collection.partition("?")
    wanted = urllib.parse.parse_qs(query).get("fieldSelector", ["metadata.name="])[0].removeprefix("metadata.name=")
    parent, _, name = path.rpartition("/")
    if wanted and wanted != name:
        return False
    if parent == plain:
        return True
    group, _, plural = plain.rpartition("/")  # of all namespaces
    return "/namespaces/" not in plain and parent.startswith(f"{group}/namespaces/") and parent.endswith(f"/{plural}")


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return json.loads(json.dumps(result))


def certificate(name: str = "hook", *, namespace: str = NAMESPACE, **changes: Any) -> tuple[str, JsonObject]:
    """The path and the object of a WebhookCertificate whose Secrets listeners may write."""
    spec = {"secretName": f"{name}-tls", "compatibility": "Dynamiclistener", "dnsNames": [f"{name}.{namespace}.svc"],
            "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h", "renewBefore": "2400h", "settleSeconds": 0,
            **changes}
    return paths.certificate(namespace, name), {
        "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {},
        "spec": {key: value for key, value in spec.items() if value is not None}}


def of_our_own(name: str = "hook", *, namespace: str = NAMESPACE, **changes: Any) -> tuple[str, JsonObject]:
    """One that instances of ours serve."""
    return certificate(name, namespace=namespace, **{
        "compatibility": None, "privateKey": {"algorithm": "ECDSA-P256"}, **changes})


def conditions(cluster: Cluster, path: str) -> dict[str, JsonObject]:
    return {item["type"]: item for item in (cluster.objects[path].get("status") or {}).get("conditions", [])}


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(run: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """In a task, which is cancelled in the end."""
    async def begin() -> None:
        await run()

    task = asyncio.create_task(begin())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
