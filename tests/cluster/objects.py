"""An API server that is a dictionary, for what is read."""
import collections
from collections.abc import Mapping
from typing import Any

from steadyhook.cluster import client


class Objects(client.Cluster):
    """Answers with the objects by path, or raises the error that is there; ``asked`` counts the requests."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        super().__init__()
        self.objects = dict(objects)
        self.asked: collections.Counter[str] = collections.Counter()

    async def get(self, path: str, *, seconds: float = 10.0) -> client.Manifest:
        self.asked[path] += 1
        found = self.objects.get(path)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise client.NotFound(method="GET", path=path, status=404, message="not found")
        return found

    async def list_metadata(self, path: str) -> list[client.Manifest]:
        try:
            return list((await self.get(path))["items"])
        except client.NotFound:
            return []


def error(kind: type[client.APIError], status: int = 0) -> client.APIError:
    return kind(method="GET", path="/x", status=status, message="no")
