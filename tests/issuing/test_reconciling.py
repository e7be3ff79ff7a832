"""The loop of one certificate: what it asks for and when, and that nothing ends it or makes it spin."""
import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from issuing import fakes
from steadyhook.cluster import client, observing, paths
from steadyhook.issuing import marks, pacing, reconciling
from steadyhook.pki import minting

LEAF, AUTHORITY = paths.secret("ns", "hook-tls"), paths.secret("ns", "hook-tls-ca")
CERTIFICATE = paths.certificate("ns", "hook")
TARGET = reconciling.Target(namespace="ns", certificate="hook", secret_name="hook-tls")
Fault = Callable[[str, str], Awaitable[None]]


def reconciler(cluster: fakes.Cluster, **arguments: Any) -> reconciling.Reconciler:
    async def confirm() -> bool:
        await cluster.get("/the/peering")
        return True

    cluster.objects["/the/peering"] = {}
    return reconciling.Reconciler(
        cluster=cluster, settings=fakes.SETTINGS, target=TARGET, confirm=confirm,  # type: ignore[arg-type]
        **arguments)


@asynccontextmanager
async def issued(cluster: fakes.Cluster, **arguments: Any) -> AsyncIterator[reconciling.Reconciler]:
    """A loop that has issued, and has nothing to do."""
    work = reconciler(cluster, **arguments)
    async with fakes.running(work.run):
        await fakes.until(lambda: fakes.conditions(cluster, CERTIFICATE).get("Issuing", {}).get("reason") == "UpToDate")
        await fakes.until(lambda: work.woken_unserved_seconds() == 0.0)
        yield work


def unreachable(method: str, path: str) -> client.Unreachable:
    return client.Unreachable(method=method, path=path, status=429, message="too many requests")


def storm(cluster: fakes.Cluster) -> None:
    """Both Secrets, as listeners have left them; 50 objects that may call the Services."""
    for path in (LEAF, AUTHORITY):
        cluster.put(path, {"metadata": {"annotations": {"listener.cattle.io/cn-hook.ns.svc": "hook.ns.svc"}},
                           "type": "kubernetes.io/tls", "data": {}})
    for number in range(50):
        cluster.put(paths.configuration("CustomResourceDefinition", f"crd-{number}"), {"spec": {}})


def test_in_a_storm_the_freeze_is_sent_before_anything_else_is_read() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        work = reconciler(cluster)
        manifest = cluster.put(*fakes.certificate())
        work.see(manifest)
        await asyncio.sleep(0)
        async with fakes.running(work.run):
            await fakes.until(lambda: cluster.count("PATCH", "/secrets/") >= 2)
        first = cluster.requests[:5]
        assert sorted(first) == sorted([("GET", "/the/peering"), ("GET", LEAF), ("GET", AUTHORITY), ("PATCH", LEAF),
                                        ("PATCH", AUTHORITY)])

    asyncio.run(scenario())


def test_a_secret_of_somebody_elses_is_not_frozen_and_so_not_taken_for_a_listeners() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        foreign = {path: cluster.put(path, {"type": "Opaque", "data": {"ca.key": "dGhlIG9ubHkgY29weQ=="}})
                   for path in (LEAF, AUTHORITY)}
        work = reconciler(cluster)
        work.see(cluster.put(*fakes.certificate()))
        await asyncio.sleep(0)
        async with fakes.running(work.run):
            await fakes.until(lambda: fakes.conditions(cluster, CERTIFICATE).get("Issuing"))
        assert fakes.conditions(cluster, CERTIFICATE)["Issuing"]["reason"] == "NotOurs"
        assert {path: cluster.objects[path] for path in foreign} == foreign

    asyncio.run(scenario())


def test_the_freeze_is_tried_again_at_once_when_the_api_server_is_overloaded() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        failures = 0

        async def fail(method: str, path: str) -> None:
            nonlocal failures
            if failures < 12:
                failures += 1
                raise unreachable(method, path)

        work = reconciler(cluster)
        work.see(cluster.put(*fakes.certificate()))
        await asyncio.sleep(0)
        cluster.fail = fail
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with fakes.running(work.run):
            await fakes.until(lambda: cluster.count("PATCH", "/secrets/") >= 2, seconds=3)
        assert failures == 12
        assert loop.time() - began < 3

    asyncio.run(scenario())


def test_one_certificate_of_many_does_not_wait_for_a_turn_to_freeze() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        turns = pacing.Turns()
        work = reconciler(cluster, turns=turns)
        work.see(cluster.put(*fakes.certificate()))
        await asyncio.sleep(0)
        async with turns.take("ns"), turns.take("ns"), fakes.running(work.run):
            await fakes.until(lambda: cluster.count("PATCH", "/secrets/") >= 2)
            assert cluster.count("LIST") == 0

    asyncio.run(scenario())


def test_between_the_switch_and_the_leaf_only_the_two_secrets_are_read() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        for path in (LEAF, AUTHORITY):
            cluster.remove(path)
        cluster.put(*fakes.certificate())
        async with issued(cluster) as work:
            cluster.requests.clear()
            path, manifest = fakes.certificate()
            manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-ca": "once"}
            work.see(cluster.put(path, manifest))
            await fakes.until(lambda: ("PATCH", LEAF) in cluster.requests)
        written = cluster.requests.index(("PATCH", LEAF))
        switched = max(at for at, one in enumerate(cluster.requests[:written]) if one == ("PATCH", AUTHORITY))
        between = cluster.requests[switched + 1:written]
        assert sorted(between) == sorted([("GET", LEAF), ("GET", AUTHORITY), ("GET", "/the/peering")])

    asyncio.run(scenario())


def test_the_key_of_the_leaf_is_made_before_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())
        order: list[str] = []
        real = minting.mint_leaf

        def mint(*arguments: Any, **named: Any) -> Any:
            order.append("key")
            return real(*arguments, **named)

        async def note(method: str, path: str) -> None:
            if method == "PATCH" and "/secrets/" in path:
                order.append(path.rpartition("/")[2])

        async with issued(cluster) as work:
            monkeypatch.setattr(minting, "mint_leaf", mint)
            cluster.fail = note
            path, manifest = fakes.of_our_own()
            manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-ca": "once"}
            work.see(cluster.put(path, manifest))
            await fakes.until(lambda: order.count("hook-tls-ca") == 3)
        assert order == ["hook-tls-ca", "key", "hook-tls-ca", "hook-tls", "hook-tls-ca"]

    asyncio.run(scenario())


def test_a_leaf_that_somebody_writes_right_after_the_switch_is_not_overwritten_blindly() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.certificate())
        conflicts: list[str] = []

        async def interfere(method: str, path: str) -> None:
            switched = "steadyhook.io/switched" in (cluster.objects.get(AUTHORITY) or {"metadata": {}})[
                "metadata"].get("annotations", {}) and cluster.objects[AUTHORITY]["metadata"]["annotations"][
                "steadyhook.io/switched"]
            if switched and (method, path) == ("PATCH", LEAF) and not conflicts:
                cluster.put(LEAF, cluster.objects[LEAF])  # somebody else was quicker
                conflicts.append(path)

        async with issued(cluster) as work:
            cluster.fail = interfere
            path, manifest = fakes.certificate()
            manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-ca": "once"}
            work.see(cluster.put(path, manifest))
            await fakes.until(lambda: conflicts and cluster.requests.count(("PATCH", LEAF)) >= 2)
            await fakes.until(lambda: fakes.conditions(cluster, CERTIFICATE)["Rotating"]["status"] == "False")

    asyncio.run(scenario())


def test_what_always_fails_becomes_a_condition_and_neither_ends_nor_spins_the_loop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciling, "_UNEXPECTED", quick(reconciling._UNEXPECTED))

    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.certificate())

        async def fail(method: str, path: str) -> None:
            if "/secrets/" in path:
                raise ZeroDivisionError("a mistake of ours")

        cluster.fail = fail
        work = reconciler(cluster)
        with caplog.at_level(logging.INFO):
            async with fakes.running(work.run) as task:
                await fakes.until(lambda: "Degraded" in fakes.conditions(cluster, CERTIFICATE))
                condition = fakes.conditions(cluster, CERTIFICATE)["Degraded"]
                assert (condition["status"], condition["reason"]) == ("True", "Failing")
                assert "a mistake of ours" in condition["message"]
                await fakes.until(lambda: work._failures.count >= 6)
                assert work.woken_unserved_seconds() > 0  # whoever keeps the seat can see it
                assert not task.done()
                cluster.fail = None
                work.see(cluster.put(*fakes.certificate(duration="8761h")))  # a change is looked at at once
                await fakes.until(lambda: fakes.conditions(cluster, CERTIFICATE)["Degraded"]["status"] == "False")
                await fakes.until(lambda: work.woken_unserved_seconds() == 0.0)
        lines = [item for item in caplog.messages if "a mistake of ours" in item]
        assert len(lines) <= 4  # the 1st, 2nd, 4th, and the traceback

    asyncio.run(scenario())


@pytest.mark.parametrize(("error", "reason"), [(client.Invalid, "Refused"), (client.APIError, "Refused"),
                                               (client.Forbidden, "Forbidden"), (client.Conflict, "ChangedByOthers"),
                                               (client.Unreachable, "NotAnswered")])
def test_each_answer_that_repeats_is_told(
    error: type[client.APIError], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CHANGED", "_FORBIDDEN", "_REFUSED", "_NOT_ANSWERED"):
        monkeypatch.setattr(reconciling, name, quick(getattr(reconciling, name)))

    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())

        async def fail(method: str, path: str) -> None:
            if method == "POST" and "/secrets" in path:
                raise error(method=method, path=path, status=400, message="against the rules")

        cluster.fail = fail
        async with fakes.running(reconciler(cluster).run):
            await fakes.until(lambda: "Degraded" in fakes.conditions(cluster, CERTIFICATE))
        condition = fakes.conditions(cluster, CERTIFICATE)["Degraded"]
        assert (condition["status"], condition["reason"]) == ("True", reason)
        assert "against the rules" in condition["message"]

    asyncio.run(scenario())


def quick(failure: reconciling._Failure) -> reconciling._Failure:
    """The same with pauses that a test can wait for."""
    import dataclasses

    return dataclasses.replace(failure, first_seconds=0.001, longest_seconds=0.01)


def test_the_pauses_grow_when_a_permission_is_missing_and_wakes_do_not_shorten_them() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())

        async def fail(method: str, path: str) -> None:
            if "/secrets" in path:
                raise client.Forbidden(method=method, path=path, status=403, message="no")

        cluster.fail = fail
        work = reconciler(cluster, turns=pacing.Turns())
        async with fakes.running(work.run):
            await fakes.until(lambda: "Degraded" in fakes.conditions(cluster, CERTIFICATE))
            await fakes.until(lambda: work._not_before > 0)
            asked = len(cluster.requests)
            for _ in range(100):
                work.wake()
                work.changed("Secret", "hook-tls", "7")
                await asyncio.sleep(0)
            assert len(cluster.requests) == asked

    asyncio.run(scenario())
    failures = pacing.Failures()
    pauses = [failures.next_pause(5.0, 300.0) for _ in range(12)]
    assert pauses[0] <= 5.0
    assert all(150.0 <= item <= 300.0 for item in pauses[7:])


def test_of_two_secrets_that_are_forbidden_always_the_same_one_is_told() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        delays = itertools.cycle([0.0, 0.02, 0.02, 0.0])

        async def fail(method: str, path: str) -> None:
            if "/secrets/" in path:
                await asyncio.sleep(next(delays))
                raise client.Forbidden(method=method, path=path, status=403, message="no")

        work = reconciler(cluster, manifest=cluster.put(*fakes.certificate()))
        await asyncio.sleep(0)
        cluster.fail = fail
        told = set()
        async with fakes.running(work.run):
            for count in (1, 2, 3):
                await fakes.until(lambda count=count: work._failures.count == count and work._not_before > 0)
                await fakes.until(lambda: "Degraded" in fakes.conditions(cluster, CERTIFICATE))
                told.add(fakes.conditions(cluster, CERTIFICATE)["Degraded"]["message"])
                work._not_before = 0.0
                work.wake()
                await fakes.until(lambda count=count: work._failures.count > count)
        assert len(told) == 1

    asyncio.run(scenario())


def test_changes_without_end_are_answered_by_few_looks() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())
        async with issued(cluster) as work:
            cluster.requests.clear()
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(500):
                work.changed("Secret", "hook-tls", f"foreign-{number}")
                await asyncio.sleep(0.002)
            looks = cluster.requests.count(("GET", CERTIFICATE))
            assert 1 < looks <= pacing.LOOKS_AT_ONCE + 1 + (loop.time() - began) / pacing.LOOK_SECONDS

    asyncio.run(scenario())


def test_a_certificate_that_the_parser_fails_at_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a mistake of ours")

    async def scenario() -> None:
        monkeypatch.setattr("steadyhook.core.policy.parse", fail)
        cluster = fakes.Cluster()
        path, manifest = fakes.certificate()
        work = reconciler(cluster)
        async with fakes.running(work.run) as task:
            await fakes.until(lambda: work.woken_unserved_seconds() == 0.0)
            work.see(cluster.put(path, manifest))
            await fakes.until(lambda: work._failures.count >= 1)
            assert not task.done()

    asyncio.run(scenario())


def test_a_pass_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "PASS_SECONDS", 0.05)
    monkeypatch.setattr(reconciling, "_TOO_LONG", quick(reconciling._TOO_LONG))

    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())

        async def hang(method: str, path: str) -> None:
            if method == "LIST":
                await asyncio.sleep(60)

        cluster.fail = hang
        work = reconciler(cluster)
        async with fakes.running(work.run):
            await fakes.until(lambda: "Degraded" in fakes.conditions(cluster, CERTIFICATE))
            assert work.woken_unserved_seconds() > 0
            assert work.completed_at is None

    asyncio.run(scenario())


def test_what_the_last_look_has_seen_is_no_news() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())
        async with issued(cluster) as work:
            asked = len(cluster.requests)
            work.see(cluster.objects[CERTIFICATE])  # its status has changed
            for name, path in (("hook-tls", LEAF), ("hook-tls-ca", AUTHORITY)):
                work.changed("Secret", name, cluster.objects[path]["metadata"]["resourceVersion"])
            await asyncio.sleep(0.05)
            assert len(cluster.requests) == asked
            work.changed("Secret", "hook-tls", None)
            await fakes.until(lambda: len(cluster.requests) > asked)

    asyncio.run(scenario())


def test_a_status_is_no_change_of_a_certificate_and_everything_else_is() -> None:
    cluster = fakes.Cluster()
    path, manifest = fakes.certificate()
    first = marks.mark(cluster.put(path, manifest))
    assert marks.mark(cluster.put(path, {**manifest, "status": {"fingerprint": "ab"}})) == first
    assert marks.mark(cluster.put(path, {**manifest, "metadata": {"annotations": {"a": "b"}}})) == first
    asked = {"annotations": {"steadyhook.io/rotate-leaf": "b"}}
    assert marks.mark(cluster.put(path, {**manifest, "metadata": asked})) != first
    assert marks.mark(cluster.put(path, {**manifest, "spec": {}})) != first


def test_leaves_that_are_asked_for_again_and_again_are_put_off_and_it_is_told() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(*fakes.of_our_own())
        async with issued(cluster) as work:
            path, manifest = fakes.of_our_own()
            for number in range(pacing.REQUESTS_AT_ONCE + 3):
                manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-leaf": str(number)}
                work.see(cluster.put(path, manifest))
                await fakes.until(lambda: fakes.conditions(cluster, path)["Issuing"]["reason"] == "TooManyKeys"
                                  or work.woken_unserved_seconds() == 0.0)
                await asyncio.sleep(0.02)
                await fakes.until(lambda: work.woken_unserved_seconds() == 0.0)
            condition = fakes.conditions(cluster, path)["Issuing"]
            assert condition["reason"] == "TooManyKeys"
            assert "put off until" in condition["message"]
            assert cluster.requests.count(("PATCH", LEAF)) == pacing.REQUESTS_AT_ONCE

    asyncio.run(scenario())


def test_many_look_at_the_configurations_with_one_list_of_each_kind() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        calls = observing.Calls()
        found = await asyncio.gather(*(
            calls.find(cluster, frozenset({("ns", str(number))})) for number in range(100)))  # type: ignore[arg-type]
        assert found == [()] * 100
        assert cluster.count("LIST") == 4
        assert cluster.count("GET") == 50
        await calls.find(cluster, frozenset())  # type: ignore[arg-type]
        assert cluster.count("LIST") == 8  # another question, another look
        assert cluster.count("GET") == 50

    asyncio.run(scenario())


def test_of_300_objects_of_which_some_fail_each_is_read_once() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        for number in range(300):
            cluster.put(paths.configuration("CustomResourceDefinition", f"crd-{number}"), {"spec": {}})
        asked = at_once = most = 0

        async def fail(method: str, path: str) -> None:
            nonlocal asked, at_once, most
            if method == "GET":
                asked += 1
                number = asked
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0.001)
                at_once -= 1
                if number % 250 == 0:
                    raise unreachable(method, path)

        cluster.fail = fail
        calls = observing.Calls()
        assert await calls.find(cluster, frozenset()) == ()  # type: ignore[arg-type]
        assert asked == 301
        assert 1 < most <= observing.READS_AT_ONCE

        async def fail_one(method: str, path: str) -> None:
            if path.endswith("crd-7"):
                raise unreachable(method, path)

        # One that can never be read costs the others nothing.
        another, cluster.fail = observing.Calls(), fail_one
        cluster.requests.clear()
        for _ in range(2):
            with pytest.raises(client.Unreachable):
                await another.find(cluster, frozenset())  # type: ignore[arg-type]
        assert cluster.count("GET") == 299 + 2 * observing.READ_ATTEMPTS

    asyncio.run(scenario())


def test_a_change_of_the_certificate_while_a_failure_is_being_told_ends_the_pause() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        path, manifest = fakes.of_our_own()
        first = cluster.put(path, manifest)
        telling, go_on = asyncio.Event(), asyncio.Event()
        is_forbidden = True

        async def fail(method: str, one: str) -> None:
            if is_forbidden and "/secrets/" in one:
                raise client.Forbidden(method=method, path=one, status=403, message="no")
            if method == "PUT" and not telling.is_set():
                telling.set()
                await go_on.wait()

        cluster.fail = fail
        work = reconciler(cluster, turns=pacing.Turns(), manifest=first)
        work._failures.count = 10  # it has failed for long, so the pause is long
        async with fakes.running(work.run):
            await asyncio.wait_for(telling.wait(), 10)
            is_forbidden = False
            manifest["metadata"]["annotations"] = {"steadyhook.io/rotate-leaf": "once"}
            work.see(cluster.put(path, manifest))
            await asyncio.sleep(0)
            go_on.set()
            await fakes.until(lambda: LEAF in cluster.objects)

    asyncio.run(scenario())


def test_a_certificate_that_becomes_urgent_while_its_turn_is_waited_for_is_frozen_before_its_objects_are_read() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        storm(cluster)
        turns = pacing.Turns()
        work = reconciler(cluster, turns=turns)
        manifest = cluster.put(*fakes.certificate())
        async with turns.take("ns"), turns.take("ns"), fakes.running(work.run):
            await fakes.until(lambda: work._unserved_since is not None)
            work.see(manifest)
            await asyncio.sleep(0)
            for semaphore in list(turns._of_namespace.values()):
                semaphore.release()
            await fakes.until(lambda: cluster.count("LIST") and cluster.count("PATCH", "/secrets/") >= 2)
            methods = [method for method, _ in cluster.requests if method in ("LIST", "PATCH")]
            assert methods[:2] == ["PATCH", "PATCH"]

    asyncio.run(scenario())
