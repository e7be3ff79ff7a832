"""A cluster of dictionaries, for what the command line decides and says."""
import collections.abc
import datetime
import urllib.parse
from typing import Any

import pytest
from click import testing

from steadyhook.cli import cluster, main

JsonObject = dict[str, Any]
NOW = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=datetime.UTC)
REVIEWS = "/apis/authorization.k8s.io/v1/namespaces/ns/localsubjectaccessreviews"


class Fake(cluster.Cluster):
    """
    Objects by path. A list is all objects below its path, or of every namespace, with the labels asked for.

    ``refused``: paths that may not be used; ``allowed``: whether the issuer's account may do what is asked.
    """

    def __init__(self) -> None:
        self.namespace = "ns"
        self.server = "https://fake"
        self.objects: dict[str, JsonObject] = {"/api/v1/namespaces/ns": {"metadata": {"name": "ns"}}}
        self.refused: set[str] = set()
        self.allowed = True
        self.created: list[tuple[str, JsonObject]] = []
        self.interrupt_at: str | None = None
        self._clock_ahead = None

    def now(self) -> datetime.datetime:
        return NOW

    def again(self, namespace: str) -> "Fake":
        return self

    def add(self, collection: str, name: str, **content: Any) -> JsonObject:
        namespace = collection.partition("/namespaces/")[2].partition("/")[0]
        metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", **content.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        self.objects[f"{collection}/{name}"] = {"metadata": metadata, **content}
        return self.objects[f"{collection}/{name}"]

    def get(self, path: str) -> JsonObject:
        where, _, query = path.partition("?")
        if where in self.refused:
            raise cluster.Forbidden(f"GET {path}: forbidden (403)")
        if where in self.objects:
            return self.objects[where]
        labels = dict(part.split("=", 1) for item in urllib.parse.parse_qs(query).get("labelSelector", [])
                      for part in item.split(","))
        group, _, kind = where.rpartition("/")
        items = [item for at, item in self.objects.items()
                 if at.rpartition("/")[0] == where or ("/namespaces/" not in where and at.startswith(f"{group}/namesp")
                                                       and at.split("/")[-2] == kind)]
        if not items and kind[-1:] != "s":
            raise cluster.NotFound(f"GET {path}: not found (404)")
        return {"items": [item for item in items
                          if labels.items() <= (item["metadata"].get("labels") or {}).items()]}

    def find(self, path: str) -> JsonObject | None:
        if path in self.refused:
            raise cluster.Forbidden(f"GET {path}: forbidden (403)")
        return self.objects.get(path)

    def watch(self, path: str, **_: Any) -> collections.abc.Iterator[tuple[float, str, JsonObject]]:
        return iter(())  # nothing changes

    def create(self, path: str, manifest: JsonObject) -> JsonObject:
        if path in self.refused:
            raise cluster.Forbidden(f"POST {path}: forbidden (403)")
        if path == REVIEWS:
            return {"status": {"allowed": self.allowed}}
        self.created.append((path, manifest))
        ready = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Issuing", "status": "False"}]}
        return self.add(path, manifest["metadata"]["name"], spec=manifest["spec"], status=ready)


def run(monkeypatch: pytest.MonkeyPatch, found: Fake, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors of the command on this cluster."""
    monkeypatch.setattr(cluster, "Cluster", lambda **_: found)
    done = testing.CliRunner().invoke(main.main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr
