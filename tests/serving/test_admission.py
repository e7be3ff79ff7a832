"""The admission server: kopf's protocol over TLS, its life from bound to gone, and its metrics."""
import asyncio
import json
import socket
from typing import Any

import aiohttp.web
import kopf
import prometheus_client
import pytest
from kopf._core.engines import admission as kopf_admission

from serving import support
from steadyhook.serving import readiness, sockets


@pytest.fixture(scope="module")
def authority() -> support.Authority:
    return support.Authority()


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nearly every test here closes a server; the one about handshakes at the end undoes this.
    monkeypatch.setattr("steadyhook.serving.admission.LAST_HANDSHAKES_SECONDS", 0.02)


def test_a_request_reaches_the_handler_that_its_path_names(authority: support.Authority) -> None:
    async def main() -> None:
        engine = support.Kopf()
        calls: list[str] = []

        @kopf.on.validate("configmaps", id="refuse", registry=engine.registry)
        async def refuse(**_: Any) -> None:
            calls.append("refuse")
            raise kopf.AdmissionError("not today", code=422)

        @kopf.on.mutate("configmaps", id="change", registry=engine.registry)
        async def change(patch: kopf.Patch, **_: Any) -> None:
            calls.append("change")
            patch["data"] = {"added": "1"}

        server = support.make_server(authority.issue())
        async with support.serve(server, engine.fn):
            body = support.encode(support.review())
            denied = await support.ask(server.port, "/refuse", body, authority.client())
            assert denied.status == 200
            assert denied.json["response"]["allowed"] is False
            assert denied.json["response"]["status"] == {"message": "not today", "code": 422}
            changed = await support.ask(server.port, "/change", body, authority.client())
            assert changed.json["response"]["allowed"] is True
            assert changed.json["response"]["patchType"] == "JSONPatch"
            assert calls == ["refuse", "change"]
            await support.ask(server.port, "/", body, authority.client())
            assert sorted(calls) == ["change", "change", "refuse", "refuse"]

    asyncio.run(main())


@pytest.mark.parametrize(("error", "status"), [
    (kopf_admission.AmbiguousResourceError("two of them"), 409),
    (kopf_admission.UnknownResourceError("never heard of"), 404),
    (kopf_admission.MissingDataError("no object\nin it"), 400),
    (kopf_admission.WebhookError("bad"), 400),
    (RuntimeError("a bug"), 500),
])
def test_an_error_in_the_request_is_a_status_code_with_the_reason_as_text(
    authority: support.Authority, error: Exception, status: int,
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, fail):
            answer = await support.ask(server.port, "/any", support.encode(support.review()), authority.client())
            assert answer.status == status
            assert status == 500 or answer.text == f"{error}\n"

    asyncio.run(main())


@pytest.mark.parametrize("body", [
    b"no json", b"\xff\xfe", b"[]", b"null", b"{}", b'{"request": 1}', b'{"request": {"resource": {"group": ""}}}'])
def test_what_is_no_review_is_a_bad_request(authority: support.Authority, body: bytes) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, support.Kopf().fn):
            assert (await support.ask(server.port, "/", body, authority.client())).status == 400

    asyncio.run(main())


def test_the_function_gets_webhook_headers_and_peer_as_kopfs_own_server_gives_them(
    authority: support.Authority,
) -> None:
    seen: list[dict[str, Any]] = []

    async def record(review: Any, **options: Any) -> Any:
        seen.append(options)
        return await support.allow(review)

    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, record):
            body = support.encode(support.review())
            await support.ask(server.port, "/a%20b/spec.field", body, authority.client())
            await support.ask(server.port, "/", body, authority.client())
        assert [options["webhook"] for options in seen] == ["a b/spec.field", None]
        assert seen[0]["headers"]["Host"] == support.NAME
        assert not seen[0]["sslpeer"]

    asyncio.run(main())


def test_a_review_of_the_largest_objects_is_accepted(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, support.Kopf().fn):
            large = support.review(operation="UPDATE", data={"key": "x" * 3 * 2**20})
            answer = await support.ask(server.port, "/", support.encode(large), authority.client())
            assert answer.json["response"]["allowed"] is True

    asyncio.run(main())


def test_extra_routes_go_before_the_handlers(authority: support.Authority) -> None:
    async def convert(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response({"converted": await request.json()})

    async def main() -> None:
        server = support.make_server(authority.issue(), routes={"/convert": convert})
        async with support.serve(server):
            answer = await support.ask(server.port, "/convert", b"1", authority.client())
            assert answer.json == {"converted": 1}
            body = support.encode(support.review())
            assert (await support.ask(server.port, "/other", body, authority.client())).status == 200

    asyncio.run(main())


def test_nothing_listens_before_the_first_certificate(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(None)
        async with support.iterate(server) as iteration:
            await support.wait_until(lambda: "the webhook port is not open yet" in server.readiness.reason)
            assert not iteration.configs
            with pytest.raises(ConnectionRefusedError):
                await support.Connection.open(server.port)
            server.readiness.serve()
            assert not server.readiness.ready
            assert server.readiness.reason == "the webhook port is not open yet"
            await asyncio.to_thread(server.tls.swap, *authority.issue())
            await iteration.wait_until_up()
            assert server.readiness.ready
            assert iteration.configs == [{"url": f"https://{support.HOST}:{server.port}"}]

    asyncio.run(main())


def test_a_swap_keeps_the_listener_and_the_open_connections(authority: support.Authority) -> None:
    async def main() -> None:
        old, new = authority.issue(), authority.issue()
        server = support.make_server(old)
        body, client = support.encode(support.review()), authority.client()
        async with support.serve(server) as iteration:
            kept = await support.Connection.open(server.port, client)
            assert (await kept.request("/", body)).status == 200
            server.tls.swap(*new)
            assert (await kept.request("/", body)).status == 200
            assert kept.certificate == support.der(old[0])
            fresh = await support.Connection.open(server.port, client)
            assert (await fresh.request("/", body)).status == 200
            assert fresh.certificate == support.der(new[0])
            assert len(iteration.configs) == 1
            await kept.close()
            await fresh.close()

    asyncio.run(main())


def test_a_port_in_use_ends_the_iteration_with_the_setting_and_the_remedy(authority: support.Authority) -> None:
    async def main() -> None:
        with socket.create_server((support.HOST, 0)) as other:
            port = other.getsockname()[1]
            async with support.iterate(support.make_server(authority.issue(), port=port)) as iteration:
                with pytest.raises(sockets.ListenError) as caught:
                    await iteration.wait_until_up()
        assert str(caught.value) == (
            f"cannot listen on {support.HOST}, port {port}: Address already in use;"
            " set STEADYHOOK_WEBHOOK_PORT to a free port, or stop the process that holds this one")

    asyncio.run(main())


def test_the_callbacks_run_in_the_loop_each_once_whether_async_or_not(authority: support.Authority) -> None:
    calls: list[str] = []

    async def start() -> None:
        asyncio.get_running_loop()
        calls.append("start")

    async def main() -> None:
        async with support.serve(support.make_server(
                authority.issue(), on_start=start, on_drain=lambda: calls.append("drain"))):
            assert calls == ["start"]
        assert calls == ["start", "drain"]

    asyncio.run(main())


def test_the_health_port_answers_before_the_first_certificate(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(None, health_port=0)
        server.readiness.wait("there is no Secret")
        async with support.iterate(server) as iteration:
            while not server.health_port:
                await asyncio.sleep(0.01)
            assert (await support.ask(server.health_port, "/healthz")).status == 200
            answer = await support.ask(server.health_port, "/readyz")
            assert (answer.status, answer.text) == (503, "there is no Secret; the webhook port is not open yet\n")
            server.tls.swap(*authority.issue())
            server.readiness.serve()
            await iteration.wait_until_up()
            assert (await support.ask(server.health_port, "/readyz")).status == 200

    asyncio.run(main())


def test_answers_are_counted_by_status_code_and_timed(authority: support.Authority) -> None:
    def sample(name: str, **labels: str) -> float:
        return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0

    async def main() -> None:
        server = support.make_server(authority.issue())
        good, bad = (sample("steadyhook_admission_requests_total", code=code) for code in ("200", "400"))
        timed = sample("steadyhook_admission_request_seconds_count")
        async with support.serve(server, support.Kopf().fn):
            for body in [support.encode(support.review())] * 3 + [b"no json"]:
                await support.ask(server.port, "/", body, authority.client())
        assert sample("steadyhook_admission_requests_total", code="200") == good + 3
        assert sample("steadyhook_admission_requests_total", code="400") == bad + 1
        assert sample("steadyhook_admission_request_seconds_count") == timed + 4

    asyncio.run(main())


def test_an_answer_that_nobody_waits_for_any_more_is_given_up(
    authority: support.Authority, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steadyhook.serving.admission.ANSWER_SECONDS", 0.1)

    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, Slow()):
            answer = await support.ask(server.port, "/", support.encode(support.review()), authority.client())
            assert (answer.status, answer.text) == (504, "there was no answer within 0.1 s\n")

    asyncio.run(main())


def test_a_failure_is_told_in_full_once_in_a_while_and_not_for_each_request(
    authority: support.Authority, caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server, fail):
            for _ in range(5):
                answer = await support.ask(server.port, "/", support.encode(support.review()), authority.client())
                assert answer.status == 500
                assert "RuntimeError" in answer.text

    asyncio.run(main())
    assert caplog.text.count("Traceback") == 1


def test_a_route_that_cannot_read_its_body_gets_400_for_its_caller(
    authority: support.Authority, caplog: pytest.LogCaptureFixture,
) -> None:
    async def convert(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response(await request.json())

    async def main() -> None:
        server = support.make_server(authority.issue(), routes={"/convert": convert})
        async with support.serve(server):
            for body in (b"no json", b"\xff", b"[" * 100_000):
                answer = await support.ask(server.port, "/convert", body, authority.client())
                assert (answer.status, bool(answer.text)) == (400, True)

    asyncio.run(main())
    assert "Traceback" not in caplog.text


class Slow:
    """A review function that takes until it is told."""

    def __init__(self) -> None:
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, review: Any, **_: Any) -> Any:
        self.entered.set()
        await self.go_on.wait()
        return await support.allow(review)


def test_cancelled_it_answers_on_with_connection_close_until_the_drain_is_over(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue())
        over = support.drain_until(server)
        body, client = support.encode(support.review()), authority.client()
        async with support.serve(server) as iteration:
            kept = await support.Connection.open(server.port, client)
            answer = await kept.request("/", body)
            assert "connection" not in answer.headers
            iteration.task.cancel()
            await support.wait_until(lambda: server.readiness.state is readiness.State.DRAINING)
            answer = await kept.request("/", body)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await kept.at_end()
            for _ in range(10):
                answer = await support.ask(server.port, "/", body, client)
                assert (answer.status, answer.headers["connection"]) == (200, "close")
            over.set()
            await asyncio.wait({iteration.task}, timeout=30)
            assert iteration.task.cancelled()
            with pytest.raises(ConnectionError):
                await support.Connection.open(server.port)

    asyncio.run(main())


def test_it_drains_for_as_long_as_it_was_told(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue(), drain_seconds=0.3)
        loop = asyncio.get_running_loop()
        async with support.serve(server) as iteration:
            began = loop.time()
            iteration.task.cancel()
            await asyncio.wait({iteration.task}, timeout=30)
        assert loop.time() - began >= 0.3

    asyncio.run(main())


def test_errors_and_unknown_methods_close_the_connection_too_while_draining(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue())
        support.drain_until(server)
        async with support.serve(server, support.Kopf().fn) as iteration:
            iteration.task.cancel()
            await support.wait_until(lambda: server.readiness.state is readiness.State.DRAINING)
            for body, status in [(b"no json", 400), (None, 405)]:
                answer = await support.ask(server.port, "/", body, authority.client())
                assert (answer.status, answer.headers["connection"]) == (status, "close")

    asyncio.run(main())


def test_a_request_in_flight_when_the_port_closes_is_answered(authority: support.Authority) -> None:
    async def main() -> None:
        slow, server = Slow(), support.make_server(authority.issue())
        async with support.serve(server, slow) as iteration:
            body = support.encode(support.review())
            asking = asyncio.create_task(support.ask(server.port, "/", body, authority.client()))
            await slow.entered.wait()
            iteration.task.cancel()
            await support.wait_until_refused(server.port)
            slow.go_on.set()
            assert (await asking).status == 200

    asyncio.run(main())


def test_a_connection_still_in_its_handshake_when_the_port_closes_is_answered(
    authority: support.Authority, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steadyhook.serving.admission.LAST_HANDSHAKES_SECONDS", 3)

    async def main() -> None:
        server = support.make_server(authority.issue())
        async with support.serve(server) as iteration:
            reader, writer = await asyncio.open_connection(support.HOST, server.port)
            await support.wait_until(lambda: prometheus_client.REGISTRY.get_sample_value(
                "steadyhook_connections", {"port": "webhook"}) == 1)
            iteration.task.cancel()
            await support.wait_until_refused(server.port)
            await writer.start_tls(authority.client(), server_hostname=support.NAME)
            answer = await support.Connection(reader, writer).request("/", support.encode(support.review()))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            writer.close()

    asyncio.run(main())


def test_a_request_that_never_ends_does_not_keep_the_server_from_ending(
    authority: support.Authority, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steadyhook.serving.admission.IN_FLIGHT_SECONDS", 0.2)

    async def main() -> None:
        slow, server = Slow(), support.make_server(authority.issue())
        async with support.serve(server, slow) as iteration:
            body = support.encode(support.review())
            asking = asyncio.create_task(support.ask(server.port, "/", body, authority.client()))
            await slow.entered.wait()
            iteration.task.cancel()
            await asyncio.wait({iteration.task}, timeout=30)
            assert iteration.task.cancelled()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asking

    asyncio.run(main())


def test_a_second_cancellation_ends_it_at_once(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue(), drain_seconds=60, on_drain=asyncio.Event().wait)
        async with support.serve(server) as iteration:
            iteration.task.cancel()
            await support.wait_until(lambda: server.readiness.state is readiness.State.DRAINING)
            assert not iteration.task.done()
            iteration.task.cancel()
            await asyncio.wait({iteration.task}, timeout=30)
            assert iteration.task.cancelled()
            with pytest.raises(ConnectionError):
                await support.Connection.open(server.port)

    asyncio.run(main())


def test_cancelled_before_the_first_certificate_it_hands_over_and_ends_without_a_drain() -> None:
    calls: list[str] = []

    async def main() -> None:
        server = support.make_server(None, drain_seconds=60, on_drain=lambda: calls.append("drain"))
        async with support.iterate(server) as iteration:
            await support.wait_until(lambda: "the webhook port is not open yet" in server.readiness.reason)
            iteration.task.cancel()
            await asyncio.wait({iteration.task}, timeout=30)
            assert iteration.task.cancelled()
        assert calls == ["drain"]

    asyncio.run(main())


def test_the_handover_runs_while_requests_are_still_answered(authority: support.Authority) -> None:
    async def main() -> None:
        begun, go_on, handed_over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hand_over() -> None:
            begun.set()
            await go_on.wait()
            handed_over.set()

        server = support.make_server(authority.issue(), on_drain=hand_over)
        over = support.drain_until(server)
        async with support.serve(server) as iteration:
            iteration.task.cancel()
            await begun.wait()
            body = support.encode(support.review())
            assert (await support.ask(server.port, "/", body, authority.client())).status == 200
            go_on.set()
            await handed_over.wait()
            assert (await support.ask(server.port, "/", body, authority.client())).status == 200
            over.set()
            await asyncio.wait({iteration.task}, timeout=30)
            assert iteration.task.cancelled()

    asyncio.run(main())


def test_a_handover_that_fails_or_hangs_is_logged_and_the_server_ends(
    authority: support.Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("steadyhook.serving.admission.IN_FLIGHT_SECONDS", 0.2)

    def fail() -> None:
        raise RuntimeError("the seat is stuck")

    async def main() -> None:
        for callback in (fail, asyncio.Event().wait):
            async with support.serve(support.make_server(authority.issue(), on_drain=callback)) as iteration:
                iteration.task.cancel()
                await asyncio.wait({iteration.task}, timeout=30)
                assert iteration.task.cancelled()

    asyncio.run(main())
    assert "the seat is stuck" in caplog.text
    assert "did not end in time" in caplog.text


def test_the_generator_closed_by_its_user_drains_as_well(authority: support.Authority) -> None:
    async def main() -> None:
        server = support.make_server(authority.issue())
        over = support.drain_until(server)
        generator = server(support.allow)
        config = await anext(generator)
        closing = asyncio.create_task(generator.aclose())
        await support.wait_until(lambda: server.readiness.state is readiness.State.DRAINING)
        body = support.encode(support.review())
        assert (await support.ask(server.port, "/", body, authority.client())).headers["connection"] == "close"
        over.set()
        await closing
        assert json.dumps(config)

    asyncio.run(main())
