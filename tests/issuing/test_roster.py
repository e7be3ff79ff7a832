"""Who looks after which Secret, where one installation of issuers has many; and who is woken by what."""
import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from issuing import fakes
from steadyhook.cluster import asking, client, paths, watching
from steadyhook.issuing import marks, reconciling, roster

SECOND = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:00:01Z"
SETTINGS = dataclasses.replace(fakes.SETTINGS, all_certificates=True)


def certificate(
    name: str, *, created: str = SECOND, secret: str = "tls", authority: str | None = None, issued: bool = False
) -> dict[str, Any]:
    spec = {"secretName": secret, "caSecretName": authority}
    return {"metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
            "spec": {key: value for key, value in spec.items() if value},
            "status": {"fingerprint": "ab" * 32} if issued else {}}


def rivals(*manifests: dict[str, Any]) -> dict[str, str | None]:
    return {item.certificate: item.rival.name if item.rival else None for item in roster.targets(manifests)}


def test_of_two_for_one_secret_the_older_one_has_it() -> None:
    assert rivals(certificate("b"), certificate("a", created=LATER)) == {"b": None, "a": "b"}


def test_of_two_made_in_one_second_the_one_that_was_issued_has_it() -> None:
    assert rivals(certificate("b", issued=True), certificate("a")) == {"b": None, "a": "b"}


def test_of_two_made_in_one_second_and_not_issued_the_name_decides() -> None:
    assert rivals(certificate("b"), certificate("a")) == {"a": None, "b": "a"}


def test_two_secrets_are_no_matter() -> None:
    assert rivals(certificate("b"), certificate("a", secret="other")) == {"a": None, "b": None}


def test_a_secret_of_a_ca_is_one_persons_as_well() -> None:
    assert rivals(certificate("old", authority="ca"), certificate("new", created=LATER, secret="other", authority="ca")
                  ) == {"old": None, "new": "old"}
    assert rivals(certificate("old", secret="tls"), certificate("new", created=LATER, secret="tls-ca")
                  ) == {"old": None, "new": "old"}


class Issuers:
    """A roster, and who was looked at."""

    def __init__(self, cluster: fakes.Cluster) -> None:
        self.cluster = cluster
        self.active = True
        self.roster = roster.Roster(
            cluster=cluster, settings=SETTINGS, confirm=self.confirm)  # type: ignore[arg-type]

    async def confirm(self) -> bool:
        await self.cluster.get("/the/peering")
        return self.active

    def looked_at(self) -> set[str]:
        prefix = "/webhookcertificates/"
        return {path.partition(prefix)[2] for method, path in self.cluster.requests
                if method == "GET" and prefix in path}

    async def rest(self) -> None:
        """Until nothing more is asked for."""
        asked = -1
        while asked != len(self.cluster.requests):
            asked = len(self.cluster.requests)
            await asyncio.sleep(0.3)
        self.cluster.requests.clear()


@asynccontextmanager
async def issuers(cluster: fakes.Cluster) -> AsyncIterator[Issuers]:
    cluster.objects["/the/peering"] = {}
    made = Issuers(cluster)
    async with fakes.running(made.roster.run):
        yield made


def is_ready(cluster: fakes.Cluster, path: str) -> bool:
    return fakes.conditions(cluster, path).get("Ready", {}).get("status") == "True"


def ours(number: int) -> tuple[str, dict[str, Any]]:
    return fakes.of_our_own(f"hook-{number}", namespace=f"ns-{number % 3}")


def test_one_change_wakes_one_of_many_and_a_status_nobody() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        made = [cluster.put(*ours(number)) for number in range(20)]
        assert made
        async with issuers(cluster) as running:
            await fakes.until(lambda: all(is_ready(cluster, ours(number)[0]) for number in range(20)), seconds=30)
            await running.rest()

            path, manifest = ours(7)
            manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-leaf": "once"}
            cluster.put(path, manifest)
            await fakes.until(lambda: ("PATCH", paths.secret("ns-1", "hook-7-tls")) in cluster.requests)
            await running.rest()
            cluster.put(path, {**cluster.objects[path], "status": {**cluster.objects[path]["status"], "x": "y"}})
            await asyncio.sleep(0.2)
            assert cluster.requests == []

            cluster.remove(paths.secret("ns-2", "hook-8-tls"))
            await fakes.until(lambda: paths.secret("ns-2", "hook-8-tls") in cluster.objects)
            await fakes.until(running.looked_at)
            await asyncio.sleep(0.3)
            assert running.looked_at() == {"hook-8"}

            # A configuration that asks for one by its annotation.
            await running.rest()
            cluster.put(paths.configuration("ValidatingWebhookConfiguration", "it"), {
                "metadata": {"annotations": {asking.INJECT_FROM: "ns-0/hook-9"}}, "webhooks": []})
            await fakes.until(running.looked_at)
            await asyncio.sleep(0.3)
            assert running.looked_at() == {"hook-9"}

    asyncio.run(scenario())


def test_once_everything_is_watched_nothing_is_asked_for_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESYNC_SECONDS", "CONTENDED_SECONDS", "FREEZE_CHECK_SECONDS"):
        monkeypatch.setattr(reconciling, name, 0.2)
    monkeypatch.setattr(roster, "GATHER_SECONDS", 0.0)  # else what the first listing asks for comes after the rest

    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.certificate())
        path, manifest = fakes.certificate("other", secretName="hook-tls")  # of which the Secret is another one's
        cluster.put(path, manifest)
        async with issuers(cluster) as running:
            await fakes.until(lambda: is_ready(cluster, fakes.certificate()[0]), seconds=30)
            await fakes.until(lambda: fakes.conditions(cluster, path))
            await running.rest()
            await asyncio.sleep(1.0)
            assert cluster.requests == []
            cluster.fail = unanswered
            cluster.end_watches()  # nobody tells any more what changes: then it is looked at
            await fakes.until(lambda: running.looked_at() >= {"hook"})

    async def unanswered(method: str, path: str) -> None:
        if method == "WATCH":
            raise client.Unreachable(method=method, path=path, status=0, message="gone")

    asyncio.run(scenario())


def test_a_definition_wakes_those_alone_whose_services_it_calls() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        for name in ("one", "two"):
            cluster.put(*fakes.certificate(name))
        async with issuers(cluster) as running:
            await fakes.until(lambda: all(is_ready(cluster, fakes.certificate(name)[0]) for name in ("one", "two")),
                              seconds=30)
            await asyncio.sleep(roster.GATHER_SECONDS)
            await running.rest()
            service = {"name": "one", "namespace": "ns", "path": "/convert"}
            cluster.put(paths.configuration("CustomResourceDefinition", "it"), {
                "spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"service": service}}}}})
            await fakes.until(running.looked_at)
            await asyncio.sleep(0.3)
            assert running.looked_at() == {"one"}
            assert cluster.count("LIST") <= 8

    asyncio.run(scenario())


def test_nothing_is_watched_for_one_that_may_not_be_looked_after_and_little_is_asked() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        for number in range(100):
            cluster.put(*fakes.of_our_own(f"hook-{number}", namespace="without-rights"))
        cluster.put(*fakes.of_our_own("mine"))

        async def fail(method: str, path: str) -> None:
            if "/namespaces/without-rights/secrets" in path:
                raise client.Forbidden(method=method, path=path, status=403, message="no")

        cluster.fail = fail
        async with issuers(cluster) as running:
            await fakes.until(lambda: is_ready(cluster, fakes.of_our_own("mine")[0]))
            await fakes.until(lambda: all(
                fakes.conditions(cluster, fakes.of_our_own(f"hook-{number}", namespace="without-rights")[0]).get(
                    "Degraded", {}).get("reason") == "Forbidden" for number in range(100)), seconds=20)
            watched = [path for path in cluster.watched() if "/secrets" in path or "/managernodes" in path]
            assert all("/without-rights/" not in path for path in watched)
            assert len(watched) == 3  # both Secrets of mine, and the ManagerNodes beside them
            assert all(entry.reconciler._not_before > 0 for name, entry in running.roster._entries.items()
                       if name[0] == "without-rights")

    asyncio.run(scenario())


def test_what_goes_is_forgotten_and_one_that_stands_by_watches_nothing() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        for number in range(2):
            cluster.put(*ours(number))
        async with issuers(cluster) as running:
            await fakes.until(lambda: all(is_ready(cluster, ours(number)[0]) for number in range(2)))
            await fakes.until(lambda: len(cluster.watched()) == 5 + 4 + 2)
            assert running.roster.woken_unserved_seconds() == 0.0
            cluster.remove(ours(0)[0])
            await fakes.until(lambda: len(cluster.watched()) == 5 + 2 + 1)
            running.active = False
            running.roster.wake()
            await fakes.until(lambda: not cluster.watched())
            running.active = True
            running.roster.wake()
            await fakes.until(lambda: len(cluster.watched()) == 5 + 2 + 1)

    asyncio.run(scenario())


def test_a_loop_that_ends_is_started_again_and_the_others_go_on() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        for number in range(2):
            cluster.put(*ours(number))
        async with issuers(cluster) as running:
            await fakes.until(lambda: all(is_ready(cluster, ours(number)[0]) for number in range(2)))
            await running.rest()
            entry = running.roster._entries["ns-0", "hook-0"]
            real = entry.reconciler._sleep_until_due

            async def broken() -> None:
                entry.reconciler._sleep_until_due = real  # type: ignore[method-assign]
                raise RuntimeError("can't start new thread")

            entry.reconciler._sleep_until_due = broken  # type: ignore[method-assign]
            entry.reconciler.wake()
            await fakes.until(lambda: "hook-0" in running.looked_at())
            cluster.remove(paths.secret("ns-0", "hook-0-tls"))
            await fakes.until(lambda: paths.secret("ns-0", "hook-0-tls") in cluster.objects)

    asyncio.run(scenario())


def test_of_a_certificate_little_is_kept() -> None:
    cluster = fakes.Cluster()
    path, manifest = fakes.certificate()
    manifest["metadata"]["managedFields"] = [{"x": "y" * 10_000}]
    manifest["metadata"]["annotations"] = {"a": "b" * 10_000, "steadyhook.io/rotate-ca": "c" * 10_000}
    manifest["status"] = {"fingerprint": "ab", "conditions": ["z" * 10_000]}
    kept = roster.outline(cluster.put(path, manifest))
    assert len(str(kept)) < 1000
    assert kept["status"] == {"fingerprint": "ab"}
    # And what is kept is all that matters: else each look would seem to have found something new.
    assert marks.mark(kept) == marks.mark(cluster.objects[path])
    assert marks.mark(kept) != marks.mark({**kept, "metadata": {**kept["metadata"], "annotations": {}}})


def test_who_asked_while_another_one_seemed_to_be_active_is_looked_at_once_this_one_is_again() -> None:
    """A record of the election may be renewed late: the loop that asked then may not rest for minutes."""
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*ours(0))
        async with issuers(cluster) as running:
            await fakes.until(lambda: is_ready(cluster, ours(0)[0]))
            await running.rest()

            async def doubtful() -> bool:
                running.roster._ask = running.confirm  # for one question only
                return False

            running.roster._ask = doubtful
            cluster.remove(paths.secret("ns-0", "hook-0-tls"))
            await fakes.until(lambda: paths.secret("ns-0", "hook-0-tls") in cluster.objects)

    asyncio.run(scenario())


def test_a_node_that_goes_while_nobody_watches_is_noticed() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*ours(0))
        node = paths.manager_node("ns-0", "node-1")
        cluster.put(node, {"status": {"instances": [{"certificate": "hook-0", "podUID": "u", "podName": "p"}]}})
        async with issuers(cluster) as running:
            await fakes.until(lambda: is_ready(cluster, ours(0)[0]))
            await fakes.until(lambda: ("ns-0", "node-1") in running.roster._instances)
            await running.rest()
            del cluster.objects[node]  # and no watch tells of it
            for queues in cluster._watchers.values():
                for queue in queues:
                    queue.put_nowait(fakes.GONE)
            await fakes.until(lambda: "hook-0" in running.looked_at())
            assert not running.roster._instances

    asyncio.run(scenario())


def test_a_ca_of_the_users_own_that_comes_later_is_found_though_nothing_watches_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An issuer may read such a Secret, not watch it; the objects of an installation arrive in any order."""
    monkeypatch.setattr(reconciling, "RESYNC_SECONDS", 0.2)

    async def scenario() -> None:
        cluster = fakes.Cluster()
        path, manifest = fakes.of_our_own(authority={"secretName": "my-ca"})
        cluster.put(path, manifest)
        async with issuers(cluster) as running:
            await fakes.until(lambda: fakes.conditions(cluster, path))
            await fakes.until(lambda: all(
                running.roster._is_watched(entry.target) for entry in running.roster._entries.values()))
            cluster.requests.clear()
            await fakes.until(lambda: ("GET", paths.secret("ns", "my-ca")) in cluster.requests)

    asyncio.run(scenario())


def test_a_look_at_configurations_that_ends_by_itself_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "GATHER_SECONDS", 0.0)

    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.certificate())
        async with issuers(cluster) as running:
            await fakes.until(lambda: is_ready(cluster, fakes.certificate()[0]), seconds=30)
            await running.rest()
            real, failed = running.roster._calls.refresh, asyncio.Event()

            async def broken(_: object) -> None:
                running.roster._calls.refresh = real  # type: ignore[method-assign]
                failed.set()
                raise RuntimeError("an object that nobody has thought of")

            running.roster._calls.refresh = broken  # type: ignore[method-assign, assignment]
            running.roster._configured.set()
            await asyncio.wait_for(failed.wait(), 10)
            cluster.requests.clear()
            await fakes.until(lambda: cluster.count("LIST"))

    asyncio.run(scenario())


def test_an_issuer_that_may_not_see_the_certificates_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LONGEST_REFUSED_SECONDS", 0.1)

    async def scenario() -> None:
        cluster = fakes.Cluster()

        async def fail(method: str, path: str) -> None:
            if method == "LIST" and path.startswith(paths.all_certificates()):
                raise client.Forbidden(method=method, path=path, status=403, message="you may not")

        cluster.fail = fail
        async with issuers(cluster) as running:
            await fakes.until(running.roster.trouble)
            assert "you may not" in str(running.roster.trouble())
            cluster.fail = None
            await fakes.until(lambda: running.roster.trouble() is None)

    asyncio.run(scenario())
