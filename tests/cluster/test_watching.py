"""A watch that goes on whatever the API server does, on one that is made up."""
import asyncio
import ssl
from asyncio import sslproto
from typing import Any

import pytest

from issuing import fakes
from steadyhook.cluster import client, paths, watching

PATH = paths.secrets("ns")
OBJECT = f"{PATH}/tls"


class Told:
    """What a watch has told."""

    def __init__(self, cluster: fakes.Cluster, **arguments: Any) -> None:
        self.lists: list[list[str]] = []
        self.events: list[tuple[str, str]] = []
        self.watch = watching.Watch(
            cluster, PATH, listed=lambda items: self.lists.append([item["metadata"]["name"] for item in items]),
            changed=lambda kind, item: self.events.append((kind, item["metadata"]["name"])), **arguments)


def test_it_lists_and_then_tells_each_change_of_the_one_object() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        cluster.put(OBJECT, {})
        told = Told(cluster, name="tls")
        assert not told.watch.current
        async with fakes.running(told.watch.run):
            await fakes.until(lambda: cluster.watched())
            assert told.watch.current
            cluster.put(f"{PATH}/another", {})
            cluster.put(OBJECT, {"data": {}})
            cluster.remove(OBJECT)
            await fakes.until(lambda: len(told.events) == 2)
        assert told.lists == [["tls"]]
        assert told.events == [("MODIFIED", "tls"), ("DELETED", "tls")]
        assert not told.watch.current
        assert "fieldSelector=metadata.name%3Dtls" in cluster.requests[-1][1]

    asyncio.run(scenario())


def test_a_watch_that_ends_goes_on_where_it_was_and_one_that_is_too_late_lists_again() -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()
        told = Told(cluster)
        async with fakes.running(told.watch.run):
            await fakes.until(lambda: cluster.watched())
            cluster.put(OBJECT, {})
            await fakes.until(lambda: told.events)
            cluster.end_watches()
            await fakes.until(lambda: cluster.count("WATCH") == 2)
            version = cluster.objects[OBJECT]["metadata"]["resourceVersion"]
            assert f"resourceVersion={version}&" in cluster.requests[-1][1]
            assert len(told.lists) == 1
            await fakes.until(lambda: cluster.watched())
            for queues in cluster._watchers.values():
                for queue in queues:
                    queue.put_nowait(fakes.GONE)
            await fakes.until(lambda: len(told.lists) == 2)
            assert told.lists[1] == ["tls"]

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [client.Unreachable, client.Forbidden])
def test_errors_do_not_end_it_and_are_not_answered_by_more_requests(error: type[client.APIError]) -> None:
    async def scenario() -> None:
        cluster = fakes.Cluster()

        async def fail(method: str, path: str) -> None:
            raise error(method=method, path=path, status=403, message="no")

        cluster.fail = fail
        told = Told(cluster)
        pauses = [told.watch._note(error(method="", path="", status=403, message="")) for _ in range(12)]
        longest = watching.LONGEST_REFUSED_SECONDS if error is client.Forbidden else watching.LONGEST_PAUSE_SECONDS
        assert all(longest / 2 <= item <= longest for item in pauses[-3:])
        assert pauses[0] <= 5.0
        told.watch._failures = 0
        async with fakes.running(told.watch.run) as task:
            await fakes.until(lambda: told.watch._failures == 1)
            assert not task.done()
            assert cluster.count("LIST") == 1

    asyncio.run(scenario())


def test_an_object_that_the_listener_fails_at_is_not_told_again_and_again() -> None:
    """Whoever starts the watch again finds the rest of what has changed."""
    async def scenario() -> None:
        cluster = fakes.Cluster()
        told = Told(cluster)
        tell = told.watch._changed

        def changed(kind: str, item: client.Manifest) -> None:
            if item["metadata"]["name"] == "odd":
                raise KeyError("spec")
            tell(kind, item)

        told.watch._changed = changed
        async with fakes.running(told.watch.run) as task:
            await fakes.until(lambda: cluster.watched())
            cluster.put(f"{PATH}/odd", {})
            await asyncio.wait({task}, timeout=10)
            assert isinstance(task.exception(), KeyError)
        async with fakes.running(told.watch.run):
            await fakes.until(lambda: cluster.watched())
            assert told.lists[1:] == [["odd"]], "it lists, and does not go on before the object that it failed at"

    asyncio.run(scenario())


def test_a_connection_costs_little_memory() -> None:
    """By an attribute of asyncio that is not documented: this tells when it has become something else."""
    async def scenario() -> None:
        protocol = sslproto.SSLProtocol(
            asyncio.get_running_loop(), asyncio.Protocol(), ssl.create_default_context(), None,  # type: ignore[call-arg]
            server_hostname="localhost")
        assert len(protocol._ssl_buffer) == watching.TLS_BUFFER_BYTES  # type: ignore[attr-defined]

    asyncio.run(scenario())
