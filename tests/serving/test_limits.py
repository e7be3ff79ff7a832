"""What those who can reach a port can take from a server: real listeners in processes of their own, bounded loads."""
import asyncio
import collections
import contextlib
import dataclasses
import json
import pathlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from serving import support

pytestmark = pytest.mark.slow
TREE = pathlib.Path(__file__).parents[2]
MIB = 2**20
BODY = support.encode(support.review(data={"key": "x" * 10_000}))

LARGEST_MIB = 400
"""The manifests allow 512 MiB; a manager's other half takes about 60 of them, and the rest is for a user's handlers."""


@dataclasses.dataclass
class Server:
    process: asyncio.subprocess.Process
    port: int
    health_port: int
    client: ssl.SSLContext
    log: pathlib.Path

    def memory(self, what: str = "VmHWM") -> float:
        """The largest resident memory so far (VmHWM) or what there is now (VmRSS), in MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(support.HOST, self.port, ssl=self.client, server_hostname=support.NAME)

    async def metric(self, name: str) -> float:
        text = (await support.ask(self.health_port, "/metrics")).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextlib.asynccontextmanager
async def server(folder: pathlib.Path, *, files: int | None = None, **options: Any) -> AsyncIterator[Server]:
    """``files``: how many it may open."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(["prlimit", f"--nofile={files}:{files}"] if files else []),
            sys.executable, "-m", "serving.limited_server", str(folder / "ca.crt"), json.dumps(options),
            env={"PYTHONPATH": f"{TREE / 'operator'}:{TREE / 'tests'}", "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, (folder / "log").read_text()
        yield Server(process, **json.loads(line), log=folder / "log",
                     client=ssl.create_default_context(cafile=str(folder / "ca.crt")))
        assert process.returncode is None, (folder / "log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that leave it as it is."""
    with asyncio.Runner() as runner:
        context = server(tmp_path_factory.mktemp("limited"))
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@dataclasses.dataclass
class Ordinary:
    """Reviews sent one after another, each on a connection of its own or all on one, as API servers do both."""

    server: Server
    answered: int = 0
    longest_seconds: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    async def send(self, *, keep: bool) -> None:
        kept: support.Connection | None = None
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(10):  # the default of a webhook configuration
                    connection = kept or await support.Connection.open(self.server.port, self.server.client)
                    answer = await connection.request("/check", BODY)
                assert answer.status == 200, answer.text
                kept = connection if keep else await connection.close()  # type: ignore[func-returns-value]
            except Exception as error:
                self.failures.append(repr(error))
                kept = None
            self.answered += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def ordinary(target: Server) -> AsyncIterator[Ordinary]:
    """While requests go on; none of them fails."""
    result = Ordinary(target)
    tasks = [asyncio.create_task(result.send(keep=keep)) for keep in (True, False, False)]
    try:
        yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    print(f"ordinary requests: {result.answered}, longest {result.longest_seconds:.2f} s,"
          f" failed {len(result.failures)}; memory {target.memory():.0f} MiB")
    assert not result.failures
    assert result.answered > 20


async def repeat(seconds: float, number: int, act: Callable[[], Awaitable[Any]]) -> collections.Counter[str]:
    """Do it ``number`` times at once, again and again for so many seconds; what came of it."""
    results: collections.Counter[str] = collections.Counter()
    ends_at = time.monotonic() + seconds

    async def go_on() -> None:
        while time.monotonic() < ends_at:
            try:
                results[str(await act())] += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                results[type(error).__name__] += 1

    await asyncio.gather(*(go_on() for _ in range(number)))
    return results


def post(path: str, length: int | None, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {support.NAME}", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


async def answer_to(target: Server, *chunks: bytes) -> tuple[int, str]:
    """The status and the text of the answer to these bytes on a connection of their own."""
    reader, writer = await target.connect()
    try:
        for chunk in chunks:
            writer.write(chunk)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        text = (await reader.readexactly(int(length[1]) if length else 0)).decode()
        return int(head.split()[1]), text
    finally:
        writer.close()


def many_small(size: int, element: bytes = b'{"":{}},') -> bytes:
    return b"[" + element * (size // len(element)) + b"1]"


def test_more_connections_than_places_push_out_the_idle_ones_and_no_request_fails(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with server(tmp_path) as target:
            held = []
            async with ordinary(target):
                while len(held) < 400:
                    held.extend(await asyncio.gather(*(target.connect() for _ in range(20))))
                assert await target.metric("steadyhook_connections") <= 256 + 1  # one asks for the metrics
                assert await target.metric("steadyhook_connections_cut_total") >= 400 - 256
            assert target.memory() < LARGEST_MIB
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize("half", [
    pytest.param(b"POST /check HTTP/1.1\r\nHost: a", id="heads"),
    pytest.param(post("/check", 100_000) + b"{", id="bodies"),
    pytest.param(post("/check", 8 * MIB) + b"{", id="large bodies"),
])
def test_requests_that_stop_halfway_hold_no_place_for_ever(tmp_path: pathlib.Path, half: bytes) -> None:
    async def main() -> None:
        async with server(tmp_path) as target:
            async with ordinary(target):
                async def stop_halfway() -> str:
                    _, writer = await target.connect()
                    writer.write(half)
                    await asyncio.sleep(2)
                    writer.transport.abort()
                    return "held for 2 s"

                results = await repeat(3, 300, stop_halfway)
            assert results["held for 2 s"] >= 300
            assert target.memory() < LARGEST_MIB
            assert "Traceback" not in target.log.read_text()

    asyncio.run(main())


def test_a_request_that_is_being_answered_is_not_cut_off_for_a_newcomer(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with server(tmp_path, max_connections=8) as target:
            slow = [asyncio.create_task(support.ask(target.port, "/slow", BODY, target.client)) for _ in range(30)]
            answers = await asyncio.wait_for(asyncio.gather(*slow), 40)
            assert [answer.status for answer in answers] == [200] * 30

    asyncio.run(main())


def test_a_connection_that_was_useful_outlives_those_that_never_asked(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with server(tmp_path, max_connections=8) as target:
            kept = await support.Connection.open(target.port, target.client)
            assert (await kept.request("/check", BODY)).status == 200
            held = [await target.connect() for _ in range(30)]
            assert (await kept.request("/check", BODY)).status == 200
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(main())


def test_large_reviews_are_answered_one_after_another_and_small_ones_meanwhile(tmp_path: pathlib.Path) -> None:
    large = json.dumps(support.review(operation="UPDATE", spec="HERE")).encode()
    large = large.replace(b'"HERE"', many_small(2 * MIB, b"{},"))

    async def main() -> None:
        async with server(tmp_path) as target:
            async with ordinary(target):
                results = await repeat(5, 8, lambda: answer_to(target, post("/check", len(large)), large))
            assert {status for status in results if not status.startswith("(200")} <= {
                status for status in results if status.startswith("(503")}
            assert sum(count for status, count in results.items() if status.startswith("(200")) >= 3
            assert target.memory() < LARGEST_MIB

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/check", "/no-such-handler"])
def test_bodies_of_many_small_values_do_not_take_the_memory(tmp_path: pathlib.Path, path: str) -> None:
    bodies = [many_small(7 * MIB), many_small(3 * MIB), many_small(3 * MIB, b"{},"), b"[" * MIB, many_small(100_000)]

    async def main() -> None:
        async with server(tmp_path) as target:
            async with ordinary(target):
                for body in bodies:
                    results = await repeat(1, 8, lambda body=body: answer_to(target, post(path, len(body)), body))
                    assert {int(status[1:4]) for status in results} <= (
                        {400, 413, 503} if path == "/check" else {404}), results
            assert target.memory() < LARGEST_MIB
            assert "Traceback" not in target.log.read_text()

    asyncio.run(main())


def test_a_large_request_for_which_there_is_no_memory_gets_503_and_small_ones_are_answered(
    tmp_path: pathlib.Path,
) -> None:
    async def main() -> None:
        async with server(tmp_path, constants={"intake.WAIT_SECONDS": 1.0, "intake.BODY_SECONDS": 4.0}) as target:
            held = []
            for _ in range(2):
                reader, writer = await target.connect()
                writer.write(post("/check", 8 * MIB) + b"{")
                held.append((reader, writer))
            status, text = 0, ""
            while status != 503:  # until both of them have their memory
                status, text = await answer_to(target, post("/check", 4 * MIB), b"x" * 4 * MIB)
            assert "no memory" in text
            assert (await support.ask(target.port, "/check", BODY, target.client)).status == 200
            for reader, _ in held:  # and both are told that they were too slow
                assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
            status, text = await answer_to(target, post("/check", 4 * MIB), b"x" * 4 * MIB)
            assert status == 400
            for _, writer in held:
                writer.close()

    asyncio.run(main())


def test_who_says_nothing_or_stops_in_the_head_is_cut_off_after_a_while(tmp_path: pathlib.Path) -> None:
    constants = {"connections.HANDSHAKE_SECONDS": 1.0, "connections.HEAD_SECONDS": 1.0}

    async def main() -> None:
        async with server(tmp_path, constants=constants) as target:
            silent, silent_writer = await asyncio.open_connection(support.HOST, target.port)
            half, half_writer = await target.connect()
            half_writer.write(b"POST /check HTTP/1.1\r\n")
            for reader in (silent, half):
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 20) == b""
            assert await target.metric("steadyhook_handshake_failures_total") == 1
            assert await target.metric("steadyhook_connections_cut_total") == 1
            silent_writer.close()
            half_writer.close()

    asyncio.run(main())


REVIEW = support.review()
NO_GROUP = {**REVIEW, "request": {**REVIEW["request"], "resource": {"group": [], "version": "v1", "resource": "a"}}}
DEEP = support.encode(support.review(spec="HERE")).replace(b'"HERE"', b"[" * 900 + b"]" * 900)


@pytest.mark.parametrize(("status", "text", "request_bytes"), [
    pytest.param(404, "no admission handler 'nope', expected one of check, slow", post("/nope", 8 * MIB),
                 id="unknown handler, before the body"),
    pytest.param(413, "expected at most 8388608", post("/check", 9 * MIB), id="too large, before the body"),
    pytest.param(413, "too many small values", post("/check", len(many_small(7 * MIB))) + many_small(7 * MIB),
                 id="too many values"),
    pytest.param(411, "expected Content-Length", post("/check", None, "Transfer-Encoding: chunked"), id="no length"),
    pytest.param(415, "Content-Encoding 'gzip'", post("/check", 9, "Content-Encoding: gzip"), id="compressed"),
    pytest.param(405, "Method Not Allowed", b"GET /check HTTP/1.1\r\nHost: a\r\n\r\n", id="GET"),
    pytest.param(400, "charset is 'bogus', expected utf-8",
                 post("/check", 9, "Content-Type: application/json; charset=bogus"), id="charset"),
    pytest.param(400, "body is not JSON", post("/check", 4) + b"\xff\xfe{}", id="no UTF-8"),
    pytest.param(400, "body is not JSON", post("/check", 0), id="no body"),
    pytest.param(400, "body is not JSON", post("/check", 5000) + b"1" * 5000, id="a number without end"),
    pytest.param(400, "nested too deeply", post("/check", 100_000) + b"[" * 100_000, id="nested"),
    pytest.param(400, "expected an AdmissionReview", post("/check", 2) + b"[]", id="no review"),
    pytest.param(400, "expected an AdmissionReview with request.resource.group",
                 post("/check", len(support.encode(NO_GROUP))) + support.encode(NO_GROUP), id="a list as the group"),
    pytest.param(400, "", b"nonsense\r\n\r\n", id="no HTTP"),
    pytest.param(400, "", post("/check", 9, *(f"X-{number}: a" for number in range(100))), id="many header fields"),
    pytest.param(400, "", post("/check", 9, f"X: {'a' * 9000}"), id="a long header field"),
])
def test_what_is_no_request_gets_its_status_with_a_reason_and_no_traceback(
    limited: Server, status: int, text: str, request_bytes: bytes,
) -> None:
    async def main() -> None:
        found, reason = await answer_to(limited, request_bytes)
        assert (found, text in reason) == (status, True), (found, reason)
        assert "Traceback" not in limited.log.read_text()
        assert (await support.ask(limited.port, "/check", BODY, limited.client)).status == 200

    asyncio.run(main())


def test_a_deeply_nested_object_is_answered_without_a_traceback(limited: Server) -> None:
    async def main() -> None:
        found, _ = await answer_to(limited, post("/check", len(DEEP)) + DEEP)
        assert found in (200, 400)
        assert "Traceback" not in limited.log.read_text()

    asyncio.run(main())


def test_requests_that_break_off_leave_no_traceback_and_are_counted(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with server(tmp_path) as target:
            for _ in range(20):
                _, writer = await target.connect()
                writer.write(post("/check", 1000) + b"{")
                await writer.drain()
                await support.ask(target.port, "/check", BODY, target.client)
                writer.transport.abort()
            while await target.metric('steadyhook_admission_requests_total{code="499"}') < 20:
                await asyncio.sleep(0.05)
            assert "Traceback" not in target.log.read_text()

    asyncio.run(main())


def test_probes_are_answered_while_somebody_holds_connections_to_both_ports(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with server(tmp_path, files=200) as target:
            assert "files" in target.log.read_text()
            held = []
            for _ in range(100):
                held.append(await asyncio.open_connection(support.HOST, target.health_port))
                held.append(await asyncio.open_connection(support.HOST, target.port))
                answer = await asyncio.wait_for(support.ask(target.health_port, "/healthz"), 10)
                assert answer.status == 200
            assert (await support.ask(target.port, "/check", BODY, target.client)).status == 200
            assert "out of system resource" not in target.log.read_text()
            assert "Traceback" not in target.log.read_text()
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(main())
