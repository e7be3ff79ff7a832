"""Carrying out: how a refusal of the API server is taken."""
import asyncio
import datetime
from typing import Any

import pytest

from core import builders
from steadyhook.cluster import applying, client
from steadyhook.core import steps

REFUSED = {"method": "PATCH", "path": "/x", "status": 422, "message": "the server rejected our request"}


class Refusing(client.Cluster):
    """An API server that answers every patch with 422, and has an object of this resourceVersion (None: no object)."""

    def __init__(self, resource_version: str | None) -> None:
        super().__init__()
        self._resource_version = resource_version

    async def patch(self, path: str, operations: Any) -> client.Manifest:
        raise client.Invalid(**REFUSED)

    async def find(self, path: str) -> client.Manifest | None:
        return {"metadata": {"resourceVersion": self._resource_version}} if self._resource_version else None


@pytest.mark.parametrize(("resource_version", "kind"), [
    ("3", client.Forbidden), ("4", client.Conflict), (None, client.Conflict)])
def test_a_patch_that_is_refused_though_nothing_has_changed_is_no_lost_race(
    resource_version: str | None, kind: type[client.APIError]
) -> None:
    action = steps.InjectBundle(configuration=builders.configuration(), bundle=())
    with pytest.raises(kind):
        asyncio.run(applying.apply(Refusing(resource_version), action, builders.wanted(), pairs={},
                                   now=datetime.datetime.now(datetime.UTC)))
