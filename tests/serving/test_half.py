"""The serving half as a whole, against a stand-in for the API client: what it does when reads and watch disagree."""
import asyncio
import copy
import datetime
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from steadyhook import settings, supervision
from steadyhook.cluster import client, embedding, paths
from steadyhook.core import policy, reasons, serving
from steadyhook.pki import certificates, minting, secrets
from steadyhook.serving import contact, half, issuers

NAMESPACE = "shop"
ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "NODE_NAME": "node-1", "STEADYHOOK_SERVICE": ""}
SECRET = paths.secret(NAMESPACE, "steadyhook-webhook-tls")


class Objects(client.Cluster):
    """Objects, or errors, by path."""

    def __init__(self) -> None:
        super().__init__()
        self.by_path: dict[str, client.Manifest | client.APIError] = {}
        self.reads = 0

    async def get(self, path: str, *, seconds: float = 10.0) -> client.Manifest:
        await asyncio.sleep(0)
        self.reads += 1
        found = self.by_path.get(path)
        if found is None:
            raise client.NotFound(method="GET", path=path, status=404, message="not found")
        if isinstance(found, client.APIError):
            raise found
        return copy.deepcopy(found)


WANTED = policy.parse(
    {"secretName": "steadyhook-webhook-tls", "dnsNames": ["hook.shop.svc"]}, namespace=NAMESPACE, name="one")
NOW = datetime.datetime.now(datetime.UTC)
SIGNER = minting.mint_authority(WANTED, now=NOW)


def leaf(version: str) -> client.Manifest:
    """The leaf Secret at a version, each time with another leaf."""
    pair = minting.mint_leaf(WANTED, signer=SIGNER, now=NOW)
    trusted = certificates.parse(SIGNER.certificate_pem)
    return {"metadata": {"name": WANTED.secret_name, "namespace": NAMESPACE, "uid": "u", "resourceVersion": version,
                         "annotations": {secrets.READY_MARK: certificates.parse(pair.certificate_pem)[0].fingerprint,
                                         secrets.GENERATION: "1"}},
            "type": secrets.SECRET_TYPE, "data": secrets.leaf_data(pair, trusted)}


FORBIDDEN = client.Forbidden(method="GET", path=SECRET, status=403, message="you may not")


class Server(half.AdmissionServer):
    """A half whose watch runs until it is interrupted, and tells what the test lets it tell."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(settings=settings.load(ENVIRONMENT))
        self._cluster = objects
        self.interruptions: list[str] = []
        self._watching = embedding.EmbeddedOperator(
            name="none", registry=embedding.registry(), namespace=NAMESPACE, configure=lambda settings: None)
        self._watching.interrupt = self.interruptions.append  # type: ignore[method-assign]

    @property
    def told(self) -> serving.Verdict:
        return self._reporter._verdict


def run(test: Callable[[Server, Objects], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        objects = Objects()
        await test(Server(objects), objects)

    asyncio.run(asyncio.wait_for(within(), 20))


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "WATCH_DELAY_SECONDS", 0.0)


def test_a_watch_that_does_not_tell_what_a_read_finds_is_started_again_and_the_read_is_judged() -> None:
    async def test(server: Server, objects: Objects) -> None:
        former, latter = leaf("1"), leaf("2")
        server._see_told(former)
        objects.by_path[SECRET] = latter
        await server._read_regularly()
        assert len(server.interruptions) == 1
        assert "told of version 1" in server.interruptions[0] and "is at 2" in server.interruptions[0]
        served = server._keeper.verdict.served if server._keeper.verdict else None
        assert served is not None
        assert served.certificate.fingerprint == latter["metadata"]["annotations"][secrets.READY_MARK]

    run(test)


def test_a_deletion_that_the_watch_has_missed_is_noticed() -> None:
    async def test(server: Server, objects: Objects) -> None:
        server._see_told(leaf("1"))
        await server._read_regularly()
        assert len(server.interruptions) == 1
        assert (server.told.phase, server.told.reason) == (serving.Phase.DEGRADED, reasons.Reason.SECRET_MISSING)

    run(test)


def test_a_watch_that_agrees_with_the_read_is_left_alone() -> None:
    async def test(server: Server, objects: Objects) -> None:
        objects.by_path[SECRET] = leaf("1")
        server._see_told(leaf("1"))
        await server._read_regularly()
        assert server.interruptions == []
        assert objects.reads == 1

    run(test)


def test_a_refused_read_is_contact_all_the_same_and_is_told_until_a_read_succeeds() -> None:
    async def test(server: Server, objects: Objects) -> None:
        manifest = leaf("1")
        server._see_told(manifest)
        server._contact._last -= contact.LONGEST_SILENCE_SECONDS
        assert server._contact.trouble() is not None
        objects.by_path[SECRET] = FORBIDDEN
        with pytest.raises(client.Forbidden):
            await server._read_regularly()
        assert server._contact.trouble() is None
        assert (server.told.phase, server.told.reason) == (serving.Phase.DEGRADED, reasons.Reason.FORBIDDEN)
        assert server.told.served is not None, "it serves all the same"
        assert server.certified and not server.readiness.reason.startswith("this instance may not")
        objects.by_path[SECRET] = manifest
        await server._read_regularly()
        assert server.told.phase is serving.Phase.SERVING

    run(test)


RECORD = {"priority": 1, "lifetime": 15}
PEERING = paths.peering(NAMESPACE, "steadyhook")


def peering(*, seconds_ago: float) -> client.Manifest:
    seen = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
    return {"metadata": {"name": "steadyhook"}, "status": {"one": {**RECORD, "lastseen": seen.isoformat()}}}


@pytest.mark.parametrize(("find", "told"), [
    (lambda: peering(seconds_ago=1), {None}),
    (lambda: peering(seconds_ago=60), {"NobodyIssues"}),
    (lambda: {"metadata": {"name": "steadyhook"}}, {"NobodyIssues"}),
    (lambda: None, {None}),
    (lambda: FORBIDDEN, {None}),
    (lambda: client.Unreachable(method="GET", path=PEERING, status=500, message="away"), set()),
], ids=["live", "expired", "empty", "elsewhere", "forbidden", "unreachable"])
def test_a_server_tells_that_nobody_issues_when_two_looks_have_found_no_live_record(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[], client.Manifest | client.APIError | None], told: set[str | None]
) -> None:
    monkeypatch.setattr(issuers, "NEED_SECONDS", 0.0)
    heard: list[str | None] = []

    async def look() -> None:
        objects, found = Objects(), find()
        if found is not None:
            objects.by_path[PEERING] = found
        one = issuers.Issuers(cluster=objects, settings=settings.load(ENVIRONMENT), on_absence=heard.append)
        task = asyncio.create_task(one.look(lambda: True))
        while objects.reads < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(asyncio.wait_for(look(), 10))
    assert {text and text.partition(":")[0] for text in heard} == told


def test_what_ends_in_the_half_is_supervised() -> None:
    """Each part of a running half is one that is started again: none is a bare task."""
    async def test(server: Server, objects: Objects) -> None:
        kept: list[str] = []

        async def keep(part: str, run: supervision.Run) -> None:
            kept.append(part)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervision, "keep", keep)
            patch.setattr(client.Cluster, "__aenter__", _enter)
            await server._start()
            await asyncio.wait(server._tasks)
        assert sorted(kept) == ["contact to the API server", "look for an issuer", "reporter", "watch of the Secret"]

    async def _enter(self: client.Cluster) -> client.Cluster:
        return self

    run(test)
