"""A real operator process, stopped by SIGTERM while requests flow."""
import asyncio
import contextlib
import pathlib
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator

import pytest

import devcluster as devcluster_package
from serving import draining_operator, support

PATH = "/validate_configmap"
BODY = support.encode(support.review())
TREE = pathlib.Path(__file__).parents[2]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((support.HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def operator(
    devcluster: devcluster_package.DevCluster, namespace: str, port: int, folder: pathlib.Path,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process; what it writes is in ``log`` in the folder, and the certificate of its CA in ``ca.crt``."""
    environment = {
        **devcluster.env(), draining_operator.CA_FILE: str(folder / "ca.crt"), draining_operator.PORT: str(port),
        "PYTHONPATH": f"{TREE / 'operator'}:{TREE / 'tests'}"}
    with (folder / "log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kopf", "run", "-m", "serving.draining_operator", "--standalone", "-n", namespace,
            env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def wait_until_it_serves(process: asyncio.subprocess.Process, port: int, folder: pathlib.Path) -> ssl.SSLContext:
    """A client's context that trusts it."""
    deadline = time.monotonic() + 60
    while True:
        assert process.returncode is None and time.monotonic() < deadline, (folder / "log").read_text()
        with contextlib.suppress(OSError):
            client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
            await support.ask(port, PATH, BODY, client)
            return client
        await asyncio.sleep(0.1)


@pytest.mark.cluster
def test_no_request_fails_between_sigterm_and_the_closing_of_the_port(
    devcluster: devcluster_package.DevCluster, namespace: str, port: int, tmp_path: pathlib.Path,
) -> None:
    async def main() -> None:
        async with operator(devcluster, namespace, port, tmp_path) as process:
            client = await wait_until_it_serves(process, port, tmp_path)
            answered_at: list[float] = []

            async def ask_until_the_port_closes() -> float:
                while True:
                    try:
                        connection = await support.Connection.open(port, client)
                    except ConnectionError:
                        return time.monotonic()
                    answer = await connection.request(PATH, BODY)  # raises if it fails
                    assert answer.json["response"]["allowed"] is True
                    answered_at.append(time.monotonic())
                    await connection.close()

            clients = [asyncio.create_task(ask_until_the_port_closes()) for _ in range(3)]
            await support.wait_until(lambda: len(answered_at) > 10)
            terminated_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            closed_at = await asyncio.gather(*clients)
            assert await asyncio.wait_for(process.wait(), 60) == 0
        assert min(closed_at) - terminated_at >= 1.9
        assert max(answered_at) > terminated_at
        assert draining_operator.HANDED_OVER in (tmp_path / "log").read_text()

    asyncio.run(main())


@pytest.mark.cluster
def test_an_operator_whose_port_is_in_use_ends_and_says_what_to_do(
    devcluster: devcluster_package.DevCluster, namespace: str, port: int, tmp_path: pathlib.Path,
) -> None:
    async def main() -> None:
        with socket.create_server((support.HOST, port)):
            async with operator(devcluster, namespace, port, tmp_path) as process:
                assert await asyncio.wait_for(process.wait(), 60) != 0
        assert (f"cannot listen on {support.HOST}, port {port}: Address already in use; set STEADYHOOK_WEBHOOK_PORT"
                " to a free port") in (tmp_path / "log").read_text()

    asyncio.run(main())
