"""Carrying out: how a refusal of the API server is taken."""
import asyncio
import datetime
import json
from typing import Any

import pytest

from core import builders
from steadyhook.cluster import applying, client, paths
from steadyhook.core import facts, reasons, steps

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
    ("3", client.Rejected), ("4", client.Conflict), (None, client.Conflict)])
def test_a_patch_that_is_refused_though_nothing_has_changed_is_no_lost_race(
    resource_version: str | None, kind: type[client.APIError]
) -> None:
    action = steps.InjectBundle(configuration=builders.configuration(), bundle=())
    with pytest.raises(kind):
        asyncio.run(applying.apply(Refusing(resource_version), action, builders.wanted(), pairs={},
                                   now=datetime.datetime.now(datetime.UTC)))


class Writable(client.Cluster):
    """An API server with one Secret that stays when it is deleted (``left``), or with nothing."""

    def __init__(self, left: client.Manifest | None = None) -> None:
        super().__init__()
        self.left = left
        self.writes: list[str] = []

    async def create(self, path: str, manifest: client.Manifest) -> client.Manifest:
        self.writes.append("create")
        if self.left is not None:
            raise client.Conflict(method="POST", path=path, status=409, message="object is being deleted")
        return manifest

    async def merge(self, path: str, patch: client.Manifest) -> client.Manifest:
        self.writes.append("merge")
        return patch

    async def delete(self, path: str, *, uid: str, resource_version: str) -> None:
        self.writes.append("delete")

    async def find(self, path: str) -> client.Manifest | None:
        return self.left


def create_authority(cluster: client.Cluster, **changes: Any) -> None:
    replaces = builders.secret("tls-ca", **changes)
    action = steps.CreateAuthority(replaces=replaces, bundle=(), reason=reasons.Reason.WRONG_TYPE)
    asyncio.run(applying.apply(cluster, action, builders.wanted(), pairs={}, now=datetime.datetime.now(datetime.UTC)))


def test_a_secret_that_does_not_go_is_told_and_is_no_lost_race() -> None:
    left = {"metadata": {"uid": "uid-tls-ca", "finalizers": ["example.io/keep"], "deletionTimestamp": "now"}}
    with pytest.raises(client.Rejected, match=r"example\.io/keep"):
        create_authority(Writable(left), recreate=True)


def test_a_secret_that_somebody_else_has_made_meanwhile_is_a_lost_race() -> None:
    with pytest.raises(client.Conflict):
        create_authority(Writable({"metadata": {"uid": "another"}}), recreate=True)


ANSWERS = [
    (403, 'secrets "x" is forbidden: User "u" cannot get resource "secrets" in API group ""', client.Forbidden),
    (403, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", client.Rejected),
    (422, "secrets \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
     client.Rejected),
    (400, 'admission webhook "a.b" denied the request: no', client.Rejected),
    (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"', client.Rejected),
    (403, 'secrets "x" is forbidden: exceeded quota: q', client.Rejected),
    (422, "the server rejected our request due to an error in our request", client.Invalid),
    (400, "unable to parse requirement", client.APIError),
    (500, "failed calling webhook: denied the request", client.Unreachable),
]


@pytest.mark.parametrize(("status", "message", "kind"), ANSWERS)
def test_a_refusal_by_admission_is_told_apart_from_a_missing_right(
    status: int, message: str, kind: type[client.APIError]
) -> None:
    body = b'{"message": %s}' % json.dumps(message).encode()
    assert type(client._error("PATCH", "/x", status, body)) is kind


class Trying(client.Cluster):
    """An API server that gives one answer to every patch."""

    def __init__(self, answer: client.APIError | None) -> None:
        super().__init__()
        self.answer = answer
        self.patches: list[tuple[str, Any]] = []

    async def patch(self, path: str, operations: Any) -> client.Manifest:
        self.patches.append((path, operations))
        if self.answer is not None:
            raise self.answer
        return {}


@pytest.mark.parametrize("kind", [None, client.Forbidden, client.Rejected, client.Unreachable, client.NotFound])
def test_a_trial_writes_nothing_and_gives_the_answer(kind: type[client.APIError] | None) -> None:
    cluster = Trying(kind(**REFUSED) if kind else None)
    bundle = (builders.ca("ours"),)
    answer = asyncio.run(applying.try_injection(cluster, builders.configuration(), bundle))
    assert answer is cluster.answer
    ((path, operations),) = cluster.patches
    assert "dryRun=All" in path
    assert operations[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "3"}
    assert [item["op"] for item in operations] == ["test", "test", "add", "test", "add"]


def test_as_long_as_there_is_no_bundle_a_trial_changes_nothing() -> None:
    cluster = Trying(None)
    asyncio.run(applying.try_injection(cluster, builders.configuration(), ()))
    assert {item["op"] for item in cluster.patches[0][1]} == {"test"}


def test_a_configuration_is_written_for_good_without_a_dry_run() -> None:
    cluster = Trying(None)
    action = steps.InjectBundle(configuration=facts.Configuration(
        kind="APIService", name="a", uid="u", resource_version="3", entries=()), bundle=())
    asyncio.run(applying.apply(cluster, action, builders.wanted(), pairs={}, now=datetime.datetime.now(datetime.UTC)))
    (written,) = [path for path, _ in cluster.patches]
    assert written == paths.configuration("APIService", "a") + "?fieldManager=steadyhook"
